"""Gives every pod that is scheduled to a simulated node an address and a worker."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import replace

from ops.kube import ApiError, Kube, Manifest
from rehearsal.node import images
from rehearsal.node.names import Names
from rehearsal.node.nodes import LABEL
from rehearsal.node.pod import PodWorker
from rehearsal.node.programs import Host
from rehearsal.node.volumes import NotMountable

REFRESH_SECONDS = 1.0


class Kubelet:
    """All simulated nodes of one rehearsal."""

    def __init__(self, kube: Kube, host: Host, block: int):
        self._kube, self._block = kube, block
        self._host = replace(host, names=Names(self._service, self.endpoints, self._host_address))
        self._workers: dict[str, PodWorker] = {}
        self._ending: dict[str, PodWorker] = {}
        self._addresses: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._nodes: set[str] = set()

    def workers(self) -> list[PodWorker]:
        """The pods that run now."""
        with self._lock:
            return list(self._workers.values())

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        """The pod of that name, if it runs now."""
        return next((w for w in self.workers() if w.key == f"{namespace}/{name}"), None)

    def endpoints(
        self,
        namespace: str,
        match_labels: Mapping[str, str],
        target_port: int | str,
        ready_seconds: float = 0.0,
    ) -> list[tuple[str, int]]:
        """Where the pods with these labels really listen for a container port, by number or name.

        Only pods that are Ready, for at least `ready_seconds`; in the order in which they were started.
        """
        now = time.monotonic()
        found = [
            worker.endpoint(target_port)
            for worker in self.workers()
            if worker.pod["metadata"]["namespace"] == namespace
            and match_labels.items() <= worker.labels.items()
            and (since := worker.ready_since) is not None
            and now - since >= ready_seconds
        ]
        return [(host, port) for host, port in found if port]

    def run(self, stop: threading.Event) -> None:
        """Follow the pods until told to stop."""
        threading.Thread(target=self._refresh, args=(stop,), daemon=True).start()
        for event, pod in self._kube.follow("v1", "Pod", stop):
            self._handle(event, pod)

    def halt(self) -> None:
        """End every program, and leave the pods in the API server for the next start."""
        for worker in self.workers():
            worker.halted.set()
            worker.deleted.set()
        for worker in self.workers():
            worker.join(timeout=6)

    def _handle(self, event: str, pod: Manifest) -> None:
        uid = pod["metadata"]["uid"]
        if event == "DELETED" or pod["metadata"].get("deletionTimestamp"):
            self._end(uid, pod)
        elif uid not in self._workers and self._is_mine(pod):
            self._begin(uid, pod)

    def _begin(self, uid: str, pod: Manifest) -> None:
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return
        with self._lock:
            address = self._address(pod)
            former = next((w for w in self._ending.values() if w.address == address), None)
            worker = PodWorker(self._host, pod, address, former)
            self._workers[uid] = worker
            known = self._addresses.setdefault(_owner(pod), [])
            known += [address] if address not in known else []
        worker.start()

    def _end(self, uid: str, pod: Manifest) -> None:
        with self._lock:
            self._ending = {u: w for u, w in self._ending.items() if w.is_alive()}
            worker = self._workers.pop(uid, None)
            if worker is not None:
                self._ending[uid] = worker
        if worker is not None:
            # How long its programs may take to end is only known now.
            worker.pod = pod
            worker.deleted.set()
        elif uid not in self._ending and pod["metadata"].get("deletionTimestamp") and self._is_mine(pod):
            # A finished pod has no worker, but its node must still let it go.
            gone = PodWorker(self._host, pod, "")
            gone.deleted.set()
            gone.start()

    def _service(self, namespace: str, name: str) -> Manifest | None:
        return self._kube.get("v1", "Service", name, namespace)

    def _host_address(self, namespace: str, hostname: str, subdomain: str) -> str | None:
        """The address of the pod that has this name in the cluster's DNS, Ready or not."""
        wanted = (namespace, hostname, subdomain)
        for worker in self.workers():
            spec = worker.pod["spec"]
            if wanted == (worker.pod["metadata"]["namespace"], spec.get("hostname"), spec.get("subdomain")):
                return worker.address
        return None

    def _is_mine(self, pod: Manifest) -> bool:
        node = pod["spec"].get("nodeName")
        if node and node not in self._nodes:
            self._nodes = {n["metadata"]["name"] for n in self._kube.list("v1", "Node", selector=LABEL)}
        return node in self._nodes

    def _address(self, pod: Manifest) -> str:
        """An address for a pod: its own from before a restart, else one that its owner's pods had, else a new one.

        A Service keeps its address whatever happens to its pods; programs here talk to pods
        directly, so those of one Deployment get each other's addresses again.
        """
        used = {w.address for w in self._workers.values()}
        if images.serves_model(pod):
            # Whoever sends to a model's pods reads them: a new one need not wait until an old one has ended.
            used |= {w.address for w in self._ending.values() if w.is_alive()}
        before = pod.get("status", {}).get("podIP", "")
        mine = self._addresses.get(_owner(pod), [])
        for address in (before if before.startswith(f"127.{self._block}.") else "", *mine):
            if address and address not in used:
                return address
        taken = used.union(*self._addresses.values())
        candidates = (f"127.{self._block}.{i // 250}.{i % 250 + 1}" for i in itertools.count())
        return next(a for a in candidates if a not in taken)

    def _refresh(self, stop: threading.Event) -> None:
        while not stop.wait(REFRESH_SECONDS):
            for worker in self.workers():
                try:
                    worker.refresh_volumes()
                except (ApiError, NotMountable, OSError) as error:
                    # One pod's missing Secret must not keep the others' from being refreshed.
                    print(f"{time.strftime('%H:%M:%S')} volumes of {worker.key}: {error}", flush=True)


def _owner(pod: Manifest) -> str:
    """What made the pod: its Deployment where it has one, else its direct owner, else itself."""
    meta = pod["metadata"]
    owner = next(iter(meta.get("ownerReferences") or []), None)
    if owner is None:
        return f"{meta['namespace']}/Pod/{meta['name']}"
    name, kind = owner["name"], owner["kind"]
    template = (meta.get("labels") or {}).get("pod-template-hash")
    if kind == "ReplicaSet" and template:
        name, kind = name.removesuffix(f"-{template}"), "Deployment"
    return f"{meta['namespace']}/{kind}/{name}"
