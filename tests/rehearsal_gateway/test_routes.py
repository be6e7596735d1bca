"""HTTPRoutes become what istiod makes of them, in its order; what is not rehearsed is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from rehearsal.gateway import attach
from rehearsal.gateway.objects import Unsupported
from rehearsal.gateway.routes import EXT_PROC, UNKNOWN, Server, configuration, seconds
from tests.rehearsal_gateway.example import (
    HOME,
    MODELS,
    Manifest,
    World,
    gateway,
    item,
    listener,
    model_routes,
    namespaces,
    pool,
    port,
    route,
    rule,
    service,
    to_pool,
    to_service,
)

PLAIN = Server(80, False, lambda p: p)


def built(*items: Manifest, server: Server = PLAIN, made: Manifest | None = None) -> dict[str, Any]:
    """The route configuration of a Gateway with one listener."""
    made = made or gateway()
    world = World(*namespaces(), made, service("svc", MODELS, port(8000, "http")), *items)
    return configuration(world, made, made["spec"]["listeners"], "http.80", server)


def routes(*items: Manifest, server: Server = PLAIN) -> list[dict[str, Any]]:
    (host,) = built(*items, server=server)["virtual_hosts"]
    return host["routes"]


def only_route(made: Manifest, server: Server = PLAIN) -> dict[str, Any]:
    (found,) = routes(route("r", made), server=server)
    return found


def test_a_rule_is_named_by_its_route_and_number_unless_it_has_a_name() -> None:
    names = [
        r["name"]
        for r in routes(route("r", rule("/aa", to_service("svc")), rule("/b", to_service("svc"), name="own")))
    ]
    assert names == ["models.r.0", "own"]


def test_the_more_specific_match_comes_first() -> None:
    to = to_service("svc")
    header = {"headers": [{"name": "x", "value": "1"}]}
    expected = [
        rule("/exact/longer", to),
        rule("/exact", to, match={"method": "GET"}),
        rule("/exact", to, match=header),
        rule("/exact", to),
        rule("/exact/longer/prefix", to, prefix=True),
        rule("/p", to, prefix=True),
        rule("/", to, prefix=True),
    ]
    named = [{**r, "name": str(number)} for number, r in enumerate(expected)]
    assert [r["name"] for r in routes(route("r", *reversed(named)))] == [str(n) for n in range(len(named))]


def test_of_equal_matches_the_older_route_wins() -> None:
    to = to_service("svc")
    old, new = (route(n, rule("/same", to), created=c) for n, c in (("z-old", 1), ("a-new", 2)))
    assert [r["name"] for r in routes(new, old)] == ["models.z-old.0", "models.a-new.0"]


def test_a_prefix_ends_at_a_slash() -> None:
    assert only_route(rule("/v1/", to_service("svc"), prefix=True))["match"] == {
        "path_separated_prefix": "/v1", "case_sensitive": True
    }  # fmt: skip
    assert only_route(rule("/", to_service("svc"), prefix=True))["match"]["prefix"] == "/"


def test_every_match_of_a_rule_is_a_route_of_its_own() -> None:
    matches = [{"path": {"type": "Exact", "value": v}} for v in ("/a", "/b")]
    found = routes(route("r", {"matches": matches, "backendRefs": [to_service("svc")]}))
    assert [(r["name"], r["match"]["path"]) for r in found] == [("models.r.0", "/a"), ("models.r.0", "/b")]


def test_a_rule_without_a_backend_answers_500() -> None:
    assert only_route(rule("/x"))["direct_response"] == {"status": 500}
    assert only_route(rule("/x", to_service("svc", weight=0)))["direct_response"] == {"status": 500}


def test_a_backend_that_does_not_exist_is_a_cluster_that_does_not_exist() -> None:
    action = only_route(rule("/x", to_service("none")))["route"]
    assert action["cluster"] == "outbound|8000||none.models.svc.cluster.local"
    assert action["cluster_not_found_response_code"] == "INTERNAL_SERVER_ERROR"
    assert only_route(rule("/x", to_pool("none")))["route"]["cluster"] == UNKNOWN


def test_several_backends_share_by_weight() -> None:
    found = only_route(
        rule("/x", to_service("svc", weight=3), to_service("svc", 8001), to_service("svc", weight=0))
    )
    weights = [c["weight"] for c in found["route"]["weighted_clusters"]["clusters"]]
    assert weights == [3, 1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("300s", 300), ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("1m500ms", 60.5), ("0s", 0)],
)
def test_durations_are_read_as_the_gateway_api_writes_them(given: str, expected: float) -> None:
    assert seconds(given) == expected


def test_the_time_limit_is_the_routes_and_there_is_none_without() -> None:
    assert only_route(rule("/x", to_service("svc"), timeouts={"request": "90s"}))["route"]["timeout"] == "90s"
    assert only_route(rule("/x", to_service("svc")))["route"]["timeout"] == "0s"


def test_paths_are_rewritten_as_a_whole_or_in_their_prefix() -> None:
    def rewritten(prefix: str, **path: str) -> dict[str, Any]:
        filters = [{"type": "URLRewrite", "urlRewrite": {"path": path, "hostname": "inner"}}]
        return only_route(rule(prefix, to_service("svc"), prefix=True, filters=filters))["route"]

    whole = rewritten("/a", type="ReplaceFullPath", replaceFullPath="/v1/models")
    assert whole["regex_rewrite"] == {"pattern": {"regex": "/.*"}, "substitution": "/v1/models"}
    assert whole["host_rewrite_literal"] == "inner"
    assert rewritten("/a", type="ReplacePrefixMatch", replacePrefixMatch="/b/")["prefix_rewrite"] == "/b"
    gone = rewritten("/a", type="ReplacePrefixMatch", replacePrefixMatch="/")["regex_rewrite"]
    assert gone["substitution"] == r"/\2"


def test_headers_are_set_added_and_removed() -> None:
    modifier = {"set": [{"name": "a", "value": "1"}], "add": [{"name": "b", "value": "2"}], "remove": ["c"]}
    filters = [
        {"type": f"{d}HeaderModifier", f"{d.lower()}HeaderModifier": modifier}
        for d in ("Request", "Response")
    ]
    found = only_route(rule("/x", to_service("svc"), filters=filters))
    for direction in ("request", "response"):
        actions = [(h["header"]["key"], h["append_action"]) for h in found[f"{direction}_headers_to_add"]]
        assert actions == [("a", "OVERWRITE_IF_EXISTS_OR_ADD"), ("b", "APPEND_IF_EXISTS_OR_ADD")]
        assert found[f"{direction}_headers_to_remove"] == ["c"]


@pytest.mark.parametrize(
    ("redirect", "server", "expected"),
    [
        ({"scheme": "https", "statusCode": 301}, PLAIN,
         {"scheme_redirect": "https", "response_code": "MOVED_PERMANENTLY"}),
        ({"scheme": "https"}, Server(80, False, lambda p: p + 8000),
         {"scheme_redirect": "https", "port_redirect": 8443, "response_code": "FOUND"}),
        ({"hostname": "b"}, Server(8080, False, lambda p: p),
         {"host_redirect": "b", "port_redirect": 8080, "response_code": "FOUND"}),
        ({"port": 443}, Server(443, True, lambda p: p), {"response_code": "FOUND"}),
        ({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/n"}}, PLAIN,
         {"path_redirect": "/n", "response_code": "FOUND"}),
    ],
)  # fmt: skip
def test_a_redirect_names_no_port_that_goes_without_saying(
    redirect: Manifest, server: Server, expected: dict[str, Any]
) -> None:
    filters = [{"type": "RequestRedirect", "requestRedirect": redirect}]
    assert only_route(rule("/x", filters=filters), server)["redirect"] == expected


def test_a_pools_route_asks_its_picker_in_both_directions() -> None:
    found = routes(pool("alpha", "epp"), route("r", rule("/x", to_pool("alpha"))))[0]
    overrides = found["typed_per_filter_config"][EXT_PROC]["overrides"]
    assert (
        overrides["grpc_service"]["envoy_grpc"]["cluster_name"]
        == "outbound|9002||epp.models.svc.cluster.local"
    )
    assert overrides["failure_mode_allow"] is False
    assert overrides["processing_mode"]["request_body_mode"] == "FULL_DUPLEX_STREAMED"
    assert overrides["processing_mode"]["response_body_mode"] == "FULL_DUPLEX_STREAMED"
    assert found["route"]["cluster"].startswith("outbound|54321||alpha-ip-")


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("*", "LLM.example.com", "llm.example.com"),
        ("llm.example.com", "*", "llm.example.com"),
        ("*.example.com", "llm.example.com", "llm.example.com"),
        ("llm.example.com", "*.example.com", "llm.example.com"),
        ("*.example.com", "example.com", None),
        ("a.example.com", "b.example.com", None),
    ],
)
def test_host_names_meet_where_one_covers_the_other(a: str, b: str, expected: str | None) -> None:
    assert attach.meet(a, b) == expected


def test_each_host_has_its_own_routes_and_ports_in_hosts_do_not_matter() -> None:
    made = gateway(listener("http", 80, "*.example.com"))
    config = built(
        route("any", rule("/any")), route("one", rule("/one"), hostnames=["one.example.com"]),
        route("other", rule("/other"), hostnames=["one.example.org"]), made=made,
    )  # fmt: skip
    hosts = {h["name"]: (h["domains"], [r["name"] for r in h["routes"]]) for h in config["virtual_hosts"]}
    assert hosts == {
        "*.example.com:80": (["*.example.com"], ["models.any.0"]),
        "one.example.com:80": (["one.example.com"], ["models.one.0"]),
    }
    assert config["ignore_port_in_host_matching"] is True


def test_a_listener_without_routes_answers_404() -> None:
    assert built()["virtual_hosts"] == [{"name": "blackhole:80", "domains": ["*"], "routes": []}]


def test_a_route_attaches_only_where_it_names_the_listener_and_may() -> None:
    two = gateway(listener("http", 80), listener("same", 81, routes="Same"))
    http, same = two["spec"]["listeners"]
    found = [route("r", rule("/x")), route("s", rule("/x"), namespace=HOME, section="same")]
    world = World(*namespaces(), two, *found)
    assert [r["metadata"]["name"] for r, _ in attach.attached(world, two, http)] == ["r"]
    assert [r["metadata"]["name"] for r, _ in attach.attached(world, two, same)] == ["s"]


@pytest.mark.parametrize(
    ("operator", "values", "taken"),
    [("In", ["a", "b"], True), ("NotIn", ["a"], False), ("Exists", [], True), ("DoesNotExist", [], False)],
)
def test_namespaces_are_chosen_by_expressions_too(operator: str, values: list[str], taken: bool) -> None:
    made = gateway()
    selector = {"matchExpressions": [{"key": "team", "operator": operator, "values": values}]}
    made["spec"]["listeners"][0]["allowedRoutes"] = {"namespaces": {"from": "Selector", "selector": selector}}
    world = World(made, item("Namespace", MODELS, labels={"team": "a"}))
    assert attach.takes(world, made, made["spec"]["listeners"][0], MODELS) is taken


REDIRECT = {"type": "RequestRedirect", "requestRedirect": {"statusCode": 305}}
REFUSED: list[tuple[Manifest, str]] = [
    (rule("/x", to_service("svc"), retry={"attempts": 1}), "spec.rules[0].retry"),
    (rule("/x", to_service("svc"), sessionPersistence={"type": "Cookie"}), "sessionPersistence"),
    (rule("/x", to_service("svc"), match={"queryParams": [{"name": "a", "value": "b"}]}), "queryParams"),
    (rule(None, to_service("svc"), matches=[{"path": {"type": "RegularExpression", "value": "/.*"}}]), "path.type"),
    (rule("/x", to_service("svc"), match={"headers": [{"type": "RegularExpression", "name": "a", "value": "b"}]}),
     "headers.type"),
    (rule("/x", to_service("svc"), filters=[{"type": "RequestMirror"}]), "RequestMirror"),
    (rule("/x", filters=[REDIRECT]), "305"),
    (rule("/x", {**to_service("svc"), "filters": [{"type": "RequestMirror"}]}), "backendRefs.filters"),
    (rule("/x", to_pool("alpha"), to_service("svc")), "a pool beside other backends"),
    (rule("/x", {"name": "svc"}), "backendRefs.port"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_what_is_not_rehearsed_is_refused_by_name(made: Manifest, named: str) -> None:
    with pytest.raises(Unsupported) as refused:
        routes(pool("alpha", "epp"), route("r", made))
    assert "HTTPRoute models/r" in str(refused.value) and named in str(refused.value)


def test_the_form_by_header_and_the_form_by_path_lead_to_one_place() -> None:
    by_path, by_header = routes(model_routes("alpha", to_service("svc")))
    assert by_path["route"]["cluster"] == by_header["route"]["cluster"]
    assert by_header["match"]["headers"] == [
        {"name": "x-gateway-model-name", "string_match": {"exact": "publishers/models/models/alpha"}}
    ]
