"""What arrives from Pulumi: strings, JSON, secrets, and keys that nobody reads."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pulumi
import pytest

from stacks.config import ConfigError, from_pulumi

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_" + "a1B2" * 8
LOGIN = json.dumps({"auths": {"registry.example.com": {"auth": "eDp5"}}})


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path) -> None:
    """No kubeconfig, stack file or configuration of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("PULUMI_CONFIG") or name == "KUBECONFIG"]:
        monkeypatch.delenv(name)


@pytest.fixture
def read(stack, monkeypatch):
    """Reads a stack through pulumi.Config, as the engine's host would hand it over."""

    def run(change=None, extra=(), secret=()):
        raw = stack(change=change)
        values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in raw.items()}
        values |= dict(extra)
        full = {f"llm-platform:{name}": value for name, value in values.items()}
        pulumi.runtime.set_all_config(full | {"aws:region": "x"}, [f"llm-platform:{name}" for name in secret])
        return from_pulumi(pulumi.Config("llm-platform"))

    yield run
    pulumi.runtime.set_all_config({}, [])


def refused(read, *arguments, **keywords) -> dict[str, str]:
    with pytest.raises(ConfigError) as refusal:
        read(*arguments, **keywords)
    return {problem.path.removeprefix("llm-platform:"): str(problem) for problem in refusal.value.problems}


def test_structured_and_plain_keys_are_read(read) -> None:
    config, secrets = read({"power": "asleep"})
    assert config.power == "asleep"
    assert config.models["qwen"].max_model_len == 2048
    assert (secrets.hf_token, secrets.pull_secret) == (None, None)


def test_secrets_are_secret_outputs_and_not_part_of_the_configuration(read) -> None:
    async def check() -> None:
        config, secrets = read(
            extra={"hfToken": TOKEN, "pullSecret": LOGIN}, secret=["hfToken", "pullSecret"]
        )
        assert TOKEN not in repr(config)
        for output, value in ((secrets.hf_token, TOKEN), (secrets.pull_secret, LOGIN)):
            assert await output.is_secret()
            assert await output.future() == value

    asyncio.run(check())


def test_a_missing_token_names_the_models_and_the_command(read) -> None:
    found = refused(read, {"models/qwen/gated": True})
    assert list(found) == ["hfToken"]
    assert "qwen" in found["hfToken"]
    assert "pulumi config set --secret llm-platform:hfToken" in found["hfToken"]


def test_a_missing_pull_secret_names_the_command(read) -> None:
    found = refused(read, {"platform": {"imagePullSecret": True}})
    assert list(found) == ["pullSecret"]
    assert "pulumi config set --secret llm-platform:pullSecret" in found["pullSecret"]


@pytest.mark.parametrize("name", ["hfToken", "pullSecret"])
def test_a_secret_key_set_in_plain_text_is_refused_and_not_printed(read, name: str) -> None:
    found = refused(read, extra={name: TOKEN})
    assert list(found) == [name]
    assert "is written in plain text" in found[name] and "withdraw it" in found[name]
    assert TOKEN not in found[name]


def test_an_empty_token_is_refused(read) -> None:
    assert list(refused(read, extra={"hfToken": " \n"}, secret=["hfToken"])) == ["hfToken"]


@pytest.mark.parametrize("value", ["user:password", '{"auth": "x"}', "[]"])
def test_a_pull_secret_that_is_no_docker_config_is_refused_and_not_printed(read, value: str) -> None:
    found = refused(read, extra={"pullSecret": value}, secret=["pullSecret"])
    assert list(found) == ["pullSecret"]
    assert value not in found["pullSecret"]


def test_an_encrypted_value_inside_a_structured_key_is_refused(read) -> None:
    found = refused(read, {"models/qwen/env": {"A": "decrypted"}}, secret=["models"])
    assert list(found) == ["models"]
    assert "holds an encrypted value" in found["models"] and "decrypted" not in found["models"]


@pytest.mark.parametrize(
    ("name", "guess"), [("modles", "models"), ("hftoken", "hfToken"), ("power-state", "power")]
)
def test_an_unknown_key_of_our_namespace_is_refused_with_the_nearest(read, name: str, guess: str) -> None:
    found = refused(read, extra={name: "x"})
    assert list(found) == [name]
    assert f"use llm-platform:{guess} " in found[name]


def test_a_credential_under_an_unknown_key_is_named_as_one(read) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(extra={"token": TOKEN})
    assert [problem.wrong for problem in refusal.value.problems] == [
        "a Hugging Face token is written in plain text",
        "there is no such key",
    ]
    assert TOKEN not in str(refusal.value)


def test_problems_of_keys_secrets_and_values_are_reported_at_once(read) -> None:
    change = {
        "models/qwen/gated": True,
        "models/other": {"uri": "hf://Qwen/Qwen3-0.6B", "accelerator": "pool", "replicas": -1},
        "platform": {"imagePullSecret": True},
    }
    found = refused(read, change, extra={"other": "x"})
    assert sorted(found) == ["hfToken", "models.other.replicas", "other", "pullSecret"]


def test_plain_text_where_a_map_belongs_is_refused(read) -> None:
    found = refused(read, extra={"gateway": "istio"})
    assert list(found) == ["gateway"]
    assert "is text" in found["gateway"]


def test_the_environment_of_the_command_line_host_is_read_as_well(stack, monkeypatch) -> None:
    values = {f"llm-platform:{name}": json.dumps(value) for name, value in stack().items()}
    monkeypatch.setenv(
        "PULUMI_CONFIG", json.dumps(values | {"llm-platform:modles": "{}", "llm-platform:hfToken": TOKEN})
    )
    monkeypatch.setenv("PULUMI_CONFIG_SECRET_KEYS", json.dumps(["llm-platform:hfToken"]))
    pulumi.runtime.set_all_config({}, [])
    with pytest.raises(ConfigError) as refusal:
        from_pulumi(pulumi.Config("llm-platform"))
    assert [problem.path for problem in refusal.value.problems] == ["llm-platform:modles"]


def test_duplicates_in_the_stack_file_beside_pulumi_yaml_are_refused(read, tmp_path, monkeypatch) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: llm-platform\nruntime: python\n")
    (tmp_path / "Pulumi.dev.yaml").write_text(
        "config:\n  llm-platform:power: awake\n  llm-platform:power: awake\n"
    )
    monkeypatch.setattr(pulumi, "get_stack", lambda: "dev")
    found = refused(read)
    assert list(found) == ["power"]
    assert "lines 2 and 3 of Pulumi.dev.yaml" in found["power"]


KUBECONFIG = "apiVersion: v1\nkind: Config\ncontexts: [{name: elsewhere, context: {cluster: c, user: u}}]\n"


def test_an_unknown_context_is_refused_with_the_known_ones(read, tmp_path) -> None:
    (tmp_path / "config").write_text(KUBECONFIG)
    found = refused(read, {"cluster/kubeconfig": str(tmp_path / "config")})
    assert list(found) == ["cluster.context"]
    assert (
        'has no context "somewhere"' in found["cluster.context"] and "elsewhere" in found["cluster.context"]
    )


@pytest.mark.parametrize("text", ["contexts: [", "just text", "contexts: 5"])
def test_an_unparsable_kubeconfig_is_refused(read, tmp_path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    found = refused(read, {"cluster/kubeconfig": str(tmp_path / "config")})
    assert list(found) == ["cluster.kubeconfig"]


def test_contexts_of_all_files_of_the_environment_count(read, tmp_path, monkeypatch) -> None:
    (tmp_path / "one").write_text(KUBECONFIG)
    (tmp_path / "two").write_text(KUBECONFIG.replace("elsewhere", "somewhere"))
    monkeypatch.setenv(
        "KUBECONFIG", os.pathsep.join(str(tmp_path / name) for name in ("absent", "one", "two"))
    )
    assert read()[0].cluster.context == "somewhere"


def test_a_kubeconfig_that_is_not_there_yet_is_accepted(read, tmp_path) -> None:
    assert read({"cluster/kubeconfig": str(tmp_path / "later")})[0].cluster.kubeconfig.endswith("later")


def test_importing_the_configuration_does_not_import_pulumi() -> None:
    program = "import sys, stacks.config; print('pulumi' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


S3 = {"models/qwen/uri": "s3://models/qwen"}
STORE = {**S3, "storage": {"s3": {"endpoint": "https://store.example.com"}}}


@pytest.mark.parametrize(
    ("change", "given", "path", "wrong"),
    [
        (STORE, "s3AccessKeyId", "s3SecretAccessKey", "is missing, but storage.s3 is set"),
        (S3, "s3AccessKeyId", "s3AccessKeyId", "there is no storage.s3"),
        ({**STORE, "storage/s3/existingSecret": "k"}, "s3AccessKeyId", "s3AccessKeyId", "names an existingSecret"),
    ],
)  # fmt: skip
def test_the_key_of_a_store_is_whole_and_of_use(read, change, given, path, wrong) -> None:
    ((place, text),) = refused(read, change, extra={given: "value"}, secret=[given]).items()
    assert place == path and wrong in text


@pytest.mark.parametrize("given", [[], ["s3AccessKeyId", "s3SecretAccessKey"]])
def test_a_store_with_nothing_in_it_is_refused_and_its_keys_are_not_asked_for(read, given) -> None:
    change = {"storage": STORE["storage"]}
    assert list(refused(read, change, extra=dict.fromkeys(given, "value"), secret=given)) == ["storage"]


def test_the_key_of_a_store_is_two_secrets(read) -> None:
    given = {"s3AccessKeyId": "known", "s3SecretAccessKey": "hidden"}

    async def check() -> None:
        config, secrets = read(STORE, extra=given, secret=[*given])
        assert "hidden" not in repr(config) and "known" not in repr(config)
        for output, value in ((secrets.store_access_key, "known"), (secrets.store_secret_key, "hidden")):
            assert await output.is_secret() and await output.future() == value

    asyncio.run(check())
