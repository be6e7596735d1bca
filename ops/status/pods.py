"""How far a pod has come on its way to ready, and what keeps it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from ops.kube import Manifest
from ops.status.judge import shortened

STAGES = ("waiting for a node", "fetching the image", "downloading the weights", "loading the model", "ready")
"""What every replica of a model goes through, in this order."""
_WEIGHTS = "storage-initializer"  # KServe's init container that downloads them.
_FETCHING = {"ContainerCreating", "PodInitializing", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"}


def is_ready(pod: Manifest) -> bool:
    """Whether the pod serves, or has done its work."""
    status = pod.get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    return ready or status.get("phase") == "Succeeded"


def stage(pod: Manifest) -> str:
    """Where a model's pod is, as one of `STAGES`."""
    if is_ready(pod):
        return STAGES[-1]
    containers = {name: state for name, state, _ in _containers(pod)}
    if not pod["spec"].get("nodeName"):
        return STAGES[0]
    if "running" in containers.get(_WEIGHTS, {}):
        return STAGES[2]
    waiting = [state["waiting"].get("reason") for state in containers.values() if "waiting" in state]
    return STAGES[1] if not containers or any(reason in _FETCHING for reason in waiting) else STAGES[3]


def problems(pod: Manifest, now: datetime) -> list[str]:
    """Why the pod is not ready, in the words of whoever knows: the scheduler, the kubelet, the container."""
    name = pod["metadata"]["name"]
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return [f"pod {name} cannot be scheduled: {shortened(condition.get('message'))}"]
    found = [
        text
        for container, state, entry in _containers(pod)
        for text in _container(container, state, entry, _specification(pod, container), now)
    ]
    return [f"pod {name}: {text}" for text in found] or [f"pod {name} is not ready: {_phase(pod)}"]


def _phase(pod: Manifest) -> str:
    status = pod.get("status", {})
    return ": ".join(part for part in (status.get("reason"), status.get("phase", "no status yet")) if part)


def _containers(pod: Manifest) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Name, current state and whole status of each container, those that prepare the pod first."""
    status = pod.get("status", {})
    for key in ("initContainerStatuses", "containerStatuses"):
        for entry in status.get(key) or ():
            yield entry["name"], entry.get("state") or {}, entry


def _specification(pod: Manifest, name: str) -> Mapping[str, Any]:
    spec = pod["spec"]
    every = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return next((c for c in every if c["name"] == name), {})


def _container(
    name: str, state: Mapping[str, Any], entry: Mapping[str, Any], spec: Mapping[str, Any], now: datetime
) -> Iterator[str]:
    last = (entry.get("lastState") or {}).get("terminated")
    ended = f"; it last ended with {_end(last)}" if last else ""
    if "waiting" in state and state["waiting"].get("reason") != "PodInitializing":
        yield f"{name} waits: {_reason(state['waiting'])}{ended}"
    elif "terminated" in state and state["terminated"].get("exitCode"):
        yield f"{name} ended with {_end(state['terminated'])}"
    elif "running" in state and not entry.get("ready") and entry.get("started") is not True:
        yield f"{name} has been starting for {_since(state['running'], now)} s{_budget(spec)}{ended}"
    elif "running" in state and not entry.get("ready"):
        yield f"{name} runs, but its readiness probe fails{ended}"


def _reason(waiting: Mapping[str, Any]) -> str:
    return ": ".join(part for part in (waiting.get("reason"), shortened(waiting.get("message"))) if part)


def _end(terminated: Mapping[str, Any]) -> str:
    reason = terminated.get("reason", "Error")
    return f"{reason} (exit code {terminated.get('exitCode')})"


def _since(running: Mapping[str, Any], now: datetime) -> int:
    return max(0, round((now - datetime.fromisoformat(running["startedAt"])).total_seconds()))


def _budget(spec: Mapping[str, Any]) -> str:
    """The time its startup probe allows; Kubernetes' defaults are 3 failures, 10 s apart."""
    probe = spec.get("startupProbe")
    if not probe:
        return ""
    seconds = probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10) + probe.get(
        "initialDelaySeconds", 0
    )
    return f" of the {seconds} s that it may take"
