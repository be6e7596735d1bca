"""A killed engine, for real: the Pulumi engine, an API server, Helm, and `python -m ops recover` after it.

Proves that the next `up` finishes without another step. The providers are
those of a rehearsal; `tests/provider_contract` says that they behave as the
official ones do.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from pulumi import automation

from ops import cli
from ops.kube import Kube
from rehearsal import engine, toolchain
from rehearsal.cluster.control_plane import ControlPlane
from rehearsal.paths import Paths
from rehearsal.processes import Processes

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
DEADLINE = 30.0
CONFIG_MAP, PATCH = "kubernetes:core/v1:ConfigMap", "kubernetes:core/v1:ConfigMapPatch"
LABELS = {"llmp.dev/stack": "dev"}
WAITS = {"pulumi.com/waitFor": "jsonpath={.metadata.annotations.go}=on"}
PROGRAM = Path(__file__).with_name("interrupted_program.py")
DECLARE = runpy.run_path(str(PROGRAM))["declare"]

Resources = dict[str, list]
"""Logical name -> [type token, properties]."""


class World:
    """An API server without nodes, and one stack on it."""

    def __init__(self, paths: Paths, kube: Kube, processes: Processes):
        self.paths, self.kube = paths, kube
        self.locks = paths.state / ".pulumi/locks/organization/llm-platform/dev"
        self._environment = processes.environment(engine.environment(paths))
        with mock.patch.dict(os.environ, self._environment):
            options = automation.LocalWorkspaceOptions(work_dir=str(paths.work), env_vars=self._environment)
            self._stack = automation.create_or_select_stack("dev", "llm-platform", lambda: None, opts=options)

    def engine(self, operation: str, resources: Resources) -> tuple[bool, str]:
        """Run one operation; whether it succeeded, and what it said."""
        lines: list[str] = []
        self._stack.workspace.program = lambda: DECLARE(resources)
        try:
            getattr(self._stack, operation)(on_output=lines.append, color="never")
        except automation.CommandError as error:
            return False, "\n".join([*lines, str(error)])
        return True, "\n".join(lines)

    def kill(self, operation: str, resources: Resources, when: Callable[[], Any]) -> None:
        """Begin `operation`, and kill the engine (by the pid in its lock) as soon as `when` says so."""
        file = self.paths.work / "resources.json"
        file.write_text(json.dumps(resources))
        command = [sys.executable, str(PROGRAM), operation, str(file)]
        log = self.paths.logs / "killed.log"
        with log.open("w") as output:
            process = subprocess.Popen(command, env=self._environment, stdout=output, stderr=output)
        try:
            self.kube.wait(when, DEADLINE, f"the point at which to kill the engine (its output is in {log})")
        finally:
            for lock in self.locks.glob("*.json"):
                os.kill(json.loads(lock.read_text())["pid"], signal.SIGKILL)
            process.wait()

    def recover_code(self, *arguments: str) -> tuple[int, str]:
        """Run `python -m ops recover`; its exit code and what it said."""
        where = ["--project", str(self.paths.work), "--kubeconfig", str(self.paths.kubeconfig)]
        said = io.StringIO()
        with mock.patch.dict(os.environ, self._environment), contextlib.redirect_stdout(said):
            code = cli.main(["recover", *where, *arguments])
        print(said.getvalue())
        return code, said.getvalue()

    def recover(self, *arguments: str) -> str:
        code, said = self.recover_code("--stack", "dev", *arguments)
        assert code == cli.DONE
        return said

    def finishes(self, resources: Resources) -> str:
        ok, said = self.engine("up", resources)
        assert ok, said
        return said

    def config_map(self, name: str) -> dict[str, Any] | None:
        return self.kube.get("v1", "ConfigMap", name, "default")

    def change(self, name: str, **metadata: Any) -> None:
        self.kube.patch("v1", "ConfigMap", name, "default", {"metadata": metadata})

    def deployment(self) -> dict[str, Any] | None:
        return self.kube.get("apps/v1", "Deployment", "sample", "default")

    def status_of_release(self) -> list[str]:
        secrets = self.kube.list("v1", "Secret", "default", "owner=helm")
        return [
            s["metadata"]["labels"]["status"] for s in sorted(secrets, key=lambda s: s["metadata"]["name"])
        ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    paths = Paths(tmp_path_factory.mktemp("recover"))
    paths.create()
    tools = toolchain.ensure(only=(*CONTROL_PLANE, "pulumi", "helm"))
    for name in ("pulumi", "helm"):
        (paths.bin / name).symlink_to(tools.binary(name))
    engine.install_commands(paths)
    (paths.work / "Pulumi.yaml").write_text("name: llm-platform\nruntime: python\n")
    processes = Processes(paths)
    try:
        kube = ControlPlane(paths, processes, tools.binary).start(("rehearsal",))
        yield World(paths, kube, processes)
    finally:
        processes.stop_all()


def config_map(
    name: str, token: str = CONFIG_MAP, annotations: dict[str, str] | None = None, **data: str
) -> list:
    metadata = {"name": name, "namespace": "default", "annotations": annotations or {}}
    if token == CONFIG_MAP:
        metadata["labels"] = LABELS
    return [token, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}]


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A chart whose Deployment gets ready with no replicas, and never with one: there are no nodes."""
    (tmp_path / "sample/templates").mkdir(parents=True)
    (tmp_path / "sample/Chart.yaml").write_text("apiVersion: v2\nname: sample\nversion: 1.0.0\n")
    (tmp_path / "sample/templates/deployment.yaml").write_text(
        """
apiVersion: apps/v1
kind: Deployment
metadata: {name: sample}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: sample}}
  template:
    metadata: {labels: {app: sample}}
    spec: {containers: [{name: main, image: example.com/sample:1}]}
"""
    )
    return tmp_path / "sample"


def release(chart: Path, replicas: int) -> list:
    inputs = {"name": "sample", "namespace": "default", "chart": str(chart), "values": {"replicas": replicas}}
    return ["kubernetes:helm.sh/v3:Release", {**inputs, "timeout": 60}]


def test_creations_are_continued_or_repeated(world, chart):
    world.kube.create(config_map("theirs", theirs="1")[1])
    resources = {
        "slow": config_map("slow", annotations=WAITS, a="1"),
        "patch": config_map("theirs", PATCH, annotations=WAITS, ours="1"),
        "gone": config_map("gone", annotations=WAITS),
        "sample": release(chart, 1),
    }

    def all_begun() -> bool:
        patched = "ours" in world.config_map("theirs")["data"]
        return patched and all([*map(world.config_map, ("slow", "gone")), world.deployment()])

    world.kill("up", resources, all_begun)
    world.kube.delete("v1", "ConfigMap", "gone", "default")
    created = world.config_map("slow")["metadata"]["uid"]
    assert world.status_of_release() == ["pending-install"]
    told = world.recover("--dry-run")
    assert world.status_of_release() == ["pending-install"]
    assert world.recover().splitlines()[1:-2] == told.splitlines()[1:-2]
    # Only Helm's record goes; what the installation made stays, and is taken over.
    assert world.status_of_release() == []
    installed = world.deployment()["metadata"]["uid"]
    for name in ("slow", "theirs"):
        world.change(name, annotations={"go": "on"})
    # What changes between the crash and the next run must not be in the way either.
    resources["patch"][1]["data"]["ours"] = "2"
    del resources["gone"]
    world.finishes({**resources, "sample": release(chart, 0)})
    assert world.config_map("slow")["metadata"]["uid"] == created
    assert world.config_map("theirs")["data"] == {"theirs": "1", "ours": "2"}
    assert world.status_of_release() == ["deployed"]
    assert world.deployment()["metadata"]["uid"] == installed
    assert "nothing was left behind" in world.recover()


def test_changes_are_made_again_even_when_the_config_goes_back(world, chart):
    before = {"web": config_map("web", a="1"), "sample": release(chart, 0)}
    world.finishes(before)
    after = {"web": config_map("web", annotations=WAITS, a="2"), "sample": release(chart, 1)}

    def all_begun() -> bool:
        return world.config_map("web")["data"] == {"a": "2"} and world.deployment()["spec"]["replicas"] == 1

    world.kill("up", after, all_begun)
    assert world.status_of_release()[-1] == "pending-upgrade"
    world.recover()
    assert world.status_of_release()[-1] == "deployed"
    world.finishes(before)
    assert world.config_map("web")["data"] == {"a": "1"}
    assert world.deployment()["spec"]["replicas"] == 0


def test_what_an_interrupted_destroy_deleted_is_created_again(world):
    resources = {"held": config_map("held", a="1")}
    world.finishes(resources)
    world.change("held", finalizers=["test/hold"])
    world.kill("destroy", {}, lambda: "deletionTimestamp" in world.config_map("held")["metadata"])
    world.change("held", finalizers=None)
    assert "is gone" in world.recover()
    world.finishes(resources)
    assert world.config_map("held")["data"] == {"a": "1"}


def test_a_lock_that_is_not_known_to_be_stale_is_named_and_left(world):
    foreign = {"pid": 1, "username": "somebody", "hostname": "elsewhere", "timestamp": "2026-01-01T00:00:00Z"}
    alive = {
        **foreign,
        "pid": os.getpid(),
        "hostname": socket.gethostname(),
        "timestamp": "2999-01-01T00:00:00Z",
    }
    lock = world.locks / "test.json"
    for content in (foreign, alive):
        lock.write_text(json.dumps(content))
        code, said = world.recover_code("--stack", "dev")
        assert code == cli.UNDECIDED
        assert f"{content['username']}@{content['hostname']}" in said
        assert "pulumi cancel --stack dev" in said
        assert lock.exists()
    lock.unlink()


def test_a_stack_that_does_not_exist_has_nothing_to_recover(world):
    code, said = world.recover_code("--stack", "never-made")
    assert code == cli.DONE
    assert "does not exist" in said
