"""The command line of `python -m ops`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace

import pytest

from ops import cli, cluster
from ops.errors import OpsError
from ops.kube import ApiError
from ops.pulumi import Pulumi
from ops.report import table

PROVIDER = "pulumi:providers:kubernetes"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_that_says_what_its_exit_codes_mean(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "  3  something is left that only you can decide or supply" in said
    assert len(said.splitlines()) > 12


def test_a_command_that_does_not_exist_is_refused_with_those_that_do(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["recovr"])
    assert ended.value.code == 2
    assert "recover" in capsys.readouterr().err


def test_only_the_module_of_the_command_asked_for_is_imported():
    script = (
        "import sys; from ops import cli; cli.build_parser('artifacts'); print('kubernetes' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize("failure", [OpsError("no such thing"), ApiError(0, "Unreachable", "no such thing")])
def test_what_could_not_be_done_is_one_line_and_exit_code_one(failure, monkeypatch, capsys):
    def fail(_: Namespace) -> int:
        raise failure

    monkeypatch.setattr("ops.artifacts.command.run_check", fail)
    assert cli.main(["artifacts", "check"]) == cli.FAILED
    assert capsys.readouterr().err == "error: no such thing\n"


def test_a_missing_cli_is_named_with_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OpsError, match="make toolchain"):
        Pulumi("dev")


def test_a_directory_without_a_project_is_named(tmp_path, monkeypatch):
    binary = tmp_path / "pulumi"
    binary.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OpsError, match="holds no Pulumi.yaml: name the project's directory with --project"):
        Pulumi("dev", tmp_path)


NOTHING = Namespace(kubeconfig=None, context=None)


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        ([], "names no cluster: name the cluster with --context"),
        ([{}], "names no cluster"),
        ([{"context": "a"}, {"context": "b"}], "names 2 clusters"),
    ],
)
def test_a_cluster_that_the_state_does_not_name_has_to_be_named(sample, providers, message):
    state = sample.state([sample.resource(PROVIDER, f"p{i}", inputs) for i, inputs in enumerate(providers)])
    with pytest.raises(OpsError, match=message):
        cluster.connect(state, NOTHING)


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: {context}
contexts: [{{name: here, context: {{cluster: here, user: me}}}}]
clusters: [{{name: here, cluster: {{server: "http://127.0.0.1:1"}}}}]
users: [{{name: me, user: {{}}}}]
"""


def test_a_cluster_that_cannot_be_reached_or_does_not_exist_is_named(sample, tmp_path):
    file = tmp_path / "config"
    file.write_text(KUBECONFIG.format(context="here"))
    state = sample.state([sample.resource(PROVIDER, "cluster", {"kubeconfig": str(file), "context": "here"})])
    with pytest.raises(
        OpsError, match=f"context here of {file} cannot be looked at: http://127.0.0.1:1 cannot be"
    ):
        cluster.connect(state, NOTHING)
    content = sample.state([sample.resource(PROVIDER, "cluster", {"kubeconfig": file.read_text()})])
    with pytest.raises(OpsError, match=r"http://127.0.0.1:1 cannot be reached"):
        cluster.connect(content, NOTHING)
    with pytest.raises(OpsError, match="context elsewhere of .* cannot be used"):
        cluster.connect(state, Namespace(kubeconfig=file, context="elsewhere"))


PLUGIN = {"command": "no-such-plugin", "apiVersion": "v1", "installHint": "Get it from its maker."}


def kubeconfig(user):
    """The content of a kubeconfig as a cloud's component writes it: JSON in one line."""
    clusters = [{"name": "gke", "cluster": {"server": "http://127.0.0.1:1"}}]
    contexts = [{"name": "gke", "context": {"cluster": "gke", "user": "gke"}}]
    named = {"contexts": contexts, "clusters": clusters, "users": [{"name": "gke", "user": user}]}
    return json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "gke", **named})


@pytest.fixture
def encrypted(sample, tmp_path, monkeypatch):
    """Reaches a cluster whose kubeconfig is a secret; `pulumi` runs a shell script that may print `opened`."""

    def connect(script, user):
        shown = {**sample.secret, "plaintext": json.dumps(kubeconfig(user))}
        shown.pop("ciphertext")
        provider = sample.resource(PROVIDER, "cluster", {"kubeconfig": shown})
        (tmp_path / "opened").write_text(json.dumps({"deployment": {"resources": [provider]}}))
        (tmp_path / "Pulumi.yaml").write_text("name: llm-platform")
        (tmp_path / "pulumi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "pulumi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        state = sample.state([sample.resource(PROVIDER, "cluster", {"kubeconfig": sample.secret})])
        named = Namespace(kubeconfig=None, context=None, stack="tpu", project=tmp_path)
        with pytest.raises(OpsError) as refusal:
            cluster.connect(state, named)
        return str(refusal.value)

    return connect


def test_a_secret_kubeconfig_is_decrypted_by_pulumi_and_used(encrypted):
    said = encrypted('[ "$*" = "$(echo stack export --stack tpu --show-secrets --non-interactive --color never)" ]'
                     " && cat opened", {"token": "hush"})  # fmt: skip
    assert "the stack's own kubeconfig cannot be looked at: http://127.0.0.1:1 cannot be reached" in said
    assert "hush" not in said


def test_secrets_that_cannot_be_decrypted_are_not_shown_but_explained(encrypted):
    said = encrypted("cat opened; echo incorrect passphrase >&2; exit 255", {"token": "hush"})
    assert "cannot be decrypted:\nincorrect passphrase" in said
    assert "--kubeconfig" in said
    assert "hush" not in said


def test_a_credential_plugin_that_is_missing_is_named_with_its_own_hint(encrypted):
    said = encrypted("cat opened", {"exec": PLUGIN})
    assert said.endswith("asks for the command no-such-plugin, which is not on PATH. Get it from its maker.")


def test_tables_wrap_what_is_too_long_and_cut_nothing():
    long = "one two three four five six seven eight nine ten eleven twelve"
    text = table(("A", "B"), [("short", long), ("x" * 30, "y")], total=60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.split() == ["A", "B", "short", *long.split()[:3], *long.split()[3:], "x" * 30, "y"]


def test_without_a_terminal_there_are_no_colours_and_no_cutting():
    code = "from ops.report import coloured, width; print(coloured('ready', 'green'), width())"
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert answer.stdout == "ready 120\n"
