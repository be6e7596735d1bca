"""How far a pod has come on its way to ready, what that took elsewhere, and what keeps it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from components.core import phases
from components.core.services import ENGINES, LLM
from ops.kube import Manifest
from ops.status.judge import shortened

STAGES = (
    "waiting for a node", "downloading the weights", "fetching the image", "loading the weights", "compiling", "ready",
)  # fmt: skip
"""What every replica of a model goes through, in this order."""
_NODE, _DOWNLOAD, _IMAGE, _LOAD, _COMPILE, _READY = STAGES
WEIGHTS = "storage-initializer"
"""KServe's init container that downloads them."""
_FETCHING = {"ContainerCreating", "PodInitializing", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"}
# Of what others measured, the phase that a stage belongs to; loading and compiling were measured as one.
_PHASES = {
    _NODE: phases.NODE,
    _DOWNLOAD: phases.DOWNLOAD,
    _IMAGE: phases.IMAGE,
    _LOAD: phases.LOAD,
    _COMPILE: phases.LOAD,
}
VENDORS = {"google.com/tpu": "google", "nvidia.com/gpu": "nvidia"}
"""Who makes the accelerators that pods ask for, by resource."""
# What vLLM's log says when the weights are there (0.22, default_loader.py), and what comes after it.
_LOADED = "Loading weights took"


def is_ready(pod: Manifest) -> bool:
    """Whether the pod serves, or has done its work."""
    status = pod.get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    return ready or status.get("phase") == "Succeeded"


def engine(pod: Manifest) -> str:
    """KServe's container of the engine, which has its name by the kind of service."""
    names = (c["name"] for c in pod["spec"].get("containers") or ())
    return next((name for name in names if name in ENGINES), LLM.engine)


def accelerator(pod: Manifest) -> str:
    """The resource by which the pod asks for accelerators; "" where it serves no model."""
    limits = ((c.get("resources") or {}).get("limits") or {} for c in pod["spec"].get("containers") or ())
    return next((name for given in limits for name in given if name in VENDORS), "")


def stage(pod: Manifest, log: Sequence[str] = ()) -> str:
    """Where a model's pod is, as one of `STAGES`. `log` are the engine's lines, which tell loading from compiling."""
    if is_ready(pod):
        return _READY
    if not pod["spec"].get("nodeName"):
        return _NODE
    states = {name: state for name, state, _ in _containers(pod)}
    if WEIGHTS in states and "terminated" not in states[WEIGHTS]:
        waiting = (states[WEIGHTS].get("waiting") or {}).get("reason")
        return _IMAGE if waiting in _FETCHING else _DOWNLOAD
    waiting = [state["waiting"].get("reason") for state in states.values() if "waiting" in state]
    if not states or any(reason in _FETCHING for reason in waiting):
        return _IMAGE
    return _COMPILE if any(_LOADED in line for line in log) else _LOAD


def progress(pod: Manifest, now: datetime, log: Sequence[str] = ()) -> str:
    """The stage, the seconds spent on it, what it took elsewhere (`phases.NOTE`) and what bounds it."""
    name = stage(pod, log)
    span = phases.POD.get(VENDORS.get(accelerator(pod), ""), {}).get(_PHASES.get(name, ""))
    begun, bound = (
        _begun(pod, name),
        _budget(_specification(pod, engine(pod))) if name in (_LOAD, _COMPILE) else "",
    )
    parts = [
        f"{_seconds(begun, now)} s" if begun else "",
        f"{span} by estimate" if span else "",
        f"at most {bound} s" if bound else "",
    ]
    told = ", ".join(part for part in parts if part)
    return f"{name} ({told})" if told else name


def _begun(pod: Manifest, name: str) -> str | None:
    """When the stage began; for compiling that is when the engine did, with which the estimate begins."""
    states = {container: state for container, state, _ in _containers(pod)}
    download, begun = states.get(WEIGHTS) or {}, (states.get(engine(pod)) or {}).get("running") or {}
    scheduled = _condition(pod, "PodScheduled").get("lastTransitionTime")
    return {
        _NODE: pod["metadata"].get("creationTimestamp"),
        _DOWNLOAD: (download.get("running") or {}).get("startedAt"),
        _IMAGE: (download.get("terminated") or {}).get("finishedAt") or scheduled,
        _LOAD: begun.get("startedAt"),
        _COMPILE: begun.get("startedAt"),
    }.get(name)


def problems(pod: Manifest, now: datetime) -> list[str]:
    """Why the pod is not ready, in the words of whoever knows: the scheduler, the kubelet, the container."""
    name = pod["metadata"]["name"]
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return [f"pod {name} cannot be scheduled: {shortened(scheduled.get('message'))}"]
    found = [
        text
        for container, state, entry in _containers(pod)
        for text in _container(container, state, entry, _specification(pod, container), now)
    ]
    return [f"pod {name}: {text}" for text in found] or [f"pod {name} is not ready: {_phase(pod)}"]


def faults(pod: Manifest) -> Iterator[tuple[str, str, str]]:
    """(container, reason, message) of what goes wrong in a pod, as opposed to what only takes time."""
    for name, state, entry in _containers(pod):
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        last = (entry.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason", "PodInitializing") not in ("PodInitializing", "ContainerCreating"):
            words = (last_words(last) or _end(last)) if last else waiting.get("message")
            yield name, str(waiting["reason"]), shortened(words)
        elif ended.get("exitCode"):
            yield name, str(ended.get("reason", "Error")), shortened(last_words(ended) or _end(ended))


def restarts(pod: Manifest) -> int:
    """How often the container was started again that was so most often."""
    return max((entry.get("restartCount", 0) for _, _, entry in _containers(pod)), default=0)


def silent(pod: Manifest) -> Iterator[str]:
    """The containers that failed and whose last words the kubelet has not kept; their log may have them."""
    failed = {name for name, _, _ in faults(pod)}
    for name, state, entry in _containers(pod):
        ended = (entry.get("lastState") or {}).get("terminated") or state.get("terminated")
        if name in failed and ended and not last_words(ended):
            yield name


def ready_since(pod: Manifest) -> str:
    """When the pod became ready, as the API writes it."""
    return str(_condition(pod, "Ready").get("lastTransitionTime") or "")


def history(pod: Manifest) -> str:
    """The seconds that a ready pod spent on each phase, by its own status."""
    states = {name: state for name, state, _ in _containers(pod)}
    download = (states.get(WEIGHTS) or {}).get("terminated") or {}
    scheduled = _condition(pod, "PodScheduled").get("lastTransitionTime")
    started = ((states.get(engine(pod)) or {}).get("running") or {}).get("startedAt")
    spans = (
        (phases.NODE, pod["metadata"].get("creationTimestamp"), scheduled),
        (phases.DOWNLOAD, download.get("startedAt"), download.get("finishedAt")),
        (phases.IMAGE, download.get("finishedAt") or scheduled, started),
        (phases.LOAD, started, ready_since(pod)),
    )
    told = [f"{name} {_between(begin, end)} s" for name, begin, end in spans if begin and end]
    total = _between(pod["metadata"].get("creationTimestamp"), ready_since(pod))
    return f"{total} s: {', '.join(told)}" if told else "nobody knows how long"


def age(time: str | None, now: datetime) -> int:
    """Seconds since a time of the API; 0 where it has none."""
    return _seconds(time, now) if time else 0


def _between(begin: str | None, end: str | None) -> int:
    return _seconds(begin, datetime.fromisoformat(end)) if begin and end else 0


def last_words(terminated: Mapping[str, Any]) -> str:
    """The last line of what a container said before it ended, where the kubelet kept it."""
    lines = str(terminated.get("message") or "").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _phase(pod: Manifest) -> str:
    status = pod.get("status", {})
    return ": ".join(part for part in (status.get("reason"), status.get("phase", "no status yet")) if part)


def _condition(pod: Manifest, kind: str) -> Mapping[str, Any]:
    return next((c for c in pod.get("status", {}).get("conditions") or () if c["type"] == kind), {})


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
        bound = f" of the {_budget(spec)} s that it may take" if _budget(spec) else ""
        begun = state["running"].get("startedAt")
        yield (
            f"{name} has been starting for {_seconds(begun, now)} s{bound}{ended}"
            if begun
            else f"{name} starts"
        )
    elif "running" in state and not entry.get("ready"):
        yield f"{name} runs, but its readiness probe fails{ended}"


def _reason(waiting: Mapping[str, Any]) -> str:
    return ": ".join(part for part in (waiting.get("reason"), shortened(waiting.get("message"))) if part)


def _end(terminated: Mapping[str, Any]) -> str:
    reason, said = terminated.get("reason", "Error"), last_words(terminated)
    return f"{reason} (exit code {terminated.get('exitCode')})" + (
        f", saying: {shortened(said)}" if said else ""
    )


def _seconds(begun: str, now: datetime) -> int:
    return max(0, round((now - datetime.fromisoformat(begun)).total_seconds()))


def _budget(spec: Mapping[str, Any]) -> int:
    """The seconds that its startup probe allows, 0 without one; Kubernetes' defaults are 3 failures, 10 s apart."""
    probe = spec.get("startupProbe")
    if not probe:
        return 0
    failures, period = probe.get("failureThreshold", 3), probe.get("periodSeconds", 10)
    return int(probe.get("initialDelaySeconds", 0) + failures * period)
