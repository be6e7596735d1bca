"""RequestAuthentication and AuthorizationPolicy as Envoy's jwt_authn and rbac filters.

Follows istiod's `pilot/pkg/security/authn/policy_applier.go` and `pilot/pkg/security/authz`. Every JWT rule gets
`allow_missing`: a request without a token passes jwt_authn, and only an AuthorizationPolicy stops it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rehearsal.gateway.objects import (
    ROOT_NAMESPACE,
    Manifest,
    Objects,
    Unsupported,
    age,
    key,
    one_of,
    only,
    selects,
)

JWT = "envoy.filters.http.jwt_authn"
RBAC = "envoy.filters.http.rbac"
PAYLOAD = "payload"
_TYPE = "type.googleapis.com/envoy.extensions.filters.http"
JWT_RULE_FIELDS = ("issuer", "audiences", "jwks", "fromHeaders", "forwardOriginalToken")
OPERATION_FIELDS = ("methods", "notMethods", "paths", "notPaths", "ports", "notPorts")
DRY_RUN = "istio.io/dry-run"
# By default Envoy splits these claims at their spaces, as Istio asks it to.
SPACE_DELIMITED = ["permission", "scope"]


Moved = Callable[[int], int]


def filters(
    objects: Objects, gateway: str, namespace: str, have: Mapping[str, str], moved: Moved
) -> list[dict[str, Any]]:
    """jwt_authn and rbac for the proxies of a Gateway with labels `have`; each only where a policy asks for it.

    `moved` tells where a port of the Gateway really listens.
    """
    authentication = list(_policies(objects, "RequestAuthentication", gateway, namespace, have))
    authorization = list(_policies(objects, "AuthorizationPolicy", gateway, namespace, have))
    return [*_jwt(authentication), *_rbac(authorization, moved)]


def _policies(
    objects: Objects, kind: str, gateway: str, namespace: str, have: Mapping[str, str]
) -> Iterator[Manifest]:
    """The policies that apply, those of the root namespace first, then the oldest."""
    homes = {ROOT_NAMESPACE: 0, namespace: 1}
    found = [p for p in objects.of(kind) if p["metadata"]["namespace"] in homes]
    for policy in sorted(found, key=lambda p: (homes[p["metadata"]["namespace"]], age(p))):
        if applies(policy, gateway, namespace, have):
            yield policy


def applies(policy: Manifest, gateway: str, namespace: str, have: Mapping[str, str]) -> bool:
    """Whether a policy is for a Gateway's proxies: by its targetRefs, else by its selector, else always."""
    spec = policy.get("spec") or {}
    references = spec.get("targetRefs") or ([spec["targetRef"]] if spec.get("targetRef") else [])
    if references:
        return (
            any(
                (r.get("group", ""), r["kind"], r["name"])
                == ("gateway.networking.k8s.io", "Gateway", gateway)
                for r in references
            )
            and policy["metadata"]["namespace"] == namespace
        )
    return selects(policy, spec.get("selector") or {}, have)


def _jwt(policies: Sequence[Manifest]) -> Iterator[dict[str, Any]]:
    rules = [(p, r) for p in policies for r in _rules(p)]
    if not rules:
        return
    providers = {
        f"origins-{n}": _provider(policy, rule)
        for n, (policy, rule) in enumerate(sorted(rules, key=lambda r: str(r[1]["issuer"])))
    }
    each = [
        {"requires_any": {"requirements": [{"provider_name": n}, {"allow_missing": {}}]}} for n in providers
    ]
    # Several providers may read the same header: one of them must accept, and none may find a bad token.
    several = [*({"provider_name": n} for n in providers), {"requires_all": {"requirements": each}}]
    requires = each[0] if len(each) == 1 else {"requires_any": {"requirements": several}}
    config = {
        "@type": f"{_TYPE}.jwt_authn.v3.JwtAuthentication",
        "providers": providers,
        "rules": [{"match": {"prefix": "/"}, "requires": requires}],
        "bypass_cors_preflight": True,
    }
    yield {"name": JWT, "typed_config": config}


def _rules(policy: Manifest) -> list[Manifest]:
    spec = policy["spec"]
    only(policy, spec, "spec", ("targetRefs", "targetRef", "selector", "jwtRules"))
    return spec.get("jwtRules") or []


def _provider(policy: Manifest, rule: Manifest) -> dict[str, Any]:
    where = f"spec.jwtRules[{rule.get('issuer')}]"
    only(policy, rule, where, JWT_RULE_FIELDS)
    try:
        json.loads(rule.get("jwks") or "")["keys"]
    except (ValueError, KeyError, TypeError):
        raise Unsupported(policy, f'{where}.jwks must hold a key set inline: {{"keys": […]}}') from None
    provider: dict[str, Any] = {
        "issuer": rule["issuer"],
        "audiences": rule.get("audiences") or [],
        "forward": bool(rule.get("forwardOriginalToken")),
        "local_jwks": {"inline_string": rule["jwks"]},
        "payload_in_metadata": PAYLOAD,
        "normalize_payload_in_metadata": {"space_delimited_claims": SPACE_DELIMITED},
        # Gateways choose the route anew, since routes may depend on claims.
        "clear_route_cache": True,
    }
    locations = rule.get("fromHeaders") or []
    for location in locations:
        only(policy, location, f"{where}.fromHeaders", ("name", "prefix"))
    if locations:
        # With none, Envoy looks at `Authorization: Bearer` and the query's `access_token`.
        provider["from_headers"] = [
            {"name": x["name"], "value_prefix": x.get("prefix", "")} for x in locations
        ]
    return provider


def _rbac(policies: Sequence[Manifest], moved: Moved) -> Iterator[dict[str, Any]]:
    """One filter for what is denied, then one for what is allowed."""
    for policy in policies:
        _check(policy)
    for action in ("DENY", "ALLOW"):
        mine = [p for p in policies if _action(p) == action]
        if mine:
            named = dict(named for policy in mine for named in _named(policy, moved))
            rules = {"action": action, "policies": named}
            yield {"name": RBAC, "typed_config": {"@type": f"{_TYPE}.rbac.v3.RBAC", "rules": rules}}


def _check(policy: Manifest) -> None:
    only(policy, policy.get("spec") or {}, "spec", ("targetRefs", "targetRef", "selector", "action", "rules"))
    one_of(policy, _action(policy), "spec.action", ("ALLOW", "DENY"))
    if (policy["metadata"].get("annotations") or {}).get(DRY_RUN):
        raise Unsupported(policy, f"the annotation {DRY_RUN} is not rehearsed")


def _action(policy: Manifest) -> str:
    return str((policy.get("spec") or {}).get("action") or "ALLOW")


ANY: dict[str, Any] = {"any": True}
NEVER = {"permissions": [{"not_rule": ANY}], "principals": [{"not_id": ANY}]}


def _named(policy: Manifest, moved: Moved) -> Iterator[tuple[str, dict[str, Any]]]:
    namespace, name = key(policy)
    rules = (policy.get("spec") or {}).get("rules") or []
    if not rules:
        # A policy without a rule matches nothing: as ALLOW it stops every request.
        yield f"ns[{namespace}]-policy[{name}]-rule[0]", NEVER
    for number, rule in enumerate(rules):
        where = f"spec.rules[{number}]"
        only(policy, rule, where, ("from", "to", "when"))
        when = [c for condition in rule.get("when") or [] for c in _when(policy, where, condition)]
        yield (
            f"ns[{namespace}]-policy[{name}]-rule[{number}]",
            {
                "permissions": [
                    _and(_operation(policy, where, t.get("operation") or {}, moved), "and_rules", "rules")
                    for t in rule.get("to") or [{}]
                ],
                "principals": [
                    _and([*_source(policy, where, f.get("source") or {}), *when], "and_ids", "ids")
                    for f in rule.get("from") or [{}]
                ],
            },
        )


def _and(items: list[dict[str, Any]], field: str, inner: str) -> dict[str, Any]:
    return {field: {inner: items or [ANY]}}


def _operation(policy: Manifest, where: str, operation: Manifest, moved: Moved) -> list[dict[str, Any]]:
    only(policy, operation, f"{where}.to.operation", OPERATION_FIELDS)
    for path in (*(operation.get("paths") or ()), *(operation.get("notPaths") or ())):
        if "{" in path:
            raise Unsupported(policy, f"{where}.to.operation.paths: the template {path!r} is not rehearsed")
    fields = (
        ("methods", "notMethods", _method),
        ("paths", "notPaths", lambda path: {"url_path": {"path": string(path)}}),
        ("ports", "notPorts", lambda port: {"destination_port": moved(int(port))}),
    )
    out = []
    for wanted, unwanted, build in fields:
        for name, negated in ((wanted, False), (unwanted, True)):
            values = [build(v) for v in operation.get(name) or ()]
            if values:
                either = {"or_rules": {"rules": values}}
                out.append({"not_rule": either} if negated else either)
    return out


def _method(value: str) -> dict[str, Any]:
    if value == "*":
        return {"header": {"name": ":method", "present_match": True}}
    return {"header": {"name": ":method", "string_match": string(value)}}


def _source(policy: Manifest, where: str, source: Manifest) -> list[dict[str, Any]]:
    only(policy, source, f"{where}.from.source", ("requestPrincipals", "notRequestPrincipals"))
    out = []
    for field, negated in (("requestPrincipals", False), ("notRequestPrincipals", True)):
        values = [_principal(v) for v in source.get(field) or ()]
        if values:
            either = values[0] if len(values) == 1 else {"or_ids": {"ids": values}}
            out.append({"not_id": either} if negated else either)
    return out


def _principal(value: str) -> dict[str, Any]:
    """A request principal `<issuer>/<subject>`, in which either end may be a star."""
    issuer, slash, subject = value.rpartition("/")
    anything = string("*")
    if value == "*":
        pair = anything, anything
    elif not slash:
        # Without a slash the star stands at the end of an issuer or at the start of a subject.
        pair = (anything, string(value)) if value.startswith("*") else (string(value), anything)
    else:
        pair = string(issuer), string(subject)
    claims = [_claim(["iss"], {"string_match": pair[0]}), _claim(["sub"], {"string_match": pair[1]})]
    return {"and_ids": {"ids": claims}}


def _claim(path: Iterable[str], value: dict[str, Any]) -> dict[str, Any]:
    keys = [{"key": k} for k in (PAYLOAD, *path)]
    return {"metadata": {"filter": JWT, "path": keys, "value": value}}


def _when(policy: Manifest, where: str, condition: Manifest) -> Iterator[dict[str, Any]]:
    only(policy, condition, f"{where}.when", ("key", "values", "notValues"))
    name = condition["key"]
    if not re.fullmatch(r"request\.auth\.claims(\[[^\[\]]+\])+", name):
        raise Unsupported(policy, f"{where}.when.key {name!r} is not rehearsed; request.auth.claims[…] is")
    path = re.findall(r"\[([^\[\]]+)\]", name)
    for field, negated in (("values", False), ("notValues", True)):
        values = [{"string_match": string(v)} for v in condition.get(field) or ()]
        if values:
            either = values[0] if len(values) == 1 else {"or_match": {"value_matchers": values}}
            # A claim may be one value or a list of them.
            both = {"or_match": {"value_matchers": [{"list_match": {"one_of": either}}, either]}}
            found = _claim(path, both)
            yield {"not_id": found} if negated else found


def string(value: str) -> dict[str, Any]:
    """Istio's patterns: `*` for anything but nothing, `x*`, `*x`, else the text itself."""
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": value[:-1]}
    return {"exact": value}
