"""Deployments, StatefulSets and DaemonSets: rolled out, or why not."""

from __future__ import annotations

from ops.kube import Manifest
from rehearsal.providers.kubernetes.awaiting.pods import troubles
from rehearsal.providers.kubernetes.awaiting.progress import Look, Progress, condition, pluck, told

_REVISION = "deployment.kubernetes.io/revision"


def deployment_rolled_out(look: Look) -> Progress:
    """The newest ReplicaSet has its pods ready, the Deployment is available and, after the first, done progressing."""
    revision = look.of("metadata", "annotations", _REVISION, default="")
    if not _observed(look) or not revision:
        return Progress(
            False, "Waiting for the Deployment controller", ("Minimum number of live Pods was not attained",)
        )
    sets = look.owned("apps/v1", "ReplicaSet")
    current = next((s for s in sets if pluck(s, "metadata", "annotations", _REVISION) == revision), None)
    wanted = pluck(current, "spec", "replicas", default=1)
    ready = pluck(current, "status", "readyReplicas", default=0)
    available, progressing = (condition(look.live, kind) for kind in ("Available", "Progressing"))
    is_available = available.get("status") == "True"
    is_complete = (
        progressing.get("status") == "True" and progressing.get("reason") == "NewReplicaSetAvailable"
    )
    is_ready, unbound = current is not None and ready >= wanted, _unbound_claims(look)
    if is_available and is_ready and (is_complete or revision == "1") and not unbound:
        return Progress(True, "Deployment initialization complete")
    reasons = [told(c) for c in (progressing, available) if c.get("status") not in (None, "True") and told(c)]
    if unbound:
        reasons.append(f"Failed to bind PersistentVolumeClaim(s): {', '.join(unbound)}")
    reasons.append(_shortfall(is_available, is_complete or revision == "1", revision == "1"))
    pods = troubles(look.owned("v1", "Pod", current)) if current else ()
    status = f"Waiting for app ReplicaSet to be available ({ready}/{wanted} Pods available)"
    return Progress(False, "; ".join((status, *pods[:1])), (*reasons, *pods))


def _shortfall(available: bool, complete: bool, first: bool) -> str:
    if not available:
        return "Minimum number of live Pods was not attained"
    if not complete or first:
        return "Minimum number of Pods to consider the application live was not attained"
    return "Attempted to roll forward to new ReplicaSet, but minimum number of Pods did not become live"


def _unbound_claims(look: Look) -> list[str]:
    volumes = look.of("spec", "template", "spec", "volumes", default=())
    names = [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
    claims = (look.kube.get("v1", "PersistentVolumeClaim", name, look.namespace) for name in names)
    return [c["metadata"]["name"] for c in claims if c and pluck(c, "status", "phase") != "Bound"]


def stateful_set_rolled_out(look: Look) -> Progress:
    """All replicas exist and are ready, and of the newest revision unless the strategy leaves that to the user."""
    status, wanted = look.of("status", default={}), look.of("spec", "replicas", default=0)
    current, target = status.get("currentRevision", ""), status.get("updateRevision", "")
    ready, updated = status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
    by_hand = (
        look.of("metadata", "generation") > 1 and look.of("spec", "updateStrategy", "type") == "OnDelete"
    )
    same = wanted == status.get("replicas", 0) == ready
    advanced = by_hand or (current != "" and current == target)
    complete = same and (by_hand or wanted == status.get("currentReplicas", 0))
    if _observed(look) and advanced and complete:
        return Progress(True, "StatefulSet initialization complete")
    shown = ready if advanced else min(ready, updated)
    reasons = [] if complete else [f"{shown} out of {wanted} replicas succeeded readiness checks"]
    if not advanced:
        reasons.append(
            f"StatefulSet controller failed to advance from revision {current!r} to revision {target!r}"
        )
    pods = troubles(look.owned("v1", "Pod"))
    return Progress(
        False, f"Waiting for StatefulSet to roll out ({shown}/{wanted} Pods ready)", (*reasons, *pods)
    )


def daemon_set_rolled_out(look: Look) -> Progress:
    """Every node that should has an updated, available pod."""
    status = look.of("status", default={})
    wanted = status.get("desiredNumberScheduled")
    numbers = [
        status.get(field, 0)
        for field in ("updatedNumberScheduled", "currentNumberScheduled", "numberAvailable", "numberReady")
    ]
    if _observed(look) and wanted is not None and min(numbers) >= wanted:
        return Progress(True)
    status_line = f"Waiting for DaemonSet to roll out ({min(numbers)}/{wanted or 0} Pods available)"
    return Progress(False, status_line, (status_line, *troubles(look.owned("v1", "Pod"))))


def _observed(look: Look) -> bool:
    observed: int | None = look.of("status", "observedGeneration")
    return observed is not None and observed >= _generation(look.live)


def _generation(manifest: Manifest) -> int:
    return manifest["metadata"].get("generation", 0)
