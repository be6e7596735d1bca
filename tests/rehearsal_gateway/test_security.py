"""Policies become jwt_authn and rbac as istiod writes them, no stricter and no laxer."""

from __future__ import annotations

from typing import Any

import pytest

from rehearsal.gateway import security
from rehearsal.gateway.objects import Unsupported
from rehearsal.gateway.security import JWT, NEVER, RBAC
from tests.rehearsal_gateway.example import (
    GATEWAY,
    HOME,
    POD_LABELS,
    Manifest,
    Signer,
    World,
    authentication,
    authorization,
    changed,
)

SIGNER = Signer()


def filters(*policies: Manifest) -> list[dict[str, Any]]:
    return security.filters(World(*policies), GATEWAY, HOME, POD_LABELS, lambda p: p + 8000)


def principals(**source: Any) -> list[dict[str, Any]]:
    """What an ALLOW rule with one source demands."""
    (made,) = filters(authorization(rules=[{"from": [{"source": source}]}]))
    (policy,) = made["typed_config"]["rules"]["policies"].values()
    return policy["principals"][0]["and_ids"]["ids"]


def permissions(**operation: Any) -> list[dict[str, Any]]:
    (made,) = filters(authorization(rules=[{"to": [{"operation": operation}]}]))
    (policy,) = made["typed_config"]["rules"]["policies"].values()
    return policy["permissions"][0]["and_rules"]["rules"]


def test_without_a_policy_there_is_no_filter() -> None:
    assert filters() == []


def test_keys_come_before_what_judges_them() -> None:
    assert [f["name"] for f in filters(authorization(), authentication(SIGNER))] == [JWT, RBAC]


def test_a_missing_key_passes_the_jwt_filter() -> None:
    config = filters(authentication(SIGNER))[0]["typed_config"]
    (rule,) = config["rules"]
    assert rule["requires"]["requires_any"]["requirements"] == [
        {"provider_name": "origins-0"}, {"allow_missing": {}}
    ]  # fmt: skip


def test_a_key_is_read_from_the_headers_alone_and_ends_here() -> None:
    provider = filters(authentication(SIGNER))[0]["typed_config"]["providers"]["origins-0"]
    assert [h["value_prefix"] for h in provider["from_headers"]] == ["APIKEY ", "Bearer "]
    assert provider["forward"] is False
    assert provider["payload_in_metadata"] == "payload"


def test_of_several_issuers_one_must_accept_and_none_may_find_a_bad_key() -> None:
    one = authentication(SIGNER)
    jwt = one["spec"]["jwtRules"][0]
    both = changed(one, jwtRules=[jwt, {**jwt, "issuer": "another"}])
    config = filters(both)[0]["typed_config"]
    # By issuer, not as they are written.
    assert [p["issuer"] for p in config["providers"].values()] == ["another", "llm-platform"]
    requirements = config["rules"][0]["requires"]["requires_any"]["requirements"]
    assert [r.get("provider_name") for r in requirements] == ["origins-0", "origins-1", None]
    assert len(requirements[2]["requires_all"]["requirements"]) == 2


@pytest.mark.parametrize(
    ("spec", "namespace", "applied"),
    [
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
        ({"targetRefs": [{"group": "", "kind": "Service", "name": GATEWAY}]}, HOME, False),
        ({"selector": {"matchLabels": POD_LABELS}}, HOME, True),
        ({"selector": {"matchLabels": {"app": "b"}}}, HOME, False),
        ({}, HOME, True),
        ({}, "istio-system", True),
        ({}, "other", False),
    ],
)
def test_a_policy_applies_by_reference_selector_or_namespace(
    spec: Manifest, namespace: str, applied: bool
) -> None:
    made = authentication(SIGNER)
    made = {**made, "spec": {"jwtRules": made["spec"]["jwtRules"], **spec}}
    made["metadata"]["namespace"] = namespace
    assert bool(filters(made)) is applied


def claim(name: str, value: dict[str, Any]) -> dict[str, Any]:
    path = [{"key": "payload"}, {"key": name}]
    return {"metadata": {"filter": JWT, "path": path, "value": {"string_match": value}}}


ANYTHING = {"safe_regex": {"regex": ".+"}}


@pytest.mark.parametrize(
    ("pattern", "issuer", "subject"),
    [
        ("llm-platform/*", {"exact": "llm-platform"}, ANYTHING),
        ("https://a/b/acme", {"exact": "https://a/b"}, {"exact": "acme"}),
        ("*/acme", ANYTHING, {"exact": "acme"}),
        ("iss/ac*", {"exact": "iss"}, {"prefix": "ac"}),
        ("*", ANYTHING, ANYTHING),
    ],
)
def test_request_principals_are_issuer_and_subject(
    pattern: str, issuer: dict[str, Any], subject: dict[str, Any]
) -> None:
    both = {"and_ids": {"ids": [claim("iss", issuer), claim("sub", subject)]}}
    assert principals(requestPrincipals=[pattern]) == [both]
    assert principals(notRequestPrincipals=[pattern]) == [{"not_id": both}]


def test_operations_are_methods_paths_and_ports_where_they_really_are() -> None:
    found = permissions(methods=["GET"], notPaths=["/v1/*", "*/health"], ports=["80"])
    method, path, port = found
    assert method == {
        "or_rules": {"rules": [{"header": {"name": ":method", "string_match": {"exact": "GET"}}}]}
    }
    paths = [r["url_path"]["path"] for r in path["not_rule"]["or_rules"]["rules"]]
    assert paths == [{"prefix": "/v1/"}, {"suffix": "/health"}]
    assert port == {"or_rules": {"rules": [{"destination_port": 8080}]}}


def test_a_claim_may_be_one_value_or_a_list() -> None:
    when = [{"key": "request.auth.claims[realm][roles]", "values": ["a", "b*"], "notValues": ["c"]}]
    (made,) = filters(authorization(rules=[{"when": when}]))
    (policy,) = made["typed_config"]["rules"]["policies"].values()
    wanted, unwanted = policy["principals"][0]["and_ids"]["ids"]
    assert [p["key"] for p in wanted["metadata"]["path"]] == ["payload", "realm", "roles"]
    either = {
        "or_match": {"value_matchers": [{"string_match": {"exact": "a"}}, {"string_match": {"prefix": "b"}}]}
    }
    assert wanted["metadata"]["value"]["or_match"]["value_matchers"] == [
        {"list_match": {"one_of": either}},
        either,
    ]
    assert "not_id" in unwanted


def test_denials_come_before_permissions() -> None:
    deny = authorization(action="DENY")
    deny["metadata"]["name"] = "deny"
    actions = [f["typed_config"]["rules"]["action"] for f in filters(authorization(), deny)]
    assert actions == ["DENY", "ALLOW"]


def test_a_policy_without_rules_stops_everything() -> None:
    (made,) = filters(authorization(rules=[]))
    assert list(made["typed_config"]["rules"]["policies"].values()) == [NEVER]


REFUSED: list[tuple[Manifest, str]] = [
    ({"action": "CUSTOM"}, "CUSTOM"),
    ({"action": "AUDIT"}, "AUDIT"),
    ({"rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}]}, "ipBlocks"),
    ({"rules": [{"to": [{"operation": {"hosts": ["a"]}}]}]}, "hosts"),
    ({"rules": [{"to": [{"operation": {"paths": ["/a/{*}"]}}]}]}, "template"),
    ({"rules": [{"when": [{"key": "request.headers[x]", "values": ["a"]}]}]}, "request.headers"),
]


@pytest.mark.parametrize(("spec", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_what_is_not_rehearsed_is_refused_by_name(spec: Manifest, named: str) -> None:
    with pytest.raises(Unsupported) as refused:
        filters(authorization(**spec))
    assert "AuthorizationPolicy llm-gateway/keys" in str(refused.value) and named in str(refused.value)


@pytest.mark.parametrize(
    "field",
    [
        {"jwksUri": "https://a"},
        {"fromParams": ["key"]},
        {"outputPayloadToHeader": "x"},
        {"jwks": "no JSON"},
        {"jwks": "[]"},
    ],
)
def test_a_jwt_rule_that_is_not_rehearsed_is_refused_by_name(field: Manifest) -> None:
    made = authentication(SIGNER)
    made["spec"]["jwtRules"][0].update(field)
    with pytest.raises(Unsupported, match=f"RequestAuthentication llm-gateway/keys.*{next(iter(field))}"):
        filters(made)


def test_a_policy_that_only_watches_is_refused_since_it_would_seem_to_act() -> None:
    made = authorization()
    made["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
    with pytest.raises(Unsupported, match="dry-run"):
        filters(made)
