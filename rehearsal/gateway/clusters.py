"""Services and InferencePools as Envoy's clusters and their endpoints.

Follows istiod's `pilot/pkg/networking/core/cluster.go`, `cluster_builder.go` and `cluster_tls.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.core import naming
from rehearsal.gateway.objects import (
    ROOT_NAMESPACE,
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
from rehearsal.gateway.routes import pool_cluster

Endpoints = Callable[[str, Mapping[str, str], int | str], list[tuple[str, int]]]

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# What the first part of a port's name, or its appProtocol, means. Only HTTP/2 makes a difference here.
PROTOCOLS = {
    "http": False, "http2": True, "grpc": True, "grpc-web": True, "kubernetes.io/h2c": True,
    "https": False, "tls": False, "tcp": False, "kubernetes.io/ws": False, "kubernetes.io/wss": False,
}  # fmt: skip
UNLIMITED = 4294967295
# What Istio sets in place of Envoy's low limits.
CIRCUIT_BREAKERS = {
    "thresholds": [
        {
            "max_connections": UNLIMITED,
            "max_pending_requests": UNLIMITED,
            "max_requests": UNLIMITED,
            "max_retries": UNLIMITED,
            "track_remaining": True,
        }
    ]
}
METADATA_NAMESPACE = "envoy.lb"
PICKED = "x-gateway-destination-endpoint"
SERVED = "x-gateway-destination-endpoint-served"


@dataclass(frozen=True)
class Target:
    """One cluster: whose pods it reaches at which of their ports, and how."""

    name: str
    service_host: str
    namespace: str
    selector: Mapping[str, str]
    ports: tuple[int | str, ...]
    http2: bool
    picked: bool = False


def targets(objects: Objects, namespaces: set[str]) -> Iterator[Target]:
    """A cluster for every port of the Services in some namespaces, and one for every InferencePool there."""
    for service in sorted(objects.of("Service"), key=key):
        namespace, name = key(service)
        spec = service["spec"]
        if namespace not in namespaces or spec.get("type") == "ExternalName":
            continue
        for port in spec.get("ports") or []:
            if port.get("protocol", "TCP") == "TCP":
                target = port.get("targetPort", port["port"])
                full = host(name, namespace)
                yield Target(
                    cluster_name(full, port["port"]), full, namespace, spec.get("selector") or {},
                    (target,), speaks_http2(port),
                )  # fmt: skip
    for pool in sorted(objects.of("InferencePool"), key=key):
        if pool["metadata"]["namespace"] in namespaces:
            yield pool_target(pool)


def pool_target(pool: Manifest) -> Target:
    """The cluster of a pool's serving pods."""
    namespace, name = key(pool)
    only(pool, pool["spec"], "spec", ("selector", "targetPorts", "endpointPickerRef", "appProtocol"))
    only(pool, pool["spec"]["selector"], "spec.selector", ("matchLabels",))
    return Target(
        pool_cluster(name, namespace),
        host(naming.shadow_service(name), namespace),
        namespace,
        pool["spec"]["selector"]["matchLabels"],
        tuple(p["number"] for p in pool["spec"]["targetPorts"]),
        speaks_http2({"name": "http-0", "appProtocol": pool["spec"].get("appProtocol")}),
        picked=True,
    )


def speaks_http2(port: Mapping[str, Any]) -> bool:
    """Whether Envoy speaks HTTP/2 to a Service's port: by appProtocol, else by the first part of its name."""
    name = port.get("appProtocol") or port.get("name") or ""
    return PROTOCOLS.get(name, PROTOCOLS.get(name.split("-")[0], False))


def cluster(target: Target, rule: Manifest | None, eds: Mapping[str, Any]) -> dict[str, Any]:
    """A cluster whose endpoints come from `eds`, with the DestinationRule's `rule` for it."""
    tls = _tls(target, rule)
    out: dict[str, Any] = {
        "name": target.name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": dict(eds), "service_name": target.name},
        "connect_timeout": "10s",
        "circuit_breakers": CIRCUIT_BREAKERS,
        "lb_policy": "LEAST_REQUEST",
    }
    options: dict[str, Any] = {}
    if target.http2:
        options["explicit_http_config"] = {"http2_protocol_options": {}}
    if tls is not None:
        out["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
        if "sni" not in tls:
            options["upstream_http_protocol_options"] = {"auto_sni": True}
            options.setdefault("explicit_http_config", {"http_protocol_options": {}})
    if options:
        out["typed_extension_protocol_options"] = {
            HTTP_OPTIONS: {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", **options}
        }
    return out | (OVERRIDE_HOST if target.picked else {})


def _path(*keys: str) -> dict[str, Any]:
    """A key of the metadata in which pickers and the gateway talk about endpoints."""
    return {"key": METADATA_NAMESPACE, "path": [{"key": k} for k in keys]}


_POLICIES = "type.googleapis.com/envoy.extensions.load_balancing_policies"
# The picker's choice counts if it is one of the cluster's endpoints; else they take turns.
OVERRIDE_HOST: dict[str, Any] = {
    "lb_policy": "CLUSTER_PROVIDED",
    "load_balancing_policy": {
        "policies": [
            {
                "typed_extension_config": {
                    "name": "envoy.load_balancing_policies.override_host",
                    "typed_config": {
                        "@type": f"{_POLICIES}.override_host.v3.OverrideHost",
                        "override_host_sources": [{"metadata": _path(PICKED)}],
                        "selected_host_key": _path(SERVED),
                        "fallback_policy": {
                            "policies": [
                                {
                                    "typed_extension_config": {
                                        "name": "envoy.load_balancing_policies.round_robin",
                                        "typed_config": {"@type": f"{_POLICIES}.round_robin.v3.RoundRobin"},
                                    }
                                }
                            ]
                        },
                    },
                }
            }
        ]
    },
}


def _tls(target: Target, rule: Manifest | None) -> dict[str, Any] | None:
    """How Envoy speaks TLS to a cluster's pods; None for not at all."""
    if rule is None:
        return None
    only(rule, rule["spec"], "spec", ("host", "trafficPolicy"))
    policy = rule["spec"].get("trafficPolicy") or {}
    only(rule, policy, "spec.trafficPolicy", ("tls",))
    tls = policy.get("tls") or {"mode": "DISABLE"}
    only(rule, tls, "spec.trafficPolicy.tls", ("mode", "sni", "insecureSkipVerify"))
    one_of(rule, tls.get("mode"), "spec.trafficPolicy.tls.mode", ("SIMPLE", "DISABLE"))
    if tls["mode"] == "DISABLE":
        return None
    if not tls.get("insecureSkipVerify"):
        what = "spec.trafficPolicy.tls verifies against the proxy's root certificates, which is not rehearsed"
        raise Unsupported(rule, f"{what}; set insecureSkipVerify")
    common: dict[str, Any] = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "validation_context": {},
        **({"alpn_protocols": ["h2"]} if target.http2 else {}),
    }
    return {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": common,
        **({"sni": tls["sni"]} if tls.get("sni") else {}),
    }


def destination_rules(objects: Objects, namespace: str) -> Callable[[Target], Manifest | None]:
    """Finds the DestinationRule for a cluster, as a proxy in `namespace` sees it.

    One in the proxy's own namespace wins over one in the Service's, and that over one in the root namespace; of
    several in one namespace the oldest counts here (Istio merges them).
    """
    found: dict[tuple[str, str], Manifest] = {}
    for rule in sorted(objects.of("DestinationRule"), key=age):
        home, _ = key(rule)
        wanted = rule["spec"]["host"]
        if "*" in wanted:
            raise Unsupported(rule, "spec.host with a wildcard is not rehearsed")
        # A short name is one in the rule's own namespace.
        full = wanted if "." in wanted else host(wanted, home)
        found.setdefault((home, full), rule)

    def find(target: Target) -> Manifest | None:
        homes = (namespace, target.namespace, ROOT_NAMESPACE)
        return next((found[h, target.service_host] for h in homes if (h, target.service_host) in found), None)

    return find


def assignment(target: Target, endpoints: Endpoints) -> dict[str, Any]:
    """The addresses behind a cluster now; a Service without a selector has none."""
    addresses: list[tuple[str, int]] = []
    if target.selector:
        for port in target.ports:
            addresses += endpoints(target.namespace, target.selector, port)
    members = [
        {"endpoint": {"address": {"socket_address": {"address": a, "port_value": p}}}}
        for a, p in sorted(set(addresses))
    ]
    return {
        "cluster_name": target.name,
        "endpoints": [{"lb_endpoints": members, "load_balancing_weight": len(members)}] if members else [],
    }
