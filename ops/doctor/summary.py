"""One short fact for each link that holds: what was looked at, so that "ok" says something. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ops.doctor.facts import Scene
from ops.doctor.rules.policies import limit_ways, ways


def _node(scene: Scene) -> str:
    nodes = {pod.node for pod in scene.one.pods if pod.node}
    return f"{len(nodes)} of the cluster's {len(scene.stack.nodes)} nodes"


def _pod(scene: Scene) -> str:
    return f"{scene.one.serving} of {scene.one.replicas} replicas ready"


def _picker(scene: Scene) -> str:
    if not scene.one.pooled:
        return "none: routing none"
    return f"routing {scene.one.routing}, {sum(pod.ready for pod in scene.one.pickers)} ready"


def _pool(scene: Scene) -> str:
    return "accepted" if scene.one.pool else "none: routing none"


def _health(scene: Scene) -> str:
    return f"{len(scene.one.health)} policies" if scene.stack.google else "the gateway has none"


def _answers(scene: Scene) -> str:
    measured = sum(bool(pod.metrics) for pod in scene.one.pods)
    return f"metrics of {measured} replicas, {len(scene.one.requests)} last requests in the access log"


def _gateway(scene: Scene) -> str:
    addresses = ((scene.stack.gateway or {}).get("status") or {}).get("addresses") or [{}]
    return str(addresses[0].get("value", "the stack has none"))


def _certificate(scene: Scene) -> str:
    ends = [
        str(((live or {}).get("status") or {}).get("notAfter", "")) for _, live in scene.stack.certificates
    ]
    return f"until {min(ends)}" if ends else "the stack asks for none"


def _limits(scene: Scene) -> str:
    if not scene.stack.limited:
        return "the stack has none"
    return f"{sum(pod.ready for pod in scene.stack.limit_pods)} pods ready, {len(list(limit_ways(scene)))} ways open"


SUMMARIES: Mapping[str, Callable[[Scene], str]] = {
    "node": _node,
    "pod": _pod,
    "picker": _picker,
    "pool": _pool,
    "route": lambda scene: f"{len(scene.one.routes)} accepted",
    "policies": lambda scene: f"{len(list(ways(scene)))} ways open",
    "health checks": _health,
    "answers": _answers,
    "operators": lambda scene: f"{len(scene.stack.operators)} workloads",
    "gateway": _gateway,
    "certificate": _certificate,
    "keys and limits": _limits,
}
"""By link; only asked where nothing was found."""
