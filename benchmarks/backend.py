"""What the gateway's benchmarks run against: a fast model server, a bare Envoy, and the gateway of a stack.

The simulated model server of a rehearsal answers some hundred requests per second, so in front of it every
gateway would look alike. Here an Envoy answers each request with the same completion, once the whole request has
arrived, ten thousand times per second and more; what it cannot show is anything about streams.
"""

from __future__ import annotations

import base64
import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from components.serving.manifests import chain, token_limits
from components.serving.manifests.gateway import MODEL_PORT
from rehearsal.cluster import certificates, ports
from rehearsal.data_plane import FLUSH_MILLISECONDS, DataPlane, without_picker, workload_service
from rehearsal.gateway.objects import Manifest
from rehearsal.gateway.proxy import arguments
from rehearsal.paths import Paths
from rehearsal.processes import Processes
from rehearsal.toolchain import packages
from tests.support.stacks import raw_stack, record_stack

MODEL, NAMESPACE = "qwen3-0-6b", "llm-models"
TOKENS = 100
PLAIN_PORT = 8001
# Long enough for any number of requests to be under way together.
SLOW_SECONDS = 0.05
WAIT_SECONDS, POLL_SECONDS = 20.0, 0.02
# More than any run spends.
UNLIMITED = 4_000_000_000
COMPLETION = json.dumps(
    {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion",
        "created": 1700000000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "The quick brown fox jumps over the lazy dog. " * 4,
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 60, "completion_tokens": TOKENS - 60, "total_tokens": TOKENS},
    }
)
QUESTION = json.dumps(
    {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Which animal jumps over the lazy dog, and why? " * 4},
        ],
        "max_tokens": 40,
    }
).encode()
_API = "type.googleapis.com/envoy.extensions"


class Servers:
    """The model servers and the bare gateway, on addresses of their own; a context manager.

    `fast` and `slow` are the addresses of model servers with TLS on KServe's port; `fast` answers without TLS as
    well. `bare` is a gateway that does nothing but route to `fast`, as the stack's does with TLS.
    """

    def __init__(self, root: Path):
        self.paths = Paths(root)

    def __enter__(self) -> Self:
        self.paths.create()
        self.processes = Processes(self.paths)
        self._block, self._holder = ports.take_pod_block(self.paths.cluster / "pod-block")
        self.fast, self.slow, self.bare = (f"127.{self._block}.2.{n}" for n in (1, 2, 3))
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.stop_all()
        self._holder.close()

    def start_models(self) -> None:
        """Start both model servers, which are one process."""
        pair = certificates.issue(certificates.authority("kserve"), MODEL)
        tls = {
            "certificate_chain": {"inline_bytes": _base64(pair.certificate)},
            "private_key": {"inline_bytes": _base64(pair.key)},
        }
        listeners = [
            _model(self.fast, MODEL_PORT, tls, 0.0),
            _model(self.fast, PLAIN_PORT, None, 0.0),
            _model(self.slow, MODEL_PORT, tls, SLOW_SECONDS),
        ]
        self._envoy("model", {"listeners": listeners})
        self._await("model", self.fast)

    def start_bare(self) -> None:
        """Start the gateway that only routes."""
        route = {"match": {"prefix": "/"}, "route": {"cluster": "model", "timeout": "0s"}}
        listener = _listener(self.bare, PLAIN_PORT, [route], [])
        self._envoy("bare", {"listeners": [listener], "clusters": [_upstream(self.fast)]})
        self._await("bare", self.bare)

    def pid(self, name: str) -> int:
        """The process of that name."""
        return self.processes.pid(name)

    def _envoy(self, name: str, resources: Mapping[str, Any]) -> None:
        file = self.paths.work / f"{name}.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps({"static_resources": resources}))
        envoy = packages.locate(packages.PACKAGED["envoy"])
        self.processes.start(name, [envoy, *arguments(file, 1, FLUSH_MILLISECONDS)])

    def _await(self, name: str, address: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while ports.is_free(PLAIN_PORT, address):
            self.processes.check(name)
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{name} does not listen. The end of its log:\n{self.processes.tail(name)}"
                )
            time.sleep(POLL_SECONDS)


class Gateway(DataPlane):
    """A stack's gateway with one worker, all of whose models are at one address."""

    def __init__(self, root: Path, objects: Iterable[Manifest], model: str):
        super().__init__(root, [*objects, workload_service(MODEL, NAMESPACE)], workers=1)
        self._model = model

    def endpoints(
        self, namespace: str, selector: Mapping[str, str], port: int | str
    ) -> list[tuple[str, int]]:
        return super().endpoints(namespace, selector, port) or [(self._model, int(port))]

    @property
    def pids(self) -> list[int]:
        """Every process of it."""
        return [self.processes.pid(name) for name in self.processes.names()]


def stack(tenants: int, jwk: Mapping[str, str] | None, kid: str, budget: int = UNLIMITED) -> list[Manifest]:
    """The objects of the small stack with so many tenants on one tier; without a key nothing is checked."""
    raw = raw_stack("dev")
    if jwk is None:
        del raw["access"]
    else:
        raw["access"] |= {
            "publicKeys": {kid: {part: jwk[part] for part in ("x", "y")}},
            "tiers": {"benchmark": {"tokensPerMinute": budget}},
            "tenants": {tenant(n): {"tier": "benchmark"} for n in range(tenants)},
            "verification": False,
        }
    with tempfile.TemporaryDirectory() as scratch:
        recorded = record_stack(raw, Path(scratch)).objects
    found = [dict(r.inputs) for r in recorded if "kind" in r.inputs and not r.type.endswith("Patch")]
    return without_picker(item for item in found if item["kind"] != "LLMInferenceService")


def tenant(number: int) -> str:
    """The name of a tenant."""
    return f"tenant-{number}"


def without_limits(objects: Iterable[Manifest]) -> list[Manifest]:
    """The objects with keys checked and nothing counted."""
    left = [o for o in objects if (o["kind"], o["metadata"]["name"]) != ("ConfigMap", token_limits.CONFIG)]
    return [_without_limit(item) if item["kind"] == "EnvoyFilter" else item for item in left]


def _without_limit(item: Manifest) -> Manifest:
    """An EnvoyFilter without the limit and what routes say to it."""
    changed = json.loads(json.dumps({k: v for k, v in item.items() if k != "status"}))
    kept = [p for p in changed["spec"]["configPatches"] if p["patch"]["value"].get("name") != chain.LIMIT]
    for patch in kept:
        patch["patch"]["value"].get("typed_per_filter_config", {}).pop(chain.LIMIT, None)
    changed["spec"]["configPatches"] = kept
    return changed


# -- Envoy ----------------------------------------------------------------------------------------------------------


def _model(address: str, port: int, tls: Mapping[str, Any] | None, delay: float) -> dict[str, Any]:
    """A listener that answers everything with the completion."""
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": COMPLETION}},
        "response_headers_to_add": [
            {
                "header": {"key": "content-type", "value": "application/json"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }
    # An answer before the request's end would close the connection.
    filters = [_filter("buffer", "buffer.v3.Buffer", max_request_bytes=2**20)]
    if delay:
        wait = {"fixed_delay": f"{delay}s", "percentage": {"numerator": 100}}
        filters.append(_filter("fault", "fault.v3.HTTPFault", delay=wait))
    made = _listener(address, port, [answer], filters)
    if tls:
        context = {
            "@type": f"{_API}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [tls]},
        }
        socket = {"name": "envoy.transport_sockets.tls", "typed_config": context}
        made["filter_chains"][0]["transport_socket"] = socket
    return made


def _filter(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"{_API}.filters.http.{kind}", **settings},
    }


def _listener(
    address: str, port: int, routes: list[dict[str, Any]], filters: list[dict[str, Any]]
) -> dict[str, Any]:
    manager = {
        "@type": f"{_API}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "benchmark",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [*filters, _filter("router", "router.v3.Router")],
    }
    chain_ = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    where = {"socket_address": {"address": address, "port_value": port}}
    return {"name": f"{address}:{port}", "address": where, "filter_chains": [chain_]}


def _upstream(address: str) -> dict[str, Any]:
    context = {"@type": f"{_API}.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": {}}
    endpoint = {"address": {"socket_address": {"address": address, "port_value": MODEL_PORT}}}
    return {
        "name": "model",
        "type": "STATIC",
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
        "load_assignment": {
            "cluster_name": "model",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
