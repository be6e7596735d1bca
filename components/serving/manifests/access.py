"""Who is let in: API keys as signed tokens that the gateway verifies itself. Pure.

A key is a compact JWT. Only public keys reach the cluster. RequestAuthentication alone lets a request
without a key through, so an AuthorizationPolicy stands behind it; what a client reads
when it is refused comes from the request program (requests.lua), which answers before that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from components.core import labels
from components.core.manifest import Manifest, manifest
from components.serving.manifests.gateway import PLAIN_PORT

API = "security.istio.io/v1"
ISSUER = "llm-platform"
# The scheme of API gateways before it, and that of every OpenAI client.
PREFIXES = ("APIKEY ", "Bearer ")


@dataclass(frozen=True, kw_only=True)
class KeysSpec:
    """How keys of a gateway are verified.

    `public_keys` are JSON Web Keys (kty, crv, x, y) by key id; `audience` names this stack and
    gateway, so that a key of another stack is worth nothing here. `redirects` says whether the
    gateway has a plain listener that only sends clients to HTTPS.
    """

    gateway: str
    namespace: str
    audience: str
    public_keys: Mapping[str, Mapping[str, str]]
    redirects: bool

    @property
    def name(self) -> str:
        """Name of both objects."""
        return f"{self.gateway}-keys"


def audience(stack: str, namespace: str, gateway: str) -> str:
    """The audience of keys for one gateway of one stack."""
    return f"{stack}/{namespace}/{gateway}"


def request_authentication(spec: KeysSpec) -> Manifest:
    """Signature, issuer, audience and times of a key; the key itself goes no further than the gateway."""
    keys = [
        {**jwk, "kid": key_id, "alg": "ES256", "use": "sig"}
        for key_id, jwk in sorted(spec.public_keys.items())
    ]
    rule = {
        "issuer": ISSUER,
        "audiences": [spec.audience],
        "jwks": json.dumps({"keys": keys}, sort_keys=True),
        # Naming the header also switches off Istio's default of a token in the query.
        "fromHeaders": [{"name": "Authorization", "prefix": prefix} for prefix in PREFIXES],
        "forwardOriginalToken": False,
    }
    return _policy(spec, "RequestAuthentication", jwtRules=[rule])


def authorization_policy(spec: KeysSpec) -> Manifest:
    """Nothing passes without a verified key, whatever becomes of the request program."""
    rules = [{"from": [{"source": {"requestPrincipals": [f"{ISSUER}/*"]}}]}]
    if spec.redirects:
        rules.append({"to": [{"operation": {"ports": [str(PLAIN_PORT)]}}]})
    return _policy(spec, "AuthorizationPolicy", action="ALLOW", rules=rules)


def _policy(spec: KeysSpec, kind: str, **fields: object) -> Manifest:
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": spec.gateway}
    return manifest(
        API,
        kind,
        spec.name,
        spec.namespace,
        labels=labels.common("access"),
        spec={"targetRefs": [target], **fields},
    )
