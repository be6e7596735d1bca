"""EnvoyFilters: patches of what istiod made, in its order and with its way of merging.

Follows istiod's `pilot/pkg/networking/core/envoyfilter`. A patch whose anchor does not exist is skipped without a
word, as in Istio. What is refused here by name, Istio would hand to the proxy, which then might refuse a whole
listener: extensions that Istio's build of Envoy lacks.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.gateway.objects import (
    ROOT_NAMESPACE,
    Manifest,
    Objects,
    Unsupported,
    key,
    one_of,
    only,
)
from rehearsal.gateway.security import applies

HCM = "envoy.filters.network.http_connection_manager"
OPERATIONS = {
    "HTTP_FILTER": ("INSERT_FIRST", "INSERT_BEFORE", "INSERT_AFTER", "MERGE", "REMOVE"),
    "NETWORK_FILTER": ("MERGE",),
    "LISTENER": ("MERGE",),
    "ROUTE_CONFIGURATION": ("MERGE",),
    "VIRTUAL_HOST": ("MERGE",),
    "HTTP_ROUTE": ("MERGE",),
}
# Of Envoy's extensions, those that Istio's build contains (istio/proxy, extensions_build_config.bzl) and that a
# plain Envoy has as well. Others are refused: a proxy that lacks one rejects the whole listener.
_FILTERS = [
    "basic_auth",
    "buffer",
    "compressor",
    "cors",
    "csrf",
    "decompressor",
    "ext_authz",
    "ext_proc",
    "fault",
    "grpc_stats",
    "header_mutation",
    "header_to_metadata",
    "health_check",
    "ip_tagging",
    "json_to_metadata",
    "jwt_authn",
    "local_ratelimit",
    "lua",
    "on_demand",
    "ratelimit",
    "rbac",
    "router",
    "set_filter_state",
    "set_metadata",
]
_OTHERS = [
    "access_loggers.file",
    "access_loggers.stream",
    "filters.network.http_connection_manager",
    "formatter.metadata",
    "formatter.req_without_query",
]
KNOWN = frozenset([*(f"filters.http.{f}" for f in _FILTERS), *_OTHERS])
# Fields whose content is not a message: its keys are the user's.
FREE = frozenset({"json_format", "filter_metadata", "metadata_struct"})
# Fields that map the user's keys to messages; merging replaces an entry as a whole.
MAPS = frozenset({"typed_per_filter_config", "source_codes", "typed_filter_metadata"})
TYPE = "@type"


@dataclass(frozen=True)
class Patch:
    """One patch: what it applies to, where, and the value in Envoy's own spelling of fields."""

    owner: Manifest
    target: str
    match: Mapping[str, Any]
    operation: str
    value: dict[str, Any]

    @property
    def listener(self) -> Mapping[str, Any]:
        return self.match.get("listener") or {}

    @property
    def chain(self) -> Mapping[str, Any]:
        return self.listener.get("filterChain") or {}

    @property
    def routes(self) -> Mapping[str, Any]:
        return self.match.get("routeConfiguration") or {}

    @property
    def host(self) -> Mapping[str, Any]:
        return self.routes.get("vhost") or {}

    @property
    def sub_filter(self) -> str | None:
        """The HTTP filter that it is about; None for none in particular."""
        found = (self.chain.get("filter") or {}).get("subFilter")
        return None if found is None else str(found.get("name", ""))


def patches(objects: Objects, gateway: str, namespace: str, have: Mapping[str, str]) -> list[Patch]:
    """The patches for the proxies of a Gateway with labels `have`, in the order in which they are applied."""
    homes = {ROOT_NAMESPACE: 0, namespace: 1}
    found = [f for f in objects.of("EnvoyFilter") if f["metadata"]["namespace"] in homes]
    mine = [f for f in found if _selected(f, gateway, namespace, have)]

    def order(item: Manifest) -> tuple[int, int, str, tuple[str, str]]:
        created = item["metadata"].get("creationTimestamp", "")
        return homes[item["metadata"]["namespace"]], item["spec"].get("priority", 0), created, key(item)

    return [p for item in sorted(mine, key=order) for p in _patches(item)]


def _selected(item: Manifest, gateway: str, namespace: str, have: Mapping[str, str]) -> bool:
    spec = item.get("spec") or {}
    if spec.get("targetRefs"):
        return applies(item, gateway, namespace, have)
    return ((spec.get("workloadSelector") or {}).get("labels") or {}).items() <= have.items()


def _patches(item: Manifest) -> Iterator[Patch]:
    spec = item["spec"]
    only(item, spec, "spec", ("workloadSelector", "targetRefs", "priority", "configPatches"))
    for number, entry in enumerate(spec.get("configPatches") or []):
        where = f"spec.configPatches[{number}]"
        only(item, entry, where, ("applyTo", "match", "patch"))
        one_of(item, entry.get("applyTo"), f"{where}.applyTo", OPERATIONS)
        patch, match = entry.get("patch") or {}, entry.get("match") or {}
        only(item, patch, f"{where}.patch", ("operation", "value"))
        operation = patch.get("operation")
        one_of(item, operation, f"{where}.patch.operation", OPERATIONS[entry["applyTo"]])
        _check_match(item, match, f"{where}.match")
        if match.get("context", "ANY") in ("ANY", "GATEWAY"):
            value = normalised(patch.get("value") or {})
            _check_types(item, value, f"{where}.patch.value")
            yield Patch(item, entry["applyTo"], match, operation, value)


_MATCHES = {
    "": ("context", "listener", "routeConfiguration"),
    ".listener": ("name", "portNumber", "filterChain"),
    ".listener.filterChain": ("name", "sni", "filter"),
    ".listener.filterChain.filter": ("name", "subFilter"),
    ".listener.filterChain.filter.subFilter": ("name",),
    ".routeConfiguration": ("name", "portNumber", "vhost"),
    ".routeConfiguration.vhost": ("name", "domainName", "route"),
    ".routeConfiguration.vhost.route": ("name", "action"),
}


def _check_match(item: Manifest, match: Mapping[str, Any], where: str) -> None:
    for path, known in _MATCHES.items():
        found: Any = match
        for step in path.split(".")[1:]:
            found = (found or {}).get(step)
        if found:
            only(item, found, where + path, known)
    one_of(
        item, match.get("context", "ANY"), f"{where}.context",
        ("ANY", "GATEWAY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND"),
    )  # fmt: skip


def normalised(value: Any, free: bool = False) -> Any:
    """A value with Envoy's own field names; protobuf's JSON allows `typedConfig` as well as `typed_config`."""
    if isinstance(value, list):
        return [normalised(v, free) for v in value]
    if not isinstance(value, dict):
        return value
    if free:
        return copy.deepcopy(value)
    out = {}
    for name, field in value.items():
        known = name if name == TYPE else re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        if known in MAPS and isinstance(field, dict):
            out[known] = {k: normalised(v) for k, v in field.items()}
        else:
            out[known] = normalised(field, known in FREE)
    return out


def _check_types(item: Manifest, value: Any, where: str) -> None:
    """Refuse extensions that Istio's proxy lacks, or that are not known to be in it."""
    if isinstance(value, list):
        for element in value:
            _check_types(item, element, where)
    elif isinstance(value, dict):
        if TYPE in value:
            name = str(value[TYPE])
            found = re.fullmatch(r"type\.googleapis\.com/envoy\.extensions\.(.+)\.v\d\.\w+", name)
            if not found or found[1] not in KNOWN:
                raise Unsupported(item, f"{where}: {name} is not known to be in Istio's proxy")
        for name, field in value.items():
            if name not in FREE:
                _check_types(item, field, f"{where}.{name}")


def merged(base: Any, change: Any) -> Any:
    """Protobuf's merge in JSON: messages merge, lists append, map entries and extensions are replaced.

    A false or empty scalar counts as given here; in protobuf it would count as unset.
    """
    if isinstance(base, list) and isinstance(change, list):
        return [*base, *change]
    if not (isinstance(base, dict) and isinstance(change, dict)) or TYPE in change:
        return change
    out = dict(base)
    for name, field in change.items():
        both_maps = name in MAPS and isinstance(base.get(name), dict)
        out[name] = {**base[name], **field} if both_maps else merged(base.get(name), field)
    return out


def merged_filter(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A filter with a patch merged into its configuration; one of another type is left alone, as Istio does."""
    name = change.get("name") or base["name"]
    config = change.get("typed_config")
    if not config or config.get(TYPE) != base["typed_config"][TYPE]:
        return {**base, "name": name}
    fields = {k: v for k, v in config.items() if k != TYPE}
    return {**base, "name": name, "typed_config": merged(base["typed_config"], fields)}


def patched_listener(listener: dict[str, Any], port: int, found: list[Patch]) -> dict[str, Any]:
    """A listener with its patches; `port` is the Gateway's, by which patches name it."""
    mine = [p for p in found if _matches_listener(p, listener, port)]
    for patch in mine:
        if patch.target == "LISTENER":
            listener = merged(listener, patch.value)
    chains = [_patched_chain(c, [p for p in mine if _matches_chain(p, c)]) for c in listener["filter_chains"]]
    return {**listener, "filter_chains": chains}


def _matches_listener(patch: Patch, listener: Mapping[str, Any], port: int) -> bool:
    wanted = patch.listener
    return wanted.get("name") in (None, "", listener["name"]) and wanted.get("portNumber", port) in (0, port)


def _matches_chain(patch: Patch, chain: Mapping[str, Any]) -> bool:
    names = (chain.get("filter_chain_match") or {}).get("server_names") or []
    return patch.chain.get("name") in (None, "", chain.get("name")) and (
        not patch.chain.get("sni") or patch.chain["sni"] in names
    )


def _matches_network_filter(patch: Patch, item: Mapping[str, Any]) -> bool:
    wanted = patch.chain.get("filter")
    return wanted is None or wanted.get("name", "") == item["name"]


def _patched_chain(chain: dict[str, Any], mine: list[Patch]) -> dict[str, Any]:
    filters = []
    for item in chain["filters"]:
        own = [p for p in mine if _matches_network_filter(p, item)]
        for patch in own:
            if patch.target == "NETWORK_FILTER":
                item = merged_filter(item, patch.value)
        if item["name"] == HCM:
            http = [p for p in own if p.target == "HTTP_FILTER"]
            config = item["typed_config"]
            config = {**config, "http_filters": _patched_http(config["http_filters"], http)}
            item = {**item, "typed_config": config}
        filters.append(item)
    return {**chain, "filters": filters}


def _patched_http(filters: list[dict[str, Any]], mine: list[Patch]) -> list[dict[str, Any]]:
    out = list(filters)
    for patch in mine:
        place = _place(patch, [f["name"] for f in out])
        if patch.operation == "REMOVE":
            out = [f for f in out if patch.sub_filter is None or f["name"] != patch.sub_filter]
        elif place is not None:
            out.insert(place, copy.deepcopy(patch.value))
    # Merges come last, so that they reach inserted filters too.
    for patch in mine:
        if patch.operation == "MERGE":
            out = [merged_filter(f, patch.value) if patch.sub_filter in (None, f["name"]) else f for f in out]
    return out


def _place(patch: Patch, names: list[str]) -> int | None:
    """Where a filter is inserted; None where its anchor does not exist, or nothing is inserted."""
    anchor = patch.sub_filter
    if patch.operation == "INSERT_FIRST":
        return 0
    if patch.operation not in ("INSERT_BEFORE", "INSERT_AFTER"):
        return None
    after = patch.operation == "INSERT_AFTER"
    if anchor is None:
        return len(names) if after else 0
    return names.index(anchor) + after if anchor in names else None


def patched_routes(config: dict[str, Any], port: int, found: list[Patch]) -> dict[str, Any]:
    """A route configuration with its patches; `port` is the Gateway's."""
    mine = [p for p in found if _matches_routes(p, config, port)]
    for patch in mine:
        if patch.target == "ROUTE_CONFIGURATION":
            config = merged(config, patch.value)
    hosts = [_patched_host(h, [p for p in mine if _matches_host(p, h)]) for h in config["virtual_hosts"]]
    return {**config, "virtual_hosts": hosts}


def _matches_routes(patch: Patch, config: Mapping[str, Any], port: int) -> bool:
    wanted = patch.routes
    return wanted.get("name") in (None, "", config["name"]) and wanted.get("portNumber", port) in (0, port)


def _matches_host(patch: Patch, host: Mapping[str, Any]) -> bool:
    wanted = patch.host
    return wanted.get("name") in (None, "", host["name"]) and (
        not wanted.get("domainName") or wanted["domainName"] in host["domains"]
    )


def _patched_host(host: dict[str, Any], mine: list[Patch]) -> dict[str, Any]:
    for patch in mine:
        if patch.target == "VIRTUAL_HOST":
            host = merged(host, patch.value)
    routes = []
    for route in host["routes"]:
        for patch in mine:
            if patch.target == "HTTP_ROUTE" and _matches_route(patch, route):
                route = merged(route, patch.value)
        routes.append(route)
    return {**host, "routes": routes}


_ACTIONS = {"ROUTE": "route", "REDIRECT": "redirect", "DIRECT_RESPONSE": "direct_response"}


def _matches_route(patch: Patch, route: Mapping[str, Any]) -> bool:
    wanted = patch.host.get("route") or {}
    action = wanted.get("action", "ANY")
    return wanted.get("name") in (None, "", route["name"]) and (
        action == "ANY" or _ACTIONS.get(action) in route
    )
