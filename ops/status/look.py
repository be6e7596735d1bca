"""Reading everything of a stack from the cluster and having it judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from components.core.services import SERVICE_KINDS
from ops import helm
from ops.kube import ApiError, Kube, Manifest
from ops.state import ObjectRef, Resource, State
from ops.status import judge, pods

WORKLOADS = (("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"))
MODEL_WORKLOADS = (("apps/v1", "Deployment"), ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"))
MODEL_POOL = ("inference.networking.k8s.io/v1", "InferencePool")
LOG_LINES = 200
_WORKLOADS = {kind for _, kind in WORKLOADS}
_RELEASE = "meta.helm.sh/release"


@dataclass(frozen=True)
class Check:
    """One thing of the stack: whether it is as it should be, why not, and how far a model's replicas are."""

    subject: str
    problems: tuple[str, ...] = ()
    stage: str = ""
    note: str = ""

    @property
    def ready(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {"ready": self.ready, **asdict(self)}


def checks(state: State, kube: Kube, now: datetime | None = None) -> Iterator[Check]:
    """Everything of the stack: releases with their workloads, objects, and what KServe makes of models."""
    now = now or datetime.now(UTC)
    installed = _installed(kube) if state.releases else {}
    for release in state.releases:
        yield _release(kube, release)
        for live in installed.get(release.release, ()):
            yield _workload(kube, live, now)
    refs = {r.object for r in state.resources if r.object and not r.raw.get("delete")}
    models = [ref for ref in refs if ref.kind in SERVICE_KINDS]
    for ref in sorted(refs):
        live = kube.get(ref.api_version, ref.kind, ref.name, ref.namespace or "default")
        if live is None or ref.kind not in _WORKLOADS:
            yield Check(str(ref), tuple(judge.problems(live)))
        elif not _belongs(live, models):
            yield _workload(kube, live, now)
        if live is not None and ref.kind in SERVICE_KINDS:
            yield from _model_parts(kube, ref, now)


def _belongs(live: Manifest, models: Iterable[ObjectRef]) -> bool:
    """Whether the object is part of one of the models, with which it is looked at then."""
    meta = live["metadata"]
    carried = meta.get("labels") or {}
    return any(
        meta.get("namespace", "") == ref.namespace
        and SERVICE_KINDS[ref.kind].parts(ref.name).items() <= carried.items()
        for ref in models
    )


def _release(kube: Kube, resource: Resource) -> Check:
    """A release is as it should be when Helm has its newest revision as deployed."""
    status = resource.outputs.get("status")
    if isinstance(status, dict) and status.get("status") == "skipped":
        return Check(str(resource), note="its chart was skipped, as `up` has said: nothing is installed")
    revisions = helm.revisions(kube, *resource.release)
    if not revisions:
        return Check(str(resource), ("Helm has no such release",))
    last = revisions[-1]
    if last.status == "deployed":
        return Check(str(resource))
    advice = "; run `python -m ops recover`, then `up`" if last.status in helm.PENDING else "; run `up`"
    return Check(str(resource), (f"revision {last.version} is {last.status}{advice}",))


def _installed(kube: Kube) -> dict[tuple[str, str], list[Manifest]]:
    """Every workload that Helm installed, by the namespace and name of its release."""
    found: dict[tuple[str, str], list[Manifest]] = {}
    for kind in WORKLOADS:
        for live in kube.list(*kind, selector="app.kubernetes.io/managed-by=Helm"):
            annotations = live["metadata"].get("annotations") or {}
            owner = annotations.get(f"{_RELEASE}-namespace", ""), annotations.get(f"{_RELEASE}-name", "")
            found.setdefault(owner, []).append(live)
    return found


def _model_parts(kube: Kube, ref: ObjectRef, now: datetime) -> Iterator[Check]:
    """What KServe makes for a model: workloads with their pods, and the pool that the gateway sends to."""
    carried = SERVICE_KINDS[ref.kind].parts(ref.name)
    selector = ",".join(f"{key}={value}" for key, value in carried.items())
    for kind in MODEL_WORKLOADS:
        for live in kube.list(*kind, namespace=ref.namespace, selector=selector):
            yield _workload(kube, live, now, model=True)
    for live in kube.list(*MODEL_POOL, namespace=ref.namespace, selector=selector):
        yield Check(_name(live), tuple(judge.problems(live)))


def _workload(kube: Kube, live: Manifest, now: datetime, model: bool = False) -> Check:
    found = judge.problems(live)
    if not found:
        return Check(_name(live))
    waiting = [pod for pod in _pods(kube, live) if not pods.is_ready(pod)]
    if not model:
        return Check(_name(live), (*found, *(text for pod in waiting for text in pods.problems(pod, now))))
    logs = {pod["metadata"]["name"]: engine_log(kube, pod) for pod in waiting}
    reasons = [text for pod in waiting for text in _reasons(pod, logs[pod["metadata"]["name"]], now)]
    serving = [pod for pod in waiting if pods.accelerator(pod)]
    stage = _stage(pods.stage(pod, logs[pod["metadata"]["name"]]) for pod in serving)
    return Check(_name(live), (*found, *reasons), stage)


def _reasons(pod: Manifest, log: list[str], now: datetime) -> list[str]:
    """What keeps a pod of a model: what goes wrong, else how far it is and what its engine said last."""
    said = pods.problems(pod, now)
    if not pods.accelerator(pod) or any(pods.faults(pod)):
        return said
    name, last = pod["metadata"]["name"], f'; its log ends: "{judge.shortened(log[-1])}"' if log else ""
    far = f"pod {name}: {pods.progress(pod, now, log)}{last}"
    # Without a node, the scheduler's reason says more than that it waits.
    return [far] if pod["spec"].get("nodeName") else [far, *said]


def engine_log(kube: Kube, pod: Manifest) -> list[str]:
    """The last lines of a model's engine; none before it runs, or where they cannot be had."""
    meta = pod["metadata"]
    if not pods.accelerator(pod) or not pod["spec"].get("nodeName"):
        return []
    try:
        return kube.log(meta["namespace"], meta["name"], pods.engine(pod), LOG_LINES)
    except ApiError:
        # A container that has not begun has no log, and a node may not answer.
        return []


def _pods(kube: Kube, live: Manifest) -> list[Manifest]:
    namespace = live["metadata"]["namespace"]
    if live["kind"] == "LeaderWorkerSet":
        selector = f"leaderworkerset.sigs.k8s.io/name={live['metadata']['name']}"
    else:
        wanted = live["spec"].get("selector", {}).get("matchLabels") or {}
        selector = ",".join(f"{key}={value}" for key, value in wanted.items())
    return kube.list("v1", "Pod", namespace, selector) if selector else []


def _stage(stages: Iterable[str]) -> str:
    """The stage of the replica that is furthest behind, and how many there are."""
    behind = min(stages, key=pods.STAGES.index, default="")
    return f"{behind} (step {pods.STAGES.index(behind) + 1} of {len(pods.STAGES)})" if behind else ""


def _name(live: Manifest) -> str:
    return f"{live['kind']} {live['metadata'].get('namespace', '')}/{live['metadata']['name']}"
