"""The Gateway and its routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from components.core import labels, naming
from components.core.manifest import Manifest, manifest
from components.core.services import LLM, MODEL_PORT, ServiceKind
from components.serving.manifests import token_limits

API = "gateway.networking.k8s.io/v1"
Header = dict[str, str]
POOL_GROUP = "inference.networking.k8s.io"
PLAIN_PORT, TLS_PORT = 80, 443
# What the engine answers by inference, and where the picker chooses the replica; matched exactly, so that a
# path that nobody thought of reaches no model.
INFERENCE_PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages")
# KServe's header for choosing a model behind one base URL, and its form of a model's name (KServe 0.20, preset
# `kserve-config-llm-router-route`).
MODEL_HEADER = "x-gateway-model-name"
# How the request program marks a prompt that is too long for a picker.
LONG_HEADER, LONG = "x-gateway-prompt", "long"
# How the model's prefix is taken off a path: the kind of match, and of rewrite. Google's gateway rewrites beginnings
# only (GWCER104 for a full path) and the API then wants a match by prefix, so that there the engine also sees what
# lies below its paths.
_STRIP = {
    "istio": ("Exact", "ReplaceFullPath", "replaceFullPath"),
    "google": ("PathPrefix", "ReplacePrefixMatch", "replacePrefixMatch"),
}
# The option of a listener that names certificates of Certificate Manager in Google's regional gateways; maps, which
# an annotation names, are for global ones (https://docs.cloud.google.com/kubernetes-engine/docs/how-to/secure-gateway).
CERTIFICATES_OPTION = "networking.gke.io/cert-manager-certs"
# What the gateway itself says of a tenant's budget; a model server has no word in it.
BUDGET_HEADERS = tuple(
    token_limits.header(measure, name)
    for measure in ("tokens", "requests")
    for name in ("limit", "remaining", "reset", "used")
)
# What any replica can answer.
PLAIN_PATHS = ("/v1/models", "/health")

# How Istio's gateway is kept out of the internet, by cloud: annotations of the Gateway, and of the Service that is made
# for it. On a cluster of unknown kind it is reachable inside the cluster only. Google's own is what its class says.
_INTERNAL: dict[str, tuple[dict[str, str] | None, dict[str, str] | None]] = {
    "other": ({"networking.istio.io/service-type": "ClusterIP"}, None),
    "gcp": (None, {"networking.gke.io/load-balancer-type": "Internal"}),
    "aws": (None, {"service.beta.kubernetes.io/aws-load-balancer-internal": "true"}),
}
# What the Service of Istio's gateway needs anywhere. AWS would make a Classic Load Balancer, which ends a request that
# is silent for a minute; through a network load balancer the gateway's own keep-alive keeps it open.
_ALWAYS: dict[str, dict[str, str]] = {"aws": {"service.beta.kubernetes.io/aws-load-balancer-type": "nlb"}}


@dataclass(frozen=True, kw_only=True)
class GatewaySpec:
    """A gateway with one listener: HTTPS with a certificate, HTTP without.

    The certificate is in `tls_secret` or, with Google's gateway, has the name `certificate` in Certificate Manager.
    `google` is Google's own gateway, a load balancer outside of the cluster. `host` limits the listener
    to one name; `marks` are further annotations of what is made for it.
    """

    name: str
    namespace: str
    class_name: str
    internal: bool
    cloud: Literal["gcp", "aws", "other"]
    host: str | None = None
    tls_secret: str | None = None
    certificate: str | None = None
    google: bool = False
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def encrypted(self) -> bool:
        """Whether the listener speaks TLS."""
        return bool(self.tls_secret or self.certificate)

    @property
    def section(self) -> str:
        """The listener that models attach to."""
        return "https" if self.encrypted else "http"


def gateway(spec: GatewaySpec) -> Manifest:
    """The Gateway; takes routes from the namespaces that carry its label."""
    kept_inside = spec.internal and not spec.google
    annotations, infrastructure = _INTERNAL[spec.cloud] if kept_inside else (None, None)
    always = {} if spec.google else _ALWAYS.get(spec.cloud, {})
    infrastructure = {**always, **(infrastructure or {}), **spec.marks}
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
    if not spec.encrypted:
        yield {"name": "http", "port": PLAIN_PORT, "protocol": "HTTP", **common}
        return
    yield {"name": "https", "port": TLS_PORT, "protocol": "HTTPS", "tls": _tls(spec), **common}
    # Only the redirect below may use it.
    same = {"hostname": spec.host, "allowedRoutes": {"namespaces": {"from": "Same"}}}
    yield {"name": "http", "port": PLAIN_PORT, "protocol": "HTTP", **same}


def _tls(spec: GatewaySpec) -> dict[str, Any]:
    if spec.certificate:
        return {"mode": "Terminate", "options": {CERTIFICATES_OPTION: spec.certificate}}
    return {"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": spec.tls_secret}]}


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
            # A name of its own, as the route of an ACME challenge has one: else the challenge would be redirected.
            "hostnames": [spec.host] if spec.host else None,
            "rules": [{"filters": [to_https]}],
        },
    )


def base_route(spec: GatewaySpec) -> Manifest:
    """Takes whatever no model's route does, so that the request program sees and answers it; it has no backend."""
    return manifest(
        API,
        "HTTPRoute",
        f"{spec.name}-base",
        spec.namespace,
        labels=labels.common("gateway"),
        spec={
            "parentRefs": [{"name": spec.name, "sectionName": spec.section}],
            "hostnames": [spec.host] if spec.host else None,
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}],
        },
    )


def model_name(namespace: str, served_name: str) -> str:
    """A model's name in KServe's header; the engine answers to it as well."""
    return f"publishers/{namespace}/models/{served_name}"


def model_prefix(namespace: str, model: str) -> str:
    """Where a model lives on the gateway."""
    return f"/{namespace}/{model}"


@dataclass(frozen=True, kw_only=True)
class RouteSpec:
    """The routes of one model.

    Google's gateway (`google`) runs no request program, and refuses a route with a timeout: `timeout_seconds`
    is None there, and a policy of the backend says it.
    """

    model: str
    namespace: str
    served_name: str
    gateway: str
    gateway_namespace: str
    section: str
    pooled: bool
    kind: ServiceKind = LLM
    host: str | None = None
    google: bool = False
    timeout_seconds: int | None = None

    @property
    def prefix(self) -> str:
        """Where the model lives on the gateway."""
        return model_prefix(self.namespace, self.model)


def inference_route(spec: RouteSpec) -> Manifest:
    """The route to the replica that the picker chooses, or to any replica where there is no picker."""
    rules = _inference(spec, _pool(spec) if spec.pooled else _service(spec), ())
    return _route(spec, f"{spec.model}-inference", rules if spec.google else _with_program(spec, rules))


def _with_program(spec: RouteSpec, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rules and what the request program needs of them."""
    # More headers go first. Of prompts that no picker can take any replica gets its share.
    long = ({"name": LONG_HEADER, "value": LONG},)
    unpicked = _inference(spec, _service(spec), long) if spec.pooled else []
    clean = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": list(BUDGET_HEADERS)}}
    return [{**rule, "filters": [*rule["filters"], clean]} for rule in (*rules, *unpicked)]


def plain_route(spec: RouteSpec) -> Manifest:
    """The route for questions about the model; passing them by the picker would fail, they have no prompt."""
    return _route(spec, f"{spec.model}-models", _by_path(spec, PLAIN_PATHS, _service(spec), ()))


def _inference(spec: RouteSpec, backend: dict[str, Any], headers: tuple[Header, ...]) -> list[dict[str, Any]]:
    return [*_by_path(spec, INFERENCE_PATHS, backend, headers), _by_header(spec, backend, headers)]


def _pool(spec: RouteSpec) -> dict[str, Any]:
    name = naming.inference_pool(spec.model)
    return {"group": POOL_GROUP, "kind": "InferencePool", "name": name, "port": MODEL_PORT}


def _service(spec: RouteSpec) -> dict[str, Any]:
    name = spec.kind.service(spec.model)
    return {"group": "", "kind": "Service", "name": name, "port": spec.kind.port}


def _match(path: str, headers: Iterable[Header], kind: str = "Exact") -> dict[str, Any]:
    return {"path": {"type": kind, "value": path}, **({"headers": list(headers)} if headers else {})}


def _by_path(
    spec: RouteSpec, paths: Iterable[str], backend: dict[str, Any], headers: tuple[Header, ...]
) -> list[dict[str, Any]]:
    """The model under its own prefix, which the engine does not know."""
    match, rewrite, field_name = _STRIP["google" if spec.google else "istio"]
    return [
        {
            "matches": [_match(spec.prefix + path, headers, match)],
            "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": rewrite, field_name: path}}}],
            "backendRefs": [backend],
        }
        for path in paths
    ]


def _by_header(spec: RouteSpec, backend: dict[str, Any], headers: tuple[Header, ...]) -> dict[str, Any]:
    """The model among all under one base URL, by KServe's header: a client's, or the request program's."""
    chosen = {"name": MODEL_HEADER, "value": model_name(spec.namespace, spec.served_name)}
    matches = [_match(path, (chosen, *headers)) for path in INFERENCE_PATHS]
    return {"matches": matches, "filters": [], "backendRefs": [backend]}


def _route(spec: RouteSpec, name: str, rules: Iterable[dict[str, Any]]) -> Manifest:
    parent = {"name": spec.gateway, "namespace": spec.gateway_namespace, "sectionName": spec.section}
    timeouts = {"request": f"{spec.timeout_seconds}s"} if spec.timeout_seconds else None
    return manifest(
        API,
        "HTTPRoute",
        name,
        spec.namespace,
        labels={**labels.common("route"), labels.MODEL: spec.model},
        spec={
            "parentRefs": [parent],
            "hostnames": [spec.host] if spec.host else None,
            "rules": [{**rule, "filters": rule["filters"] or None, "timeouts": timeouts} for rule in rules],
        },
    )
