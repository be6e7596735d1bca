"""The official providers' behaviour, stated as tests that any plugins must pass.

By default they run against the plugins of a rehearsal. With REHEARSAL_OFFICIAL
naming a directory that holds `pulumi-resource-kubernetes` and
`pulumi-resource-random`, they run against those. Either way through the real
Pulumi engine and against a real API server.

An engine run costs about a second, so each module tells one story (a few runs of
one program with many resources) and its tests look at what was recorded.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pulumi
import pulumi_kubernetes as k8s
import pytest
from pulumi import automation

from ops.kube import Kube, Manifest
from rehearsal import toolchain
from rehearsal.cluster.control_plane import ControlPlane
from rehearsal.paths import CHECKOUT, Paths
from rehearsal.processes import Processes

CONTEXT = "rehearsal"
PROJECT = "contract"
PLUGINS = ("kubernetes", "random")
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
OFFICIAL = os.environ.get("REHEARSAL_OFFICIAL", "")
# What only a rehearsal's plugins do is nothing to ask of the official ones.
collect_ignore = ["test_rehearsal.py"] if OFFICIAL else []


@dataclass
class Outcome:
    """One run of the engine: what it printed, exported, and did to each resource, by resource name."""

    ok: bool
    output: str
    steps: dict[str, list[str]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> dict[str, list[str]]:
        """The steps of all resources that do not simply stay as they are."""
        same = {"same", "read", "refresh"}
        return {name: ops for name, ops in self.steps.items() if not same.issuperset(ops)}


class Stack:
    """One stack of the engine, whose program each run gives anew."""

    def __init__(self, paths: Paths, name: str):
        self._paths, self.name = paths, name
        self._work = work = paths.work / name
        work.mkdir()
        self._stack = automation.create_stack(
            name, project_name=PROJECT, program=lambda: None, opts=self._options(work)
        )
        # Two further engine processes per run, for what state_text() tells as well.
        self._stack.outputs = dict
        self._stack.info = lambda *_: "not asked for"

    def _options(self, work: Path) -> automation.LocalWorkspaceOptions:
        return automation.LocalWorkspaceOptions(
            work_dir=str(work),
            pulumi_home=str(self._paths.pulumi_home),
            pulumi_command=automation.PulumiCommand(root=str(self._paths.root), skip_version_check=True),
            env_vars={
                "PATH": f"{self._paths.bin}:/usr/bin:/bin",
                "HOME": str(self._paths.home),
                "PYTHONPATH": str(CHECKOUT),
                "LLMP_REHEARSAL": str(self._paths.root),
                "KUBECONFIG": str(self._paths.kubeconfig),
                "PULUMI_BACKEND_URL": f"file://{self._paths.state}",
                "PULUMI_CONFIG_PASSPHRASE": "contract",
                "PULUMI_SKIP_UPDATE_CHECK": "true",
                "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            },
        )

    def up(self, program: Callable[[], object]) -> Outcome:
        """Everything that can be done is done, though some of it fails."""
        return self._run("up", program, continue_on_error=True)

    def preview(self, program: Callable[[], object]) -> Outcome:
        return self._run("preview", program)

    def refresh(self) -> Outcome:
        return self._run("refresh", lambda: None)

    def destroy(self) -> Outcome:
        return self._run("destroy", lambda: None, continue_on_error=True)

    def interrupt(self) -> None:
        """What the user's Ctrl-C does to the engine that runs."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if arguments[0].endswith(b"pulumi") and (entry / "cwd").readlink() == self._work:
                    os.kill(int(entry.name), signal.SIGINT)
            except OSError:
                continue  # A process that ended meanwhile, or is not ours.

    def state_text(self) -> str:
        """The stack's state as it is stored."""
        return (self._paths.state / ".pulumi" / "stacks" / PROJECT / f"{self.name}.json").read_text()

    def state(self) -> dict[str, dict[str, Any]]:
        """The resources in state by name, secrets still encrypted."""
        resources = json.loads(self.state_text())["checkpoint"]["latest"].get("resources", [])
        return {r["urn"].rsplit("::", 1)[1]: r for r in resources}

    def _run(self, operation: str, program: Callable[[], object], **options: Any) -> Outcome:
        self._stack.workspace.program = program
        lines: list[str] = []
        steps: dict[str, list[str]] = {}

        def event(e: automation.events.EngineEvent) -> None:
            if e.resource_pre_event:
                meta = e.resource_pre_event.metadata
                steps.setdefault(meta.urn.rsplit("::", 1)[1], []).append(str(meta.op.value))

        run = getattr(self._stack, operation)
        try:
            run(on_output=lines.append, on_event=event, color="never", **options)
        except automation.CommandError as error:
            return Outcome(False, "\n".join([*lines, str(error)]), steps)
        finally:
            _end_program()
        outputs = self.state().get(f"{PROJECT}-{self.name}", {}).get("outputs", {})
        return Outcome(True, "\n".join(lines), steps, outputs)


@dataclass(frozen=True)
class Contract:
    """A control plane without nodes, and an engine with the plugins under test."""

    paths: Paths
    kube: Kube
    numbers: Iterator[int]

    def stack(self) -> Stack:
        """A fresh stack."""
        return Stack(self.paths, f"s{next(self.numbers)}")

    def namespace(self) -> str:
        """A fresh namespace that no stack manages."""
        name = f"contract-{next(self.numbers)}"
        self.kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name

    def provider(self, name: str = "cluster", **inputs: Any) -> pulumi.ResourceOptions:
        """Options for resources under an explicit provider of the API server, to be called by a program."""
        settings = {"kubeconfig": str(self.paths.kubeconfig), "context": CONTEXT, **inputs}
        return pulumi.ResourceOptions(provider=k8s.Provider(name, **settings))


@pytest.fixture(scope="session")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contract]:
    paths = Paths(tmp_path_factory.mktemp("contract"))
    paths.create()
    tools = toolchain.ensure(only=(*CONTROL_PLANE, "pulumi", "helm"))
    for name in ("pulumi", "helm"):
        (paths.bin / name).symlink_to(tools.binary(name))
    install_plugins(paths)
    processes = Processes(paths)
    try:
        kube = ControlPlane(paths, processes, tools.binary).start((CONTEXT,))
        yield Contract(paths, kube, itertools.count(1))
    finally:
        processes.stop_all()


def _end_program() -> None:
    """End what a program left in this process: where the engine fails it, the SDK may wait for ever."""
    while loops := [
        o for o in gc.get_objects() if isinstance(o, asyncio.BaseEventLoop) and not o.is_closed()
    ]:
        for loop in loops:
            if loop.is_running():
                loop.call_soon_threadsafe(loop.stop)
            else:
                loop.close()
        time.sleep(0.01)


def install_plugins(paths: Paths) -> None:
    """Give the engine launchers of our plugins, or links to the official ones, as if it had downloaded them."""
    for plugin in PLUGINS:
        version = importlib.metadata.version(f"pulumi-{plugin}")
        target = paths.pulumi_home / "plugins" / f"resource-{plugin}-v{version}" / f"pulumi-resource-{plugin}"
        target.parent.mkdir(parents=True)
        if OFFICIAL:
            target.symlink_to(Path(OFFICIAL).resolve() / target.name)
        else:
            target.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rehearsal.providers.{plugin} "$@"\n')
            target.chmod(0o755)


class Kubelet:
    """Plays the nodes' part for the pods of one namespace; `waiting` is a reason for which none ever runs."""

    def __init__(self, kube: Kube, namespace: str, waiting: str = ""):
        self._kube, self._namespace, self._waiting = kube, namespace, waiting
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            for pod in self._kube.list("v1", "Pod", self._namespace):
                # The scheduler finds no node and says so, whenever it comes to it; here it is overruled.
                scheduled = {"type": "PodScheduled", "status": "True"}
                if scheduled not in pod.get("status", {}).get("conditions", ()):
                    name = pod["metadata"]["name"]
                    self._kube.patch("v1", "Pod", name, self._namespace, self._status(), subresource="status")

    def _status(self) -> Manifest:
        ready = not self._waiting
        state = (
            {"running": {}} if ready else {"waiting": {"reason": self._waiting, "message": "no such image"}}
        )
        container = {
            "name": "main",
            "image": "x",
            "imageID": "",
            "ready": ready,
            "restartCount": 0,
            "state": state,
        }
        kinds = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
        conditions = [{"type": kind, "status": str(value)} for kind, value in kinds.items()]
        phase = "Running" if ready else "Pending"
        return {"status": {"phase": phase, "conditions": conditions, "containerStatuses": [container]}}


def definition(group: str, kind: str = "Widget") -> Manifest:
    """A CRD that takes anything."""
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": schema,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [version],
        },
    }


def deployment(labels: dict[str, str], replicas: int = 1, image: str = "x:1", **pod: Any) -> Manifest:
    """The spec of a Deployment of one container."""
    container = {"name": "main", "image": image, **pod.pop("container", {})}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], **pod}}
    return {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
