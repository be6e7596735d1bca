"""Stands in for the cluster autoscaler, GKE's or that of an EKS cluster: a node for a pod that fits, none for nobody.

It judges as the real one does from a pool's template: selectors, required node affinity, taints, and room.
Left out: affinity between pods, limits of volumes per node, priorities, and moving pods together (a node is idle when
only DaemonSets are on it). Multi-host slices come and go whole. What keeps a pool from growing (its maximum, quota,
stock) is told in events on the pod, and that a node goes in one on the node, in the words of the real one.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ops.kube import Kube, Manifest
from rehearsal.cloud import pools
from rehearsal.cloud.groups import Group, Short, ensure_nodes
from rehearsal.cloud.project import Project, State
from rehearsal.cloud.settings import BadSettings, Settings
from rehearsal.node.nodes import NodeShape, timestamp
from rehearsal.stand_ins.mirror import Mirror
from stacks.config.types import quantity_value

COMPONENT = "cluster-autoscaler"
# The ConfigMap in its own namespace where it says how it is, and on which it puts events about groups.
STATUS = "cluster-autoscaler-status"
WATCHED = (("v1", "Pod"), ("v1", "Node"), ("v1", "PersistentVolumeClaim"), ("v1", "PersistentVolume"))
Amounts = dict[str, float]


# -- what fits -------------------------------------------------------------------------------------


def requests(pod: Manifest) -> Amounts:
    """What a pod asks for: its containers together, or an init container if that is more; and one pod."""
    spec = pod["spec"]
    total: Amounts = {"pods": 1.0}
    for container in spec.get("containers") or ():
        for name, amount in _asked(container).items():
            total[name] = total.get(name, 0.0) + amount
    for container in spec.get("initContainers") or ():
        for name, amount in _asked(container).items():
            total[name] = max(total.get(name, 0.0), amount)
    return total


def _asked(container: Manifest) -> Amounts:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    # A limit alone is a request as well; the API server has filled it in for real pods.
    return {name: float(quantity_value(str(amount))) for name, amount in asked.items()}


def room(shape: NodeShape) -> Amounts:
    """What pods get of an empty node."""
    return {name: float(quantity_value(a)) for name, a in (shape.allocatable or shape.capacity).items()}


def tolerates(pod: Manifest, taint: Mapping[str, str]) -> bool:
    """Whether a taint keeps no pod like this off a node."""
    if taint["effect"] == "PreferNoSchedule":
        return True
    return any(
        t.get("effect") in (None, "", taint["effect"])
        and t.get("key") in (None, "", taint["key"])
        and (t.get("operator") == "Exists" or t.get("value", "") == taint.get("value", ""))
        for t in pod["spec"].get("tolerations") or ()
    )


_OPERATORS = {
    "In": lambda value, wanted: value in wanted,
    "NotIn": lambda value, wanted: value not in wanted,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
    "Gt": lambda value, wanted: value is not None and int(value) > int(wanted[0]),
    "Lt": lambda value, wanted: value is not None and int(value) < int(wanted[0]),
}


def selects(pod: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether a pod's selector and required node affinity accept a node with these labels."""
    spec = pod["spec"]
    if not (spec.get("nodeSelector") or {}).items() <= labels.items():
        return False
    node = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return matches(node or {}, labels)


def matches(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether one of a node selector's terms accepts these labels; one without terms accepts all."""
    terms = selector.get("nodeSelectorTerms") or []
    return not terms or any(
        all(
            _OPERATORS[e["operator"]](labels.get(e["key"]), e.get("values") or ())
            for e in term.get("matchExpressions") or ()
        )
        for term in terms
    )


def misfit(pod: Manifest, shape: NodeShape) -> str:
    """Why a pod could not run on an empty node of this shape, in the real one's words; "" where it could."""
    for taint in shape.taints:
        if not tolerates(pod, taint):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not selects(pod, shape.labels):
        return "node(s) didn't match Pod's node affinity/selector"
    have = room(shape)
    short = sorted(name for name, amount in requests(pod).items() if amount > have.get(name, 0.0))
    return f"Insufficient {short[0]}" if short else ""


@dataclass
class _Bin:
    """A node, there or to come, and what is free on it."""

    shape: NodeShape
    free: Amounts

    def take(self, pod: Manifest) -> bool:
        """Put a pod on it if it fits."""
        asked = requests(pod)
        if misfit(pod, self.shape) or any(a > self.free.get(n, 0.0) for n, a in asked.items()):
            return False
        for name, amount in asked.items():
            self.free[name] -= amount
        return True


# -- what happens ----------------------------------------------------------------------------------

Source = Callable[[State], Iterable[Group]]
"""The node groups of one cloud, with limits where an autoscaler looks after them."""


@dataclass
class _Memory:
    """What it knows from before: idle nodes and failed pools since when, growth under way, events told."""

    idle: dict[str, float] = field(default_factory=dict)
    failed: dict[str, float] = field(default_factory=dict)
    coming: dict[str, tuple[float, int]] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)


class Autoscaler:
    """Sizes the autoscaled groups of the simulated project for the pods that are in the cluster.

    `sources` are the clouds: what node groups each has by the project's state.
    """

    def __init__(
        self,
        kube: Kube,
        project: Project,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        sources: Iterable[Source] = (pools.all_pools,),
    ):
        self._kube, self._project, self._settings, self._clock = kube, project, settings, clock
        self._sources = tuple(sources)
        self.objects = Mirror(kube, WATCHED)
        self._memory = _Memory()
        self._began = False

    def run(self, stop: threading.Event) -> None:
        """Act until told to stop."""
        self.objects.run(stop, self._act)

    def _act(self) -> None:
        try:
            if not self._began:
                self.restore()
                self._began = True
            self.reconcile(self.objects.of("Pod"), self.objects.of("Node"))
        except (BadSettings, ValueError) as error:
            # A settings file that is being written, or a quantity that we cannot read, must not end us.
            print(f"autoscaler: {error}", flush=True)

    def restore(self) -> None:
        """Nodes as the records say: whoever changed both may have been ended in between."""
        for group in self._groups():
            ensure_nodes(self._kube, group)

    def reconcile(self, pods: list[Manifest], nodes: list[Manifest]) -> None:
        """One round: grow where pods wait, then shrink where nobody is."""
        scaled = [group for group in self._groups() if group.limits]
        if not scaled:
            return
        self._arrive()
        waiting = self._beyond([p for p in pods if _waits(p)], pods, nodes)
        self._forget(waiting)
        self._grow(waiting, scaled)
        self._shrink(pods, nodes)

    def _groups(self, state: State | None = None) -> list[Group]:
        state = state or self._project.read()
        return [group for source in self._sources for group in source(state)]

    # -- growing -----------------------------------------------------------------------------------

    def _beyond(self, waiting: list[Manifest], pods: list[Manifest], nodes: list[Manifest]) -> list[Manifest]:
        """Pods for which there is no room yet, on nodes that are there or on their way."""
        groups = self._groups()
        bins = [_bin_of(node, pods, groups) for node in nodes]
        for pool in groups:
            there = {n["metadata"]["name"] for n in nodes}
            size = self._memory.coming.get(pool.identity, (0.0, pool.size))[1]
            missing = [i for i, name in enumerate(pool.node_names(size)) if name not in there]
            bins += [_Bin(pool.template(), room(pool.template())) for _ in missing]
        return [pod for pod in waiting if self._volume_misfit(pod, {}) or not any(b.take(pod) for b in bins)]

    def _grow(self, waiting: list[Manifest], scaled: list[Group]) -> None:
        left = list(waiting)
        for pool in scaled:
            mine = [pod for pod in left if not self._misfit(pod, pool.template())]
            if mine and self._trigger(pool, mine):
                left = [pod for pod in left if pod not in mine]
        for pod in left:
            self._tell(pod, "Normal", "NotTriggerScaleUp", self._why_not(pod, scaled))

    def _misfit(self, pod: Manifest, shape: NodeShape) -> str:
        """Why a pod could not run on an empty node of this shape, its volumes considered."""
        return misfit(pod, shape) or self._volume_misfit(pod, shape.labels)

    def _volume_misfit(self, pod: Manifest, labels: Mapping[str, str]) -> str:
        """What is wrong with a pod's claims on nodes with these labels; with none of them, what is wrong anywhere."""
        for volume in pod["spec"].get("volumes") or ():
            if (name := (volume.get("persistentVolumeClaim") or {}).get("claimName")) is None:
                continue
            claim = self.objects.get("PersistentVolumeClaim", name, pod["metadata"]["namespace"])
            if claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            disk = self.objects.get("PersistentVolume", claim["spec"].get("volumeName") or "")
            place = ((disk or {"spec": {}})["spec"].get("nodeAffinity") or {}).get("required") or {}
            if labels and not matches(place, labels):
                return "node(s) had volume node affinity conflict"
        return ""

    def _trigger(self, pool: Group, pods: list[Manifest]) -> bool:
        """Whether the pool grows for these pods, or is told to fail for them."""
        size = self._memory.coming.get(pool.identity, (0.0, pool.size))[1]
        failed = self._memory.failed.get(pool.identity)
        if failed is not None and self._clock() - failed < self._settings.pace.backoff:
            return False
        wanted = min(pool.most, size + _whole(_bins_for(pods, pool), pool.step))
        if wanted <= size:
            return False
        try:
            pool.require(self._project.read(), self._settings, wanted)
        except Short as short:
            self._memory.failed[pool.identity] = self._clock()
            self._tell_growth(pods, pool.failure(short), pool.growth(size, wanted))
            self._note(pool.noted(wanted - size))
            return True
        self._memory.failed.pop(pool.identity, None)
        self._tell_growth(pods, "", pool.growth(size, wanted))
        self._memory.coming[pool.identity] = (self._clock() + self._settings.pace.node, wanted)
        self._arrive()
        return True

    def _tell_growth(self, pods: list[Manifest], failure: str, growth: str) -> None:
        for pod in pods:
            if failure:
                self._tell(pod, "Warning", "FailedScaleUp", failure)
            else:
                self._tell(pod, "Normal", "TriggeredScaleUp", f"pod triggered scale-up: [{growth}]")

    def _note(self, noted: tuple[str, str] | None) -> None:
        """An event on the autoscaler's own status, where the pods' events do not say that no machine came."""
        if noted:
            meta = {"name": STATUS, "namespace": noted[0], "uid": STATUS}
            status = {"kind": "ConfigMap", "metadata": meta}
            self._kube.create(event(status, "Warning", "ScaleUpFailed", noted[1]))

    def _arrive(self) -> None:
        """Let the nodes appear whose time has come."""
        for identity, (due, size) in list(self._memory.coming.items()):
            if self._clock() >= due:
                del self._memory.coming[identity]
                self._resize(identity, size)

    def _why_not(self, pod: Manifest, scaled: list[Group]) -> str:
        """The reasons, counted as the real one counts them."""
        reasons: dict[str, int] = {}
        for pool in scaled:
            reason = self._misfit(pod, pool.template()) or (
                "in backoff after failed scale-up"
                if pool.identity in self._memory.failed
                else "max node group size reached"
            )
            reasons[reason] = reasons.get(reason, 0) + 1
        return "pod didn't trigger scale-up: " + ", ".join(f"{n} {why}" for why, n in sorted(reasons.items()))

    # -- shrinking ---------------------------------------------------------------------------------

    def _shrink(self, pods: list[Manifest], nodes: list[Manifest]) -> None:
        """Take idle nodes, the last ones first, down to what is used and to the minimum."""
        there = {n["metadata"]["name"] for n in nodes}
        busy = {p["spec"].get("nodeName") for p in pods if _occupies(p)}
        now, pace = self._clock(), self._settings.pace
        self._memory.idle = {n: self._memory.idle.get(n, now) for n in there - busy}
        for pool in [group for group in self._groups() if group.limits]:
            if pool.identity in self._memory.coming:
                continue
            names = pool.node_names()
            rested = [n in self._memory.idle and now - self._memory.idle[n] >= pace.idle for n in names]
            keep = len(names) - len(list(_while_true(reversed(rested))))
            size = max(_whole(keep, pool.step), pool.limits[0] if pool.limits else 0)
            if size < pool.size:
                for name in names[size:]:
                    gone = {"kind": "Node", "metadata": {"name": name, "uid": name}}
                    self._kube.create(
                        event(gone, "Normal", "ScaleDown", "node removed by cluster autoscaler")
                    )
                self._resize(pool.identity, size)

    def _resize(self, identity: str, size: int) -> None:
        """Write the size down and make the cluster's nodes follow; a pool that is gone stays so."""
        with self._project.change() as state:
            group: Any = next((g for g in self._groups(state) if g.identity == identity), None)
            if group is not None:
                state.of(group.record)[identity]["size"] = size
                ensure_nodes(self._kube, replace(group, size=size))

    # -- events ------------------------------------------------------------------------------------

    def _forget(self, waiting: list[Manifest]) -> None:
        uids = {pod["metadata"]["uid"] for pod in waiting}
        self._memory.told = {uid: text for uid, text in self._memory.told.items() if uid in uids}

    def _tell(self, pod: Manifest, kind: str, reason: str, message: str) -> None:
        """An event on the pod, once for as long as it says the same."""
        meta = pod["metadata"]
        if self._memory.told.get(meta["uid"]) == message:
            return
        self._memory.told[meta["uid"]] = message
        self._kube.create(event(pod, kind, reason, message))


def event(item: Manifest, kind: str, reason: str, message: str, component: str = COMPONENT) -> Manifest:
    """An Event of a component's on an object, by default the autoscaler's; those on nodes are in `default`."""
    meta, now = item["metadata"], timestamp()
    home = {"namespace": meta["namespace"]} if "namespace" in meta else {}
    about = {
        "apiVersion": "v1",
        "kind": item.get("kind", "Pod"),
        "name": meta["name"],
        "uid": meta["uid"],
        **home,
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "default", "name": f"{meta['name']}.{uuid.uuid4().hex[:16]}", **home},
        "involvedObject": about,
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "reportingComponent": component,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _waits(pod: Manifest) -> bool:
    """Whether the scheduler has found no node for a pod; a DaemonSet's pod only ever wants its own node."""
    if pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp") or _of_daemon_set(pod):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "PodScheduled" and c.get("reason") == "Unschedulable" for c in conditions)


def _runs(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _occupies(pod: Manifest) -> bool:
    """Whether a pod keeps its node from being idle."""
    return _runs(pod) and not _of_daemon_set(pod)


def _of_daemon_set(pod: Manifest) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner["kind"] == "DaemonSet" for owner in owners)


def _bin_of(node: Manifest, pods: Iterable[Manifest], groups: Iterable[Group]) -> _Bin:
    meta, status = node["metadata"], node.get("status") or {}
    coming = next((group.template() for group in groups if group.awaited(node)), None)
    shape = coming or NodeShape(
        meta["name"],
        status.get("capacity") or {},
        meta.get("labels") or {},
        tuple(t for t in node["spec"].get("taints") or () if not t["key"].startswith("node.kubernetes.io/")),
        status.get("allocatable") or {},
    )
    free = room(shape)
    for pod in pods:
        if pod["spec"].get("nodeName") == meta["name"] and _runs(pod):
            for name, amount in requests(pod).items():
                free[name] = free.get(name, 0.0) - amount
    return _Bin(shape, free)


def _bins_for(pods: list[Manifest], pool: Group) -> int:
    """How many new nodes of the pool these pods need."""
    bins: list[_Bin] = []
    for pod in pods:
        if not any(b.take(pod) for b in bins):
            bins.append(_Bin(pool.template(), room(pool.template())))
            bins[-1].take(pod)
    return len(bins)


def _whole(count: int, step: int) -> int:
    """A number of nodes in whole slices."""
    return math.ceil(count / step) * step


def _while_true(flags: Iterable[bool]) -> Iterable[bool]:
    for flag in flags:
        if not flag:
            return
        yield flag
