"""A Gateway and all that belongs to it, as the files that one Envoy reads.

Follows istiod's `pilot/pkg/networking/core/gateway.go` and `listener_builder.go`. The files are parts of Envoy's
discovery: a change of routes, tables or keys is a change of the smallest file that holds it, so only a changed
listener ever drains its connections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rehearsal.gateway import attach, clusters, routes, security
from rehearsal.gateway.clusters import Endpoints, Target
from rehearsal.gateway.objects import Manifest, Objects, Unsupported, host, key, labels, one_of, only
from rehearsal.gateway.patches import HCM, Patch, patched_listener, patched_routes, patches
from rehearsal.gateway.routes import Server

ADMIN_PORT, HEALTH_PORT, METRICS_PORTS = 15000, 15021, (15020, 15090)
# Below this only root may listen; such ports are moved up by so much.
FIRST_FREE_PORT, MOVED_BY = 1024, 8000
BOOTSTRAP = "bootstrap.json"
_API = "type.googleapis.com/envoy"
LISTENER = f"{_API}.config.listener.v3.Listener"
CLUSTER = f"{_API}.config.cluster.v3.Cluster"
ROUTES = f"{_API}.config.route.v3.RouteConfiguration"
ASSIGNMENT = f"{_API}.config.endpoint.v3.ClusterLoadAssignment"
SECRET = f"{_API}.extensions.transport_sockets.tls.v3.Secret"
HCM_TYPE = f"{_API}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{_API}.extensions.filters.http.router.v3.Router"},
}
# On a listener as soon as any pool is behind the Gateway; each route says which picker it asks.
EXT_PROC = {
    "name": routes.EXT_PROC,
    "typed_config": {
        "@type": f"{_API}.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": "dummy"}, "timeout": "10s"},
        "failure_mode_allow": True,
        "processing_mode": {"request_header_mode": "SKIP", "response_header_mode": "SKIP"},
        "message_timeout": "1000s",
        "metadata_options": {
            "receiving_namespaces": {"untyped": [clusters.METADATA_NAMESPACE]},
            "forwarding_namespaces": {"untyped": [clusters.METADATA_NAMESPACE]},
        },
    },
}

Secrets = Callable[[str, str], Manifest | None]


@dataclass(frozen=True)
class Proxy:
    """One pod of a Gateway: its address, and the directory from which its Envoy reads."""

    gateway: Manifest
    pod: Manifest
    address: str
    directory: Path

    def source(self, file: str) -> dict[str, Any]:
        """Where Envoy finds a part of its configuration."""
        return {"path_config_source": {"path": str(self.directory / file)}, "resource_api_version": "V3"}


@dataclass
class Config:
    """The files of one proxy, in the order in which they must appear: nothing refers to a file after it.

    `problems` says which listeners are left out and why, as (reason, message).
    """

    files: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, file: str, kind: str, resources: list[dict[str, Any]]) -> None:
        """Add a file with resources of one kind."""
        self.files[file] = {"resources": [{"@type": kind, **r} for r in resources]}


def translate(objects: Objects, proxy: Proxy, endpoints: Endpoints, secrets: Secrets) -> Config:
    """All files of one proxy. Raises `Unsupported` for what is not rehearsed."""
    namespace, name = key(proxy.gateway)
    have, config = labels(proxy.pod), Config()
    found = patches(objects, name, namespace, have)
    by_port = _ports(proxy.gateway, secrets, config)
    attached = {
        k: r for ls in by_port.values() for x in ls for r, _ in attach.attached(objects, proxy.gateway, x)
        for k in [key(r)]
    }  # fmt: skip
    _clusters(config, objects, proxy, endpoints, list(attached.values()))
    filters = [
        *security.filters(objects, name, namespace, have, _mover(by_port)),
        *([EXT_PROC] if any(attach.pools(r) for r in attached.values()) else []),
        ROUTER,
    ]
    listeners = []
    for port, group in sorted(by_port.items()):
        chains = secure(config, proxy, group, secrets) if group[0]["protocol"] == "HTTPS" else [(group, {})]
        listener = empty_listener(proxy, port)
        for members, chain in chains:
            route_name = _routes_name(proxy.gateway, port, members)
            _routes(config, objects, proxy, members, route_name, port, by_port, found)
            manager = _manager(proxy, route_name, port, filters)
            listener["filter_chains"].append({**chain, "filters": [{"name": HCM, "typed_config": manager}]})
        if group[0]["protocol"] == "HTTPS":
            listener["listener_filters"] = [TLS_INSPECTOR]
        listeners.append(patched_listener(listener, port, found))
    config.add("lds.json", LISTENER, listeners)
    config.files[BOOTSTRAP] = bootstrap(proxy)
    return config


_LISTENER_FIELDS = ("name", "port", "protocol", "hostname", "tls", "allowedRoutes")


def _ports(gateway: Manifest, secrets: Secrets, config: Config) -> dict[int, list[Manifest]]:
    """The usable listeners by port."""
    only(gateway, gateway["spec"], "spec", ("gatewayClassName", "infrastructure", "listeners"))
    ports: dict[int, list[Manifest]] = {}
    for listener in gateway["spec"]["listeners"]:
        where = f"spec.listeners[{listener['name']}]"
        only(gateway, listener, where, _LISTENER_FIELDS)
        one_of(gateway, listener.get("protocol"), f"{where}.protocol", ("HTTP", "HTTPS"))
        if listener["protocol"] == "HTTPS" and (problem := _tls_problem(gateway, listener, where, secrets)):
            config.problems[listener["name"]] = problem
            continue
        ports.setdefault(listener["port"], []).append(listener)
    for port, group in ports.items():
        if len({x["protocol"] for x in group}) > 1:
            raise Unsupported(gateway, f"spec.listeners: HTTP and HTTPS share port {port}")
    if len({moved(p) for p in ports}) < len(ports):
        what = f"ports below {FIRST_FREE_PORT} are moved up by {MOVED_BY} here, where another listener is"
        raise Unsupported(gateway, f"spec.listeners: {what}")
    return ports


def moved(port: int) -> int:
    """Where a listener's port really is: no program here runs as root."""
    return port + MOVED_BY if port < FIRST_FREE_PORT else port


def _mover(ports: Mapping[int, Any]) -> Callable[[int], int]:
    """Where a port really is; one that the Gateway does not have is somebody else's."""
    return lambda port: moved(port) if port in ports else port


def _tls_problem(
    gateway: Manifest, listener: Manifest, where: str, secrets: Secrets
) -> tuple[str, str] | None:
    tls = listener.get("tls") or {}
    only(gateway, tls, f"{where}.tls", ("mode", "certificateRefs"))
    one_of(gateway, tls.get("mode", "Terminate"), f"{where}.tls.mode", ("Terminate",))
    references = tls.get("certificateRefs") or []
    if len(references) != 1:
        raise Unsupported(gateway, f"{where}.tls.certificateRefs must hold one reference")
    reference, home = references[0], gateway["metadata"]["namespace"]
    only(gateway, reference, f"{where}.tls.certificateRefs", ("group", "kind", "name", "namespace"))
    one_of(gateway, reference.get("kind", "Secret"), f"{where}.tls.certificateRefs.kind", ("Secret",))
    one_of(gateway, reference.get("namespace", home), f"{where}.tls.certificateRefs.namespace", (home,))
    secret = secrets(reference["name"], home)
    if secret is None:
        return "InvalidCertificateRef", f"reference to Secret {home}/{reference['name']} not found"
    missing = {"tls.crt", "tls.key"} - {k for k, v in (secret.get("data") or {}).items() if v}
    if missing:
        what = ", ".join(sorted(missing))
        return "InvalidCertificateRef", f"Secret {home}/{reference['name']} has no {what}"
    return None


def _clusters(
    config: Config, objects: Objects, proxy: Proxy, endpoints: Endpoints, attached: list[Manifest]
) -> None:
    """The clusters of every Service and pool in the namespaces that the Gateway has to do with."""
    home = proxy.gateway["metadata"]["namespace"]
    namespaces = {home, *(attach.backend_namespace(r, b) for r in attached for b in attach.backends(r))}
    rule_of = clusters.destination_rules(objects, home)
    found = []
    for target in clusters.targets(objects, namespaces):
        file = f"eds-{_file_name(target)}.json"
        config.add(file, ASSIGNMENT, [clusters.assignment(target, endpoints)])
        found.append(clusters.cluster(target, rule_of(target), proxy.source(file)))
    config.add("cds.json", CLUSTER, found)


def _file_name(target: Target) -> str:
    """A cluster's name without the signs that would need quoting in a shell."""
    return target.name.replace("|", "_")


def secure(
    config: Config, proxy: Proxy, group: list[Manifest], secrets: Secrets
) -> list[tuple[list[Manifest], dict[str, Any]]]:
    """For each HTTPS listener of a port its filter chain, chosen by the name that the client asks for."""
    chains = []
    for listener in group:
        name, home = listener["tls"]["certificateRefs"][0]["name"], proxy.gateway["metadata"]["namespace"]
        file, secret = f"sds-{name}.json", f"kubernetes://{name}"
        data = (secrets(name, home) or {})["data"]
        pair = {"certificate_chain": "tls.crt", "private_key": "tls.key"}
        certificate = {field: {"inline_bytes": data[entry]} for field, entry in pair.items()}
        config.add(file, SECRET, [{"name": secret, "tls_certificate": certificate}])
        context = {
            "@type": f"{_API}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificate_sds_secret_configs": [{"name": secret, "sds_config": proxy.source(file)}],
            },
            "require_client_certificate": False,
        }
        chain: dict[str, Any] = {
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}
        }
        if listener.get("hostname"):
            chain["filter_chain_match"] = {"server_names": [listener["hostname"].lower()]}
        chains.append(([listener], chain))
    return chains


TLS_INSPECTOR = {
    "name": "envoy.filters.listener.tls_inspector",
    "typed_config": {"@type": f"{_API}.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
}


def _routes_name(gateway: Manifest, port: int, members: list[Manifest]) -> str:
    """Istio's name of a route configuration: one for all HTTP listeners of a port, one for each HTTPS listener."""
    if members[0]["protocol"] == "HTTP":
        return f"http.{port}"
    namespace, name = key(gateway)
    return f"https.{port}.default.{name}-istio-autogenerated-k8s-gateway-{members[0]['name']}.{namespace}"


def _routes(
    config: Config,
    objects: Objects,
    proxy: Proxy,
    members: list[Manifest],
    name: str,
    port: int,
    ports: Mapping[int, Any],
    found: list[Patch],
) -> None:
    server = Server(port, members[0]["protocol"] == "HTTPS", _mover(ports))
    routing = routes.configuration(objects, proxy.gateway, members, name, server)
    config.add(_routes_file(name), ROUTES, [patched_routes(routing, port, found)])


def _routes_file(name: str) -> str:
    return f"rds-{name}.json"


def empty_listener(proxy: Proxy, port: int) -> dict[str, Any]:
    """A listener without filter chains, where its port really is."""
    socket = {"address": proxy.address, "port_value": moved(port)}
    return {
        "name": f"0.0.0.0_{port}",
        "address": {"socket_address": socket},
        "traffic_direction": "OUTBOUND",
        "filter_chains": [],
    }


def _manager(proxy: Proxy, routes_name: str, port: int, filters: list[dict[str, Any]]) -> dict[str, Any]:
    """Istio's settings of a gateway's HTTP connection manager."""
    return {
        "@type": HCM_TYPE,
        "stat_prefix": f"outbound_0.0.0.0_{port}",
        "codec_type": "AUTO",
        "server_name": "istio-envoy",
        "use_remote_address": True,
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"subject": True, "cert": True, "dns": True, "uri": True},
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        # As the platform sets it (components/platform/istio.py).
        "proxy_100_continue": False,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
        "http_protocol_options": {},
        "rds": {"config_source": proxy.source(_routes_file(routes_name)), "route_config_name": routes_name},
        "http_filters": filters,
    }


def bootstrap(proxy: Proxy) -> dict[str, Any]:
    """What Envoy starts with: who it is, where the rest is, and its own ports for health and metrics."""
    namespace, pod = key(proxy.pod)
    admin = {"socket_address": {"address": proxy.address, "port_value": ADMIN_PORT}}
    own = [_own_listener(proxy, HEALTH_PORT, "/healthz/ready", "/ready")]
    own += [_own_listener(proxy, p, "/stats/prometheus", "/stats/prometheus") for p in METRICS_PORTS]
    return {
        "node": {"id": node_id(proxy.address, pod, namespace), "cluster": host(*key(proxy.gateway)[::-1])},
        "admin": {"address": admin},
        "dynamic_resources": {"lds_config": proxy.source("lds.json"), "cds_config": proxy.source("cds.json")},
        "static_resources": {
            "listeners": own,
            "clusters": [
                {
                    "name": "agent",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "agent",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": admin}}]}],
                    },
                }
            ],
        },
    }


def node_id(address: str, pod: str, namespace: str) -> str:
    """Istio's name of a proxy."""
    return f"router~{address}~{pod}.{namespace}~{namespace}.svc.cluster.local"


def _own_listener(proxy: Proxy, port: int, path: str, admin_path: str) -> dict[str, Any]:
    """A port that shows one page of Envoy's admin interface, where Istio's agent has it."""
    shown = {"match": {"path": path}, "route": {"cluster": "agent", "prefix_rewrite": admin_path}}
    manager = {
        "@type": HCM_TYPE,
        "stat_prefix": "agent",
        "route_config": {"virtual_hosts": [{"name": "agent", "domains": ["*"], "routes": [shown]}]},
        "http_filters": [ROUTER],
    }
    return {
        "name": f"agent_{port}",
        "address": {"socket_address": {"address": proxy.address, "port_value": port}},
        "filter_chains": [{"filters": [{"name": HCM, "typed_config": manager}]}],
    }
