"""One pod on a simulated node, from its first second to its last."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

from ops.kube import ApiError, Manifest
from rehearsal.cloud.settings import BadSettings
from rehearsal.node import container, images, probes, volumes
from rehearsal.node.container import Running
from rehearsal.node.faults import BadFaults, Stage
from rehearsal.node.logs import tail
from rehearsal.node.names import Unresolved
from rehearsal.node.programs import END_SECONDS, Home, Host, account_of, end, grace, last_wish
from rehearsal.node.report import Report
from rehearsal.storage_initializer import buckets, weights

TICK_SECONDS = 0.2
RETRY_SECONDS = 0.5
PULL_RETRY_SECONDS = 1.0
# A program that cannot resolve a name would end at once; here it is not started.
# A file beside weights that are all there.
FETCHED = ".fetched"
WAITING = {volumes.NotMountable: "ContainerCreating", Unresolved: "CrashLoopBackOff"}
# KServe's init container that fetches the weights (pkg/credentials and pkg/webhook name it so).
DOWNLOADER = "storage-initializer"


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
        self._init = [Running(c) for c in pod["spec"].get("initContainers") or ()]
        self._containers = [Running(c) for c in pod["spec"]["containers"]]
        self._serves = images.serves_model(pod)
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

    def log(self, name: str) -> Path | None:
        """The file with a container's output, or None where the pod has no such container."""
        known = {running.name for running in (*self._init, *self._containers)}
        return self.host.log(self.pod, name) if name in known else None

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
            except (ApiError, BadFaults, BadSettings) as error:
                if getattr(error, "code", 0) == 404 or self.deleted.is_set():
                    return self._finish()
                # A busy or restarting API server, or settings that mean nothing: a kubelet keeps its pods and goes on.
                print(f"{self.key}: {error}", flush=True)
                self.deleted.wait(RETRY_SECONDS)

    def _live(self) -> None:
        """From wherever the pod is to its deletion, which raises Gone."""
        self._pause(0)
        for running in self._init:
            while running.ended is None:
                self._prepare(running)
        for running in self._containers:
            if running.what is None:
                self._pull(running, staged=self._serves)
        if self.pod["spec"].get("restartPolicy", "Always") != "Always":
            self._complete()
        while True:
            self._step()
            self._pause(TICK_SECONDS)

    def _tell(self, phase: str) -> None:
        self._report.pod(phase, self._init, self._containers)

    # -- before the containers ---------------------------------------------------------------------

    def _prepare(self, running: Running) -> None:
        """One attempt of an init container: it does its work at once, but for the download of weights."""
        if running.what is None:
            self._pull(running, staged=False)
        self._pause(max(0.0, running.retry_at - time.monotonic()))
        running.begin()
        failed = self._download(running) if running.name == DOWNLOADER else Stage()
        message = failed.failure or self.host.faults.image(running.image, "init")
        if message is None:
            running.finish(0)
            return
        killed = failed.out_of_memory
        self._say(running, "" if killed else message)
        self._crashed(running, container.KILLED if killed else container.FAILED, killed)
        self._tell("Pending")

    def _download(self, running: Running) -> Stage:
        """The download of a model's weights, in the words of KServe's own script."""
        source, target = [*(running.spec.get("args") or ()), "", ""][:2]
        self._say(running, f"Copying contents of {source} to local")
        self._tell("Pending")
        disk = self._disk(running, target)
        began = time.monotonic()
        # What a volume holds whole is not fetched again, as by the hub's own client.
        held = disk / FETCHED if disk else None
        if refused := buckets.refusal(source, self._reader(running), self.host.rehearsal):
            stage = Stage(failure=refused)
        else:
            stage = Stage() if held and held.exists() else self._through("download")
        if stage.failure is not None:
            return replace(stage, failure=f"Storage initialization failed: {stage.failure}")
        if disk and held:
            weights.write(disk, source)
            held.write_text(source)
        self._say(running, f"Successfully copied {source} to {target}")
        self._say(running, f"Model downloaded in {time.monotonic() - began} seconds.")
        return stage

    def _reader(self, running: Running) -> buckets.Reader:
        """Who asks a store for weights."""
        return buckets.Reader(
            namespace=self.pod["metadata"]["namespace"],
            account=account_of(self.pod),
            variables=frozenset(entry["name"] for entry in running.spec.get("env") or ()),
        )

    def _disk(self, running: Running, path: str) -> Path | None:
        """The volume of a claim at a path of a container, once it can be mounted; None where there is none."""
        while True:
            try:
                return self._home.disk(running.spec, path)
            except volumes.NotMountable as error:
                running.waiting = {"reason": WAITING[type(error)], "message": str(error)}
                self._tell("Pending")
                self._pause(RETRY_SECONDS)

    def _pull(self, running: Running, staged: bool) -> None:
        """Find out what runs for the container's image, once it can be pulled; `staged`: in its own time."""
        failed = False
        while True:
            if not failed:
                self._tell("Pending")
            stage = self._through("pull") if staged else Stage()
            message = stage.failure or self.host.faults.image(running.image, "pull")
            what = images.find(running.image)
            if what is not None and message is None:
                running.what, running.waiting = what, None
                return
            message = message or f'failed to pull image "{running.image}": not found'
            running.waiting = {"reason": "ImagePullBackOff" if failed else "ErrImagePull", "message": message}
            self._tell("Pending")
            if not failed:
                self._report.event("Failed", f"Failed to pull image: {message}")
            failed = True
            self._pause(PULL_RETRY_SECONDS)

    def _through(self, name: str) -> Stage:
        """Spend the time that a stage takes; returns how it ended."""
        began = time.monotonic()
        while True:
            stage = self._stage(name)
            if stage.over(time.monotonic() - began):
                return stage
            self._pause(TICK_SECONDS)

    def _stage(self, name: str) -> Stage:
        return self.host.faults.stage(self.key, name) if self._serves else Stage()

    # -- jobs --------------------------------------------------------------------------------------

    def _complete(self) -> None:
        """Run the containers of a job to their end; a simulated one ends well at once."""
        for running in self._containers:
            while isinstance(running.what, images.Program) and not self._succeeded(running):
                if running.last and self.pod["spec"]["restartPolicy"] == "Never":
                    self._rest("Failed", running.last["exitCode"], running.last.get("message", ""))
        self._rest("Succeeded", code=0)

    def _succeeded(self, running: Running) -> bool:
        """Start a job's container and wait for its end, whatever that is."""
        self._start(running)
        while running.process is not None and running.process.poll() is None:
            self._tell("Running")
            self._pause(TICK_SECONDS)
        if running.process is not None:
            if running.process.returncode == 0:
                return True
            self._crashed(running, container.exit_code(running.process.returncode))
            if self.pod["spec"]["restartPolicy"] == "Never":
                return False
        self._tell("Running")
        self._pause(TICK_SECONDS)
        return False

    def _rest(self, phase: str, code: int, message: str = "") -> None:
        """Keep a finished pod until it is deleted."""
        for running in self._containers:
            running.finish(code, message)
            running.ready = False
        self._tell(phase)
        self.deleted.wait()
        raise Gone

    # -- containers that stay ----------------------------------------------------------------------

    def _step(self) -> None:
        """Look at every container once."""
        for running in self._containers:
            if not running.started:
                self._start(running)
            elif running.process is not None and running.process.poll() is not None:
                self._ended(running, running.process.returncode)
            elif message := self.host.faults.image(running.image, "crash"):
                self._say(running, message)
                self._crashed(running, container.FAILED)
            else:
                self._probe(running)
        ready = all(r.ready for r in self._containers)
        self.ready_since = (self.ready_since or time.monotonic()) if ready else None
        self._tell("Running" if any(r.lived for r in self._containers) else "Pending")

    def _start(self, running: Running) -> None:
        if time.monotonic() < running.retry_at or self.host.faults.image(running.image, "crash"):
            return
        log = self.host.log(self.pod, running.name)
        running.log_start = log.stat().st_size if log.exists() else 0
        if isinstance(running.what, images.Program):
            try:
                running.process = self._home.launch(running.spec, running.what, running.ports)
            except (volumes.NotMountable, Unresolved) as error:
                running.waiting = {"reason": WAITING[type(error)], "message": str(error)}
                running.retry_at = time.monotonic() + RETRY_SECONDS
                return
        running.begin()

    def _ended(self, running: Running, returned: int) -> None:
        """A program ended by itself: out of memory where that was asked for, since nothing here limits it."""
        code = container.exit_code(returned)
        starting = [self._stage(name) for name in ("load", "compile")]
        self._crashed(running, code, code == container.KILLED and any(s.out_of_memory for s in starting))

    def _crashed(self, running: Running, code: int, out_of_memory: bool = False) -> None:
        end([running.process], END_SECONDS, self.halted)
        message = ""
        if running.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            message = tail(self.host.log(self.pod, running.name), running.log_start)
        reason = container.OUT_OF_MEMORY if out_of_memory else "Error"
        running.crash(self.pod, code, reason, message)
        if self.pod["spec"].get("restartPolicy") != "Never":
            self._report.event(
                "BackOff", f"Back-off restarting failed container {running.name} in pod {self.key}"
            )

    def _probe(self, running: Running) -> None:
        """Readiness counts from the moment on when the startup probe passed; that one's time is limited."""
        probe, age = running.spec.get("startupProbe"), time.monotonic() - running.started
        simulated = isinstance(running.what, images.Container)
        running.passed = running.passed or simulated or probes.passes(probe, self.endpoint, age)
        if running.passed:
            running.ready = self._is_ready(running, age)
        elif age > probes.budget(probe or {}):
            self._report.event("Unhealthy", "Startup probe failed: the time that it allows is over")
            self._crashed(running, container.KILLED)

    def _is_ready(self, running: Running, age: float) -> bool:
        if self.host.faults.image(running.image, "unready"):
            return False
        if isinstance(running.what, images.Container):
            return age >= running.what.ready_seconds
        return probes.passes(running.spec.get("readinessProbe"), self.endpoint, age)

    def _say(self, running: Running, line: str) -> None:
        """Write a line into the log of a container that has no program to do it."""
        if line:
            with self.host.log(self.pod, running.name).open("a") as log:
                log.write(line + "\n")

    def _pause(self, seconds: float) -> None:
        if self.deleted.wait(seconds):
            raise Gone

    # -- the end -----------------------------------------------------------------------------------

    def _finish(self) -> None:
        """End the programs, then tell the API server that the pod is gone from its node."""
        seconds = grace(self.pod)
        wishes = [last_wish(running.spec) for running in self._containers if running.started]
        if seconds and wishes:
            self.halted.wait(max(wishes))
        end([running.process for running in self._containers], seconds, self.halted)
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
