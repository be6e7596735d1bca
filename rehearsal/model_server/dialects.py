"""The APIs by which vLLM answers, each as data: what a request says, and the shapes of its answers.

OpenAI's completions, chat completions and responses, and Anthropic's messages; of the latter two the parts
that carry text and usage.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.model_server.engine import Job
from rehearsal.model_server.faults import Fault

# Of a stream: the event's name, where the API has one, and its data.
Event = tuple[str | None, dict[str, Any]]
Generate = Callable[[Job], AsyncIterator[str]]


class BadRequest(Exception):
    """A request that vLLM refuses: HTTP status, OpenAI error type and message."""

    def __init__(self, status: int, kind: str, message: str):
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass(frozen=True)
class Request:
    """One request for text, checked."""

    dialect: Dialect
    model: str
    jobs: tuple[Job, ...]
    stream: bool
    usage_at_end: bool
    usage_always: bool
    echo: str
    fault: Fault

    @property
    def prompt_tokens(self) -> int:
        return self.jobs[0].prompt_tokens


@dataclass(frozen=True)
class Dialect:
    """One API.

    `limits` are the fields that bound the answer, the first that is given counts, and `default` is what
    counts without; `done` says whether a stream ends with OpenAI's mark.
    """

    identity: str
    prompt: Callable[[dict[str, Any]], str]
    limits: tuple[str, ...]
    default: int | None
    whole: Callable[[Request, str, list[str]], dict[str, Any]]
    events: Callable[[Request, str, Generate], AsyncIterator[Event]]
    done: bool


def invalid(message: str) -> BadRequest:
    """A request that is not as the API wants it."""
    return BadRequest(400, "BadRequestError", message)


# -- OpenAI's completions and chat completions --------------------------------------------------------------------


def _prompt(body: dict[str, Any]) -> str:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise invalid("prompt must be a string")
    return prompt


def _conversation(messages: Any, name: str) -> str:
    if not isinstance(messages, list) or not messages:
        raise invalid(f"{name} must be a list with at least one message")
    return "".join(f"<|{m.get('role')}|>{m.get('content')}\n" for m in messages)


def chat_prompt(body: dict[str, Any]) -> str:
    return _conversation(body.get("messages"), "messages")


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _generated(request: Request) -> int:
    return sum(job.length for job in request.jobs)


def _completion(chat: bool) -> Callable[[Request, str, list[str]], dict[str, Any]]:
    def whole(request: Request, identity: str, texts: list[str]) -> dict[str, Any]:
        choices = []
        for index, (job, text) in enumerate(zip(request.jobs, texts, strict=True)):
            body = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choices.append({"index": index, **body, "logprobs": None, "finish_reason": job.finish})
        usage = {"usage": _usage(request.prompt_tokens, _generated(request))} if request.fault.usage else {}
        return {
            "id": identity,
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": request.model,
            "choices": choices,
            **usage,
        }

    return whole


def _chunks(chat: bool) -> Callable[[Request, str, Generate], AsyncIterator[Event]]:
    def body_of(text: str) -> dict[str, Any]:
        return {"delta": {"content": text}} if chat else {"text": text}

    async def events(request: Request, identity: str, generate: Generate) -> AsyncIterator[Event]:
        kind = "chat.completion.chunk" if chat else "text_completion"
        head = {"id": identity, "object": kind, "created": int(time.time()), "model": request.model}
        done = 0

        def chunk(choices: list[dict[str, Any]], with_usage: bool) -> Event:
            usage = {"usage": _usage(request.prompt_tokens, done)} if with_usage else {}
            return None, {**head, "choices": choices, **usage}

        for index, job in enumerate(request.jobs):
            if chat or request.echo:
                start = {"delta": {"role": "assistant", "content": ""}} if chat else {"text": request.echo}
                yield chunk([{"index": index, **start, "finish_reason": None}], request.usage_always)
            async for token in generate(job):
                done += 1
                yield chunk([{"index": index, **body_of(token), "finish_reason": None}], request.usage_always)
            empty = {"delta": {}} if chat else {"text": ""}
            yield chunk([{"index": index, **empty, "finish_reason": job.finish}], request.usage_always)
        if request.usage_at_end:
            yield chunk([], True)

    return events


# -- OpenAI's responses -------------------------------------------------------------------------------------------


def _input(body: dict[str, Any]) -> str:
    given = body.get("input")
    return given if isinstance(given, str) else _conversation(given, "input")


def _counts(prompt: int, completion: int) -> dict[str, int]:
    return {"input_tokens": prompt, "output_tokens": completion}


def _response(request: Request, identity: str, texts: list[str], done: bool = True) -> dict[str, Any]:
    content = [{"type": "output_text", "text": "".join(texts), "annotations": []}]
    counts = _counts(request.prompt_tokens, _generated(request))
    usage = {**counts, "total_tokens": sum(counts.values())} if done and request.fault.usage else None
    return {
        "id": identity,
        "object": "response",
        "status": "completed" if done else "in_progress",
        "model": request.model,
        "output": [{"type": "message", "role": "assistant", "content": content}] if done else [],
        "usage": usage,
    }


async def _response_events(request: Request, identity: str, generate: Generate) -> AsyncIterator[Event]:
    def event(kind: str, **data: Any) -> Event:
        return kind, {"type": kind, **data}

    yield event("response.created", response=_response(request, identity, [], done=False))
    texts = []
    async for token in generate(request.jobs[0]):
        texts.append(token)
        yield event("response.output_text.delta", delta=token)
    yield event("response.completed", response=_response(request, identity, texts))


# -- Anthropic's messages -----------------------------------------------------------------------------------------


def _message(request: Request, identity: str, texts: list[str]) -> dict[str, Any]:
    usage = {"usage": _counts(request.prompt_tokens, _generated(request))} if request.fault.usage else {}
    return {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [{"type": "text", "text": "".join(texts)}],
        **usage,
    }


async def _message_events(request: Request, identity: str, generate: Generate) -> AsyncIterator[Event]:
    def event(kind: str, **data: Any) -> Event:
        return kind, {"type": kind, **data}

    started = {"usage": _counts(request.prompt_tokens, 0)} if request.fault.usage else {}
    yield event("message_start", message={**_message(request, identity, []), "content": [], **started})
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    async for token in generate(request.jobs[0]):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": token})
    yield event("content_block_stop", index=0)
    ended = {"usage": _counts(request.prompt_tokens, request.jobs[0].length)} if request.fault.usage else {}
    yield event("message_delta", delta={"stop_reason": request.jobs[0].finish}, **ended)
    yield event("message_stop")


# vLLM's default for completions is 16 tokens; the others have none.
DIALECTS: Mapping[str, Dialect] = {
    "/v1/completions": Dialect(
        "cmpl", _prompt, ("max_tokens",), 16, _completion(False), _chunks(False), True
    ),
    "/v1/chat/completions": Dialect(
        "chatcmpl",
        chat_prompt,
        ("max_completion_tokens", "max_tokens"),
        None,
        _completion(True),
        _chunks(True),
        True,
    ),
    "/v1/responses": Dialect(
        "resp", _input, ("max_output_tokens",), None, _response, _response_events, False
    ),
    "/v1/messages": Dialect("msg", chat_prompt, ("max_tokens",), None, _message, _message_events, False),
}
