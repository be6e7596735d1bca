"""vLLM's HTTP API over the simulated engine."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from rehearsal.model_server.cache import count
from rehearsal.model_server.dialects import DIALECTS, BadRequest, Dialect, Request, invalid
from rehearsal.model_server.engine import Engine, Job
from rehearsal.model_server.faults import Fault, Faults, Reset, compress, fault_of
from rehearsal.model_server.metrics import render

MAX_BODY = 64 * 2**20


class Api:
    """The handlers of one server."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.faults = Faults() if engine.settings.faults else None

    def application(self) -> web.Application:
        """The server's routes."""
        app = web.Application(client_max_size=MAX_BODY)
        app.add_routes([
            web.get("/health", self.health),
            web.get("/version", self.version),
            web.get("/metrics", self.metrics),
            web.get("/v1/models", self.models),
            web.post("/tokenize", self.tokenize),
            *(web.post(path, self.generate) for path in DIALECTS),
            *(self.faults.routes() if self.faults else ()),
        ])  # fmt: skip
        return app

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "simulated"})

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=render(self.engine), content_type="text/plain")

    async def models(self, _: web.Request) -> web.Response:
        settings = self.engine.settings
        root = settings.names[0]
        cards = [
            {"id": name, "object": "model", "created": 0, "owned_by": "vllm", "root": root, "parent": None,
             "max_model_len": settings.max_model_len}
            for name in settings.names
        ]  # fmt: skip
        return web.json_response({"object": "list", "data": cards})

    async def tokenize(self, http: web.Request) -> web.Response:
        tokens = count((await http.json()).get("prompt", ""))
        return web.json_response({"count": tokens, "max_model_len": self.engine.settings.max_model_len})

    async def generate(self, http: web.Request) -> web.StreamResponse:
        try:
            body = await _body(http)
            request = self._request(body, DIALECTS[http.path], self._fault(http, body))
        except BadRequest as error:
            return _refusal(error)
        if request.fault.status:
            return _refusal(BadRequest(request.fault.status, "InternalServerError", "as was asked for"))
        await asyncio.sleep(request.fault.delay_seconds)
        identity = f"{request.dialect.identity}-{uuid.uuid4().hex}"
        try:
            if request.fault.reset_after == 0:
                raise Reset
            answer = self._stream if request.stream else self._whole
            return await answer(http, request, identity)
        except Reset:
            assert http.transport is not None
            http.transport.abort()
            return web.Response()

    def _fault(self, http: web.Request, body: dict[str, Any]) -> Fault:
        if self.faults is None:
            return Fault()
        self.faults.note(http)
        try:
            return fault_of(body)
        except (TypeError, ValueError) as error:
            raise invalid(str(error)) from None

    def _request(self, body: dict[str, Any], dialect: Dialect, fault: Fault) -> Request:
        settings = self.engine.settings
        model = body.get("model") or settings.names[0]
        if model not in settings.names:
            raise BadRequest(404, "NotFoundError", f"The model `{model}` does not exist.")
        prompt = dialect.prompt(body)
        job = self.engine.job(prompt, self._limit(body, dialect, prompt), bool(body.get("ignore_eos")))
        options = body.get("stream_options") or {}
        return Request(
            dialect=dialect,
            model=model,
            jobs=(job,) * int(body.get("n") or 1),
            stream=bool(body.get("stream")),
            usage_at_end=fault.usage and (bool(options.get("include_usage")) or settings.force_usage),
            usage_always=fault.usage
            and (bool(options.get("continuous_usage_stats")) or settings.force_usage),
            echo=prompt if body.get("echo") else "",
            fault=fault,
        )

    def _limit(self, body: dict[str, Any], dialect: Dialect, prompt: str) -> int | None:
        """How long the answer may be; None: as long as it wants."""
        tokens, longest = count(prompt), self.engine.settings.max_model_len
        limit = next((body[name] for name in dialect.limits if body.get(name) is not None), dialect.default)
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise invalid(f"{dialect.limits[-1]} must be at least 1, got {limit}.")
        if tokens + (limit or 1) > longest:
            raise invalid(
                f"This model's maximum context length is {longest} tokens. However, you requested "
                f"{limit or 1} output tokens and your prompt contains {tokens} input tokens.",
            )
        return limit

    def _tokens(self, request: Request, job: Job) -> AsyncIterator[str]:
        tokens = self.engine.generate(job)
        return self.faults.spoil(request.fault, tokens) if self.faults else tokens

    async def _whole(self, http: web.Request, request: Request, identity: str) -> web.StreamResponse:
        texts = [
            request.echo + "".join([t async for t in self._tokens(request, job)]) for job in request.jobs
        ]
        response = web.json_response(request.dialect.whole(request, identity, texts))
        compress(response, request.fault)
        return response

    async def _stream(self, http: web.Request, request: Request, identity: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        compress(response, request.fault)
        await response.prepare(http)
        async for name, data in request.dialect.events(
            request, identity, lambda job: self._tokens(request, job)
        ):
            line = f"event: {name}\n" if name else ""
            await response.write(f"{line}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode())
        if request.dialect.done:
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _refusal(error: BadRequest) -> web.Response:
    body = {"error": {"message": str(error), "type": error.kind, "param": None, "code": error.status}}
    return web.json_response(body, status=error.status)


async def _body(http: web.Request) -> dict[str, Any]:
    try:
        body = await http.json()
    except (ValueError, UnicodeDecodeError):
        raise invalid("the body is not JSON") from None
    if not isinstance(body, dict):
        raise invalid("the body is not a JSON object")
    return body
