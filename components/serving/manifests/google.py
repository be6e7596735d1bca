"""What Google's load balancer is told of a model's backends. Pure.

Every backend of a route, the pool as much as the Service, becomes a backend service of Google's, which looks after
neither probes nor annotations of pods. What is not said here has Google's defaults
(https://docs.cloud.google.com/kubernetes-engine/docs/how-to/configure-gateway-resources and
GoogleCloudPlatform/gke-gateway-api, apis/networking/v1, read 2026-11):

    health      GET / at the serving port must be 200. vLLM answers 404 there, and nothing would ever be healthy.
    timeout     30 s from the request's first byte to the answer's last, which cuts long generations.
    draining    0 s: requests in flight are cut when their endpoint leaves.

The picker needs no policy: Google asks for the health of the Service that a pool names by gRPC at port 9003, where the
picker of llm-d answers. Policies may stand before the objects that they name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from components.core import labels, naming
from components.core.manifest import Manifest, manifest
from components.core.services import LLM, ServiceKind
from components.serving.manifests.gateway import MODEL_PORT, POOL_GROUP
from components.serving.manifests.network_policy import Peer, blocks

API = "networking.gke.io/v1"
HEALTH_PATH = "/health"
# Google refuses a time-out above the interval. An engine that works off a long batch may take its time to answer.
HEALTH_SECONDS = 15
HEALTHY_ANSWERS, UNHEALTHY_ANSWERS = 1, 2
# Google's own bound for draining.
MAX_DRAINING_SECONDS = 3600
# Where Google's probes come from (https://docs.cloud.google.com/load-balancing/docs/firewall-rules).
PROBERS = ("35.191.0.0/16", "130.211.0.0/22")


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """The backends of one model; a request may take `timeout_seconds`. Without `pooled` there is only the Service."""

    model: str
    namespace: str
    pooled: bool
    timeout_seconds: int
    kind: ServiceKind = LLM


def probers() -> tuple[Peer, ...]:
    """Who asks for the health of pods, as peers of network policies."""
    return blocks(PROBERS)


def backend_policies(spec: BackendSpec) -> tuple[tuple[str, Manifest], ...]:
    """(role, object): how each backend's health is found out, and how long its requests may take."""
    return tuple(
        item
        for name, target in _targets(spec)
        for item in (
            (f"{name}-health", _policy(spec, "HealthCheckPolicy", name, target, _health())),
            (f"{name}-backend", _policy(spec, "GCPBackendPolicy", name, target, _backend(spec))),
        )
    )


def _targets(spec: BackendSpec) -> Iterator[tuple[str, dict[str, str]]]:
    yield "service", {"group": "", "kind": "Service", "name": spec.kind.service(spec.model)}
    if spec.pooled:
        yield (
            "pool",
            {"group": POOL_GROUP, "kind": "InferencePool", "name": naming.inference_pool(spec.model)},
        )


def _health() -> dict[str, Any]:
    return {
        "checkIntervalSec": HEALTH_SECONDS,
        "timeoutSec": HEALTH_SECONDS,
        "healthyThreshold": HEALTHY_ANSWERS,
        "unhealthyThreshold": UNHEALTHY_ANSWERS,
        "config": {"type": "HTTP", "httpHealthCheck": {"requestPath": HEALTH_PATH, "port": MODEL_PORT}},
    }


def _backend(spec: BackendSpec) -> dict[str, Any]:
    return {
        "timeoutSec": spec.timeout_seconds,
        # As long as a request may take, so that a replica that goes finishes what it began.
        "connectionDraining": {"drainingTimeoutSec": min(spec.timeout_seconds, MAX_DRAINING_SECONDS)},
        "logging": {"enabled": True},
    }


def _policy(
    spec: BackendSpec, kind: str, name: str, target: dict[str, str], default: dict[str, Any]
) -> Manifest:
    return manifest(
        API,
        kind,
        f"{spec.model}-{name}",
        spec.namespace,
        labels={**labels.common("route"), labels.MODEL: spec.model},
        spec={"targetRef": target, "default": default},
    )
