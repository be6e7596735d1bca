"""From what a cluster looks like to the lines that a person needs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from components.core import labels
from components.core.services import SERVICE_KINDS
from ops.kube import Manifest
from ops.status import judge, pods
from ops.watch import advice
from ops.watch.place import Place
from stacks.eks import NAME

REPEAT_SECONDS = 300.0
# A pod of a pool that can grow waits for its autoscaler to speak first.
UNSCHEDULABLE_SECONDS = 30.0
# Restarts that somebody may have to look at.
TOLERATED = 3
_FAILED, _REFUSED, _TRIGGERED = "FailedScaleUp", "NotTriggerScaleUp", "TriggeredScaleUp"
# What the autoscaler says of a group of machines and not of the pods: that they did not come, or not in time.
_OF_GROUPS = frozenset({"ScaleUpFailed", "FailedToScaleUpGroup", "ScaleUpTimedOut"})
_SCALING = _OF_GROUPS | {_FAILED, _REFUSED, _TRIGGERED}


@dataclass(frozen=True)
class Snapshot:
    """What was seen at one moment. `logs` are the engines' last lines and `words` a failed container's, by pod."""

    pods: tuple[Manifest, ...] = ()
    events: tuple[Manifest, ...] = ()
    nodes: tuple[Manifest, ...] = ()
    models: tuple[Manifest, ...] = ()
    logs: Mapping[str, list[str]] = field(default_factory=dict)
    words: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class News:
    """One thing to tell: again when `version` is another, and after a while if it `repeats`."""

    key: tuple[str, ...]
    version: str
    text: str
    repeats: bool = True


class Teller:
    """Remembers what was told, so that everything is told once."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, ...], tuple[str, datetime]] = {}

    def new(self, found: Iterable[News], now: datetime) -> Iterator[str]:
        """The lines of those that have not been told, or not for long."""
        for item in found:
            version, when = self._told.get(item.key, (None, now))
            stale = item.repeats and (now - when).total_seconds() >= REPEAT_SECONDS
            if version != item.version or stale:
                self._told[item.key] = item.version, now
                yield item.text


def news(seen: Snapshot, place: Place, now: datetime) -> list[News]:
    """Everything worth telling: what goes wrong first, then how far the models are."""
    living = [pod for pod in seen.pods if "deletionTimestamp" not in pod["metadata"]]
    told = _scaling(seen.events, living, place)
    return [
        *told,
        *_over_quota(seen.events, now),
        *_unschedulable(living, {item.key[1] for item in told}, now),
        *_faults(living, seen.words),
        *_nodes(seen.nodes),
        *_stages(living, seen.logs, now),
    ]


def ready(seen: Snapshot, place: Place) -> bool:
    """Whether every model that shall run is Ready, in its latest generation."""
    done = {(m["metadata"]["namespace"], m["metadata"]["name"]) for m in seen.models if _is_ready(m)}
    return place.models <= done


def _is_ready(model: Manifest) -> bool:
    status = model.get("status") or {}
    counts = SERVICE_KINDS[model["kind"]].counts
    latest = not counts or status.get("observedGeneration", 0) >= model["metadata"].get("generation", 0)
    return latest and not judge.unmet(status.get("conditions"), ["Ready"])


def group(pod: Manifest) -> str:
    """What a pod is one replica of: a model, or a workload by its name."""
    meta = pod["metadata"]
    carried = meta.get("labels") or {}
    if pods.accelerator(pod) and labels.APP_NAME in carried:
        return str(carried[labels.APP_NAME])
    owner = next(iter(meta.get("ownerReferences") or ()), {}).get("name", meta["name"])
    return str(owner).removesuffix(f"-{carried.get('pod-template-hash', '')}")


# -- nodes that do not come ------------------------------------------------------------------------


def _scaling(events: Iterable[Manifest], living: list[Manifest], place: Place) -> list[News]:
    """The autoscaler's latest word on each group of pods that has no node yet."""
    waiting = {pod["metadata"]["uid"]: pod for pod in living if not pod["spec"].get("nodeName")}
    latest: dict[str, Manifest] = {}
    for event in sorted((e for e in events if e["reason"] in _SCALING), key=_when):
        about = waiting.get(event.get("involvedObject", {}).get("uid"))
        for pod in [about] if about else _awaiting(event, waiting.values()):
            if not _says_less(event, latest.get(group(pod))):
                latest[group(pod)] = event
    return [_scaled(name, event, place) for name, event in sorted(latest.items())]


def _says_less(event: Manifest, before: Manifest | None) -> bool:
    """Whether an event says less than one before it: that a pool rests, or is tried again, less than why it failed."""
    if before is None or before["reason"] not in {_FAILED, *_OF_GROUPS}:
        return False
    again = event["reason"] == _TRIGGERED and before["reason"] in _OF_GROUPS
    return again or advice.cause(event["message"]).name == advice.BACKOFF


def _awaiting(event: Manifest, waiting: Iterable[Manifest]) -> list[Manifest]:
    """The pods that wait for the group of machines that an event names, and did so when it was written.

    Amazon names a node group's machines after it, and ours are named after the pool that pods select.
    """
    if event["reason"] not in _OF_GROUPS:
        return []
    return [
        pod
        for pod in waiting
        if (pool := (pod["spec"].get("nodeSelector") or {}).get(labels.POOL))
        and f"eks-{NAME}-{pool}-" in event["message"]
        and str(pod["metadata"].get("creationTimestamp") or "") <= _when(event)
    ]


def _scaled(name: str, event: Manifest, place: Place) -> News:
    said = judge.shortened(event["message"])
    if event["reason"] == _TRIGGERED:
        return News(("scale-up", name), said, f"{name}: nodes are on their way: {said}", repeats=False)
    found = advice.cause(event["message"])
    todo = advice.advice(found, place, name, event["message"])
    text = f"{name}: NO NODE ({found.name}): {event['reason']}: {said.rstrip('.')} -> {todo}"
    return News(("scale-up", name), f"{event['reason']} {found.name}", text)


def _when(event: Manifest) -> str:
    return str(
        event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )


def _unschedulable(living: list[Manifest], explained: set[str], now: datetime) -> Iterator[News]:
    """Pods that the scheduler refuses and no autoscaler speaks about."""
    for name, members in _grouped(pod for pod in living if not pod["spec"].get("nodeName")):
        reasons = [c for pod in members for c in _refusals(pod, now)]
        if reasons and name not in explained:
            said = judge.shortened(reasons[0].get("message"))
            text = f"{name}: NO NODE for {len(reasons)} of its pods: {said}"
            yield News(("scale-up", name), said, text)


def _refusals(pod: Manifest, now: datetime) -> Iterator[Mapping[str, str]]:
    for condition in pod.get("status", {}).get("conditions") or ():
        refused = (condition["type"], condition["status"]) == ("PodScheduled", "False")
        if refused and pods.age(condition.get("lastTransitionTime"), now) >= UNSCHEDULABLE_SECONDS:
            yield condition


def _nodes(nodes: Iterable[Manifest]) -> Iterator[News]:
    """Nodes with accelerators that come, and that stop answering."""
    for node in nodes:
        room = (node.get("status") or {}).get("capacity") or {}
        chips = next((f"{room[name]} {name}" for name in pods.VENDORS if room.get(name, "0") != "0"), "")
        bad = judge.unmet((node.get("status") or {}).get("conditions"), ["Ready"])
        if chips:
            name = node["metadata"]["name"]
            text = f"node {name} ({chips}): {bad[0]}" if bad else f"node {name} ({chips}) is there"
            yield News(("node", name), "bad" if bad else "good", text, repeats=bool(bad))


def _over_quota(events: Iterable[Manifest], now: datetime) -> Iterator[News]:
    """Pods that are not even made, as their namespace's quota is used up; by what would make them, not long ago."""
    latest: dict[str, str] = {}
    for event in sorted((e for e in events if e["reason"] == "FailedCreate"), key=_when):
        # What stands before it is the name of one pod, which is another each time.
        _, found, said = str(event.get("message") or "").partition("exceeded quota")
        if found and pods.age(_when(event), now) < REPEAT_SECONDS:
            maker = str((event.get("involvedObject") or {}).get("name", ""))
            latest[maker.rpartition("-")[0] or maker] = judge.shortened(found + said)
    for name, said in latest.items():
        text = f"{name}: NO POD: {said} -> raise `namespaces` of the stack file, or ask for less"
        yield News(("quota", name), said, text)


# -- pods that have one ----------------------------------------------------------------------------


def _faults(living: list[Manifest], words: Mapping[tuple[str, str], str]) -> Iterator[News]:
    """Containers that cannot start or end again and again, once for all replicas."""
    told = set()
    for pod in (pod for pod in living if _worth_telling(pod)):
        for container, reason, message in pods.faults(pod):
            key = "fault", group(pod), container, _kind(reason)
            if key not in told:
                told.add(key)
                said = words.get((pod["metadata"]["name"], container)) or message
                yield News(key, said, f"{key[1]}: {container} {_kind(reason)}: {judge.shortened(said)}")


def _worth_telling(pod: Manifest) -> bool:
    """Every failure of a model's pod costs minutes; others may end once or twice until what they need is there."""
    return bool(pods.accelerator(pod)) or pods.restarts(pod) == 0 or pods.restarts(pod) >= TOLERATED


def _kind(reason: str) -> str:
    """One word for a reason and for the pause that follows it."""
    return {"ErrImagePull": "ImagePullBackOff", "Error": "CrashLoopBackOff"}.get(reason, reason)


def _stages(living: list[Manifest], logs: Mapping[str, list[str]], now: datetime) -> Iterator[News]:
    """How many replicas of each model are at which stage; a model that is all ready with the time it took."""
    for name, members in _grouped(pod for pod in living if pods.accelerator(pod)):
        at = [(_stage(pod, logs), pod) for pod in members]
        counts = Counter(stage for stage, _ in at)
        order = sorted(counts, key=lambda stage: (*pods.STAGES, _FAILING).index(stage), reverse=True)
        parts = [f"{counts[stage]} {_how(stage, at, logs, now)}" for stage in order]
        done = counts[pods.STAGES[-1]] == len(members)
        spent = f"; the slowest took {pods.history(_slowest(members))}" if done else ""
        yield News(
            ("stage", name),
            str(sorted(counts.items())),
            f"{name}: {', '.join(parts)}{spent}",
            repeats=not done,
        )


_FAILING = "failing"


def _stage(pod: Manifest, logs: Mapping[str, list[str]]) -> str:
    return _FAILING if any(pods.faults(pod)) else pods.stage(pod, logs.get(pod["metadata"]["name"], ()))


def _how(stage: str, at: list[tuple[str, Manifest]], logs: Mapping[str, list[str]], now: datetime) -> str:
    """The stage with its times, those of the replica that was first to reach it."""
    pod = next(pod for found, pod in at if found == stage)
    return stage if stage == _FAILING else pods.progress(pod, now, logs.get(pod["metadata"]["name"], ()))


def _slowest(members: list[Manifest]) -> Manifest:
    return max(members, key=pods.ready_since)


def _grouped(found: Iterable[Manifest]) -> list[tuple[str, list[Manifest]]]:
    """Pods by what they are replicas of, the oldest first."""
    groups: dict[str, list[Manifest]] = {}
    for pod in sorted(found, key=lambda p: str(p["metadata"].get("creationTimestamp"))):
        groups.setdefault(group(pod), []).append(pod)
    return sorted(groups.items())
