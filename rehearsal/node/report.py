"""What a node tells the API server about a pod: its status, and events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ops.kube import Kube, Manifest
from rehearsal.node.container import Running
from rehearsal.node.nodes import timestamp


class Report:
    """The reported status of one pod; writes only what changed."""

    def __init__(self, kube: Kube, pod: Manifest, address: str):
        self._kube, self._pod, self._address = kube, pod, address
        self._last: dict[str, Any] = {}

    def pod(self, phase: str, init: Sequence[Running], containers: Sequence[Running]) -> None:
        """Every container as it is now, those that prepare the pod and the others."""
        unprepared = [c.name for c in init if not c.ready]
        unready = [c.name for c in containers if not c.ready]
        before = "PodInitializing" if init else "ContainerCreating"
        status = {
            "phase": phase,
            "conditions": self._conditions(unprepared, unready, phase == "Succeeded"),
            "containerStatuses": [_status(c, before) for c in containers],
        }
        if init:
            status["initContainerStatuses"] = [_status(c, before) for c in init]
        self._write(status)

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

    def _conditions(self, unprepared: list[str], unready: list[str], done: bool) -> list[dict[str, Any]]:
        """A kubelet's; a pod that has done its work is no longer ready."""
        incomplete = (
            "ContainersNotInitialized",
            f"containers with incomplete status: [{' '.join(unprepared)}]",
        )
        waiting = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
        unready_why = ("PodCompleted", "") if done else waiting if unready or unprepared else None
        whys = {
            "PodScheduled": None,
            "Initialized": incomplete if unprepared else None,
            "ContainersReady": unready_why,
            "Ready": unready_why,
        }
        before = {c["type"]: c for c in self._last.get("conditions", [])}
        return [_condition(kind, why, before.get(kind)) for kind, why in whys.items()]

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


def _condition(kind: str, why: tuple[str, str] | None, before: dict[str, Any] | None) -> dict[str, Any]:
    """A condition that is true unless there is a (reason, message) why it is not."""
    status = "False" if why else "True"
    since = before["lastTransitionTime"] if before and before["status"] == status else timestamp()
    # A merge patch replaces the list as a whole, so what is left out is gone.
    told = {"reason": why[0], "message": why[1]} if why else {}
    return {"type": kind, "status": status, "lastTransitionTime": since, **told}


def _status(container: Running, before: str) -> dict[str, Any]:
    return {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "ready": container.ready,
        "started": bool(container.started) and container.passed,
        "restartCount": container.restarts,
        "state": container.state(before),
        "lastState": {"terminated": container.last} if container.last else {},
    }
