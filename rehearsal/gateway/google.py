"""Google's load balancer for a Gateway, as the files that one Envoy reads; its proxies are Envoys as well.

Routes, clusters and the picker's filter are those of the other gateway here; what differs is Google's: a time limit
for every backend, no filters of ours, answers without a route, and that a backend without a healthy endpoint is none.
Retries, of which Google makes one for requests without a body, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rehearsal.gateway import attach, clusters, routes, translate
from rehearsal.gateway.google_backends import BackendService
from rehearsal.gateway.objects import Manifest, Objects, Unsupported, key, one_of, only
from rehearsal.gateway.patches import HCM
from rehearsal.gateway.translate import BOOTSTRAP, Config, Proxy, Secrets, moved

CERTIFICATES = "networking.gke.io/cert-manager-certs"
ADMIN_PORT = translate.ADMIN_PORT
# What Google answers where no route matches.
NO_ROUTE = {"status": 404, "body": {"inline_string": "fault filter abort"}}
STREAM_IDLE = "300s"

Healthy = Callable[[BackendService], list[tuple[str, int]]]
"""Where the healthy endpoints of a backend service really listen."""


class Invalid(Exception):
    """Google refuses the Gateway itself; the message is its own, with its code."""


def gateway_config(
    objects: Objects, proxy: Proxy, services: Iterable[BackendService], healthy: Healthy, secrets: Secrets
) -> Config:
    """All files of a Gateway's proxy. Raises Invalid, and Unsupported for what is not rehearsed."""
    config, services = Config(), list(services)
    by_port = _ports(proxy.gateway)
    _clusters(config, proxy, services, healthy)
    timeouts = {s.target.name: f"{s.timeout}s" for s in services}
    listeners = []
    for port, group in sorted(by_port.items()):
        listener = translate.empty_listener(proxy, port)
        for members, chain in _chains(config, proxy, group, secrets):
            name = f"{port}-{members[0]['name']}"
            server = routes.Server(
                port, members[0]["protocol"] == "HTTPS", lambda p: moved(p) if p in by_port else p
            )
            routing = routes.configuration(objects, proxy.gateway, members, name, server)
            config.add(f"rds-{name}.json", translate.ROUTES, [_googles(routing, timeouts)])
            manager = _manager(proxy, name, any(s.picker for s in services))
            listener["filter_chains"].append({**chain, "filters": [{"name": HCM, "typed_config": manager}]})
        if group[0]["protocol"] == "HTTPS":
            listener["listener_filters"] = [translate.TLS_INSPECTOR]
        listeners.append(listener)
    config.add("lds.json", translate.LISTENER, listeners)
    config.files[BOOTSTRAP] = _bootstrap(proxy)
    return config


def _ports(gateway: Manifest) -> dict[int, list[Manifest]]:
    """The listeners by port."""
    spec, name = gateway["spec"], "/".join(key(gateway))
    for address in spec.get("addresses") or []:
        if address.get("type", "IPAddress") != "NamedAddress":
            raise Invalid(
                f'Error GWCER106: Gateway "{name}" is invalid, err: unsupported address type '
                f'"{address.get("type", "IPAddress")}", only "NamedAddress" is supported..'
            )
    only(gateway, spec, "spec", ("gatewayClassName", "infrastructure", "listeners"))
    ports: dict[int, list[Manifest]] = {}
    for listener in spec["listeners"]:
        where = f"spec.listeners[{listener['name']}]"
        only(gateway, listener, where, ("name", "port", "protocol", "hostname", "tls", "allowedRoutes"))
        one_of(gateway, listener.get("protocol"), f"{where}.protocol", ("HTTP", "HTTPS"))
        ports.setdefault(listener["port"], []).append(listener)
    for port, group in ports.items():
        if len({x["protocol"] for x in group}) > 1:
            raise Unsupported(gateway, f"spec.listeners: HTTP and HTTPS share port {port}")
    return ports


def _chains(
    config: Config, proxy: Proxy, group: list[Manifest], secrets: Secrets
) -> list[tuple[list[Manifest], dict[str, Any]]]:
    """For each group of listeners of a port that share a filter chain, that chain without its filters."""
    if group[0]["protocol"] == "HTTP":
        return [(group, {})]
    named = [{**x, "tls": {"certificateRefs": [{"name": certificate_of(proxy.gateway, x)}]}} for x in group]
    home = proxy.gateway["metadata"]["namespace"]
    for listener in named:
        name = listener["tls"]["certificateRefs"][0]["name"]
        if secrets(name, home) is None:
            raise Invalid(f"Error GWCER102: Secret {home}/{name} not found.")
    return translate.secure(config, proxy, named, secrets)


def certificate_of(gateway: Manifest, listener: Manifest) -> str:
    """The name of a listener's certificate: a Secret's, or one of Certificate Manager's."""
    where, tls = f"spec.listeners[{listener['name']}].tls", listener.get("tls") or {}
    only(gateway, tls, where, ("mode", "certificateRefs", "options"))
    one_of(gateway, tls.get("mode", "Terminate"), f"{where}.mode", ("Terminate",))
    options, references = tls.get("options") or {}, tls.get("certificateRefs") or []
    unknown = [name for name in options if name != CERTIFICATES]
    if unknown:
        raise Invalid(f"Error GWCER105: invalid TLS option key {unknown[0]!r}")
    names = [*options.get(CERTIFICATES, "").split(","), *(r["name"] for r in references)]
    names = [name.strip() for name in names if name.strip()]
    if len(names) != 1:
        raise Unsupported(gateway, f"{where} must name one certificate")
    return names[0]


def managed_certificates(gateway: Manifest) -> set[str]:
    """The certificates of Certificate Manager that a Gateway names."""
    options = ((x.get("tls") or {}).get("options") or {} for x in gateway["spec"]["listeners"])
    return {n.strip() for o in options for n in o.get(CERTIFICATES, "").split(",") if n.strip()}


def endpoint_files(services: Iterable[BackendService], healthy: Healthy) -> dict[str, Any]:
    """The files with the endpoints of backend services, which change without anything else."""
    config = Config()
    for service in services:
        found = healthy(service)
        assignment = clusters.assignment(service.target, lambda *_, found=found: found)  # type: ignore[misc]
        config.add(_endpoints_file(service), translate.ASSIGNMENT, [assignment])
    return config.files


def _endpoints_file(service: BackendService) -> str:
    return f"eds-{service.target.name.replace('|', '_')}.json"


def _clusters(config: Config, proxy: Proxy, services: list[BackendService], healthy: Healthy) -> None:
    config.files |= endpoint_files(services, healthy)
    found = []
    for service in services:
        encrypted = service.protocol in ("HTTPS", "HTTP2")
        rule = {"mode": "SIMPLE" if encrypted else "DISABLE", "insecureSkipVerify": True}
        item = {"kind": "BackendService", "metadata": {"name": service.target.name}}
        item["spec"] = {"host": service.target.service_host, "trafficPolicy": {"tls": rule}}
        found.append(clusters.cluster(service.target, item, proxy.source(_endpoints_file(service))))
    config.add("cds.json", translate.CLUSTER, found)


def _googles(routing: dict[str, Any], timeouts: Mapping[str, str]) -> dict[str, Any]:
    """A route configuration with each backend's time limit, and with Google's answer where nothing matches."""
    hosts = {h["domains"][0]: h for h in routing["virtual_hosts"]}
    hosts.setdefault("*", {"name": "none", "domains": ["*"], "routes": []})
    rest = {"name": "none", "match": {"prefix": "/"}, "direct_response": NO_ROUTE}
    limited = [{**h, "routes": [*(_limited(r, timeouts) for r in h["routes"]), rest]} for h in hosts.values()]
    return {**routing, "virtual_hosts": limited}


def _limited(route: dict[str, Any], timeouts: Mapping[str, str]) -> dict[str, Any]:
    if "route" not in route:
        return route
    action = {name: value for name, value in route["route"].items() if name != "retry_policy"}
    parts = (action.get("weighted_clusters") or {}).get("clusters") or [{"name": action.get("cluster")}]
    # Google counts each part's own; here the shortest counts for all.
    limits = sorted((timeouts[p["name"]] for p in parts), key=lambda t: float(t.removesuffix("s")))
    return {**route, "route": {**action, "timeout": limits[0]}}


def _manager(proxy: Proxy, routes_name: str, pooled: bool) -> dict[str, Any]:
    """Google's settings of a connection manager, as far as answers show them."""
    file = proxy.source(f"rds-{routes_name}.json")
    return {
        "@type": translate.HCM_TYPE,
        "stat_prefix": routes_name,
        "codec_type": "AUTO",
        "via": "1.1 google",
        "use_remote_address": True,
        "normalize_path": True,
        "stream_idle_timeout": STREAM_IDLE,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "rds": {"config_source": file, "route_config_name": routes_name},
        "http_filters": [*([translate.EXT_PROC] if pooled else []), translate.ROUTER],
    }


def _bootstrap(proxy: Proxy) -> dict[str, Any]:
    """What Envoy starts with; nothing but its own administration answers beside the listeners."""
    return {
        "node": {"id": "/".join(key(proxy.gateway)), "cluster": "google"},
        "admin": {"address": {"socket_address": {"address": proxy.address, "port_value": ADMIN_PORT}}},
        "dynamic_resources": {"lds_config": proxy.source("lds.json"), "cds_config": proxy.source("cds.json")},
    }


def attached_routes(objects: Objects, gateway: Manifest) -> list[Manifest]:
    """Every route that a listener of the Gateway serves, once."""
    found = {
        key(route): route
        for listener in gateway["spec"]["listeners"]
        for route, _ in attach.attached(objects, gateway, listener)
    }
    return [found[name] for name in sorted(found)]
