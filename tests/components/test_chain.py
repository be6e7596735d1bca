"""Keys, limits and the request program as objects. Numbers are those of docs/limits-tests.md."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from components.platform.lock import load_lock
from components.serving.manifests import access, chain, token_limits
from components.serving.manifests.access import AccessSpec
from components.serving.manifests.chain import ChainSpec
from components.serving.manifests.token_limits import LimitsSpec

ACCESS = AccessSpec(
    audience="dev/gateway/door",
    public_keys={"b": {"kty": "EC", "crv": "P-256", "x": "xb", "y": "yb"}, "a": {"kty": "EC", "x": "xa"}},
    measure="tokens",
)
SPEC = ChainSpec(gateway="door", namespace="gateway", access=ACCESS)
OPEN = dataclasses.replace(SPEC, access=None)
SECURE = dataclasses.replace(SPEC, tls=True)
LIMITS = LimitsSpec(
    namespace="gateway",
    measure="tokens",
    budgets={"free": 200, "premium": 1000},
    shadow=False,
    image="docker.io/envoyproxy/ratelimit:17b1956c",
    store_image="docker.io/valkey/valkey:8.1.3",
)
# Filters of Istio's own proxy build that we may use (istio/proxy, bazel/extension_config), 1.27 to 1.31.
IN_ISTIOS_BUILD = {
    "http.jwt_authn.v3.JwtAuthentication",
    "http.lua.v3.Lua",
    "http.lua.v3.LuaPerRoute",
    "http.ratelimit.v3.RateLimit",
    "http.ratelimit.v3.RateLimitPerRoute",
    "network.http_connection_manager.v3.HttpConnectionManager",
    "file.v3.FileAccessLog",
}


def changed(**fields: Any) -> ChainSpec:
    return dataclasses.replace(SPEC, access=dataclasses.replace(ACCESS, **fields))


def patches(item: dict[str, Any]) -> list[dict[str, Any]]:
    return item["spec"]["configPatches"]


def filters(spec: ChainSpec) -> list[tuple[str, str, str | None]]:
    """(filter, operation, anchor) in the order of insertion."""
    return [
        (
            p["patch"]["value"]["name"],
            p["patch"]["operation"],
            p["match"]["listener"]["filterChain"]["filter"].get("subFilter", {}).get("name"),
        )
        for p in patches(chain.chain(spec))
        if p["applyTo"] == "HTTP_FILTER"
    ]


def per_route(spec: ChainSpec = SPEC) -> dict[str, Any]:
    """The filters' settings for the listener that serves models."""
    return patches(chain.tables(spec, "program"))[0]["patch"]["value"]["typed_per_filter_config"]


def limit_filter(spec: ChainSpec = SPEC) -> dict[str, Any]:
    (found,) = (
        p["patch"]["value"]["typed_config"]
        for p in patches(chain.chain(spec))
        if p["patch"]["value"].get("name") == chain.LIMIT
    )
    return found


def connection(spec: ChainSpec = SPEC) -> dict[str, Any]:
    (found,) = (
        p["patch"]["value"]["typed_config"]
        for p in patches(chain.chain(spec))
        if p["applyTo"] == "NETWORK_FILTER"
    )
    return found


def types(value: Any) -> Iterator[str]:
    """Every @type below."""
    if isinstance(value, dict):
        if "@type" in value:
            yield value["@type"]
        for item in value.values():
            yield from types(item)
    elif isinstance(value, list):
        for item in value:
            yield from types(item)


def service_config(**fields: Any) -> dict[str, Any]:
    item = token_limits.config(dataclasses.replace(LIMITS, **fields))
    return yaml.safe_load(item["data"]["config.yaml"])


# -- the two sides of the limit agree -------------------------------------------------------------------------------


def test_a01_gateway_and_service_have_the_same_descriptors() -> None:
    sent = [
        [a["metadata"]["descriptor_key"] for a in rate["actions"]]
        for rate in per_route()[chain.LIMIT]["rate_limits"]
    ]
    config = service_config()
    known = [
        [outer["key"], *(inner["key"] for inner in outer["descriptors"])] for outer in config["descriptors"]
    ]
    assert all(keys == ["tier", "tenant"] for keys in (*sent, *known))
    assert {d.get("value") for d in config["descriptors"]} == {"free", "premium", token_limits.EXEMPT, None}


def test_a01_whoever_has_no_tier_has_no_budget() -> None:
    (rest,) = (d for d in service_config()["descriptors"] if "value" not in d)
    assert rest["descriptors"][0]["rate_limit"] == {"unit": "minute", "requests_per_unit": 0}


def test_a02_the_charge_counts_for_whom_the_check_did_and_only_at_the_end() -> None:
    check, charge = per_route()[chain.LIMIT]["rate_limits"]
    assert check["actions"] == charge["actions"]
    assert check["hits_addend"] == {"number": 1} and "apply_on_stream_done" not in check
    assert charge["hits_addend"] == {"format": "%DYNAMIC_METADATA(llmp:charge)%"}
    assert charge["apply_on_stream_done"] is True


def test_a02_requests_are_counted_once() -> None:
    (check,) = per_route(changed(measure="requests"))[chain.LIMIT]["rate_limits"]
    assert check["hits_addend"] == {"number": 1}


def test_a03_limits_stand_where_their_addend_counts() -> None:
    assert "rate_limits" not in limit_filter()
    assert {p["applyTo"] for p in patches(chain.tables(SPEC, "program"))} == {"ROUTE_CONFIGURATION"}


def test_a04_nothing_is_unlimited_for_want_of_an_identity() -> None:
    for rate in per_route()[chain.LIMIT]["rate_limits"]:
        assert [a["metadata"]["default_value"] for a in rate["actions"]] == [token_limits.UNKNOWN] * 2
    assert token_limits.UNKNOWN not in {d.get("value") for d in service_config()["descriptors"]}


def test_a05_domains_agree() -> None:
    assert limit_filter()["domain"] == service_config()["domain"]


def test_a06_settings_carry_the_names_of_their_filters() -> None:
    assert set(per_route()) == {name for name, _, _ in filters(SPEC)} - {chain.KEYS}


@pytest.mark.parametrize("spec", [SPEC, OPEN, SECURE])
def test_a07_only_what_istios_proxy_is_built_with(spec: ChainSpec) -> None:
    found = [*types(chain.chain(spec)), *types(chain.tables(spec, "program"))]
    assert {name.split("extensions.")[1].split(".", 1)[1] for name in found} <= IN_ISTIOS_BUILD


def test_a08_the_program_knows_the_key_and_the_limit_the_program() -> None:
    assert filters(SPEC) == [
        (chain.KEYS, "INSERT_FIRST", None),
        (chain.PROGRAM, "INSERT_AFTER", chain.KEYS),
        (chain.LIMIT, "INSERT_AFTER", chain.PROGRAM),
    ]


def test_a08_without_access_there_is_no_anchor_and_no_limit() -> None:
    assert filters(OPEN) == [(chain.PROGRAM, "INSERT_FIRST", None)]
    assert set(per_route(OPEN)) == {chain.PROGRAM}


@pytest.mark.parametrize("spec", [SPEC, OPEN, SECURE])
def test_what_the_proxy_says_of_itself_goes_to_no_model(spec: ChainSpec) -> None:
    """The proxy adds it behind the program, so it goes where routes change headers: in the router."""
    served = patches(chain.tables(spec, "program"))[0]["patch"]["value"]
    assert served["request_headers_to_remove"] == ["x-envoy-peer-metadata", "x-envoy-peer-metadata-id"]


def test_a09_the_image_counts_per_descriptor() -> None:
    """Tags are commits; this one is of 2026 (Envoy Gateway 1.9), the addend came in December 2024."""
    assert load_lock().images["ratelimit"].reference == "docker.io/envoyproxy/ratelimit:17b1956c"


def test_a10_the_service_is_spoken_to_in_grpc() -> None:
    service = dict(token_limits.objects(LIMITS, "secret", "settings"))["service"]
    assert {"name": "grpc", "port": 8081, "targetPort": 8081, "appProtocol": "grpc"} in service["spec"][
        "ports"
    ]


def test_a11_the_store_gives_up_before_the_gateway_does() -> None:
    (container,) = token_limits.service(LIMITS)["spec"]["template"]["spec"]["containers"]
    settings = {e["name"]: e.get("value") for e in container["env"]}
    milliseconds = int(settings["REDIS_TIMEOUT"].removesuffix("ms"))
    assert milliseconds < float(chain.LIMIT_TIMEOUT.removesuffix("s")) * 1000


def test_a15_numbers_stay_numbers_and_names_stay_text() -> None:
    config = service_config(budgets={"200": 200})
    assert config["descriptors"][0]["value"] == "200"
    assert config["descriptors"][0]["descriptors"][0]["rate_limit"]["requests_per_unit"] == 200


def test_a16_the_password_is_in_its_secret_alone() -> None:
    objects = dict(token_limits.objects(LIMITS, "PLANTED", token_limits.store_settings("PLANTED")))
    assert [role for role, item in objects.items() if "PLANTED" in json.dumps(item)] == ["store-auth"]
    assert objects["store-auth"]["kind"] == "Secret"


# What `ratelimit` accepts, src/config/config_impl.go of the pinned version: an unknown key fails the whole load.
DESCRIPTOR_KEYS = {"key", "value", "descriptors", "rate_limit", "shadow_mode", "value_to_metric"}
LIMIT_KEYS = {"unit", "requests_per_unit", "unlimited"}


def test_a17_the_service_accepts_every_key() -> None:
    def check(descriptor: dict[str, Any]) -> None:
        assert set(descriptor) <= DESCRIPTOR_KEYS
        assert set(descriptor.get("rate_limit", {})) <= LIMIT_KEYS
        # A unit beside `unlimited` fails the load too.
        assert "unit" not in descriptor.get("rate_limit", {}) or "unlimited" not in descriptor["rate_limit"]
        for inner in descriptor.get("descriptors", []):
            check(inner)

    for descriptor in service_config(shadow=True)["descriptors"]:
        check(descriptor)


def test_shadow_spares_tiers_and_not_strangers() -> None:
    spared = {
        d.get("value"): d["descriptors"][0].get("shadow_mode", False)
        for d in service_config(shadow=True)["descriptors"]
    }
    assert spared == {"free": True, "premium": True, token_limits.EXEMPT: False, None: False}


# -- failure and refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fail_open", [False, True])
def test_failure_mode_is_the_configured_one(fail_open: bool) -> None:
    assert limit_filter(changed(fail_open=fail_open))["failure_mode_deny"] is not fail_open


def test_the_program_of_the_listener_refuses_everything() -> None:
    """It runs only where the tables are missing."""
    (program,) = (
        p["patch"]["value"]
        for p in patches(chain.chain(SPEC))
        if p["patch"]["value"].get("name") == chain.PROGRAM
    )
    assert "503" in program["typed_config"]["default_source_code"]["inline_string"]


@pytest.mark.parametrize("measure", ["tokens", "requests"])
def test_refusals_have_openais_shape(measure: Any) -> None:
    mappers = connection(changed(measure=measure))["local_reply_config"]["mappers"]
    for mapper in mappers:
        error = mapper["body_format_override"]["json_format"]["error"]
        assert set(error) == {"message", "type", "code"}
        assert "{" not in error["type"]
    (limited,) = (m for m in mappers if "RL" in json.dumps(m["filter"]).split('"'))
    assert limited["body"] == {"inline_string": f"The {measure} of this minute are spent."}


def test_the_access_log_has_no_room_for_bodies_queries_or_keys() -> None:
    text = json.dumps(chain.ACCESS_LOG)
    assert "AUTHORIZATION" not in text.upper()
    assert "%REQ(:PATH)%" not in text and "%PATH(NQ" in text
    assert "BODY" not in text


def test_on_https_the_plain_listener_neither_answers_nor_counts() -> None:
    secure, plain = patches(chain.tables(SECURE, "program"))
    assert secure["match"]["routeConfiguration"] == {"portNumber": 443}
    assert plain["match"]["routeConfiguration"] == {"portNumber": 80}
    (program,) = plain["patch"]["value"]["typed_per_filter_config"].values()
    assert program["disabled"] is True


# -- keys -----------------------------------------------------------------------------------------------------------


def test_keys_come_in_the_header_under_both_names_and_go_no_further() -> None:
    (provider,) = access.verification(ACCESS)["providers"].values()
    assert [h["value_prefix"] for h in provider["from_headers"]] == ["APIKEY ", "Bearer "]
    assert {h["name"] for h in provider["from_headers"]} == {"Authorization"}
    assert not provider["forward"] and "from_params" not in provider
    assert provider["audiences"] == ["dev/gateway/door"]


def test_every_public_key_is_named_and_bound_to_its_algorithm() -> None:
    (provider,) = access.verification(ACCESS)["providers"].values()
    keys = json.loads(provider["local_jwks"]["inline_string"])["keys"]
    assert [(k["kid"], k["alg"], k["use"]) for k in keys] == [("a", "ES256", "sig"), ("b", "ES256", "sig")]


def test_the_policy_lets_nobody_in_without_a_key_of_ours() -> None:
    spec = access.authorization_policy("door", "gateway", redirects=False)["spec"]
    assert spec["rules"] == [{"from": [{"source": {"requestPrincipals": ["llm-platform/*"]}}]}]
    assert spec["action"] == "ALLOW"


def test_clients_without_a_key_may_be_sent_to_https() -> None:
    rules = access.authorization_policy("door", "gateway", redirects=True)["spec"]["rules"]
    assert rules[1:] == [{"to": [{"operation": {"ports": ["80"]}}]}]


def test_a_silent_connection_says_that_it_lives_before_a_load_balancer_forgets_it() -> None:
    shortest = 350  # AWS's network load balancer, in seconds.
    (listener,) = [p for p in chain.chain(SPEC)["spec"]["configPatches"] if p["applyTo"] == "LISTENER"]
    options = {(o["level"], o["name"]): o["int_value"] for o in listener["patch"]["value"]["socket_options"]}
    assert options[socket.SOL_SOCKET, socket.SO_KEEPALIVE] == 1
    assert options[socket.IPPROTO_TCP, socket.TCP_KEEPIDLE] < shortest
