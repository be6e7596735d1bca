"""HTTPRoutes as Envoy's route configurations.

Follows istiod's `pilot/pkg/config/kube/gateway/conversion.go` (names, order, filters) and
`pilot/pkg/networking/core/route/route.go` (Envoy's shape). A rule is named `<namespace>.<route>.<number>`
unless it has a name; within a host the more specific match comes first: exact before prefix, the longer path,
a method, more headers, then the older route.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.core import naming
from rehearsal.gateway import attach
from rehearsal.gateway.objects import (
    Manifest,
    Objects,
    Unsupported,
    age,
    cluster_name,
    host,
    key,
    one_of,
    only,
)

EXT_PROC = "envoy.filters.http.ext_proc"
EXT_PROC_PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
# The port that istiod gives the Service which it makes for a pool (`translateShadowServiceToService`).
POOL_PORT = 54321
# Where Istio sends what names no usable backend; there is no such cluster, so the answer is 500.
UNKNOWN = "UnknownService"
MAX_DIRECT_RESPONSE_BYTES = 1024 * 1024
RETRY = {
    "num_retries": 2,
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "host_selection_retry_max_attempts": 5,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
}
REDIRECT_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
DEFAULT_PORTS = {"http": 80, "https": 443}
PATH_RANKS = {"Exact": 3, "PathPrefix": 2}
UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True)
class Rule:
    """One match of one rule of one route, and what sorts it."""

    route: Manifest
    spec: Manifest
    match: Manifest
    name: str

    @property
    def specificity(self) -> tuple[int, int, bool, int]:
        """Greater means that it is tried earlier."""
        path = self.match.get("path") or {}
        kind, value = path.get("type", "PathPrefix"), path.get("value", "/")
        return (
            PATH_RANKS.get(kind, 0),
            len(value),
            bool(self.match.get("method")),
            len(self.match.get("headers") or []),
        )


@dataclass(frozen=True)
class Server:
    """Where routes are served: the listener's port as in the Gateway, the real one, and whether it is TLS.

    `moved` tells the real port of another port of the same Gateway.
    """

    port: int
    tls: bool
    moved: Callable[[int], int]


def configuration(
    objects: Objects, gateway: Manifest, listeners: list[Manifest], name: str, server: Server
) -> dict[str, Any]:
    """The RouteConfiguration that some listeners of a Gateway share."""
    hosts: dict[str, list[dict[str, Any]]] = {}
    for listener in listeners:
        for domain, rules in _by_host(objects, gateway, listener).items():
            hosts.setdefault(domain, []).extend(envoy_route(objects, r, server) for r in rules)
    virtual_hosts = [
        {"name": f"{domain}:{server.port}", "domains": [domain], "routes": _catch_all_last(found)}
        for domain, found in sorted(hosts.items())
    ]
    return {
        "name": name,
        # Without any route Envoy answers 404.
        "virtual_hosts": virtual_hosts
        or [{"name": f"blackhole:{server.port}", "domains": ["*"], "routes": []}],
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": MAX_DIRECT_RESPONSE_BYTES,
    }


def _by_host(objects: Objects, gateway: Manifest, listener: Manifest) -> dict[str, list[Rule]]:
    """The rules of a listener in the order in which they are tried, by host name."""
    hosts: dict[str, list[Rule]] = {}
    for route, domains in sorted(attach.attached(objects, gateway, listener), key=lambda r: age(r[0])):
        for domain in domains:
            hosts.setdefault(domain, []).extend(rules(route))
    return {d: sorted(r, key=lambda rule: rule.specificity, reverse=True) for d, r in hosts.items()}


def rules(route: Manifest) -> Iterator[Rule]:
    """A route's rules, one for each match."""
    namespace, name = key(route)
    only(route, route["spec"], "spec", ("parentRefs", "hostnames", "rules", "useDefaultGateways"))
    for number, spec in enumerate(route["spec"].get("rules") or []):
        where = f"spec.rules[{number}]"
        only(route, spec, where, ("name", "matches", "filters", "backendRefs", "timeouts"))
        for match in spec.get("matches") or [{}]:
            yield Rule(route, spec, match, spec.get("name") or f"{namespace}.{name}.{number}")


def envoy_route(objects: Objects, rule: Rule, server: Server) -> dict[str, Any]:
    """One route of Envoy's."""
    route: dict[str, Any] = {"name": rule.name, "match": _match(rule)}
    filters = _filters(rule)
    route |= _header_changes(rule, filters)
    used = [b for b in rule.spec.get("backendRefs") or [] if b.get("weight", 1) > 0]
    if redirect := filters.get("RequestRedirect"):
        return route | {"redirect": _redirect(rule, redirect, server)}
    if not used:
        # Gateway API: a rule without a backend answers 500.
        return route | {"direct_response": {"status": 500}}
    action: dict[str, Any] = {
        "timeout": _timeout(rule),
        "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR",
        "retry_policy": RETRY,
        **_destination(objects, rule, used),
        **_rewrite(rule, filters.get("URLRewrite") or {}),
    }
    if picker := _picker(objects, rule, used):
        route["typed_per_filter_config"] = {EXT_PROC: picker}
    return route | {"route": action}


def _match(rule: Rule) -> dict[str, Any]:
    match = rule.match
    only(rule.route, match, f"{rule.name} matches", ("path", "headers", "method"))
    path = match.get("path") or {}
    kind, value = path.get("type", "PathPrefix"), path.get("value", "/")
    one_of(rule.route, kind, f"{rule.name} path.type", PATH_RANKS)
    found: dict[str, Any] = {"path": value}
    if kind == "PathPrefix":
        # A prefix ends at a slash, and `/` is a prefix of everything.
        trimmed = value.rstrip("/")
        found = {"path_separated_prefix": trimmed} if trimmed else {"prefix": "/"}
    headers = []
    for header in sorted(match.get("headers") or [], key=lambda h: h["name"]):
        one_of(rule.route, header.get("type", "Exact"), f"{rule.name} headers.type", ("Exact",))
        headers.append({"name": header["name"], "string_match": {"exact": header["value"]}})
    if match.get("method"):
        headers.append({"name": ":method", "string_match": {"exact": match["method"]}})
    return {**found, "case_sensitive": True, **({"headers": headers} if headers else {})}


FILTERS = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
}


def _filters(rule: Rule) -> dict[str, Manifest]:
    """The rule's filters by type; where one comes twice the last one counts, as in Istio."""
    found = {}
    for item in rule.spec.get("filters") or []:
        one_of(rule.route, item["type"], f"{rule.name} filters.type", FILTERS)
        found[item["type"]] = item[FILTERS[item["type"]]]
    return found


def _header_changes(rule: Rule, filters: Mapping[str, Manifest]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for direction in ("Request", "Response"):
        wanted = filters.get(f"{direction}HeaderModifier")
        if not wanted:
            continue
        only(rule.route, wanted, f"{rule.name} {direction}HeaderModifier", ("set", "add", "remove"))
        added = [
            {"header": {"key": h["name"], "value": h["value"]}, "append_action": action}
            for field, action in (("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD"))
            for h in sorted(wanted.get(field) or [], key=lambda h: h["name"])
        ]
        prefix = direction.lower()
        changes |= {f"{prefix}_headers_to_add": added} if added else {}
        if wanted.get("remove"):
            changes[f"{prefix}_headers_to_remove"] = wanted["remove"]
    return changes


def _redirect(rule: Rule, redirect: Manifest, server: Server) -> dict[str, Any]:
    only(
        rule.route,
        redirect,
        f"{rule.name} requestRedirect",
        ("scheme", "hostname", "port", "path", "statusCode"),
    )
    code = redirect.get("statusCode", 302)
    one_of(rule.route, code, f"{rule.name} requestRedirect.statusCode", REDIRECT_CODES)
    scheme = redirect.get("scheme")
    out: dict[str, Any] = {"response_code": REDIRECT_CODES[code]}
    if scheme:
        out["scheme_redirect"] = scheme
    if redirect.get("hostname"):
        out["host_redirect"] = redirect["hostname"]
    now = scheme or ("https" if server.tls else "http")
    port = redirect.get("port") or (DEFAULT_PORTS[now] if scheme else server.port)
    # A port that need not be written is not, unless it listens elsewhere here.
    if server.moved(port) != DEFAULT_PORTS[now]:
        out["port_redirect"] = server.moved(port)
    path = redirect.get("path") or {}
    paths = {"ReplaceFullPath": "path_redirect", "ReplacePrefixMatch": "prefix_rewrite"}
    if path:
        one_of(rule.route, path["type"], f"{rule.name} requestRedirect.path.type", paths)
        out[paths[path["type"]]] = path[path["type"][0].lower() + path["type"][1:]]
    return out


def _rewrite(rule: Rule, rewrite: Manifest) -> dict[str, Any]:
    only(rule.route, rewrite, f"{rule.name} urlRewrite", ("path", "hostname"))
    out: dict[str, Any] = {}
    if rewrite.get("hostname"):
        out["host_rewrite_literal"] = rewrite["hostname"]
    path = rewrite.get("path") or {}
    if path.get("type") == "ReplaceFullPath":
        out["regex_rewrite"] = {
            "pattern": {"regex": "/.*"}, "substitution": path["replaceFullPath"]
        }  # fmt: skip
    elif path.get("type") == "ReplacePrefixMatch":
        prefix = ((rule.match.get("path") or {}).get("value") or "/").rstrip("/")
        wanted = path["replacePrefixMatch"].rstrip("/")
        # Only a rewrite to nothing needs care for the slash that stays.
        removed = {"pattern": {"regex": f"^{re.escape(prefix)}(/?)(.*)"}, "substitution": r"/\2"}
        out |= {"prefix_rewrite": wanted} if wanted else {"regex_rewrite": removed}
    elif path:
        one_of(
            rule.route,
            path.get("type"),
            f"{rule.name} urlRewrite.path.type",
            ("ReplaceFullPath", "ReplacePrefixMatch"),
        )
    return out


def _timeout(rule: Rule) -> str:
    """The time limit of the whole request; none where the route names none."""
    timeouts = rule.spec.get("timeouts") or {}
    only(rule.route, timeouts, f"{rule.name} timeouts", ("request", "backendRequest"))
    # Istio knows one limit where no retries are configured: the backend's, if there is one.
    given = seconds(timeouts.get("backendRequest") or "0s") or seconds(timeouts.get("request") or "0s")
    return f"{given:g}s"


def seconds(duration: str) -> float:
    """A duration of the Gateway API (`1h30m`, `300s`, `500ms`) in seconds."""
    return sum(float(n) * UNIT_SECONDS[u] for n, u in re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", duration))


def _destination(objects: Objects, rule: Rule, used: list[Manifest]) -> dict[str, Any]:
    names = [_cluster(objects, rule, b) for b in used]
    if len(names) == 1:
        return {"cluster": names[0]}
    weighted = [{"name": n, "weight": b.get("weight", 1)} for n, b in zip(names, used, strict=True)]
    return {"weighted_clusters": {"clusters": weighted}}


def _cluster(objects: Objects, rule: Rule, backend: Manifest) -> str:
    only(
        rule.route,
        backend,
        f"{rule.name} backendRefs",
        ("group", "kind", "name", "namespace", "port", "weight"),
    )
    namespace = attach.backend_namespace(rule.route, backend)
    kind, name = backend.get("kind", "Service"), backend["name"]
    found = attach.problem(objects, rule.route, backend)
    if kind == "InferencePool" and found is None:
        return pool_cluster(name, namespace)
    if kind == "Service" and (found is None or found[0] == "BackendNotFound"):
        if "port" not in backend:
            raise Unsupported(rule.route, f"{rule.name} backendRefs.port is required for a Service")
        return cluster_name(host(name, namespace), backend["port"])
    return UNKNOWN


def pool_cluster(pool: str, namespace: str) -> str:
    """The cluster of a pool's serving pods."""
    return cluster_name(host(naming.shadow_service(pool), namespace), POOL_PORT)


def _picker(objects: Objects, rule: Rule, used: list[Manifest]) -> dict[str, Any] | None:
    """How a route asks the endpoint picker of its pool; None where it goes to no pool."""
    pools = [b for b in used if attach.backend_kind(b) == (attach.POOL_GROUP, "InferencePool")]
    if not pools:
        return None
    if len(used) > 1:
        raise Unsupported(
            rule.route, f"{rule.name} backendRefs: a pool beside other backends is not rehearsed"
        )
    namespace = attach.backend_namespace(rule.route, pools[0])
    pool = objects.get("InferencePool", pools[0]["name"], namespace)
    if pool is None:
        return None
    overrides = {
        "failure_mode_allow": failure_mode(pool) == "FailOpen",
        "grpc_service": {"envoy_grpc": {"cluster_name": picker_cluster(pool)}},
        "processing_mode": {
            "request_header_mode": "SEND",
            "request_body_mode": "FULL_DUPLEX_STREAMED",
            "request_trailer_mode": "SEND",
            "response_header_mode": "SEND",
            "response_body_mode": "FULL_DUPLEX_STREAMED",
            "response_trailer_mode": "SEND",
        },
    }
    return {"@type": EXT_PROC_PER_ROUTE, "overrides": overrides}


def failure_mode(pool: Manifest) -> str:
    """What happens to requests while the picker cannot be asked."""
    return str(pool["spec"]["endpointPickerRef"].get("failureMode") or "FailClose")


def picker_cluster(pool: Manifest) -> str:
    """The cluster of a pool's endpoint picker."""
    reference, namespace = pool["spec"]["endpointPickerRef"], pool["metadata"]["namespace"]
    only(pool, reference, "spec.endpointPickerRef", ("group", "kind", "name", "port", "failureMode"))
    one_of(pool, reference.get("kind", "Service"), "spec.endpointPickerRef.kind", ("Service",))
    port = (reference.get("port") or {}).get("number")
    if not port:
        raise Unsupported(pool, "spec.endpointPickerRef.port is required")
    return cluster_name(host(reference["name"], namespace), port)


def _catch_all_last(routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Several groups of routes may share a host; what takes everything comes after all of them."""
    return sorted(routes, key=lambda r: r["match"].get("prefix") == "/" and "headers" not in r["match"])
