"""Pool, routes and Google's health checks: what leads a request from the gateway to a replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from components.core import naming
from ops.doctor.causes import shown
from ops.doctor.chain import Rule, Seen
from ops.doctor.facts import Scene
from ops.kube import Manifest
from ops.reachability import selects
from ops.status import judge

HEALTH_PATH = "/health"
_HEALTH = "HealthCheckPolicy"

Signs = Iterator[tuple[str, tuple[str, ...]]]
"""Subjects with their evidence."""


def _look(signs: Callable[[Scene], Signs]) -> Callable[[Scene], Iterator[Seen]]:
    def look(scene: Scene) -> Iterator[Seen]:
        for subject, evidence in signs(scene):
            yield Seen(subject=subject, evidence=evidence)

    return look


def missing(link: str) -> Callable[[Scene], Signs]:
    """Objects of the state that belong to a link, and that the cluster does not have."""

    def signs(scene: Scene) -> Signs:
        refs = scene.model.missing if scene.model is not None else scene.stack.missing
        for ref in refs:
            if LINK_OF.get(ref.kind) == link:
                yield str(ref), ("it is in the stack's state, and not in the cluster",)

    return signs


LINK_OF = {
    "NetworkPolicy": "policies",
    "HTTPRoute": "route",
    "DestinationRule": "route",
    "HealthCheckPolicy": "health checks",
    "GCPBackendPolicy": "health checks",
    "EnvoyFilter": "gateway",
    "AuthorizationPolicy": "gateway",
    "Gateway": "gateway",
    "Certificate": "certificate",
    "Issuer": "certificate",
    "Deployment": "keys and limits",
    "StatefulSet": "keys and limits",
    "ConfigMap": "keys and limits",
    "Service": "keys and limits",
}
"""Kinds of the stack's own objects whose absence breaks a link; what KServe makes is judged where it is used."""


def _no_pool(scene: Scene) -> Signs:
    if scene.one.pooled and scene.one.pool is None and scene.one.live is not None:
        yield (
            f"pool of {scene.one.name}",
            (f"there is no InferencePool {naming.inference_pool(scene.one.name)}",),
        )


def _pool(scene: Scene) -> Signs:
    problems = judge.problems(scene.one.pool) if scene.one.pool else []
    if problems:
        yield f"pool of {scene.one.name}", tuple(problems)


def _empty_pool(scene: Scene) -> Signs:
    """The pool selects none of the replicas that are ready."""
    wanted = ((scene.one.pool or {}).get("spec") or {}).get("selector") or {}
    ready = [pod.live for pod in scene.one.pods if pod.ready]
    if wanted and ready and not any(selects(wanted, pod["metadata"].get("labels") or {}) for pod in ready):
        yield f"pool of {scene.one.name}", (f"{len(ready)} replicas are ready, it selects {wanted}",)


def _routes(scene: Scene) -> Signs:
    for route in scene.one.routes:
        problems = judge.problems(route)
        if problems:
            yield f"HTTPRoute {route['metadata']['name']}", tuple(problems)


def _no_route(scene: Scene) -> Signs:
    if not scene.one.routes:
        yield f"routes of {scene.one.name}", ("there is no HTTPRoute for the model",)


# -- Google's health checks ------------------------------------------------------------------------


def _targets(policy: Manifest) -> str:
    return str((policy["spec"].get("targetRef") or {}).get("name", ""))


def _unchecked(scene: Scene) -> Signs:
    """Google probes `/` unless told otherwise, where vLLM answers 404."""
    if not scene.stack.google:
        return
    model = scene.one
    wanted = [
        model.kind.service(model.name),
        *([naming.inference_pool(model.name)] if model.pooled else []),
    ]
    covered = {_targets(policy) for policy in model.health}
    for name in wanted:
        if name not in covered:
            yield name, ("no HealthCheckPolicy targets it, so Google asks for / and gets 404",)


def _wrong_path(scene: Scene) -> Signs:
    for policy in scene.one.health if scene.stack.google else ():
        config = ((policy["spec"].get("default") or {}).get("config") or {}).get("httpHealthCheck") or {}
        path = config.get("requestPath", "/")
        if path != HEALTH_PATH:
            yield (
                f"{_HEALTH} {policy['metadata']['name']}",
                (f"it asks for {path}, the engine answers {HEALTH_PATH}",),
            )


def _not_attached(scene: Scene) -> Signs:
    for policy in scene.one.health if scene.stack.google else ():
        failed = [c for c in (policy.get("status") or {}).get("conditions") or () if c["status"] != "True"]
        if failed:
            text = f"{failed[0]['type']}: {shown(str(failed[0].get('message', '')))}"
            yield f"{_HEALTH} {policy['metadata']['name']}", (text,)


def _unwell(scene: Scene) -> Signs:
    """Endpoints that the load balancer sends nothing to, although the pods are ready."""
    ill = [endpoint for endpoint in scene.one.endpoints if endpoint.state != "HEALTHY"]
    if ill:
        evidence = tuple(f"{e.address} of {e.service} is {e.state}" for e in ill[:3])
        yield f"endpoints of {scene.one.name}", evidence


def _unasked(scene: Scene) -> Signs:
    if scene.stack.google and scene.stack.unasked:
        yield f"endpoints of {scene.one.name}", (scene.stack.unasked,)


AGAIN = "`pulumi up --refresh` makes it again"

RULES: tuple[Rule, ...] = (
    Rule(
        link="pool",
        page="gateway",
        look=_look(_no_pool),
        found="the pool is missing",
        fix="KServe makes it: look at the operators link and at the model's conditions",
    ),
    Rule(
        link="pool",
        page="gateway",
        look=_look(_empty_pool),
        found="the pool selects none of the replicas",
        fix="it was edited, or belongs to a stack of the same name: `up` writes it again",
    ),
    Rule(
        link="pool",
        page="gateway",
        look=_look(_pool),
        found="the gateway does not take the pool",
        fix="the condition says why; the gateway must know InferencePool v1 (Istio with its feature on, GKE 1.34 or later)",
    ),
    Rule(
        link="route",
        page="gateway",
        look=_look(missing("route")),
        found="it was deleted by hand",
        fix=AGAIN,
    ),
    Rule(
        link="route",
        page="gateway",
        look=_look(_no_route),
        found="nothing leads to the model",
        fix=AGAIN,
    ),
    Rule(
        link="route",
        page="gateway",
        look=_look(_routes),
        found="the gateway does not take the route",
        fix="the condition names the field or the object: a backend that is missing, a namespace without the gateway's label, "
        "or a field that this gateway does not know",
    ),
    Rule(
        link="health checks",
        page="health-check",
        look=_look(missing("health checks")),
        found="it was deleted by hand",
        fix=AGAIN,
    ),
    Rule(
        link="health checks",
        page="health-check",
        look=_look(_unchecked),
        found="the load balancer asks the wrong path, and calls every replica unhealthy",
        fix=AGAIN,
    ),
    Rule(
        link="health checks",
        page="health-check",
        look=_look(_wrong_path),
        found="the load balancer asks the wrong path",
        fix="`up` writes the policy again",
    ),
    Rule(
        link="health checks",
        page="health-check",
        look=_look(_not_attached),
        found="Google does not take the policy",
        fix="the condition says why; there can be one policy for each target",
    ),
    Rule(
        link="health checks",
        page="health-check",
        look=_look(_unwell),
        found="the load balancer calls replicas unhealthy that are ready",
        fix="policies and firewall must let Google's probers in (35.191.0.0/16, 130.211.0.0/22); new endpoints take a minute "
        "or two",
    ),
    Rule(
        link="health checks",
        page="health-check",
        look=_look(_unasked),
        found="Google was not asked for the health of its endpoints",
        fix="log in (`gcloud auth login`), or ask yourself: `gcloud compute backend-services get-health`",
        severity="note",
    ),
)
