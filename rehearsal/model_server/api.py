"""vLLM's HTTP API over the simulated engine."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from rehearsal.model_server.cache import count
from rehearsal.model_server.engine import Engine, Job
from rehearsal.model_server.metrics import render

MAX_BODY = 64 * 2**20
DEFAULT_COMPLETION_TOKENS = 16  # vLLM's default for /v1/completions; chat has none


class BadRequest(Exception):
    """A request that vLLM refuses: HTTP status, OpenAI error type and message."""

    def __init__(self, status: int, kind: str, message: str):
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass(frozen=True)
class Request:
    """One completion or chat request, checked."""

    chat: bool
    model: str
    jobs: tuple[Job, ...]
    stream: bool
    usage_at_end: bool
    usage_always: bool

    @property
    def prompt_tokens(self) -> int:
        return self.jobs[0].prompt_tokens


class Api:
    """The handlers of one server."""

    def __init__(self, engine: Engine):
        self.engine = engine

    def application(self) -> web.Application:
        """The server's routes."""
        app = web.Application(client_max_size=MAX_BODY)
        app.add_routes([
            web.get("/health", self.health),
            web.get("/version", self.version),
            web.get("/metrics", self.metrics),
            web.get("/v1/models", self.models),
            web.post("/v1/completions", self.completions),
            web.post("/v1/chat/completions", self.chat),
            web.post("/tokenize", self.tokenize),
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

    async def completions(self, http: web.Request) -> web.StreamResponse:
        return await self._answer(http, chat=False)

    async def chat(self, http: web.Request) -> web.StreamResponse:
        return await self._answer(http, chat=True)

    async def _answer(self, http: web.Request, chat: bool) -> web.StreamResponse:
        try:
            request = self._request(await _body(http), chat)
        except BadRequest as error:
            body = {"error": {"message": str(error), "type": error.kind, "param": None, "code": error.status}}
            return web.json_response(body, status=error.status)
        identity = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        if request.stream:
            return await self._stream(http, request, identity)
        texts = ["".join([t async for t in self.engine.generate(job)]) for job in request.jobs]
        return web.json_response(_whole(request, identity, texts))

    def _request(self, body: dict[str, Any], chat: bool) -> Request:
        settings = self.engine.settings
        model = body.get("model") or settings.names[0]
        if model not in settings.names:
            raise BadRequest(404, "NotFoundError", f"The model `{model}` does not exist.")
        prompt = _chat_prompt(body) if chat else _prompt(body)
        tokens = count(prompt)
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        limit = DEFAULT_COMPLETION_TOKENS if limit is None and not chat else limit
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise BadRequest(400, "BadRequestError", f"max_tokens must be at least 1, got {limit}.")
        if tokens + (limit or 1) > settings.max_model_len:
            raise BadRequest(
                400,
                "BadRequestError",
                f"This model's maximum context length is {settings.max_model_len} tokens. However, you requested "
                f"{limit or 1} output tokens and your prompt contains {tokens} input tokens.",
            )
        job = self.engine.job(prompt, limit, bool(body.get("ignore_eos")))
        options = body.get("stream_options") or {}
        return Request(
            chat=chat,
            model=model,
            jobs=(job,) * int(body.get("n") or 1),
            stream=bool(body.get("stream")),
            usage_at_end=bool(options.get("include_usage")) or settings.force_usage,
            usage_always=bool(options.get("continuous_usage_stats")) or settings.force_usage,
        )

    async def _stream(self, http: web.Request, request: Request, identity: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(http)
        async for chunk in self._chunks(request, identity):
            await response.write(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _chunks(self, request: Request, identity: str) -> AsyncIterator[dict[str, Any]]:
        kind = "chat.completion.chunk" if request.chat else "text_completion"
        head = {"id": identity, "object": kind, "created": int(time.time()), "model": request.model}
        done = 0

        def chunk(choices: list[dict[str, Any]], with_usage: bool) -> dict[str, Any]:
            usage = {"usage": _usage(request.prompt_tokens, done)} if with_usage else {}
            return {**head, "choices": choices, **usage}

        for index, job in enumerate(request.jobs):
            if request.chat:
                first = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                yield chunk([first], request.usage_always)
            async for token in self.engine.generate(job):
                done += 1
                body = {"delta": {"content": token}} if request.chat else {"text": token}
                yield chunk([{"index": index, **body, "finish_reason": None}], request.usage_always)
            empty = {"delta": {}} if request.chat else {"text": ""}
            yield chunk([{"index": index, **empty, "finish_reason": job.finish}], request.usage_always)
        if request.usage_at_end:
            yield chunk([], True)


async def _body(http: web.Request) -> dict[str, Any]:
    try:
        body = await http.json()
    except (ValueError, UnicodeDecodeError):
        raise BadRequest(400, "BadRequestError", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest(400, "BadRequestError", "the body is not a JSON object")
    return body


def _prompt(body: dict[str, Any]) -> str:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise BadRequest(400, "BadRequestError", "prompt must be a string")
    return prompt


def _chat_prompt(body: dict[str, Any]) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest(400, "BadRequestError", "messages must be a list with at least one message")
    return "".join(f"<|{m.get('role')}|>{m.get('content')}\n" for m in messages)


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _whole(request: Request, identity: str, texts: list[str]) -> dict[str, Any]:
    choices = []
    for index, (job, text) in enumerate(zip(request.jobs, texts, strict=True)):
        body = {"message": {"role": "assistant", "content": text}} if request.chat else {"text": text}
        choices.append({"index": index, **body, "logprobs": None, "finish_reason": job.finish})
    return {
        "id": identity,
        "object": "chat.completion" if request.chat else "text_completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": choices,
        "usage": _usage(request.prompt_tokens, sum(j.length for j in request.jobs)),
    }
