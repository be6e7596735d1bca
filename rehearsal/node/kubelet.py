"""Gives every pod that is scheduled to a simulated node an address and a worker."""

from __future__ import annotations

import itertools
import threading
import time

from ops.kube import ApiError, Kube, Manifest
from rehearsal.node.nodes import LABEL
from rehearsal.node.pod import PodWorker
from rehearsal.node.programs import Host
from rehearsal.node.volumes import NotMountable

REFRESH_SECONDS = 1.0


class Kubelet:
    """All simulated nodes of one rehearsal."""

    def __init__(self, kube: Kube, host: Host, block: int):
        self._kube, self._host, self._block = kube, host, block
        self._workers: dict[str, PodWorker] = {}
        self._lock = threading.Lock()
        self._nodes: set[str] = set()

    def workers(self) -> list[PodWorker]:
        """The pods that run now."""
        with self._lock:
            return list(self._workers.values())

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
            worker = PodWorker(self._host, pod, self._address(pod))
            self._workers[uid] = worker
        worker.start()

    def _end(self, uid: str, pod: Manifest) -> None:
        with self._lock:
            worker = self._workers.pop(uid, None)
        if worker is not None:
            worker.deleted.set()
        elif pod["metadata"].get("deletionTimestamp") and self._is_mine(pod):
            # A finished pod has no worker, but its node must still let it go.
            gone = PodWorker(self._host, pod, "")
            gone.deleted.set()
            gone.start()

    def _is_mine(self, pod: Manifest) -> bool:
        node = pod["spec"].get("nodeName")
        if node and node not in self._nodes:
            self._nodes = {n["metadata"]["name"] for n in self._kube.list("v1", "Node", selector=LABEL)}
        return node in self._nodes

    def _address(self, pod: Manifest) -> str:
        """The address the pod had before a restart when it is still in our block, else the next free one."""
        taken = {w.address for w in self._workers.values()}
        before = pod.get("status", {}).get("podIP", "")
        if before.startswith(f"127.{self._block}.") and before not in taken:
            return before
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
