"""What a node tells the API server about a pod: its status, and events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from ops.kube import Kube, Manifest
from rehearsal.node.nodes import timestamp


class ContainerState(Protocol):
    """What there is to tell about one container; `started` is false while it waits."""

    spec: Manifest
    ready: bool
    started: float
    restarts: int
    waiting: dict[str, str] | None


class Report:
    """The reported status of one pod; writes only what changed."""

    def __init__(self, kube: Kube, pod: Manifest, address: str):
        self._kube, self._pod, self._address = kube, pod, address
        self._last: dict[str, Any] = {}

    def waiting(self, container: Manifest, reason: str, message: str, init: bool) -> None:
        """Nothing runs yet, and this is the container that the pod waits for."""
        state = {"waiting": {"reason": reason, "message": message}}
        kind = "initContainerStatuses" if init else "containerStatuses"
        conditions = self._conditions(initialized=not init, ready=False)
        self._write({"phase": "Pending", "conditions": conditions, kind: [_status(container, state)]})

    def containers(
        self, phase: str, containers: Iterable[ContainerState], ready: bool, exit_code: int | None = None
    ) -> None:
        """Init containers are done; the others are as given, or ended with `exit_code`."""
        finished = [_status(c, _ended(0), ready=True) for c in self._pod["spec"].get("initContainers", [])]
        statuses = [
            _status(c.spec, _state(c) if exit_code is None else _ended(exit_code), c.ready, c.restarts)
            for c in containers
        ]
        conditions = self._conditions(initialized=True, ready=ready)
        init = {"initContainerStatuses": finished} if finished else {}
        self._write({"phase": phase, "conditions": conditions, "containerStatuses": statuses, **init})

    def event(self, reason: str, message: str) -> None:
        """Record a warning about the pod."""
        meta, now = self._pod["metadata"], timestamp()
        about = {"apiVersion": "v1", "kind": "Pod", **{k: meta[k] for k in ("name", "namespace", "uid")}}
        self._kube.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
                "type": "Warning",
                "reason": reason,
                "message": message,
                "count": 1,
                "involvedObject": about,
                "source": {"component": "kubelet"},
                "firstTimestamp": now,
                "lastTimestamp": now,
            }
        )

    def _conditions(self, initialized: bool, ready: bool) -> list[dict[str, Any]]:
        states = {"PodScheduled": True, "Initialized": initialized, "ContainersReady": ready, "Ready": ready}
        before = {c["type"]: c for c in self._last.get("conditions", [])}
        result = []
        for kind, true in states.items():
            status = "True" if true else "False"
            old = before.get(kind)
            since = old["lastTransitionTime"] if old and old["status"] == status else timestamp()
            reason = {} if true else {"reason": "ContainersNotReady", "message": "containers are not ready"}
            result.append({"type": kind, "status": status, "lastTransitionTime": since, **reason})
        return result

    def _write(self, status: dict[str, Any]) -> None:
        status |= {"podIP": self._address, "podIPs": [{"ip": self._address}], "hostIP": "127.0.0.1"}
        status["startTime"] = self._last.get("startTime") or timestamp()
        if status == self._last:
            return
        meta = self._pod["metadata"]
        self._kube.patch(
            "v1", "Pod", meta["name"], meta["namespace"], {"status": status}, subresource="status"
        )
        self._last = status


def _status(
    container: Manifest, state: dict[str, Any], ready: bool = False, restarts: int = 0
) -> dict[str, Any]:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": ready,
        "started": "running" in state,
        "restartCount": restarts,
        "state": state,
    }


def _state(container: ContainerState) -> dict[str, Any]:
    if container.waiting:
        return {"waiting": container.waiting}
    return {"running": {}} if container.started else {"waiting": {"reason": "ContainerCreating"}}


def _ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
