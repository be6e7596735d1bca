"""Helm's command lines, by a stand-in that records them."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from rehearsal.providers.kubernetes.helm import Helm, HelmError

RECORDER = """#!/bin/sh
for word in "$@"; do echo "$word" >> "{log}"; done
cat > "{log}.stdin"
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

    def answer(answer: str = "{}", problem: str = "", status: int = 0):
        helm = tmp_path / "helm"
        helm.write_text(RECORDER.format(log=tmp_path / "log", answer=answer, problem=problem, status=status))
        helm.chmod(0o755)
        return lambda: ((tmp_path / "log").read_text().splitlines(), (tmp_path / "log.stdin").read_text())

    return answer


def helm() -> Helm:
    return Helm(Path("/kubeconfig"), threading.Event())


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
        ({"waitForJobs": True, "atomic": True, "createNamespace": True}, ["--wait-for-jobs", "--atomic", "--create-namespace"], []),
        ({"skipCrds": True, "disableWebhooks": True, "replace": True}, ["--skip-crds", "--no-hooks", "--replace"], []),
        ({"chart": "x", "repositoryOpts": {"repo": "https://charts.example.com"}}, ["--repo", "https://charts.example.com"], []),
        ({"chart": "x", "repositoryOpts": {"repo": "named"}}, ["named/x"], ["--repo"]),
        ({"chart": "oci://example.com/x", "repositoryOpts": {"repo": "https://e.com"}}, ["oci://example.com/x"], ["--repo"]),
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
