"""Helm releases: installed by the real Helm, recorded as the official provider does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s
import pytest

from ops.kube import Manifest
from tests.provider_contract.conftest import Contract, Outcome

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]

CONFIG_MAP = """apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-cm"}
data: {values: {{ toJson .Values | quote }}}
"""
# Never bound: Helm waits for it in vain.
CLAIM = """apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: "{{ .Release.Name }}-claim"}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}
"""


def chart(directory: Path, name: str, version: str = "1.0.0", templates: str = CONFIG_MAP) -> str:
    """Write a small chart; its path."""
    path = directory / name
    (path / "templates").mkdir(parents=True, exist_ok=True)
    (path / "Chart.yaml").write_text(f"apiVersion: v2\nname: {name}\nversion: {version}\nappVersion: '9'\n")
    (path / "values.yaml").write_text("a: default\nb: {c: 2}\n")
    (path / "templates" / "all.yaml").write_text(templates)
    return str(path)


class Program:
    """A release that works, two whose objects never get ready, two whose names are taken."""

    def __init__(self, contract: Contract, namespace: str, charts: Path):
        self._contract, self._namespace = contract, namespace
        self.good, self.stuck = chart(charts, "good"), chart(charts, "stuck", templates=CLAIM)
        self.values: Manifest = {"a": "x", "gone": None}
        self.all = True

    def __call__(self) -> None:
        self._opts = self._contract.provider()
        # A wait that is meant to succeed gets time, one that is not does not.
        secret = {**self.values, "password": pulumi.Output.secret("hush-hush")}
        files = [pulumi.StringAsset("fromFile: yes-it-is\na: overridden\n")]
        release = self._release(
            "good", self.good, values=secret, value_yaml_files=files, atomic=True, timeout=60
        )
        pulumi.export("status", release.status)
        self._release("kept", self.stuck if self.all else self.good, timeout=2)
        if self.all:
            self._release("undone", self.stuck, atomic=True, timeout=2)
            self._release("taken", self.good)
            self._release("pending", self.good)

    def _release(self, name: str, source: str, **more: object) -> k8s.helm.v3.Release:
        return k8s.helm.v3.Release(
            name, name=name, chart=source, namespace=self._namespace, opts=self._opts, **more
        )


@dataclass(frozen=True)
class Story:
    program: Program
    foreseen: Outcome
    first: Outcome
    encrypted: str
    state: dict[str, Manifest]
    values: Manifest
    helm: dict[str, str]
    unchanged: Outcome
    second: Outcome
    refreshed: Outcome
    destroyed: Outcome
    left: dict[str, str]


class Helm:
    """Helm as another user's."""

    def __init__(self, contract: Contract, namespace: str):
        self._command = [str(contract.paths.bin / "helm"), "--kubeconfig", str(contract.paths.kubeconfig)]
        self._command += ["--namespace", namespace]

    def run(self, *arguments: str) -> str:
        return subprocess.run([*self._command, *arguments], check=True, capture_output=True, text=True).stdout

    def releases(self) -> dict[str, str]:
        """Status by name, also of those that are pending or failed."""
        return {r["name"]: r["status"] for r in json.loads(self.run("list", "--all", "--output", "json"))}

    def killed_install(self, name: str, source: str) -> None:
        """Leave a release as a crash in the middle of its installation does."""
        process = subprocess.Popen(
            [*self._command, "install", name, source, "--wait"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while self.releases().get(name) != "pending-install":
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def story(contract: Contract, tmp_path_factory: pytest.TempPathFactory) -> Story:
    stack, namespace = contract.stack(), contract.namespace()
    program, helm = Program(contract, namespace, tmp_path_factory.mktemp("charts")), Helm(contract, namespace)
    helm.run("install", "taken", program.good)
    helm.killed_install("pending", program.stuck)
    foreseen, first = stack.preview(program), stack.up(program)
    encrypted, state, statuses = stack.state_text(), stack.state(), helm.releases()
    data = contract.kube.get("v1", "ConfigMap", "good-cm", namespace)["data"]
    program.all = False
    program.values = {"a": "y"}
    second = stack.up(program)
    unchanged, refreshed = stack.preview(program), stack.refresh()
    destroyed = stack.destroy()
    return Story(
        program, foreseen, first, encrypted, state, json.loads(data["values"]), statuses, unchanged, second, refreshed,
        destroyed, helm.releases(),
    )  # fmt: skip


def test_a_preview_only_needs_the_charts(story):
    assert story.foreseen.ok, story.foreseen.output


def test_a_release_is_installed_with_its_values_files_under_the_given_ones(story):
    assert story.helm["good"] == "deployed"
    expected = {"a": "x", "b": {"c": 2}, "fromFile": "yes-it-is", "password": "hush-hush"}
    assert {k: v for k, v in story.values.items() if k != "gone"} == expected


def test_what_a_release_is_and_consists_of_is_recorded(story):
    outputs = story.state["good"]["outputs"]
    assert outputs["resourceNames"] == {"ConfigMap/v1": ["good-cm"]}
    assert outputs["version"] == "1.0.0"
    status = outputs["status"]
    assert (status["status"], status["revision"], status["appVersion"]) == ("deployed", 1, "9")


def test_secret_values_are_encrypted_in_state_and_hidden_in_output(story):
    assert "hush-hush" not in story.encrypted + story.first.output + story.second.output
    assert "yes-it-is" in story.encrypted


def test_a_name_in_use_is_refused_and_the_release_left_alone(story):
    assert "cannot re-use a name that is still in use" in story.first.output
    assert "taken" not in story.state and story.left["taken"] == "deployed"


def test_a_pending_release_blocks_its_name_until_somebody_clears_it(story):
    assert "pending" not in story.state and story.left["pending"] == "pending-install"


def test_a_failed_atomic_install_leaves_nothing(story):
    assert "undone" not in story.state and "undone" not in story.helm


def test_a_failed_install_is_kept_and_the_next_run_upgrades_it(story):
    assert "failed to initialize completely" in story.first.output
    assert story.helm["kept"] == "failed" and story.state["kept"]["initErrors"]
    assert story.second.ok, story.second.output
    assert story.second.changed["kept"] == ["update"]


def test_changed_values_upgrade_and_then_nothing_is_left_to_do(story):
    assert story.second.changed["good"] == ["update"]
    assert story.unchanged.changed == {} and story.refreshed.changed == {}


def test_destroying_uninstalls_ours_only(story):
    assert story.destroyed.ok, story.destroyed.output
    assert set(story.left) == {"taken", "pending"}


def test_a_chart_that_does_not_exist_fails_the_preview(contract):
    def program():
        k8s.helm.v3.Release("r", chart="./no-such-chart", opts=contract.provider())

    outcome = contract.stack().preview(program)
    assert not outcome.ok and "check the chart name and repository configuration" in outcome.output
