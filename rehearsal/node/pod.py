"""One pod on a simulated node, from its first second to its last."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from ops.kube import ApiError, Manifest
from rehearsal.node import images, probes, volumes
from rehearsal.node.names import Unresolved
from rehearsal.node.programs import Home, Host, end
from rehearsal.node.report import Report

TICK_SECONDS = 0.2
RETRY_SECONDS = 0.5
PULL_RETRY_SECONDS = 1.0
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0)
# A program that cannot resolve a name would end at once; here it is not started.
WAITING = {volumes.NotMountable: "ContainerCreating", Unresolved: "CrashLoopBackOff"}


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
    """Runs one pod until it is deleted, and reports its status as a kubelet would.

    `former` had the address before and may still be ending its programs; this one starts after it.
    """

    def __init__(self, host: Host, pod: Manifest, address: str, former: PodWorker | None = None):
        self.host, self.pod, self.address, self._former = host, pod, address, former
        self.key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        super().__init__(name=self.key, daemon=True)
        self.deleted = threading.Event()
        self.halted = threading.Event()
        self.ready_since: float | None = None
        self._containers: list[Running] = []
        self._home = Home(host, pod, address)
        self._report = Report(host.kube, pod, address)

    @property
    def labels(self) -> dict[str, str]:
        return self.pod["metadata"].get("labels") or {}

    def endpoint(self, port: int | str) -> tuple[str, int]:
        """Where a container port, by number or name, really listens."""
        for running in self._containers:
            for declared in running.spec.get("ports", []):
                if port in (declared.get("name"), declared["containerPort"]):
                    number = int(declared["containerPort"])
                    moved = running.ports.get(number)
                    return ("127.0.0.1", moved) if moved else (self.address, number)
        return self.address, int(port) if str(port).isdigit() else 0

    def log(self, container: str) -> Path | None:
        """The file with a container's output, or None where the pod has no such container."""
        known = (*self.pod["spec"]["containers"], *self.pod["spec"].get("initContainers", []))
        return self.host.log(self.pod, container) if container in {c["name"] for c in known} else None

    def refresh_volumes(self) -> None:
        """Bring changed Secrets to running programs, as a kubelet does."""
        for running in self._containers:
            if running.process is not None and isinstance(running.what, images.Program):
                self._home.mount(running.spec, running.what, running.ports)

    def run(self) -> None:
        if self._former is not None:
            self._former.join()
            self._former = None
        while True:
            try:
                self._live()
            except Gone:
                return self._finish()
            except ApiError as error:
                if error.code == 404 or self.deleted.is_set():
                    return self._finish()
                # A busy or restarting API server: a kubelet keeps its pods and goes on.
                print(f"{self.key}: {error}", flush=True)
                self.deleted.wait(RETRY_SECONDS)

    def _live(self) -> None:
        """From wherever the pod is to its deletion, which raises Gone."""
        self._pause(0)
        if not self._containers:
            self._initialise()
            self._containers = [
                Running(c, self._pulled(c, init=False)) for c in self.pod["spec"]["containers"]
            ]
        if self.pod["spec"].get("restartPolicy", "Always") != "Always":
            self._complete()
        while True:
            self._step()
            self._pause(TICK_SECONDS)

    def _initialise(self) -> None:
        for container in self.pod["spec"].get("initContainers", []):
            self._report.waiting(container, "PodInitializing", "", init=True)
            self._pulled(container, init=True)
            while message := self.host.faults.image(container["image"], "init"):
                self._report.waiting(container, "CrashLoopBackOff", message, init=True)
                self._pause(TICK_SECONDS)

    def _pulled(self, container: Manifest, init: bool) -> images.Program | images.Container:
        """What runs for the container's image, once it can be pulled."""
        image, failed = container["image"], False
        while True:
            message = self.host.faults.image(image, "pull")
            what = images.find(image)
            if what is not None and message is None:
                return what
            message = message or f'failed to pull image "{image}": not found'
            self._report.waiting(container, "ImagePullBackOff" if failed else "ErrImagePull", message, init)
            if not failed:
                self._report.event("Failed", f"Failed to pull image: {message}")
            failed = True
            self._pause(PULL_RETRY_SECONDS)

    def _complete(self) -> None:
        """Run the containers of a job to their end; a simulated one ends well at once."""
        for running in self._containers:
            while isinstance(running.what, images.Program) and not self._succeeded(running):
                if self.pod["spec"]["restartPolicy"] == "Never":
                    self._rest("Failed", exit_code=1)
        self._rest("Succeeded", exit_code=0)

    def _succeeded(self, running: Running) -> bool:
        """Start a job's container and wait for its end, whatever that is."""
        self._start(running)
        while running.process is not None and running.process.poll() is None:
            self._report.containers("Running", self._containers, ready=False)
            self._pause(TICK_SECONDS)
        if running.process is not None:
            if running.process.returncode == 0:
                return True
            self._crashed(running, f"exit code {running.process.returncode}")
        self._report.containers("Running", self._containers, ready=False)
        self._pause(TICK_SECONDS)
        return False

    def _rest(self, phase: str, exit_code: int) -> None:
        """Keep a finished pod until it is deleted."""
        self._report.containers(phase, self._containers, ready=False, exit_code=exit_code)
        self.deleted.wait()
        raise Gone

    def _step(self) -> None:
        """Look at every container once."""
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
        phase = "Running" if any(r.started for r in self._containers) else "Pending"
        self._report.containers(phase, self._containers, ready)

    def _start(self, running: Running) -> None:
        if time.monotonic() < running.retry_at or self.host.faults.image(running.spec["image"], "crash"):
            return
        if isinstance(running.what, images.Program):
            try:
                running.process = self._home.launch(running.spec, running.what, running.ports)
            except (volumes.NotMountable, Unresolved) as error:
                running.waiting = {"reason": WAITING[type(error)], "message": str(error)}
                running.retry_at = time.monotonic() + RETRY_SECONDS
                return
        running.started, running.waiting = time.monotonic(), None

    def _crashed(self, running: Running, why: str) -> None:
        end(running.process)
        delay = BACKOFF_SECONDS[min(running.restarts, len(BACKOFF_SECONDS) - 1)]
        running.process, running.ready, running.started = None, False, 0.0
        running.restarts += 1
        running.retry_at = time.monotonic() + delay
        message = f"back-off restarting failed container {running.spec['name']}: {why}"
        running.waiting = {"reason": "CrashLoopBackOff", "message": message}
        self._report.event("BackOff", message)

    def _is_ready(self, running: Running) -> bool:
        age = time.monotonic() - running.started
        if self.host.faults.image(running.spec["image"], "unready"):
            return False
        if isinstance(running.what, images.Container):
            return age >= running.what.ready_seconds
        return probes.passes(running.spec.get("readinessProbe"), self.endpoint, age)

    def _pause(self, seconds: float) -> None:
        if self.deleted.wait(seconds):
            raise Gone

    def _finish(self) -> None:
        """End the programs, then tell the API server that the pod is gone from its node."""
        for running in self._containers:
            end(running.process)
        shutil.rmtree(self._home.directory, ignore_errors=True)
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
