"""The simulated model server: vLLM's answers and refusals, and its misbehaviour on request."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientError
from aiohttp.test_utils import TestClient, TestServer

from rehearsal.model_server.api import Api
from rehearsal.model_server.engine import Engine
from rehearsal.model_server.settings import parse

Client = TestClient[Any, Any]
PATHS = {
    "/v1/completions": {"prompt": "0123456789ab", "max_tokens": 5},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5},
    "/v1/responses": {"input": "0123456789ab", "max_output_tokens": 5},
    "/v1/messages": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHEARSAL_DECODE_SECONDS", "0")
    monkeypatch.setenv("REHEARSAL_PREFILL_SECONDS", "0")


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that misbehaves on request."""
    monkeypatch.setenv("REHEARSAL_FAULTS", "1")


def with_server(use: Callable[[Client], Awaitable[Any]], *flags: str) -> Any:
    """What `use` returns, given a client of a new server."""

    async def run() -> Any:
        settings = parse(["serve", "a/model", "--served-model-name", "small", "--max-model-len=100", *flags])
        async with TestClient(TestServer(Api(Engine(settings)).application())) as client:
            return await use(client)

    return asyncio.run(run())


def ask(path: str, body: Any, *flags: str, **headers: str) -> tuple[int, bytes]:
    """Status and body, as they are on the wire."""

    async def use(client: Client) -> tuple[int, bytes]:
        given = {"accept-encoding": "identity", **headers}
        async with client.post(path, json=body, headers=given) as answer:
            return answer.status, await answer.read()

    return with_server(use, *flags)


def events(text: bytes) -> list[Any]:
    data = [line.removeprefix(b"data: ") for line in text.splitlines() if line.startswith(b"data: {")]
    return [json.loads(line) for line in data]


def usages(found: Any) -> list[dict[str, int]]:
    """Every usage object, wherever it stands."""
    if isinstance(found, list):
        return [usage for item in found for usage in usages(item)]
    if not isinstance(found, dict):
        return []
    own = [found["usage"]] if found.get("usage") else []
    return own + [u for k, v in found.items() if k != "usage" for u in usages(v)]


def completion_tokens(usage: dict[str, int]) -> int:
    return usage.get("completion_tokens", usage.get("output_tokens", 0))


@pytest.mark.parametrize("path", PATHS)
def test_a_whole_answer_tells_its_usage(path: str) -> None:
    status, body = ask(path, {**PATHS[path], "model": "small"})
    (usage,) = usages(json.loads(body))
    assert (status, completion_tokens(usage)) == (200, 5)


@pytest.mark.parametrize("path", PATHS)
def test_the_last_usage_of_a_stream_is_that_of_the_whole_answer(path: str) -> None:
    _, body = ask(path, {**PATHS[path], "stream": True}, "--enable-force-include-usage")
    (whole,) = usages(json.loads(ask(path, PATHS[path])[1]))
    assert usages(events(body))[-1] == whole


@pytest.mark.parametrize(
    ("options", "flags", "count"),
    [
        (None, [], 0),
        ({"include_usage": False}, [], 0),
        ({"include_usage": True}, [], 1),
        # Five tokens, the end, and the one that was asked for.
        ({"include_usage": True, "continuous_usage_stats": True}, [], 7),
        (None, ["--enable-force-include-usage"], 7),
        ({"include_usage": False}, ["--enable-force-include-usage"], 7),
    ],
)
def test_a_stream_tells_usage_where_it_is_asked_for_or_forced(
    options: Any, flags: list[str], count: int
) -> None:
    body = {**PATHS["/v1/completions"], "stream": True, "stream_options": options}
    assert len(usages(events(ask("/v1/completions", body, *flags)[1]))) == count


def test_several_answers_cost_their_sum_and_one_prompt() -> None:
    (usage,) = usages(json.loads(ask("/v1/completions", {**PATHS["/v1/completions"], "n": 4})[1]))
    assert usage == {"prompt_tokens": 3, "completion_tokens": 20, "total_tokens": 23}


@pytest.mark.parametrize("stream", [True, False])
def test_an_echo_begins_with_the_prompt(stream: bool) -> None:
    body = {**PATHS["/v1/completions"], "echo": True, "stream": stream}
    text = ask("/v1/completions", body)[1]
    first = events(text)[0] if stream else json.loads(text)
    assert first["choices"][0]["text"].startswith("0123456789ab")


@pytest.mark.parametrize(
    ("path", "changes", "status"),
    [
        ("/v1/completions", {"model": "other"}, 404),
        ("/v1/completions", {"prompt": 7}, 400),
        ("/v1/completions", {"max_tokens": 0}, 400),
        ("/v1/completions", {"max_tokens": "5"}, 400),
        ("/v1/completions", {"max_tokens": 98}, 400),
        ("/v1/completions", {"prompt": "x" * 400}, 400),
        ("/v1/chat/completions", {"messages": []}, 400),
        ("/v1/responses", {"input": 7}, 400),
        ("/v1/messages", {"messages": "hello"}, 400),
    ],
)
def test_what_vllm_refuses_is_refused(path: str, changes: dict[str, Any], status: int) -> None:
    got, body = ask(path, {**PATHS[path], **changes})
    assert got == status and json.loads(body)["error"]["message"]


def test_without_being_told_so_the_server_does_not_misbehave() -> None:
    body = {**PATHS["/v1/completions"], "rehearsal": {"status": 500, "nonsense": 1}}
    assert ask("/v1/completions", body)[0] == 200

    async def use(client: Client) -> int:
        return (await client.get("/rehearsal/seen")).status

    assert with_server(use) == 404


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("wish", [{"nonsense": 1}, "status", [1]])
def test_a_fault_that_does_not_exist_is_refused(wish: Any) -> None:
    assert ask("/v1/completions", {**PATHS["/v1/completions"], "rehearsal": wish})[0] == 400


@pytest.mark.usefixtures("faulty")
def test_a_status_is_answered_at_once_and_without_usage() -> None:
    status, body = ask("/v1/completions", {**PATHS["/v1/completions"], "rehearsal": {"status": 503}})
    assert status == 503 and not usages(json.loads(body))


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_usage_can_be_kept_back(path: str, stream: bool) -> None:
    body = {**PATHS[path], "stream": stream, "rehearsal": {"usage": False}}
    text = ask(path, body, "--enable-force-include-usage")[1]
    assert not usages(events(text) if stream else json.loads(text))


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("tokens", [0, 2])
def test_a_connection_ends_after_so_many_tokens(tokens: int) -> None:
    wish = {"reset_after": tokens}

    async def use(client: Client) -> list[bytes]:
        got = []
        with pytest.raises(ClientError):
            body = {**PATHS["/v1/completions"], "stream": True, "rehearsal": wish}
            async with client.post("/v1/completions", json=body) as answer:
                async for line in answer.content:
                    got += [line] if line.startswith(b"data:") else []
        return got

    assert len(with_server(use)) == tokens


@pytest.mark.usefixtures("faulty")
def test_a_held_answer_goes_on_when_it_is_released() -> None:
    async def use(client: Client) -> list[Any]:
        body = {**PATHS["/v1/completions"], "stream": True, "rehearsal": {"hold_after": 2}}
        async with client.post("/v1/completions", json=body) as answer:
            first = await answer.content.readuntil(b"\n\n") + await answer.content.readuntil(b"\n\n")
            (await client.post("/rehearsal/release")).release()
            return events(first + await answer.content.read())

    assert len(with_server(use)) == 6


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("wish", "accepted", "packed"),
    [("asked", "gzip", True), ("asked", "identity", False), ("always", "identity", True)],
)
def test_answers_are_compressed_on_request(wish: str, accepted: str, packed: bool) -> None:
    body = {**PATHS["/v1/completions"], "rehearsal": {"gzip": wish}}

    async def use(client: Client) -> tuple[str | None, bytes]:
        session = client.session
        async with session.post(
            client.make_url("/v1/completions"), json=body, headers={"accept-encoding": accepted}
        ) as answer:
            return answer.headers.get("content-encoding"), await answer.read()

    encoding, text = with_server(use)
    assert encoding == ("gzip" if packed else None)
    assert usages(json.loads(gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text))


@pytest.mark.usefixtures("faulty")
def test_tokens_are_as_long_as_is_wished() -> None:
    body = {**PATHS["/v1/completions"], "stream": True, "rehearsal": {"token_bytes": 1000}}
    texts = [e["choices"][0]["text"] for e in events(ask("/v1/completions", body)[1])]
    assert [len(text) for text in texts] == [1000] * 5 + [0]


@pytest.mark.usefixtures("faulty")
def test_the_latest_request_can_be_seen() -> None:
    async def use(client: Client) -> dict[str, Any]:
        body = PATHS["/v1/completions"]
        (await client.post("/v1/completions?x=1", json=body, headers={"X-Odd": "yes"})).release()
        return dict(await (await client.get("/rehearsal/seen")).json())

    seen = with_server(use)
    assert seen["path"] == "/v1/completions?x=1" and ["x-odd", "yes"] in seen["headers"]
