"""One pod on a simulated node, from its first second to its last."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.kube import ApiError, Kube, Manifest
from rehearsal.cluster import certificates, ports
from rehearsal.node import images, probes, volumes
from rehearsal.node.faults import Faults
from rehearsal.node.nodes import timestamp

TICK_SECONDS = 0.2
MOUNT_RETRY_SECONDS = 0.5
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0)
TOKEN_SECONDS = 86400


@dataclass(frozen=True)
class Host:
    """What every pod shares: the API, the faults, directories and the environment of programs."""

    kube: Kube
    faults: Faults
    directory: Path
    logs: Path
    authority: bytes
    binary: Callable[[str], Path]
    environment: Callable[[dict[str, str]], dict[str, str]]


@dataclass
class Running:
    """One container: its process where it has one, and how it is doing."""

    spec: Manifest
    what: images.Program | images.Container
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restarts: int = 0
    ready: bool = False
    waiting: dict[str, str] | None = None
    retry_at: float = 0.0
    ports: dict[int, int] = field(default_factory=dict)


class Gone(Exception):
    """The pod was deleted while something waited."""


class PodWorker(threading.Thread):
    """Runs one pod until it is deleted, and reports its status as a kubelet would."""

    def __init__(self, host: Host, pod: Manifest, address: str):
        self.host, self.pod, self.address = host, pod, address
        self.key = f"{pod['metadata']['namespace']}_{pod['metadata']['name']}"
        super().__init__(name=self.key, daemon=True)
        self.deleted = threading.Event()
        self.halted = threading.Event()
        self.ready_since: float | None = None
        self._containers: list[Running] = []
        self._reported: dict[str, Any] = {}
        self._directory = host.directory / pod["metadata"]["uid"]

    @property
    def labels(self) -> dict[str, str]:
        return self.pod["metadata"].get("labels") or {}

    def endpoint(self, port: int | str) -> tuple[str, int]:
        """Where a container port, by number or name, really listens."""
        for running in self._containers:
            for declared in running.spec.get("ports", []):
                if port in (declared.get("name"), declared["containerPort"]):
                    number = int(declared["containerPort"])
                    return (
                        ("127.0.0.1", running.ports[number])
                        if number in running.ports
                        else (self.address, number)
                    )
        return self.address, int(port) if str(port).isdigit() else 0

    def run(self) -> None:
        try:
            self._initialise()
            self._containers = [self._pulled(c) for c in self.pod["spec"]["containers"]]
            if self.pod["spec"].get("restartPolicy", "Always") != "Always":
                self._complete()
            while True:
                self._step()
                self._pause(TICK_SECONDS)
        except Gone:
            self._finish()
        except ApiError as error:
            if error.code != 404 and not self.halted.is_set():
                raise
            self._finish()

    def _initialise(self) -> None:
        for container in self.pod["spec"].get("initContainers", []):
            self._report_waiting(container, "PodInitializing", "", init=True)
            self._wait_for_image(container, init=True)
            while message := self.host.faults.image(container["image"], "init"):
                self._report_waiting(container, "CrashLoopBackOff", message, init=True)
                self._pause(TICK_SECONDS)

    def _pulled(self, container: Manifest) -> Running:
        what = self._wait_for_image(container, init=False)
        return Running(container, what)

    def _wait_for_image(self, container: Manifest, init: bool) -> images.Program | images.Container:
        image, failed = container["image"], False
        while True:
            message = self.host.faults.image(image, "pull")
            what = images.find(image)
            if what is not None and message is None:
                return what
            message = message or f'failed to pull image "{image}": not found'
            self._report_waiting(container, "ImagePullBackOff" if failed else "ErrImagePull", message, init)
            if not failed:
                self._event("Failed", f"Failed to pull image: {message}")
            failed = True
            self._pause(1.0)

    def _complete(self) -> None:
        """Run the containers of a job to their end; a simulated one ends well at once."""
        for running in self._containers:
            while isinstance(running.what, images.Program) and not self._succeeded(running):
                if self.pod["spec"]["restartPolicy"] == "Never":
                    self._report("Failed", ready=False, exit_code=1)
                    self._rest()
        self._report("Succeeded", ready=False, exit_code=0)
        self._rest()

    def _succeeded(self, running: Running) -> bool:
        """Start a job's container and wait for its end, whatever that is."""
        self._start(running)
        while running.process is not None and running.process.poll() is None:
            self._report("Running", ready=False)
            self._pause(TICK_SECONDS)
        if running.process is not None and running.process.returncode == 0:
            return True
        if running.process is not None:
            self._crashed(running, f"exit code {running.process.returncode}")
        self._report("Running", ready=False)
        self._pause(TICK_SECONDS)
        return False

    def _rest(self) -> None:
        """Keep a finished pod until it is deleted."""
        while True:
            self._pause(60)

    def _step(self) -> None:
        for running in self._containers:
            if running.waiting or (running.process is None and not running.started):
                self._start(running)
            elif running.process is not None and running.process.poll() is not None:
                self._crashed(running, f"exit code {running.process.returncode}")
            elif message := self.host.faults.image(running.spec["image"], "crash"):
                self._crashed(running, message)
            else:
                running.ready = self._is_ready(running)
        ready = all(r.ready for r in self._containers)
        self.ready_since = (self.ready_since or time.monotonic()) if ready else None
        self._report("Running" if any(r.started for r in self._containers) else "Pending", ready)

    def _start(self, running: Running) -> None:
        if time.monotonic() < running.retry_at or self.host.faults.image(running.spec["image"], "crash"):
            return
        if isinstance(running.what, images.Program):
            try:
                running.process = self._launch(running, running.what)
            except volumes.NotMountable as error:
                running.waiting = {"reason": "ContainerCreating", "message": str(error)}
                running.retry_at = time.monotonic() + MOUNT_RETRY_SECONDS
                return
        running.started, running.waiting = time.monotonic(), None

    def _crashed(self, running: Running, why: str) -> None:
        _end(running.process)
        delay = BACKOFF_SECONDS[min(running.restarts, len(BACKOFF_SECONDS) - 1)]
        running.process, running.ready, running.started = None, False, 0.0
        running.restarts += 1
        running.retry_at = time.monotonic() + delay
        message = f"back-off restarting failed container {running.spec['name']}: {why}"
        running.waiting = {"reason": "CrashLoopBackOff", "message": message}
        self._event("BackOff", message)

    def _launch(self, running: Running, program: images.Program) -> subprocess.Popen[bytes]:
        root = volumes.root_of(self._directory, running.spec)
        (root / "tmp").mkdir(parents=True, exist_ok=True)
        kube, pod = self.host.kube, self.pod
        mounted = volumes.mount(kube, pod, running.spec, root)

        def local_port(port: int) -> int:
            running.ports[port] = ports.free_ports(1)[0]
            return running.ports[port]

        place = images.Placement(self.address, local_port)
        for path in (p for paths in mounted.values() for p in paths if p.name in program.files):
            path.write_text(program.files[path.name](path.read_text(), place))
        command = [_relocated(c, mounted, root) for c in self._command(running.spec, program)]
        environment = volumes.environment(kube, pod, running.spec, self.address)
        environment |= {
            "HOME": str(root),
            "TMPDIR": str(root / "tmp"),
            "KUBECONFIG": str(self._service_account(root)),
            "REHEARSAL_ADDRESS": self.address,
        }
        with (self.host.logs / f"{self.key}_{running.spec['name']}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, *program.flags(place)],
                env=self.host.environment(environment),
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _command(self, container: Manifest, program: images.Program) -> list[str]:
        """What the container runs: its own command through the shell, or the image's entry point."""
        if program.shell and container.get("command"):
            return [*container["command"], *container.get("args", [])]
        return [str(self.host.binary(program.binary)), *program.arguments, *container.get("args", [])]

    def _service_account(self, root: Path) -> Path:
        """A kubeconfig with the pod's own service account, so that its real permissions apply."""
        namespace = self.pod["metadata"]["namespace"]
        account = self.pod["spec"].get("serviceAccountName", "default")
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_SECONDS},
        }
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        token = self.host.kube.request("POST", path, None, request)["status"]["token"]
        kubeconfig = root / "kubeconfig"
        certificates.write_kubeconfig(
            kubeconfig, self.host.kube.server, self.host.authority, {"token": token}, ("pod",)
        )
        return kubeconfig

    def refresh_volumes(self) -> None:
        """Bring changed Secrets to running programs, as a kubelet does."""
        for running in self._containers:
            if running.process is not None:
                volumes.mount(
                    self.host.kube, self.pod, running.spec, volumes.root_of(self._directory, running.spec)
                )

    def _is_ready(self, running: Running) -> bool:
        if self.host.faults.image(running.spec["image"], "unready"):
            return False
        if isinstance(running.what, images.Container):
            return time.monotonic() - running.started >= running.what.ready_seconds
        return probes.passes(
            running.spec.get("readinessProbe"), self.endpoint, time.monotonic() - running.started
        )

    def _report_waiting(self, container: Manifest, reason: str, message: str, init: bool) -> None:
        state = {"name": container["name"], "image": container["image"], "imageID": "", "ready": False, "restartCount": 0,
                 "state": {"waiting": {"reason": reason, "message": message}}}  # fmt: skip
        body = {"initContainerStatuses" if init else "containerStatuses": [state]}
        self._write({"phase": "Pending", "conditions": self._conditions(not init, False), **body})

    def _report(self, phase: str, ready: bool, exit_code: int | None = None) -> None:
        finished = [
            {
                "name": c["name"],
                "image": c["image"],
                "imageID": "",
                "ready": True,
                "restartCount": 0,
                "state": _ended(0),
            }
            for c in self.pod["spec"].get("initContainers", [])
        ]
        statuses = [
            {"name": r.spec["name"], "image": r.spec["image"], "imageID": "", "ready": r.ready, "started": bool(r.started),
             "restartCount": r.restarts, "state": _state(r) if exit_code is None else _ended(exit_code)}
            for r in self._containers
        ]  # fmt: skip
        body = {"initContainerStatuses": finished} if finished else {}
        self._write(
            {
                "phase": phase,
                "conditions": self._conditions(True, ready),
                "containerStatuses": statuses,
                **body,
            }
        )

    def _conditions(self, initialized: bool, ready: bool) -> list[dict[str, Any]]:
        states = {"PodScheduled": True, "Initialized": initialized, "ContainersReady": ready, "Ready": ready}
        before = {c["type"]: c for c in self._reported.get("conditions", [])}
        result = []
        for kind, true in states.items():
            status = "True" if true else "False"
            old = before.get(kind)
            since = old["lastTransitionTime"] if old and old["status"] == status else timestamp()
            reason = {} if true else {"reason": "ContainersNotReady", "message": "containers are not ready"}
            result.append({"type": kind, "status": status, "lastTransitionTime": since, **reason})
        return result

    def _write(self, status: dict[str, Any]) -> None:
        if self.deleted.is_set():
            raise Gone
        status |= {"podIP": self.address, "podIPs": [{"ip": self.address}], "hostIP": "127.0.0.1"}
        status["startTime"] = self._reported.get("startTime") or timestamp()
        if status == self._reported:
            return
        meta = self.pod["metadata"]
        self.host.kube.patch(
            "v1", "Pod", meta["name"], meta["namespace"], {"status": status}, subresource="status"
        )
        self._reported = status

    def _event(self, reason: str, message: str) -> None:
        meta = self.pod["metadata"]
        event = {
            "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": reason, "message": message, "count": 1,
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "namespace": meta["namespace"],
                               "uid": meta["uid"]},
            "source": {"component": "kubelet"}, "firstTimestamp": timestamp(), "lastTimestamp": timestamp(),
        }  # fmt: skip
        self.host.kube.create(event)

    def _pause(self, seconds: float) -> None:
        if self.deleted.wait(seconds):
            raise Gone

    def _finish(self) -> None:
        """End the programs, then tell the API server that the pod is gone from its node."""
        for running in self._containers:
            _end(running.process)
        shutil.rmtree(self._directory, ignore_errors=True)
        if self.halted.is_set():
            return
        meta = self.pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        try:
            self.host.kube.request("DELETE", path, None, body)
        except ApiError as error:
            if error.code not in (404, 409):
                raise


def _state(running: Running) -> dict[str, Any]:
    if running.waiting:
        return {"waiting": running.waiting}
    return {"running": {}} if running.started else {"waiting": {"reason": "ContainerCreating"}}


def _ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}


def _relocated(argument: str, mounted: dict[str, list[Path]], root: Path) -> str:
    """An argument with the paths of mounts pointing at where the mounts really are."""
    for path in sorted(mounted, key=len, reverse=True):
        if mounted[path]:
            argument = re.sub(rf"(?<=[ =]){re.escape(path)}(?=[/ \n]|$)", f"{root}{path}", argument)
    return argument


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    os.kill(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
