"""What a request passes on its way through Istio's gateway. Pure.

    keys -> request program -> token limit -> Istio's own, RBAC among them -> endpoint picker -> router

Ours stand first and name no filter of Istio's, so that all of them are there or none; RBAC, which istiod makes of the
AuthorizationPolicy, refuses whoever comes without a verified key. Two EnvoyFilters: the chain, which changes with
the public keys and whose change drains the listener, and the tables, which travel with the
routes and change with every tenant or revoked key without touching a connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.core import labels, naming
from components.core.manifest import Manifest, manifest
from components.serving.manifests import access, token_limits
from components.serving.manifests.access import AccessSpec
from components.serving.manifests.gateway import PLAIN_PORT, TLS_PORT
from components.serving.manifests.lua import CLOSED
from components.serving.manifests.token_limits import Measure

API = "networking.istio.io/v1alpha3"
KEYS, PROGRAM, LIMIT = "llmp.keys", "llmp.requests", "llmp.limit"
METADATA = "llmp"
HCM = "envoy.filters.network.http_connection_manager"
TYPES = "type.googleapis.com/envoy.extensions.filters"
# A prompt is held this long at most while its model is looked for, which only the bare /v1 paths need. Sixteen
# times Envoy's default: some four million tokens, longer than any context; the paths of a model have no bound.
PROMPT_BYTES = 16 * 1024 * 1024
# Load balancers forget connections on which nothing is said: AWS's after 350 seconds, Google's after ten minutes. A
# generation that is not streamed may take longer. Numbers of Linux: SO_KEEPALIVE of SOL_SOCKET; TCP_KEEPIDLE,
# TCP_KEEPINTVL (seconds) and TCP_KEEPCNT of IPPROTO_TCP.
KEEPALIVE = ((1, 9, 1), (6, 4, 60), (6, 5, 30), (6, 6, 4))
# Envoy asks again nowhere, so this is what a request waits at most. Above the time that the service gives Redis.
LIMIT_TIMEOUT = "0.25s"
# After Istio's own and before nobody's: priorities above zero are applied last (EnvoyFilter.priority).
PRIORITY = 20
# What Istio's proxy says of the gateway's own pod to whatever it calls (istio/proxy, `peer_metadata`); it does so after
# the program, which strips what clients send under these names.
OWN_METADATA = ("x-envoy-peer-metadata", "x-envoy-peer-metadata-id")


@dataclass(frozen=True, kw_only=True)
class ChainSpec:
    """The chain of one gateway.

    Without `access` anybody may ask, and nothing is counted. `tls` says whether the
    gateway's plain listener only redirects.
    """

    gateway: str
    namespace: str
    access: AccessSpec | None
    tls: bool = False

    @property
    def measure(self) -> Measure | None:
        """What budgets count; None without access."""
        return self.access.measure if self.access else None


@dataclass(frozen=True)
class Refusal:
    """How a local answer looks: chosen by status and, where given, by Envoy's response flag.

    `type` and `code` are OpenAI's; `message` replaces the text that the refusing filter gave, `becomes` its
    status.
    """

    status: int
    type: str
    code: str
    flag: str | None = None
    message: str | None = None
    becomes: int | None = None


TOO_LONG = (
    "The prompt is too long for this path: send the header x-gateway-model-name, or use the model's own path."
)
# https://platform.openai.com/docs/guides/error-codes; flags as in Envoy's access log. The first that matches counts.
REFUSALS = (
    Refusal(429, "{measure}", "rate_limit_exceeded", "RL", "The {measure} of this minute are spent."),
    Refusal(503, "server_error", "limits_unavailable", "RLSE", "The limits cannot be checked at the moment."),
    Refusal(503, "server_error", "model_unavailable", "UH", "No replica of the model is ready."),
    Refusal(503, "server_error", "model_unavailable", "UF", "The model's replica cannot be reached."),
    Refusal(503, "server_error", "model_unavailable", "UC", "The model's replica ended the connection."),
    Refusal(504, "server_error", "timeout", "UT", "The model did not answer in time."),
    Refusal(400, "invalid_request_error", "bad_request", None, "The request is no valid HTTP."),
    Refusal(401, "invalid_request_error", "invalid_api_key"),
    # The program has a code for its own; what else is forbidden has no valid key: one of another audience
    # (jwt_authn's answer to that is 403), or none, should the program ever let one pass (RBAC).
    Refusal(403, "invalid_request_error", "invalid_api_key", becomes=401),
    Refusal(404, "invalid_request_error", "not_found"),
    Refusal(405, "invalid_request_error", "method_not_allowed"),
    Refusal(413, "invalid_request_error", "request_too_large", None, TOO_LONG),
    Refusal(500, "server_error", "internal_error"),
    Refusal(502, "server_error", "bad_gateway"),
    Refusal(503, "server_error", "unavailable"),
    Refusal(504, "server_error", "timeout"),
)

# One line per request. Never a body, and never the query, in which a careless client may have put its key.
ACCESS_LOG = {
    "time": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    **{
        field: f"%DYNAMIC_METADATA({METADATA}:{field})%"
        for field in ("tenant", "tier", "model", "key", "prompt", "completion", "total", "cost", "source")
    },
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "replica": "%UPSTREAM_HOST%",
}


def chain(spec: ChainSpec) -> Manifest:
    """The filters, the shape of refusals, the access log and the room for prompts."""
    return _envoy_filter(
        spec,
        "chain",
        [
            *_filters(spec),
            _patch("NETWORK_FILTER", _on_hcm(), {"typed_config": _connection(spec)}),
            _patch("LISTENER", {}, _socket()),
        ],
    )


def _filters(spec: ChainSpec) -> list[dict[str, Any]]:
    program = {"name": PROGRAM, "typed_config": _lua(default_source_code={"inline_string": CLOSED})}
    if spec.access is None:
        return [_insert(program, "INSERT_FIRST")]
    verification = access.verification(spec.access)
    keys = {"name": KEYS, "typed_config": _typed("http.jwt_authn.v3.JwtAuthentication", **verification)}
    limit = {"name": LIMIT, "typed_config": _limit(spec, spec.access)}
    return [
        _insert(keys, "INSERT_FIRST"),
        _insert(program, "INSERT_AFTER", KEYS),
        _insert(limit, "INSERT_AFTER", PROGRAM),
    ]


def tables(spec: ChainSpec, source: str) -> Manifest:
    """The request program with its tables, and what is counted; for the listener that serves models."""
    filters: dict[str, Any] = {PROGRAM: _lua("LuaPerRoute", source_code={"inline_string": source})}
    if spec.measure is not None:
        filters[LIMIT] = _typed("http.ratelimit.v3.RateLimitPerRoute", rate_limits=rates(spec.measure))
    served = {"typed_per_filter_config": filters, "request_headers_to_remove": list(OWN_METADATA)}
    if not spec.tls:
        return _envoy_filter(spec, "tables", [_on_routes(None, served)])
    # The plain listener only redirects: it must neither answer nor count.
    passing = {"typed_per_filter_config": {PROGRAM: _lua("LuaPerRoute", disabled=True)}}
    return _envoy_filter(spec, "tables", [_on_routes(TLS_PORT, served), _on_routes(PLAIN_PORT, passing)])


def rates(measure: Measure) -> list[dict[str, Any]]:
    """One unit at the request, and what it cost beyond that when the stream has ended.

    A limit service admits while what was used and the addend do not exceed the limit; an addend of
    one on the way in makes the boundary exact. `hits_addend` only works in a per-route list.
    """
    actions = [
        {
            "metadata": {
                "descriptor_key": key,
                "source": "DYNAMIC",
                "metadata_key": {"key": METADATA, "path": [{"key": key}]},
                # Without an identity the catch-all of zero applies; without a default nothing would.
                "default_value": token_limits.UNKNOWN,
            }
        }
        for key in token_limits.DESCRIPTORS
    ]
    check = {"actions": actions, "hits_addend": {"number": 1}}
    charge = {
        "actions": actions,
        "hits_addend": {"format": f"%DYNAMIC_METADATA({METADATA}:charge)%"},
        "apply_on_stream_done": True,
    }
    return [check, charge] if measure == "tokens" else [check]


def _limit(spec: ChainSpec, counted: AccessSpec) -> dict[str, Any]:
    host = naming.host(token_limits.NAME, spec.namespace)
    cluster = f"outbound|{token_limits.GRPC_PORT}||{host}"
    retry = {"key": "retry-after", "value": f"%RESP({token_limits.header(counted.measure, 'reset')})%"}
    return _typed(
        "http.ratelimit.v3.RateLimit",
        domain=token_limits.DOMAIN,
        stat_prefix="llmp",
        # Envoy's default of 20 ms would refuse under load.
        timeout=LIMIT_TIMEOUT,
        failure_mode_deny=not counted.fail_open,
        status_on_error={"code": "ServiceUnavailable"},
        disable_x_envoy_ratelimited_header=True,
        response_headers_to_add=[{"header": retry, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        rate_limit_service={
            "transport_api_version": "V3",
            # The default authority would be the cluster's name, which no server expects.
            "grpc_service": {"envoy_grpc": {"cluster_name": cluster, "authority": host}},
        },
    )


def _connection(spec: ChainSpec) -> dict[str, Any]:
    log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
            "log_format": {"json_format": ACCESS_LOG},
        },
    }
    said = _said("LE", 499, "invalid_request_error"), _said("GE", 500, "server_error")
    mappers = [*said, *(_mapper(refusal, spec.measure or "requests") for refusal in REFUSALS)]
    return {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "access_log": [log],
        "local_reply_config": {"mappers": mappers},
    }


def _socket() -> dict[str, Any]:
    """Room for prompts, and a sign of life on connections whose client waits for a long answer."""
    options = [
        {"level": level, "name": name, "int_value": value, "state": "STATE_PREBIND"}
        for level, name, value in KEEPALIVE
    ]
    return {"per_connection_buffer_limit_bytes": PROMPT_BYTES, "socket_options": options}


def _said(comparison: str, bound: int, kind: str) -> dict[str, Any]:
    """A refusal of the request program, which has named its code; of statuses on one side of `bound`."""
    code = {"filter": METADATA, "path": [{"key": "code"}], "value": {"present_match": True}}
    spoken = {"metadata_filter": {"matcher": code, "match_if_key_not_found": False}}
    error = {
        "message": "%LOCAL_REPLY_BODY%",
        "type": kind,
        "code": f"%DYNAMIC_METADATA({METADATA}:code)%",
    }
    shape = {"json_format": {"error": error}, "content_type": "application/json"}
    status = {"default_value": bound, "runtime_key": "llmp.refusal"}
    own = {"status_code_filter": {"comparison": {"op": comparison, "value": status}}}
    return {"filter": {"and_filter": {"filters": [own, spoken]}}, "body_format_override": shape}


def _mapper(refusal: Refusal, measure: str) -> dict[str, Any]:
    status = {"default_value": refusal.status, "runtime_key": "llmp.refusal"}
    chosen: dict[str, Any] = {"status_code_filter": {"comparison": {"op": "EQ", "value": status}}}
    if refusal.flag:
        chosen = {"and_filter": {"filters": [chosen, {"response_flag_filter": {"flags": [refusal.flag]}}]}}
    error = {
        "message": "%LOCAL_REPLY_BODY%",
        "type": refusal.type.format(measure=measure),
        "code": refusal.code,
    }
    body = {"inline_string": refusal.message.format(measure=measure)} if refusal.message else None
    mapper = {
        "filter": chosen,
        "status_code": refusal.becomes,
        "body": body,
        "body_format_override": {"json_format": {"error": error}, "content_type": "application/json"},
    }
    return {key: value for key, value in mapper.items() if value is not None}


def _lua(kind: str = "Lua", **fields: Any) -> dict[str, Any]:
    prefix = {"stat_prefix": METADATA} if kind == "Lua" else {}
    return _typed(f"http.lua.v3.{kind}", **prefix, **fields)


def _typed(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"{TYPES}.{kind}", **fields}


def _insert(value: dict[str, Any], operation: str, anchor: str | None = None) -> dict[str, Any]:
    return _patch("HTTP_FILTER", _on_hcm(anchor), value, operation)


def _on_hcm(sub_filter: str | None = None) -> dict[str, Any]:
    filter_: dict[str, Any] = {"name": HCM}
    if sub_filter:
        filter_["subFilter"] = {"name": sub_filter}
    return {"listener": {"filterChain": {"filter": filter_}}}


def _on_routes(port: int | None, value: dict[str, Any]) -> dict[str, Any]:
    match = {"routeConfiguration": {"portNumber": port}} if port else {}
    return _patch("ROUTE_CONFIGURATION", match, value)


def _patch(
    apply_to: str, match: dict[str, Any], value: dict[str, Any], operation: str = "MERGE"
) -> dict[str, Any]:
    return {
        "applyTo": apply_to,
        "match": {"context": "GATEWAY", **match},
        "patch": {"operation": operation, "value": value},
    }


def _envoy_filter(spec: ChainSpec, role: str, patches: list[dict[str, Any]]) -> Manifest:
    # Needed where Istio gives gateways only the clusters that something names.
    service = f"{spec.namespace}/{naming.host(token_limits.NAME, spec.namespace)}"
    named = {"envoyfilter.istio.io/referenced-services": service} if spec.measure is not None else None
    return manifest(
        API,
        "EnvoyFilter",
        f"{spec.gateway}-{role}",
        spec.namespace,
        labels=labels.common("access"),
        annotations=named,
        spec={
            "priority": PRIORITY,
            "workloadSelector": {"labels": {labels.GATEWAY_NAME: spec.gateway}},
            "configPatches": patches,
        },
    )
