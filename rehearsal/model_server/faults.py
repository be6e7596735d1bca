"""Misbehaviour on request, for tests of what stands before a model.

Only where `REHEARSAL_FAULTS=1` is in the server's environment; elsewhere the body's field `rehearsal` means as
little as it does to vLLM. Its entries, all optional:

    status         answer at once with this status, without usage
    delay_seconds  wait so long before the answer
    reset_after    end the connection after so many tokens; 0: before any header
    hold_after     stop after so many tokens until POST /rehearsal/release
    token_bytes    pad the text of each token to so many bytes
    usage          false: report none, whatever was asked for
    gzip           asked: compress for clients that accept it; always: whatever they accept

With it come `GET /rehearsal/seen` (path and headers of the latest inference request) and
`POST /rehearsal/release`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from aiohttp import web

FIELD = "rehearsal"


@dataclass(frozen=True)
class Fault:
    """What one request wants to go wrong; see the module. Without arguments: nothing."""

    status: int | None = None
    delay_seconds: float = 0
    reset_after: int | None = None
    hold_after: int | None = None
    token_bytes: int = 0
    usage: bool = True
    gzip: Literal["asked", "always"] | None = None


def fault_of(body: dict[str, Any]) -> Fault:
    """The fault that a body asks for; TypeError for what is no object, ValueError for an unknown entry."""
    wanted = body.get(FIELD) or {}
    if not isinstance(wanted, dict):
        raise TypeError(f"{FIELD} must be an object")
    if unknown := wanted.keys() - {f.name for f in fields(Fault)}:
        raise ValueError(f"{FIELD}: there is no {min(unknown)}")
    return Fault(**wanted)


class Reset(Exception):
    """The connection is to end now."""


class Faults:
    """The faults of one server, and the gate at which held answers wait."""

    def __init__(self) -> None:
        self._gate = asyncio.Event()
        self._seen: dict[str, Any] = {}

    def routes(self) -> list[web.RouteDef]:
        """What tests ask the server directly."""
        return [web.get("/rehearsal/seen", self._show), web.post("/rehearsal/release", self._release)]

    def note(self, http: web.Request) -> None:
        """Remember what reached the server."""
        self._seen = {"path": http.path_qs, "headers": [[k.lower(), v] for k, v in http.headers.items()]}

    async def spoil(self, fault: Fault, tokens: AsyncIterator[str]) -> AsyncIterator[str]:
        """The tokens, as far as the fault lets them through. Raises Reset."""
        done = 0
        await self._trouble(fault, done)
        async for token in tokens:
            yield token.ljust(fault.token_bytes, ".")
            done += 1
            await self._trouble(fault, done)

    async def _trouble(self, fault: Fault, done: int) -> None:
        if fault.reset_after == done:
            raise Reset
        if fault.hold_after == done:
            await self._gate.wait()

    async def _show(self, _: web.Request) -> web.Response:
        return web.json_response(self._seen)

    async def _release(self, _: web.Request) -> web.Response:
        """Let all go that wait now; what comes later waits for the next release."""
        self._gate.set()
        self._gate = asyncio.Event()
        return web.Response()


def compress(response: web.StreamResponse, fault: Fault) -> None:
    """Compress an answer, if that is wanted."""
    if fault.gzip == "always":
        response.enable_compression(web.ContentCoding.gzip)
    elif fault.gzip == "asked":
        response.enable_compression()
