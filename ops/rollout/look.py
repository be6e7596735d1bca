"""Reading one model and what KServe made for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from components.core import naming
from components.core.services import SERVICE_KINDS, ServiceKind
from ops.errors import OpsError
from ops.kube import Kube, Manifest
from ops.rollout.progress import Progress, of_model
from ops.state import State

_LWS = "leaderworkerset.x-k8s.io/v1"


DEFAULT_BUDGET = 900
"""Of a stack whose outputs name none (seconds)."""


@dataclass(frozen=True)
class Model:
    """One model of a stack: where it is, what its change takes by the stack's outputs, and the budget of one start."""

    kind: ServiceKind
    namespace: str
    name: str
    plan: str
    budget: float


def models(state: State) -> dict[str, Model]:
    """Every model of the stack, by name."""
    said = next((r.outputs for r in state.resources if r.type == "pulumi:pulumi:Stack"), {})
    plans, budgets = said.get("rollouts") or {}, said.get("load_budgets_seconds") or {}
    refs = {r.object for r in state.resources if r.object and not r.is_patch and not r.raw.get("delete")}
    return {
        ref.name: Model(
            SERVICE_KINDS[ref.kind],
            ref.namespace,
            ref.name,
            plans.get(ref.name, ""),
            budgets.get(ref.name, DEFAULT_BUDGET),
        )
        for ref in sorted(refs)
        if ref.kind in SERVICE_KINDS
    }


def look(kube: Kube, model: Model) -> Progress:
    """Where the model is. Raises OpsError where it does not exist."""
    kind = model.kind
    live = kube.get(kind.api_version, kind.kind, model.name, model.namespace)
    if live is None:
        raise OpsError(f"{kind.kind} {model.namespace}/{model.name} does not exist: run `up`")
    workload, owned, chosen = _workload(kube, model)
    found = kube.list("v1", "Pod", model.namespace, chosen) if workload else []
    return of_model(live, workload, owned, found, datetime.now(UTC))


def _workload(kube: Kube, model: Model) -> tuple[Manifest | None, list[Manifest], str]:
    """The Deployment with its ReplicaSets, or the LeaderWorkerSet with its StatefulSet; and their pods' selector."""
    kind, namespace = model.kind, model.namespace
    chosen = ",".join(f"{key}={value}" for key, value in kind.pods(model.name).items())
    deployment = kube.get("apps/v1", "Deployment", kind.workload(model.name), namespace)
    if deployment is not None:
        return deployment, kube.list("apps/v1", "ReplicaSet", namespace, chosen), chosen
    name = naming.group_set(model.name)
    group = kube.get(_LWS, "LeaderWorkerSet", name, namespace)
    leaders = kube.get("apps/v1", "StatefulSet", name, namespace) if group else None
    return group, [leaders] if leaders else [], f"leaderworkerset.sigs.k8s.io/name={name}"
