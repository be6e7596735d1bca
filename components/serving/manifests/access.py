"""Who is let in: API keys as signed tokens that the gateway verifies itself. Pure.

A key is a compact JWT. Only public keys reach the cluster. The filter that verifies keys lets a request
without one through, so an AuthorizationPolicy stands behind it; what a client reads
when it is refused comes from the request program (requests.lua), which answers before that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.core import labels
from components.core.manifest import Manifest, manifest
from components.serving.manifests.gateway import PLAIN_PORT
from components.serving.manifests.token_limits import Measure

API = "security.istio.io/v1"
ISSUER = "llm-platform"
# The scheme of API gateways before it, and that of every OpenAI client.
PREFIXES = ("APIKEY ", "Bearer ")
# AuthorizationPolicies look for a verified key's claims here (istiod's `EnvoyJwtFilterPayload`).
PAYLOAD = "payload"
# Keys whose signature a worker need not verify again; each takes some five kilobytes there.
CACHED_KEYS = 2000


@dataclass(frozen=True, kw_only=True)
class AccessSpec:
    """Who is let in, and what is counted.

    `public_keys` are JSON Web Keys (kty, crv, x, y) by key id; `audience` names this stack and
    gateway, so that a key of another stack is worth nothing here. `measure` is what tenants' budgets
    count; `fail_open` lets requests pass uncounted while the limits cannot be checked.
    """

    audience: str
    public_keys: Mapping[str, Mapping[str, str]]
    measure: Measure
    fail_open: bool = False


def audience(stack: str, namespace: str, gateway: str) -> str:
    """The audience of keys for one gateway of one stack."""
    return f"{stack}/{namespace}/{gateway}"


def verification(spec: AccessSpec) -> dict[str, Any]:
    """Signature, issuer, audience and times of a key; the key itself goes no further than the gateway.

    As istiod makes it of a RequestAuthentication, without what our claims and routes have no use for, and with a
    memory of keys that were verified (docs/adr/0016): times and audience are checked for each request all the same.
    """
    keys = [
        {**jwk, "kid": key_id, "alg": "ES256", "use": "sig"}
        for key_id, jwk in sorted(spec.public_keys.items())
    ]
    provider = {
        "issuer": ISSUER,
        "audiences": [spec.audience],
        "local_jwks": {"inline_string": json.dumps({"keys": keys}, sort_keys=True)},
        # Naming the header also switches off Envoy's default of a token in the query.
        "from_headers": [{"name": "Authorization", "value_prefix": prefix} for prefix in PREFIXES],
        "forward": False,
        "payload_in_metadata": PAYLOAD,
        "jwt_cache_config": {"jwt_cache_size": CACHED_KEYS},
    }
    wanted = {"requirements": [{"provider_name": ISSUER}, {"allow_missing": {}}]}
    return {
        "providers": {ISSUER: provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": wanted}}],
    }


def authorization_policy(gateway: str, namespace: str, redirects: bool) -> Manifest:
    """Nothing passes without a verified key, whatever becomes of the filters before.

    `redirects` says whether the gateway has a plain listener that only sends clients to HTTPS.
    """
    rules: list[dict[str, Any]] = [{"from": [{"source": {"requestPrincipals": [f"{ISSUER}/*"]}}]}]
    if redirects:
        rules.append({"to": [{"operation": {"ports": [str(PLAIN_PORT)]}}]})
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway}
    return manifest(
        API,
        "AuthorizationPolicy",
        f"{gateway}-keys",
        namespace,
        labels=labels.common("access"),
        spec={"targetRefs": [target], "action": "ALLOW", "rules": rules},
    )
