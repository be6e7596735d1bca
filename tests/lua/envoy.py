"""One worker of Envoy's Lua filter: the program in LuaJIT, against an imitation of Envoy's API (envoy.lua)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lupa.luajit21 import LuaRuntime, lua_type

from components.serving.manifests.lua import LuaAccess, LuaModel, LuaTenant, requests_source

IMITATION = Path(__file__).with_name("envoy.lua").read_text()
Headers = Sequence[tuple[str, str]]

GEMMA = LuaModel(key="gemma-2b", namespace="llm", names=("google/gemma-2b",), multiplier=0.1)
LLAMA = LuaModel(key="llama3-8b", namespace="llm", names=("llama3-8b", "meta/Llama-3-8B"), multiplier=2.5)
QWEN = LuaModel(key="qwen", namespace="other", names=("qwen",))
MODELS = (GEMMA, LLAMA, QWEN)
TENANTS = {
    "acme": LuaTenant(tier="premium"),
    "small": LuaTenant(tier="free", models=("qwen", "gemma-2b")),
    "nothing": LuaTenant(tier="free", models=()),
}
ACCESS = LuaAccess(tenants=TENANTS, revoked=("revoked-key-1",))
KEYS = "envoy.filters.http.jwt_authn"


@dataclass
class Outcome:
    """What became of a request or an answer.

    `error` is what Envoy would count in `lua.errors`, `seen` the number of chunks that were taken, and
    `growth` how many bytes the environment grew by between chunks, where that was watched.
    """

    headers: dict[str, str]
    metadata: dict[str, Any]
    status: int | None = None
    text: str | None = None
    reply_headers: dict[str, str] = field(default_factory=dict)
    buffered: bool = False
    seen: int = 0
    error: str | None = None
    growth: float = field(default=0, compare=False)

    @property
    def noted(self) -> dict[str, Any]:
        """What the program wrote."""
        return self.metadata.get("llmp", {})

    @property
    def json(self) -> Any:
        """The reply's body."""
        return json.loads(self.text or "")


class Worker:
    """A Lua environment with the program loaded. Bodies and headers are Latin-1 text in, as Lua has bytes."""

    def __init__(self, source: str | None = None):
        self.lua = LuaRuntime(encoding="latin-1", unpack_returned_tuples=True)
        self._imitation = self.lua.execute(IMITATION)
        self.lua.execute(source if source is not None else requests_source(MODELS, ACCESS))

    def request(
        self,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        body: str | bytes | Iterable[str] = "",
        headers: Headers = (),
        tenant: str | None = "acme",
        key: str = "some-key-1",
        claims: Mapping[str, Any] | None = None,
        broken: Iterable[str] = (),
    ) -> Outcome:
        """Runs the way in; `tenant` None is a request without a verified key."""
        payload = {"iss": "llm-platform", "sub": tenant, "jti": key, **(claims or {})}
        metadata = {KEYS: {"payload": payload}} if tenant is not None else {}
        pseudo = [(":method", method), (":path", path), (":authority", "llm.example.com")]
        stream = self._stream([*pseudo, *headers], self._chunks(body), metadata, broken=broken)
        return self._run("envoy_on_request", stream, True)

    def answer(
        self,
        body: str | bytes | Iterable[str] = "",
        content_type: str | None = "application/json",
        status: int = 200,
        headers: Headers = (),
        noted: Mapping[str, Any] | None = None,
        size: int | None = None,
        cut: bool = False,
        broken: Iterable[str] = (),
        broken_chunk: int | None = None,
        watched: bool = False,
    ) -> Outcome:
        """Runs the way back, in chunks of `size` bytes; with `cut` the client goes away after the last one."""
        known = (
            {"model": "qwen", "kind": "/v1/chat/completions", "tier": "premium"} if noted is None else noted
        )
        kind = [("content-type", content_type)] if content_type is not None else []
        chunks = self._chunks(body, size)
        given = [(":status", str(status)), *kind, *headers]
        odd = {"cut": cut, "broken": broken, "broken_chunk": broken_chunk, "watched": watched}
        stream = self._stream(given, chunks, {"llmp": dict(known)}, **odd)
        return self._run("envoy_on_response", stream, False)

    def globals(self) -> set[str]:
        """Names of everything global."""
        return {str(name) for name in self.lua.globals()}

    def _chunks(self, body: str | bytes | Iterable[str], size: int | None = None) -> Any:
        if isinstance(body, bytes):
            body = body.decode("latin-1")
        if not isinstance(body, str):
            return self.lua.table(*body)
        return self._imitation["cut_up"](body, size or max(len(body), 1))

    def _stream(self, headers: Headers, chunks: Any, metadata: Any, **more: Any) -> Any:
        pairs = self.lua.table(*(self.lua.table(name.lower(), value) for name, value in headers))
        broken = self.lua.table_from(dict.fromkeys(more.pop("broken"), True))
        deep = self.lua.table_from(metadata, recursive=True)
        return self.lua.table(headers=pairs, chunks=chunks, metadata=deep, broken=broken, **more)

    def _run(self, entry: str, stream: Any, on_request: bool) -> Outcome:
        error = self._imitation["run"](self.lua.globals()[entry], stream, on_request)
        outcome = Outcome(
            headers={pair[1]: pair[2] for pair in stream["headers"].values()},
            metadata=_plain(stream["metadata"]),
            buffered=bool(stream["buffered"]),
            seen=stream["seen"] or 0,
            growth=((stream["most"] or 0) - (stream["least"] or 0)) * 1024,
            error=error,
        )
        reply = stream["reply"]
        if reply is not None:
            outcome.reply_headers = dict(reply["headers"].items())
            outcome.status, outcome.text = int(reply["headers"][":status"]), reply["text"]
        return outcome


def _plain(value: Any) -> Any:
    """Lua tables as dicts; whole numbers as int."""
    if lua_type(value) == "table":
        return {key: _plain(inner) for key, inner in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
