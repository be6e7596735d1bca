"""The Gateway and its routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from components.core import labels, naming
from components.core.manifest import Manifest, manifest

API = "gateway.networking.k8s.io/v1"
POOL_GROUP = "inference.networking.k8s.io"
MODEL_PORT = 8000
# What the engine answers by inference, and where the picker chooses the replica; matched exactly, so that a
# path that nobody thought of reaches no model.
INFERENCE_PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages")
# What any replica can answer.
PLAIN_PATHS = ("/v1/models", "/health")

# How a gateway is kept out of the internet, by cloud: annotations of the Gateway, and of the Service that is made
# for it. On a cluster of unknown kind it is reachable inside the cluster only.
_INTERNAL: dict[str, tuple[dict[str, str] | None, dict[str, str] | None]] = {
    "other": ({"networking.istio.io/service-type": "ClusterIP"}, None),
    "gcp": (None, {"networking.gke.io/load-balancer-type": "Internal"}),
    "aws": (None, {"service.beta.kubernetes.io/aws-load-balancer-internal": "true"}),
}


@dataclass(frozen=True, kw_only=True)
class GatewaySpec:
    """A gateway with one listener: HTTPS with the certificate of `tls_secret`, HTTP without it.

    `issuer` is a ClusterIssuer that fills the secret; `host` limits the listener to one name.
    """

    name: str
    namespace: str
    class_name: str
    internal: bool
    cloud: Literal["gcp", "aws", "other"]
    host: str | None = None
    tls_secret: str | None = None
    issuer: str | None = None

    @property
    def section(self) -> str:
        """The listener that models attach to."""
        return "https" if self.tls_secret else "http"


def gateway(spec: GatewaySpec) -> Manifest:
    """The Gateway; takes routes from the namespaces that carry its label."""
    annotations, infrastructure = _INTERNAL[spec.cloud] if spec.internal else (None, None)
    if spec.issuer:
        annotations = {**(annotations or {}), "cert-manager.io/cluster-issuer": spec.issuer}
    return manifest(
        API,
        "Gateway",
        spec.name,
        spec.namespace,
        labels=labels.common("gateway"),
        annotations={**(annotations or {}), labels.WAIT_FOR: "condition=Programmed"},
        spec={
            "gatewayClassName": spec.class_name,
            "infrastructure": {"annotations": infrastructure} if infrastructure else None,
            "listeners": list(_listeners(spec)),
        },
    )


def _listeners(spec: GatewaySpec) -> Iterable[dict[str, Any]]:
    mine = {"from": "Selector", "selector": {"matchLabels": {labels.ROUTES: spec.name}}}
    common = {"hostname": spec.host, "allowedRoutes": {"namespaces": mine}}
    if spec.tls_secret is None:
        yield {"name": "http", "port": 80, "protocol": "HTTP", **common}
        return
    certificate = {"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": spec.tls_secret}]}
    yield {"name": "https", "port": 443, "protocol": "HTTPS", "tls": certificate, **common}
    # Only the redirect below may use it.
    same = {"hostname": spec.host, "allowedRoutes": {"namespaces": {"from": "Same"}}}
    yield {"name": "http", "port": 80, "protocol": "HTTP", **same}


def redirect(spec: GatewaySpec) -> Manifest:
    """Sends plain HTTP to HTTPS, so that no key travels in the clear twice."""
    to_https = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}
    return manifest(
        API,
        "HTTPRoute",
        f"{spec.name}-redirect",
        spec.namespace,
        labels=labels.common("gateway"),
        spec={
            "parentRefs": [{"name": spec.name, "sectionName": "http"}],
            "rules": [{"filters": [to_https]}],
        },
    )


@dataclass(frozen=True, kw_only=True)
class RouteSpec:
    """The routes of one model. `timeout_seconds` is None where the gateway refuses timeouts (Google's)."""

    model: str
    namespace: str
    gateway: str
    gateway_namespace: str
    section: str
    pooled: bool
    host: str | None = None
    timeout_seconds: int | None = None

    @property
    def prefix(self) -> str:
        """Where the model lives on the gateway."""
        return f"/{self.namespace}/{self.model}"


def inference_route(spec: RouteSpec) -> Manifest:
    """The route to the replica that the picker chooses, or to any replica where there is no picker."""
    pool = {
        "group": POOL_GROUP,
        "kind": "InferencePool",
        "name": naming.inference_pool(spec.model),
        "port": MODEL_PORT,
    }
    return _route(spec, f"{spec.model}-inference", INFERENCE_PATHS, pool if spec.pooled else _service(spec))


def plain_route(spec: RouteSpec) -> Manifest:
    """The route for questions about the model; passing them by the picker would fail, they have no prompt."""
    return _route(spec, f"{spec.model}-models", PLAIN_PATHS, _service(spec))


def _service(spec: RouteSpec) -> dict[str, Any]:
    name = naming.workload_service(spec.model)
    return {"group": "", "kind": "Service", "name": name, "port": MODEL_PORT}


def _route(spec: RouteSpec, name: str, paths: Iterable[str], backend: dict[str, Any]) -> Manifest:
    parent = {"name": spec.gateway, "namespace": spec.gateway_namespace, "sectionName": spec.section}
    timeouts = {"request": f"{spec.timeout_seconds}s"} if spec.timeout_seconds else None
    rules = [
        {
            "matches": [{"path": {"type": "Exact", "value": spec.prefix + path}}],
            "filters": [
                {
                    "type": "URLRewrite",
                    "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": path}},
                }
            ],
            "backendRefs": [backend],
            "timeouts": timeouts,
        }
        for path in paths
    ]
    return manifest(
        API,
        "HTTPRoute",
        name,
        spec.namespace,
        labels={**labels.common("route"), labels.MODEL: spec.model},
        spec={"parentRefs": [parent], "hostnames": [spec.host] if spec.host else None, "rules": rules},
    )
