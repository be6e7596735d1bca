"""Helm's command lines, by a stand-in that records them."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from rehearsal.providers.kubernetes.helm import Helm, HelmError
from rehearsal.providers.kubernetes.release_state import to_release_state

RECORDER = """#!/bin/sh
for word in "$@"; do echo "$word" >> "{log}"; done
cat > "{log}.stdin"
sleep {seconds}
echo '{answer}'
echo '{problem}' >&2
exit {status}
"""
RELEASE = {
    "name": "r", "namespace": "ns", "chart": "/charts/x.tgz", "version": "1.0.0", "timeout": 60,
    "values": {"password": "hush-hush", "nothing": None}, "skipAwait": False,
}  # fmt: skip


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install the stand-in; the function returned tells the words and the standard input of its last call."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def answer(answer: str = "{}", problem: str = "", status: int = 0, seconds: float = 0):
        helm, log = tmp_path / "helm", tmp_path / "log"
        text = RECORDER.format(log=log, answer=answer, problem=problem, status=status, seconds=seconds)
        helm.write_text(text)
        helm.chmod(0o755)
        return lambda: ((tmp_path / "log").read_text().splitlines(), (tmp_path / "log.stdin").read_text())

    return answer


def helm(say=lambda _: None) -> Helm:
    return Helm(Path("/kubeconfig"), threading.Event(), say)


@pytest.mark.parametrize("verb", ["install", "upgrade"])
def test_values_go_in_by_standard_input_and_never_as_words(recorded, verb):
    call = recorded()
    if verb == "install":
        helm().install(RELEASE)
    else:
        helm().upgrade(RELEASE, "ns")
    words, stdin = call()
    assert json.loads(stdin) == RELEASE["values"]
    assert not any("hush" in word for word in words)
    assert words[:3] == [verb, "r", "/charts/x.tgz"] and words[-2:] == ["--kubeconfig", "/kubeconfig"]


@pytest.mark.parametrize(
    ("inputs", "expected", "absent"),
    [
        ({}, ["--wait", "--timeout", "60s"], ["--atomic", "--create-namespace"]),
        ({"skipAwait": True, "waitForJobs": True}, [], ["--wait", "--wait-for-jobs"]),
        (
            {"waitForJobs": True, "atomic": True, "createNamespace": True},
            ["--wait-for-jobs", "--atomic", "--create-namespace"],
            [],
        ),
        (
            {"skipCrds": True, "disableWebhooks": True, "replace": True},
            ["--skip-crds", "--no-hooks", "--replace"],
            [],
        ),
        (
            {"chart": "x", "repositoryOpts": {"repo": "https://charts.example.com"}},
            ["--repo", "https://charts.example.com"],
            [],
        ),
        ({"chart": "x", "repositoryOpts": {"repo": "named"}}, ["named/x"], ["--repo"]),
        (
            {"chart": "oci://example.com/x", "repositoryOpts": {"repo": "https://e.com"}},
            ["oci://example.com/x"],
            ["--repo"],
        ),
        ({"timeout": 0, "version": "", "devel": True}, ["300s", "--version", ">0.0.0-0", "--devel"], []),
    ],
)
def test_inputs_of_a_release_become_switches(recorded, inputs, expected, absent):
    call = recorded()
    helm().install({**RELEASE, **inputs})
    words, _ = call()
    assert set(expected) <= set(words)
    assert set(absent).isdisjoint(words)


def test_an_upgrade_keeps_all_history_unless_told_otherwise(recorded):
    call = recorded()
    helm().upgrade(RELEASE, "ns")
    words, _ = call()
    assert words[words.index("--history-max") + 1] == "0"


def test_a_failure_is_told_in_helms_words_without_its_warnings(recorded):
    recorded(problem="WARNING: old\nError: INSTALLATION FAILED: no such chart", status=1)
    with pytest.raises(HelmError, match="^no such chart$"):
        helm().install(RELEASE)


def test_an_unknown_release_has_no_status(recorded):
    recorded(problem="Error: release: not found", status=1)
    assert helm().status("r", "ns") is None


def test_a_long_operation_reports_its_progress_and_still_gets_its_values(recorded):
    call, said = recorded(seconds=1.2), []
    helm(said.append).install(RELEASE)
    assert said == ["helm install r: 1 s"]
    assert json.loads(call()[1]) == RELEASE["values"]


def test_resources_of_a_release_are_named_by_group_and_version_whatever_their_style():
    manifest = """---
# Source: x/templates/crd.yaml
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  annotations:
    note: "kind: Wrong"
  name: things.example.com
spec:
  metadata: {name: wrong}
---
kind: Deployment
metadata: {name: d, namespace: ns}
apiVersion: apps/v1
---
{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
--- # nothing
"""
    record = {
        "name": "r",
        "namespace": "ns",
        "version": 1,
        "info": {"status": "deployed"},
        "manifest": manifest,
    }
    assert to_release_state(RELEASE, record)["resourceNames"] == {
        "ConfigMap/v1": ["c"],
        "CustomResourceDefinition.apiextensions.k8s.io/apiextensions.k8s.io/v1": ["things.example.com"],
        "Deployment.apps/apps/v1": ["ns/d"],
    }
