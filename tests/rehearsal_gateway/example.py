"""A whole platform's objects as the API server would hold them: a Gateway, two models, keys and limits."""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

Manifest = dict[str, Any]

HOME, MODELS, GATEWAY = "llm-gateway", "models", "llm-gateway"
HOST = "llm.example.com"
AUDIENCE = f"dev/{HOME}/{GATEWAY}"
EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
HCM = "envoy.filters.network.http_connection_manager"
POD_LABELS = {"gateway.networking.k8s.io/gateway-name": GATEWAY}
REDIRECT_PORT = 8089
MODEL_HEADER = "x-gateway-model-name"


class World:
    """Objects by kind, namespace and name."""

    def __init__(self, *items: Manifest):
        self._items: dict[tuple[str, str, str], Manifest] = {}
        for item in items:
            self.put(item)

    def put(self, item: Manifest) -> None:
        meta = item["metadata"]
        self._items[item["kind"], meta.get("namespace", ""), meta["name"]] = item

    def of(self, kind: str) -> list[Manifest]:
        return [i for k, i in self._items.items() if k[0] == kind]

    def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        return self._items.get((kind, namespace, name))


def item(
    kind: str, name: str, namespace: str = "", spec: Manifest | None = None, created: int = 0, **meta: Any
) -> Manifest:
    """An object of any kind; `created` is the minute of its making."""
    metadata = {
        "name": name,
        "generation": 1,
        "uid": f"{kind}-{name}",
        "creationTimestamp": f"2026-01-01T00:{created:02}:00Z",
        **({"namespace": namespace} if namespace else {}),
        **meta,
    }
    return {"apiVersion": API.get(kind, "v1"), "kind": kind, "metadata": metadata, "spec": spec or {}}


API = {
    "Gateway": "gateway.networking.k8s.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "InferencePool": "inference.networking.k8s.io/v1",
    "EnvoyFilter": "networking.istio.io/v1alpha3",
    "DestinationRule": "networking.istio.io/v1",
    "RequestAuthentication": "security.istio.io/v1",
    "AuthorizationPolicy": "security.istio.io/v1",
}


def gateway(*listeners: Manifest, **meta: Any) -> Manifest:
    spec = {"gatewayClassName": "istio", "listeners": list(listeners) or [listener("http", 80)]}
    return item("Gateway", GATEWAY, HOME, spec, **meta)


def listener(
    name: str, port: int, hostname: str | None = None, secret: str | None = None, routes: str = "All"
) -> Manifest:
    """A listener for routes of every namespace; HTTPS with a secret."""
    found: Manifest = {"name": name, "port": port, "protocol": "HTTPS" if secret else "HTTP"}
    found["allowedRoutes"] = {"namespaces": {"from": routes}}
    if hostname:
        found["hostname"] = hostname
    if secret:
        found["tls"] = {"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": secret}]}
    return found


def route(
    name: str,
    *rules: Manifest,
    namespace: str = MODELS,
    section: str | None = None,
    created: int = 0,
    hostnames: list[str] | None = None,
) -> Manifest:
    parent = {"name": GATEWAY, "namespace": HOME, **({"sectionName": section} if section else {})}
    spec = {"parentRefs": [parent], "rules": list(rules), **({"hostnames": hostnames} if hostnames else {})}
    return item("HTTPRoute", name, namespace, spec, created)


def rule(path: str | None = None, *backends: Manifest, prefix: bool = False, **more: Any) -> Manifest:
    """A rule for one path (every path without one) to some backends."""
    found: Manifest = dict(more)
    if path is not None:
        match = {"path": {"type": "PathPrefix" if prefix else "Exact", "value": path}}
        found["matches"] = [{**match, **found.pop("match", {})}]
    return {**found, **({"backendRefs": list(backends)} if backends else {})}


def to_service(name: str, port: int = 8000, **more: Any) -> Manifest:
    return {"group": "", "kind": "Service", "name": name, "port": port, **more}


def to_pool(name: str) -> Manifest:
    return {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": name, "port": 8000}


def service(name: str, namespace: str, *ports: Manifest) -> Manifest:
    return item("Service", name, namespace, {"selector": {"app": name}, "ports": list(ports)})


def port(number: int, name: str, target: int | str | None = None, **more: Any) -> Manifest:
    return {"port": number, "name": name, "targetPort": target or number, **more}


def pool(name: str, picker: str, failure_mode: str = "FailClose") -> Manifest:
    reference = {"name": picker, "port": {"number": 9002}, "failureMode": failure_mode}
    spec = {
        "selector": {"matchLabels": {"app": name}},
        "targetPorts": [{"number": 8000}],
        "endpointPickerRef": reference,
    }
    return item("InferencePool", name, MODELS, spec)


def pod(name: str, namespace: str, address: str, ready: bool = True, **labels: str) -> Manifest:
    made = item("Pod", name, namespace, {"containers": []}, labels=labels)
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {**made, "status": {"podIP": address, "conditions": conditions}}


def gateway_pod(address: str, name: str = "gateway-pod", ready: bool = True) -> Manifest:
    return pod(name, HOME, address, ready, **POD_LABELS)


def istiod_pod() -> Manifest:
    made = pod("istiod", "istio-system", "127.0.0.9", app="istiod")
    made["spec"]["containers"] = [{"name": "discovery", "image": "docker.io/istio/pilot:1.30.3"}]
    return made


def model_routes(model: str, backend: Manifest) -> Manifest:
    """The routes of a model: under its own prefix, and on the bare path with its header."""
    full = {
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/v1/completions"}},
    }
    header = {"name": MODEL_HEADER, "value": f"publishers/{MODELS}/models/{model}"}
    timeouts = {"request": "30s"}
    return route(
        f"{model}-inference",
        rule(f"/{MODELS}/{model}/v1/completions", backend, filters=[full], timeouts=timeouts),
        rule("/v1/completions", backend, match={"headers": [header]}, timeouts=timeouts),
    )


def envoy_filter(
    name: str, *config_patches: Manifest, namespace: str = HOME, created: int = 0, **spec: Any
) -> Manifest:
    whole = {"workloadSelector": {"labels": POD_LABELS}, "configPatches": list(config_patches), **spec}
    return item("EnvoyFilter", name, namespace, whole, created)


def patch(
    apply_to: str, value: Any, operation: str = "MERGE", anchor: str | None = None, **match: Any
) -> Manifest:
    """One patch; `anchor` names an HTTP filter."""
    where: Manifest = {"context": "GATEWAY", **match}
    if apply_to in ("HTTP_FILTER", "NETWORK_FILTER"):
        filter_ = {"name": HCM, **({"subFilter": {"name": anchor}} if anchor else {})}
        where["listener"] = {"filterChain": {"filter": filter_}}
    return {"applyTo": apply_to, "match": where, "patch": {"operation": operation, "value": value}}


def lua(source: str) -> Manifest:
    config = {"@type": f"{EXTENSIONS}.http.lua.v3.Lua", "default_source_code": {"inline_string": source}}
    return {"name": "llmp.requests", "typed_config": config}


CLOSED = """
function envoy_on_request(h)
  h:respond({[":status"] = "503"}, "tables missing")
end
"""


def limit(fail_open: bool = True) -> Manifest:
    config = {
        "@type": f"{EXTENSIONS}.http.ratelimit.v3.RateLimit",
        "domain": "llmp",
        "timeout": "0.25s",
        "failure_mode_deny": not fail_open,
        "status_on_error": {"code": "ServiceUnavailable"},
        "response_headers_to_add": [{"header": {"key": "retry-after", "value": "%RESP(x-tokens-reset)%"}}],
        "rate_limit_service": {
            "transport_api_version": "V3",
            "grpc_service": {
                "envoy_grpc": {"cluster_name": f"outbound|8081||ratelimit.{HOME}.svc.cluster.local"}
            },
        },
    }
    return {"name": "llmp.limit", "typed_config": config}


def connection() -> Manifest:
    """OpenAI's shape for refusals, and a line per request; written as JSON allows, in camel case."""
    shape = {"jsonFormat": {"error": {"message": "%LOCAL_REPLY_BODY%", "codeOf": "%RESPONSE_CODE%"}}}
    anything = {"comparison": {"op": "GE", "value": {"defaultValue": 400, "runtimeKey": "llmp.refusal"}}}
    log = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "/dev/stdout",
        "logFormat": {
            "jsonFormat": {
                "tenant": "%DYNAMIC_METADATA(llmp:tenant)%",
                "path": "%PATH(NQ)%",
                "status": "%RESPONSE_CODE%",
            }
        },
    }
    return {
        "typedConfig": {
            "@type": f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
            "accessLog": [{"name": "envoy.access_loggers.file", "typedConfig": log}],
            "localReplyConfig": {
                "mappers": [{"filter": {"statusCodeFilter": anything}, "bodyFormatOverride": shape}]
            },
        }
    }


def chain() -> Manifest:
    return envoy_filter(
        "llm-gateway-chain",
        patch("HTTP_FILTER", lua(CLOSED), "INSERT_AFTER", "envoy.filters.http.jwt_authn"),
        patch("HTTP_FILTER", limit(), "INSERT_AFTER", "envoy.filters.http.rbac"),
        patch("NETWORK_FILTER", connection()),
        patch("LISTENER", {"per_connection_buffer_limit_bytes": 16777216}),
    )


PROGRAM = """
local REVOKED = {%s}
function envoy_on_request(h)
  local found = h:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn")
  local claims = found and found["payload"]
  if not claims then return h:respond({[":status"] = "401"}, "no key") end
  if REVOKED[claims["jti"]] then return h:respond({[":status"] = "401"}, "revoked") end
  h:streamInfo():dynamicMetadata():set("llmp", "tenant", claims["sub"])
  h:headers():replace("x-seen-tenant", claims["sub"])
end
"""
OPEN = "function envoy_on_request(h) end"


def program(*revoked: str) -> str:
    return PROGRAM % ", ".join(f'["{key}"] = true' for key in revoked)


def tables(source: str) -> Manifest:
    """The request program for all ports but the one that redirects."""
    lua_type, limit_type = (
        f"{EXTENSIONS}.http.{kind}PerRoute" for kind in ("lua.v3.Lua", "ratelimit.v3.RateLimit")
    )
    rates = [{"actions": [{"generic_key": {"descriptor_value": "x"}}], "hits_addend": {"number": 1}}]
    used = {
        "llmp.requests": {"@type": lua_type, "source_code": {"inline_string": source}},
        "llmp.limit": {"@type": limit_type, "rate_limits": rates},
    }
    passing = {"llmp.requests": {"@type": lua_type, "disabled": True}}
    return envoy_filter(
        "llm-gateway-tables",
        patch("ROUTE_CONFIGURATION", {"typed_per_filter_config": used}),
        patch(
            "ROUTE_CONFIGURATION",
            {"typed_per_filter_config": passing},
            routeConfiguration={"portNumber": REDIRECT_PORT},
        ),
    )


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """Signs keys as `ops keys` does: compact JWTs with ES256."""

    def __init__(self, key_id: str = "first"):
        self.key_id, self._key = key_id, ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> dict[str, str]:
        numbers = self._key.public_key().public_numbers()
        point = {n: encoded(getattr(numbers, n).to_bytes(32, "big")) for n in ("x", "y")}
        return {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.key_id, **point}

    def token(self, **claims: Any) -> str:
        now = int(time.time())
        whole = {
            "iss": "llm-platform", "aud": AUDIENCE, "sub": "acme", "jti": "k1", "iat": now, "exp": now + 600
        } | claims  # fmt: skip
        head = {"alg": "ES256", "typ": "JWT", "kid": self.key_id}
        text = ".".join(encoded(json.dumps(part).encode()) for part in (head, whole))
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def authentication(*signers: Signer) -> Manifest:
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": GATEWAY}
    jwt = {
        "issuer": "llm-platform",
        "audiences": [AUDIENCE],
        "jwks": json.dumps({"keys": [s.jwk for s in signers]}),
        "fromHeaders": [{"name": "Authorization", "prefix": p} for p in ("APIKEY ", "Bearer ")],
        "forwardOriginalToken": False,
    }
    return item("RequestAuthentication", "keys", HOME, {"targetRefs": [target], "jwtRules": [jwt]})


def authorization(**rule_or_spec: Any) -> Manifest:
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": GATEWAY}
    rules = [
        {"from": [{"source": {"requestPrincipals": ["llm-platform/*"]}}]},
        {"to": [{"operation": {"ports": [str(REDIRECT_PORT)]}}]},
    ]
    spec = {"targetRefs": [target], "action": "ALLOW", "rules": rules, **rule_or_spec}
    return item("AuthorizationPolicy", "keys", HOME, spec)


def destination_rule(
    name: str, host: str, namespace: str = MODELS, sni: str | None = None, **tls: Any
) -> Manifest:
    settings = {"mode": "SIMPLE", "insecureSkipVerify": True, **({"sni": sni} if sni else {}), **tls}
    return item("DestinationRule", name, namespace, {"host": host, "trafficPolicy": {"tls": settings}})


def namespaces() -> list[Manifest]:
    return [item("Namespace", n, labels={"kubernetes.io/metadata.name": n}) for n in (HOME, MODELS)]


def models() -> list[Manifest]:
    """`alpha` is a pool behind a picker, `beta` a plain Service."""
    redirect = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}
    return [
        service("alpha-svc", MODELS, port(8000, "http")),
        service("beta-svc", MODELS, port(8000, "http")),
        service("alpha-epp", MODELS, port(9002, "grpc"), port(9090, "metrics")),
        pool("alpha", "alpha-epp"),
        model_routes("alpha", to_pool("alpha")),
        model_routes("beta", to_service("beta-svc")),
        route("base", rule("/", prefix=True), namespace=HOME, section="http"),
        route("redirect", rule(filters=[redirect]), namespace=HOME, section="old"),
    ]


def limits() -> list[Manifest]:
    return [
        service("ratelimit", HOME, port(8081, "grpc", appProtocol="grpc"), port(8080, "http")),
        service("valkey", HOME, port(6379, "tcp-valkey")),
    ]


def platform(address: str, signer: Signer) -> list[Manifest]:
    """Everything, with a Gateway whose pod is at `address`."""
    return [
        *namespaces(),
        gateway(
            listener("http", 80),
            listener("https", 443, HOST, "certificate"),
            listener("old", REDIRECT_PORT, routes="Same"),
        ),
        gateway_pod(address),
        istiod_pod(),
        *models(),
        *limits(),
        authentication(signer),
        authorization(),
        chain(),
        tables(program()),
    ]


def changed(made: Manifest, **spec: Any) -> Manifest:
    """A copy with some fields of the spec replaced."""
    return {**copy.deepcopy(made), "spec": {**copy.deepcopy(made["spec"]), **spec}}


def nowhere(_namespace: str, _labels: Mapping[str, str], _port: int | str) -> list[tuple[str, int]]:
    """No pod is ready."""
    return []
