"""A kubelet of simulated nodes with an API server of plain dicts, for tests that need no control plane."""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rehearsal.cluster import ports
from rehearsal.node.faults import Faults
from rehearsal.node.kubelet import Kubelet
from rehearsal.node.programs import Host
from rehearsal.paths import Paths
from rehearsal.processes import Processes

SPACE = "llm-gateway"
SECONDS = 30.0


def eventually(check: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true; fails naming `what`."""
    deadline = time.monotonic() + SECONDS
    while True:
        if answer := check():
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {SECONDS:.0f} s"
        time.sleep(0.05)


class Api:
    """An API server as far as a kubelet asks it: objects, pods that come and go, and their status."""

    server = "https://127.0.0.1:1"

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def add(self, kind: str, name: str, **content: Any) -> dict[str, Any]:
        meta = {"name": name, "namespace": SPACE, **content.pop("metadata", {})}
        self.objects[kind, name] = {"kind": kind, "metadata": meta, **content}
        return self.objects[kind, name]

    def start(self, name: str, labels: dict[str, str], container: dict[str, Any], **spec: Any) -> None:
        owner = {"kind": "ReplicaSet", "name": f"{labels['app']}-5d4f"}
        meta = {
            "uid": f"uid-{name}",
            "labels": {**labels, "pod-template-hash": "5d4f"},
            "ownerReferences": [owner],
        }
        containers = [{"name": "main", **container}]
        pod = self.add(
            "Pod", name, metadata=meta, spec={"nodeName": "node", "containers": containers, **spec}, status={}
        )
        self._events.put(("ADDED", copy.deepcopy(pod)))

    def end(self, name: str, **more: Any) -> None:
        """Delete a pod; `more` goes into its metadata."""
        pod = copy.deepcopy(self.objects["Pod", name])
        pod["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", **more}
        self._events.put(("MODIFIED", pod))

    def status(self, name: str) -> dict[str, Any]:
        return self.objects.get(("Pod", name), {}).get("status", {})

    def ready(self, name: str) -> bool:
        return any(c["ready"] for c in self.status(name).get("containerStatuses", []))

    def waiting(self, name: str) -> dict[str, str]:
        states = [c["state"] for c in self.status(name).get("containerStatuses", [])]
        return states[0].get("waiting", {}) if states else {}

    def follow(self, _api: str, _kind: str, stop: threading.Event) -> Iterator[tuple[str, dict[str, Any]]]:
        while not stop.is_set():
            try:
                yield self._events.get(timeout=0.05)
            except queue.Empty:
                continue

    def get(self, _api: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        return self.objects.get((kind, name)) if namespace in (None, SPACE) else None

    def list(self, _api: str, kind: str, *_: Any, **__: Any) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "node"}}] if kind == "Node" else []

    def patch(self, _api: str, kind: str, name: str, _space: str, body: dict[str, Any], **_: Any) -> None:
        if (kind, name) in self.objects:
            self.objects[kind, name] |= body

    def create(self, _manifest: dict[str, Any]) -> None:
        """Events are not looked at."""

    def request(self, method: str, path: str, *_: Any) -> Any:
        if method == "DELETE":
            self.objects.pop(("Pod", path.rsplit("/", 1)[1]), None)
        return {"status": {"token": "token"}}


class Node:
    """A kubelet with its API, in a directory and a block of addresses of its own."""

    def __init__(self, root: Path, binary: Callable[[str], Path]):
        self.api, self.paths = Api(), Paths(root)
        self.paths.create()
        host = Host(
            kube=self.api,
            faults=Faults(self.paths.faults),
            directory=self.paths.pods,
            logs=self.paths.logs,
            authority=b"",
            binary=binary,
            environment=Processes(self.paths).environment,
        )
        block, self._holder = ports.take_pod_block(root / "block")
        self.kubelet = Kubelet(host=host, kube=self.api, block=block)
        self._stop = threading.Event()
        threading.Thread(target=self.kubelet.run, args=(self._stop,), daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        self.kubelet.halt()
        self._holder.close()

    def address(self, name: str) -> str:
        return self.api.status(name)["podIP"]
