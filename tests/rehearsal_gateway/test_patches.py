"""EnvoyFilters patch as in Istio: its order, its silence about missing anchors, its way of merging."""

from __future__ import annotations

from typing import Any

import pytest

from rehearsal.gateway.objects import Unsupported
from rehearsal.gateway.patches import (
    merged,
    merged_filter,
    normalised,
    patched_listener,
    patched_routes,
    patches,
)
from tests.rehearsal_gateway.example import (
    EXTENSIONS,
    GATEWAY,
    HCM,
    HOME,
    POD_LABELS,
    Manifest,
    World,
    envoy_filter,
    lua,
    patch,
)

ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{EXTENSIONS}.http.router.v3.Router"},
}
HCM_TYPE = f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager"
LUA = f"{EXTENSIONS}.http.lua.v3.Lua"


def listener(*names: str) -> dict[str, Any]:
    """A listener whose HTTP filters have these names, and the router behind them."""
    filters = [{"name": n, "typed_config": {"@type": LUA, "stat_prefix": n}} for n in names]
    manager = {"@type": HCM_TYPE, "stat_prefix": "x", "http_filters": [*filters, ROUTER]}
    return {"name": "0.0.0.0_80", "filter_chains": [{"filters": [{"name": HCM, "typed_config": manager}]}]}


def found(*items: Manifest) -> Any:
    return patches(World(*items), GATEWAY, HOME, POD_LABELS)


def manager_of(made: dict[str, Any]) -> dict[str, Any]:
    return made["filter_chains"][0]["filters"][0]["typed_config"]


def order(*config_patches: Manifest, before: tuple[str, ...] = ("a", "b")) -> list[str]:
    """The names of the HTTP filters after the patches, without the router."""
    made = patched_listener(listener(*before), 80, found(envoy_filter("f", *config_patches)))
    return [f["name"] for f in manager_of(made)["http_filters"] if f != ROUTER]


@pytest.mark.parametrize(
    ("operation", "anchor", "expected"),
    [
        ("INSERT_FIRST", None, ["llmp.requests", "a", "b"]),
        ("INSERT_BEFORE", "b", ["a", "llmp.requests", "b"]),
        ("INSERT_AFTER", "a", ["a", "llmp.requests", "b"]),
        ("INSERT_BEFORE", "envoy.filters.http.router", ["a", "b", "llmp.requests"]),
        ("INSERT_BEFORE", None, ["llmp.requests", "a", "b"]),
        ("INSERT_AFTER", "missing", ["a", "b"]),
        ("INSERT_BEFORE", "missing", ["a", "b"]),
    ],
)
def test_a_filter_is_put_where_its_anchor_is_or_nowhere(
    operation: str, anchor: str | None, expected: list[str]
) -> None:
    assert order(patch("HTTP_FILTER", lua(""), operation, anchor)) == expected


def test_after_nothing_in_particular_means_behind_the_router() -> None:
    made = patched_listener(
        listener("a"), 80, found(envoy_filter("f", patch("HTTP_FILTER", lua(""), "INSERT_AFTER")))
    )
    assert manager_of(made)["http_filters"][-1]["name"] == "llmp.requests"


def test_of_two_filters_with_one_name_the_first_is_the_anchor() -> None:
    change = patch("HTTP_FILTER", lua(""), "INSERT_AFTER", "rbac")
    assert order(change, before=("rbac", "rbac")) == ["rbac", "llmp.requests", "rbac"]


def test_a_filter_is_removed_or_merged_by_its_name() -> None:
    assert order(patch("HTTP_FILTER", {}, "REMOVE", "a")) == ["b"]
    change = patch("HTTP_FILTER", {"typed_config": {"@type": LUA, "stat_prefix": "new"}}, "MERGE", "a")
    made = patched_listener(listener("a", "b"), 80, found(envoy_filter("f", change)))
    assert [f["typed_config"].get("stat_prefix") for f in manager_of(made)["http_filters"]] == [
        "new",
        "b",
        None,
    ]


def test_a_merge_of_another_type_changes_nothing_as_in_istio() -> None:
    base = {"name": "a", "typed_config": {"@type": LUA, "stat_prefix": "x"}}
    change = {"name": "a", "typed_config": {"@type": f"{EXTENSIONS}.http.rbac.v3.RBAC"}}
    assert merged_filter(base, change) == base


def test_the_connection_manager_and_the_listener_are_merged_into() -> None:
    items = envoy_filter(
        "f",
        patch("NETWORK_FILTER", {"typed_config": {"@type": HCM_TYPE, "access_log": [{"name": "l"}]}}),
        patch("LISTENER", {"perConnectionBufferLimitBytes": 5}),
    )
    made = patched_listener(listener(), 80, found(items))
    assert made["per_connection_buffer_limit_bytes"] == 5
    assert manager_of(made)["access_log"] == [{"name": "l"}] and manager_of(made)["stat_prefix"] == "x"


ROUTES = {
    "name": "http.80",
    "virtual_hosts": [
        {"name": "a.com:80", "domains": ["a.com"], "routes": [{"name": "r1", "route": {}}, {"name": "r2", "redirect": {}}]},
        {"name": "b.com:80", "domains": ["b.com"], "routes": []},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("match", "applied"),
    [
        ({}, True),
        ({"name": "http.80"}, True),
        ({"name": "http.81"}, False),
        ({"portNumber": 80}, True),
        ({"portNumber": 8080}, False),
    ],
)
def test_a_route_configuration_is_named_by_the_gateways_port(match: Manifest, applied: bool) -> None:
    change = patch("ROUTE_CONFIGURATION", {"typed_per_filter_config": {"x": {}}}, routeConfiguration=match)
    made = patched_routes(ROUTES, 80, found(envoy_filter("f", change)))
    assert ("typed_per_filter_config" in made) is applied


def test_hosts_and_routes_are_patched_by_name() -> None:
    items = envoy_filter(
        "f",
        patch("VIRTUAL_HOST", {"x": 1}, routeConfiguration={"vhost": {"name": "a.com:80"}}),
        patch("VIRTUAL_HOST", {"y": 1}, routeConfiguration={"vhost": {"domainName": "b.com"}}),
        patch("HTTP_ROUTE", {"z": 1}, routeConfiguration={"vhost": {"route": {"name": "r1"}}}),
        patch("HTTP_ROUTE", {"w": 1}, routeConfiguration={"vhost": {"route": {"action": "REDIRECT"}}}),
    )
    a, b = patched_routes(ROUTES, 80, found(items))["virtual_hosts"]
    assert ("x" in a, "y" in a, "x" in b, "y" in b) == (True, False, False, True)
    assert [(r["name"], r.get("z"), r.get("w")) for r in a["routes"]] == [("r1", 1, None), ("r2", None, 1)]


def test_patches_come_from_the_root_first_then_by_priority_age_and_name() -> None:
    def made(name: str, namespace: str = HOME, created: int = 0, **spec: Any) -> Manifest:
        change = patch("LISTENER", {"stat_prefix": name})
        return envoy_filter(name, change, namespace=namespace, created=created, **spec)

    items = [
        made("late", priority=20),
        made("young", created=5),
        made("old-b", created=1),
        made("old-a", created=1),
        made("root", "istio-system", created=9, priority=50),
        made("early", created=9, priority=-5),
    ]
    names = [p.value["stat_prefix"] for p in found(*items)]
    assert names == ["root", "early", "old-a", "old-b", "young", "late"]


@pytest.mark.parametrize(
    ("spec", "namespace", "applied"),
    [
        ({}, HOME, True),
        ({"workloadSelector": {}}, HOME, True),
        ({"workloadSelector": {"labels": {"app": "b"}}}, HOME, False),
        ({}, "other", False),
        (
            {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": GATEWAY}]},
            HOME,
            True,
        ),
        (
            {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "b"}]},
            HOME,
            False,
        ),
    ],
)
def test_a_filter_is_for_the_workloads_that_it_names(spec: Manifest, namespace: str, applied: bool) -> None:
    made = envoy_filter("f", patch("LISTENER", {"x": 1}), namespace=namespace, **spec)
    assert bool(found(made)) is applied


def test_what_is_for_sidecars_is_not_for_gateways() -> None:
    assert not found(envoy_filter("f", patch("LISTENER", {}, context="SIDECAR_INBOUND")))


def test_fields_may_be_written_in_either_way_but_a_users_own_keys_stay() -> None:
    given = {
        "typedConfig": {"@type": "t", "jsonFormat": {"camelKey": {"innerKey": 1}}},
        "typedPerFilterConfig": {"My.Filter": {"sourceCode": {"inlineString": "x"}}},
        "http2ProtocolOptions": {},
    }
    assert normalised(given) == {
        "typed_config": {"@type": "t", "json_format": {"camelKey": {"innerKey": 1}}},
        "typed_per_filter_config": {"My.Filter": {"source_code": {"inline_string": "x"}}},
        "http2_protocol_options": {},
    }


def test_messages_merge_lists_append_and_map_entries_and_extensions_are_replaced() -> None:
    base = {
        "message": {"a": 1, "b": 1},
        "list": [1],
        "typed_per_filter_config": {"one": {"@type": "t", "a": 1}, "two": {"@type": "t"}},
        "any": {"@type": "t", "a": 1},
    }
    change = {
        "message": {"b": 2},
        "list": [2],
        "typed_per_filter_config": {"one": {"@type": "t", "b": 2}},
        "any": {"@type": "t", "b": 2},
    }
    assert merged(base, change) == {
        "message": {"a": 1, "b": 2},
        "list": [1, 2],
        "typed_per_filter_config": {"one": {"@type": "t", "b": 2}, "two": {"@type": "t"}},
        "any": {"@type": "t", "b": 2},
    }


@pytest.mark.parametrize(
    "extension",
    [
        "filters.http.sse_to_metadata.v3.SseToMetadata",
        "filters.http.api_key_auth.v3.ApiKeyAuth",
        "filters.http.ai_protocol_manager.v3.AiProtocolManager",
        "content_parsers.json.v3.JsonContentParser",
        "filters.http.nobody_knows.v3.It",
    ],
)
def test_an_extension_that_istios_proxy_lacks_is_refused_wherever_it_stands(extension: str) -> None:
    kind = f"type.googleapis.com/envoy.extensions.{extension}"
    inside = {"name": "x", "typed_config": {"@type": LUA, "deeper": [{"typedConfig": {"@type": kind}}]}}
    for value in ({"name": "x", "typed_config": {"@type": kind}}, inside):
        with pytest.raises(Unsupported) as refused:
            found(envoy_filter("f", patch("HTTP_FILTER", value, "INSERT_FIRST")))
        assert "EnvoyFilter llm-gateway/f: spec.configPatches[0].patch.value" in str(refused.value)
        assert extension in str(refused.value)


def edited(path: str, value: Any) -> Manifest:
    """A good EnvoyFilter with one field set."""
    made = envoy_filter("f", patch("HTTP_FILTER", lua(""), "INSERT_AFTER", "a"))
    *steps, last = path.split(".")
    place: Any = made["spec"]
    for step in steps:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    return made


ANY_PATCH = "configPatches.0"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("surprise", 1),
        (f"{ANY_PATCH}.surprise", 1),
        (f"{ANY_PATCH}.applyTo", "CLUSTER"),
        (f"{ANY_PATCH}.applyTo", "BOOTSTRAP"),
        (f"{ANY_PATCH}.patch.operation", "REPLACE"),
        (f"{ANY_PATCH}.patch.operation", "ADD"),
        (f"{ANY_PATCH}.patch.filterClass", "AUTHZ"),
        (f"{ANY_PATCH}.match.proxy", {"proxyVersion": "1.*"}),
        (f"{ANY_PATCH}.match.context", "SOMEWHERE"),
        (f"{ANY_PATCH}.match.listener.listenerFilter", "x"),
        (f"{ANY_PATCH}.match.listener.filterChain.destinationPort", 1),
    ],
)
def test_a_field_that_is_not_rehearsed_is_refused_by_name(path: str, value: Any) -> None:
    with pytest.raises(Unsupported) as refused:
        found(edited(path, value))
    assert "EnvoyFilter llm-gateway/f" in str(refused.value)
    assert path.rsplit(".", 1)[-1] in str(refused.value)
