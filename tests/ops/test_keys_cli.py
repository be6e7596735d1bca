"""`python -m ops keys` with the real Pulumi CLI: what it makes of the stack file, and of the state.

The CLI alone has no language host, so the `up` of a revocation is a command that
only writes down what it was asked for.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ops import cli
from ops.keys import publish, settings
from ops.pulumi import Pulumi
from rehearsal import toolchain
from stacks.config import load_stack_file

pytestmark = pytest.mark.rehearsed

CHECKOUT = Path(__file__).parents[2]
ACCESS = "llm-platform:access"
PROVIDER = "urn:pulumi:tpu::llm-platform::pulumi:providers:kubernetes::cluster"
TABLES = (
    "urn:pulumi:tpu::llm-platform::kubernetes:networking.istio.io/v1alpha3:EnvoyFilter::llm-gateway-tables"
)


@pytest.fixture
def stack(tmp_path, monkeypatch, capsys):
    """The directory of a project with a stack of the CLI, and a runner of commands on it."""
    project, state = tmp_path / "project", tmp_path / "state"
    project.mkdir()
    state.mkdir()
    for name in ("Pulumi.yaml", "Pulumi.tpu.yaml"):
        (project / name).write_text((CHECKOUT / name).read_text())
    binary = toolchain.ensure(only=["pulumi"]).binary("pulumi")
    for name, value in {
        "PATH": f"{binary.parent}:/usr/bin:/bin",
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "LLMP_UP_COMMAND": f"sh -c 'echo $@ > {tmp_path}/up' up",
    }.items():
        monkeypatch.setenv(name, value)
    Pulumi("tpu", project).call("stack", "init", "tpu")

    def run(action: str, *arguments: str) -> str:
        code = cli.main(["keys", action, "--stack", "tpu", "--project", str(project), *arguments])
        said = capsys.readouterr()
        assert code == cli.DONE, said.err
        return said.out.strip()

    return project, run


def deploy(project: Path) -> None:
    """Give the stack a state with the two objects that carry keys."""
    common = {"custom": True, "provider": f"{PROVIDER}::1234"}
    resources = [
        {"urn": PROVIDER, "custom": True, "id": "1234", "type": "pulumi:providers:kubernetes"},
        {**common, "urn": TABLES, "id": "llm-gateway/llm-gateway-tables", "type": TABLES.split("::")[2]},
    ]
    cli_of = Pulumi("tpu", project)
    exported = cli_of.export()
    exported["deployment"]["resources"] = resources
    cli_of.restore(exported)


def test_the_life_of_keys_in_a_stack_file(stack, tmp_path):
    project, run = stack
    file = project / "Pulumi.tpu.yaml"
    before = file.read_text()
    run("init")
    deploy(project)
    for _ in range(3):
        run("issue", "--tenant", "acme")
    ids = [key["id"] for key in json.loads(run("list", "--json"))]
    run("revoke", *ids[:2])
    assert (tmp_path / "up").read_text().split() == ["--target", TABLES]
    run("rotate")
    after = yaml.safe_load(file.read_text())["config"][ACCESS]
    old, new = after["publicKeys"]
    assert after["revoked"] == ids[:2]
    run("rotate", f"--finish={old}", "--force")
    config = load_stack_file(file).access
    assert list(config.public_keys) == [new]
    assert config.revoked == tuple(ids[:2])
    # The CLI changes one section; what people wrote, comments included, stays.
    kept = [line for line in before.splitlines() if line.strip()]
    assert [line for line in file.read_text().splitlines() if line in kept] == kept


def test_numbers_and_truths_as_ids_stay_text_or_are_refused_loudly(stack):
    """The CLI reads values such as 12345678 as numbers; ids that this project makes never look like one."""
    project, _ = stack
    found = Pulumi("tpu", project)
    publish.set_revoked(found, (), ["a1234567", "true-or-not", "1e5-is-text"])
    assert settings.read(found).access.revoked == ("a1234567", "true-or-not", "1e5-is-text")
    with pytest.raises(Exception, match="12345678 is a number"):
        publish.set_revoked(found, ("a1234567", "true-or-not", "1e5-is-text"), ["12345678"])


def test_shortening_the_list_keeps_the_rest(stack):
    project, _ = stack
    found = Pulumi("tpu", project)
    ids = [f"id-number-{n}" for n in range(5)]
    publish.set_revoked(found, (), ids)
    publish.set_revoked(found, ids, ids[3:])
    assert list(settings.read(found).access.revoked) == ids[3:]
    publish.set_revoked(found, ids[3:], [])
    assert settings.read(found).access.revoked == ()


def test_a_stack_that_does_not_exist_is_named(stack, capsys):
    project, _ = stack
    assert cli.main(["keys", "init", "--stack", "none", "--project", str(project)]) == cli.FAILED
    assert "no stack named 'none' found" in capsys.readouterr().err
    assert not list(project.parent.rglob("*.pem"))
