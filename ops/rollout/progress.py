"""How far the replicas of a model are on their way to its latest configuration. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from components.core.services import SERVICE_KINDS
from ops.kube import Manifest
from ops.status import judge, pods

HASH = "pod-template-hash"
LWS_HASH = "leaderworkerset.sigs.k8s.io/template-revision-hash"
"""What pods of one revision have in common: of a ReplicaSet, of a LeaderWorkerSet (0.8)."""
REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True)
class Progress:
    """Where one model is. `stages` are those of the new pods that are not ready yet, `waits` is what is left to come.

    `problems` say why those pods are not ready, in the words of whoever knows.
    """

    model: str
    wanted: int
    new: int
    old: int
    stages: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether every replica runs the latest configuration, and the model is Ready with it."""
        return not self.waits and not self.old and not self.stages and self.new == self.wanted

    def __str__(self) -> str:
        """One line, the same until something happens."""
        if self.done:
            return f"{self.model}: all {self.wanted} replicas are new and Ready"
        parts = [f"{self.new} of {self.wanted} replicas are new and ready", f"{self.old} old"]
        counted = sorted(Counter(self.stages).items(), key=lambda entry: pods.STAGES.index(entry[0]))
        parts += [f"{count} {stage}" for stage, count in counted]
        return f"{self.model}: {', '.join(parts)}" + (f"; {self.waits[0]}" if self.waits else "")


def of_model(
    model: Manifest,
    workload: Manifest | None,
    owned: Sequence[Manifest],
    found: Sequence[Manifest],
    now: datetime,
) -> Progress:
    """Judge a model by its workload, the workload's ReplicaSets or StatefulSets, and its pods.

    Pods that end count as gone: nothing is sent to them any more.
    """
    name = model["metadata"]["name"]
    if workload is None:
        return Progress(name, 0, 0, 0, waits=("KServe has made no workload yet",))
    current = _revision(workload, owned)
    living = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    new = [pod for pod in living if current is not None and _hash(pod) == current]
    late = [pod for pod in new if not pods.is_ready(pod)]
    return Progress(
        model=name,
        wanted=_wanted(workload),
        new=len(new) - len(late),
        old=len(living) - len(new),
        stages=tuple(pods.stage(pod) for pod in late),
        waits=tuple(_waits(model, workload, current)),
        problems=tuple(text for pod in late for text in pods.problems(pod, now)),
    )


def _hash(item: Manifest) -> str | None:
    carried = item["metadata"].get("labels") or {}
    return carried.get(LWS_HASH) or carried.get(HASH)


def _revision(workload: Manifest, owned: Sequence[Manifest]) -> str | None:
    """The hash of the latest revision; None while its controller has not made it."""
    if workload["kind"] == "LeaderWorkerSet":
        return next((_hash(item) for item in owned), None)
    wanted = (workload["metadata"].get("annotations") or {}).get(REVISION)
    latest = (o for o in owned if (o["metadata"].get("annotations") or {}).get(REVISION) == wanted)
    return next((_hash(item) for item in latest), None)


def _wanted(workload: Manifest) -> int:
    """Pods that there should be in the end: a replica over several machines has one on each."""
    size = (workload["spec"].get("leaderWorkerTemplate") or {}).get("size", 1)
    return workload["spec"].get("replicas", 1) * size


def _waits(model: Manifest, workload: Manifest, current: str | None) -> list[str]:
    status, meta = workload.get("status") or {}, workload["metadata"]
    if current is None or status.get("observedGeneration", meta["generation"]) < meta["generation"]:
        return ["its controller has not seen the latest change yet"]
    seen = (model.get("status") or {}).get("observedGeneration", 0)
    if SERVICE_KINDS[model["kind"]].counts and seen < model["metadata"]["generation"]:
        return ["KServe has not seen the latest change yet"]
    return [f"KServe: {text}" for text in judge.problems(model)]
