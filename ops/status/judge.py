"""Whether one object is as it should be, by its own status. Pure.

`problems(live)` answers with sentences, none when all is well. A kind that has
no entry in the table only has to exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ops.kube import Manifest

_MESSAGE = 300
"""Characters of a message that are shown; webhooks and schedulers can say far more."""


def problems(live: Manifest | None) -> list[str]:
    """What is wrong with an object of any kind; None is one that should exist and does not."""
    if live is None:
        return ["does not exist"]
    if "deletionTimestamp" in live["metadata"]:
        holders = ", ".join(live["metadata"].get("finalizers") or ()) or "its grace period"
        return [f"is being deleted; what holds it: {holders}"]
    return KINDS.get(live["kind"], lambda _: [])(live)


def shortened(message: Any) -> str:
    """One line of a message, not endlessly long."""
    line = " ".join(str(message or "").split())
    return line if len(line) <= _MESSAGE else line[: _MESSAGE - 1] + "…"


def unmet(conditions: Iterable[Mapping[str, Any]] | None, wanted: Iterable[str]) -> list[str]:
    """The `wanted` conditions that are not True, each with its reason."""
    by_type = {c["type"]: c for c in conditions or ()}
    return [
        _condition(by_type.get(kind), kind)
        for kind in wanted
        if by_type.get(kind, {}).get("status") != "True"
    ]


def _condition(condition: Mapping[str, Any] | None, kind: str) -> str:
    if condition is None:
        return f"{kind} is not set yet: its controller has not looked at it"
    reason = ": ".join(
        part for part in (condition.get("reason"), shortened(condition.get("message"))) if part
    )
    return f"{kind} is {condition['status']}" + (f" ({reason})" if reason else "")


def _wants(*kinds: str) -> Callable[[Manifest], list[str]]:
    return lambda live: unmet(live.get("status", {}).get("conditions"), kinds)


def _phase(wanted: str) -> Callable[[Manifest], list[str]]:
    def judge(live: Manifest) -> list[str]:
        phase = live.get("status", {}).get("phase", "unknown")
        return [] if phase == wanted else [f"its phase is {phase}, not {wanted}"]

    return judge


_SUMS = {"WorkloadsReady", "RouterReady"}
"""Conditions of a model that only sum others up."""


def _model(live: Manifest) -> list[str]:
    """A model's own verdict, and where that is not Ready, each part of it that is not.

    The parts (KServe 0.20: `MainWorkloadReady`, `HTTPRoutesReady`, `InferencePoolReady`, …) name the reason
    better than the whole does.
    """
    conditions = live.get("status", {}).get("conditions") or []
    verdict = unmet(conditions, ["Ready"])
    failed = [c for c in conditions if c["type"] != "Ready" and c["status"] == "False"]
    parts = [_condition(c, c["type"]) for c in failed if c["type"] not in _SUMS or len(failed) == 1]
    return (parts or verdict) if verdict else []


def _accepted(*kinds: str) -> Callable[[Manifest], list[str]]:
    """For objects that attach to gateways: one must have looked at it, and all that have must agree."""

    def judge(live: Manifest) -> list[str]:
        parents = live.get("status", {}).get("parents") or []
        if not parents:
            return ["no gateway has looked at it yet"]
        return [
            f"{parent.get('parentRef', {}).get('name', 'gateway')}: {problem}"
            for parent in parents
            for problem in unmet(parent.get("conditions"), kinds)
        ]

    return judge


def _rollout(live: Manifest) -> list[str]:
    """A Deployment or StatefulSet: all replicas of the latest generation, and none of the one before."""
    status, wanted = live.get("status", {}), live["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return ["its controller has not seen the latest change yet"]
    updated, available = status.get("updatedReplicas", 0), _available(live)
    if live["kind"] == "StatefulSet" and status.get("updateRevision") == status.get("currentRevision"):
        updated = status.get("replicas", 0)
    failed = [c for c in status.get("conditions") or () if _has_failed(c)]
    found = [_condition(c, c["type"]) for c in failed]
    if updated < wanted or available < wanted:
        found.append(f"{available} of {wanted} replicas available, {updated} of the latest generation")
    elif status.get("replicas", 0) > updated:
        found.append(f"{status['replicas'] - updated} replicas of the generation before are still there")
    return found


def _available(live: Manifest) -> int:
    key = "readyReplicas" if live["kind"] == "StatefulSet" else "availableReplicas"
    return live.get("status", {}).get(key, 0)


def _has_failed(condition: Mapping[str, Any]) -> bool:
    """Whether a Deployment's condition says why it does not get on (a quota, a webhook, its deadline)."""
    return (condition["type"], condition["status"]) in (("ReplicaFailure", "True"), ("Progressing", "False"))


def _daemons(live: Manifest) -> list[str]:
    status = live.get("status", {})
    wanted = status.get("desiredNumberScheduled", 0)
    if status.get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return ["its controller has not seen the latest change yet"]
    ready = min(status.get("numberAvailable", 0), status.get("updatedNumberScheduled", 0))
    return [] if ready >= wanted else [f"{ready} of {wanted} pods available and of the latest generation"]


KINDS: Mapping[str, Callable[[Manifest], list[str]]] = {
    "Namespace": _phase("Active"),
    "PersistentVolumeClaim": _phase("Bound"),
    "CustomResourceDefinition": _wants("Established"),
    "Deployment": _rollout,
    "StatefulSet": _rollout,
    "DaemonSet": _daemons,
    "Job": _wants("Complete"),
    "Gateway": _wants("Accepted", "Programmed"),
    "HTTPRoute": _accepted("Accepted", "ResolvedRefs"),
    "InferencePool": _accepted("Accepted"),
    "LLMInferenceService": _model,
    "InferenceService": _wants("Ready"),
    "LeaderWorkerSet": _wants("Available"),
    "Certificate": _wants("Ready"),
    "Issuer": _wants("Ready"),
    "ClusterIssuer": _wants("Ready"),
}
