"""Long answers and long prompts, and clients that go away, through a real Envoy."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from components.serving.manifests.chain import PROMPT_BYTES
from tests.data_plane import client
from tests.data_plane.chain import GEMMA, LLAMA, Chain, Raw, completion, prompt_of, wait_until
from tests.data_plane.client import next_event
from tests.data_plane.conftest import Start

MIB = 2**20
SMALL_BUFFER = 32 * 1024
BY_PATH = f"/llm-models/{GEMMA}/v1/completions"
PROMPT, HELD = 4, 5


def small_buffers(item: Raw) -> Raw:
    """The object with Envoy's buffers of a connection made small, if it is the one that sets them."""
    item = copy.deepcopy(item)
    for patch in item["spec"].get("configPatches", ()) if item["kind"] == "EnvoyFilter" else ():
        if patch["applyTo"] == "LISTENER":
            patch["patch"]["value"]["per_connection_buffer_limit_bytes"] = SMALL_BUFFER
    return item


@pytest.fixture(scope="module")
def narrow(start: Start) -> Iterator[Chain]:
    """The same gateway with buffers of 32 KiB: whatever is held as a whole fails there."""
    with start(amend=small_buffers) as running:
        yield running


@pytest.fixture(scope="module", params=["as it is", "narrow"])
def either(request: pytest.FixtureRequest, chain: Chain, narrow: Chain) -> Chain:
    return narrow if request.param == "narrow" else chain


def resident(chain: Chain, field: str) -> int:
    """Memory of the first Envoy in bytes: VmRSS now, VmHWM at most since `forget_peak`."""
    lines = Path(f"/proc/{chain.plane.pid('envoy-0')}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def forget_peak(chain: Chain) -> None:
    Path(f"/proc/{chain.plane.pid('envoy-0')}/clear_refs").write_text("5")


STREAMS = {
    "/v1/completions": {"prompt": "hello", "max_tokens": 20},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20},
    "/v1/responses": {"input": "hello", "max_output_tokens": 20},
    "/v1/messages": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20},
}


@pytest.mark.parametrize("path", STREAMS)
def test_c44_the_first_byte_arrives_before_the_last_is_made(either: Chain, path: str) -> None:
    tenant = either.tenant()
    body = {**STREAMS[path], "model": LLAMA, "rehearsal": {"hold_after": 2}}
    with either.streaming(tenant, body, path) as response:
        # The server makes no third token until it is told to.
        next_event(response), next_event(response)
        either.release()
        rest = response.read()
    assert rest
    (line,) = either.log(tenant, 1)
    assert (line["completion"], line["source"]) == (20, "usage")
    either.settled(tenant, line["total"])


def test_c44_a_long_stream_takes_no_memory(chain: Chain) -> None:
    tenant, piece, pieces = chain.tenant(), 64 * 1024, 640
    forget_peak(chain)
    before, size = resident(chain, "VmRSS"), 0
    body = completion(PROMPT + pieces, GEMMA, PROMPT, rehearsal={"token_bytes": piece})
    with chain.streaming(tenant, body) as response:
        while chunk := response.read(MIB):
            size += len(chunk)
    assert size > piece * pieces == 40 * MIB
    # Less than half of the stream, and no more than one connection's buffers.
    assert resident(chain, "VmHWM") - before < 20 * MIB
    (line,) = chain.log(tenant, 1)
    assert (line["total"], line["source"]) == (PROMPT + pieces, "usage")


@pytest.mark.parametrize("stream", [True, False])
def test_c44_ten_megabytes_pass_in_one_answer(either: Chain, stream: bool) -> None:
    tenant, pieces = either.tenant(), 160
    fault = {"token_bytes": 64 * 1024}
    answer = either.ask(tenant, completion(PROMPT + pieces, LLAMA, PROMPT, stream=stream, rehearsal=fault))
    assert answer.status == 200 and len(answer.body) > 10 * MIB
    either.settled(tenant, PROMPT + pieces)


def test_c44_a_prompt_of_five_megabytes_passes_by_path_and_by_header(either: Chain) -> None:
    tenant, long = either.tenant(), prompt_of(5 * MIB // 4)
    body = {"prompt": long, "max_tokens": 1}
    assert either.ask(tenant, body, BY_PATH).status == 200
    assert either.ask(tenant, body, more=[("x-gateway-model-name", GEMMA)]).status == 200
    cost = -(-(len(long) // 4 + 1) // 10)
    either.settled(tenant, 2 * cost)


def test_c44_a_prompt_of_five_megabytes_passes_by_its_body(chain: Chain) -> None:
    answer = chain.ask(chain.tenant(), {"prompt": prompt_of(5 * MIB // 4), "max_tokens": 1, "model": GEMMA})
    assert (answer.status, answer.json["model"]) == (200, GEMMA)


def test_a_prompt_that_cannot_be_held_is_refused_with_advice_that_works(chain: Chain) -> None:
    tenant, body = chain.tenant(), {"prompt": prompt_of(PROMPT_BYTES // 4 + 1024), "max_tokens": 1}
    answer = chain.ask(tenant, {**body, "model": GEMMA})
    assert (answer.status, answer.code) == (413, "request_too_large")
    assert "x-gateway-model-name" in answer.json["error"]["message"]
    assert chain.spent(tenant) == 0
    assert chain.ask(tenant, body, BY_PATH).status == 200
    assert chain.ask(tenant, body, more=[("x-gateway-model-name", GEMMA)]).status == 200


# -- clients that go away -------------------------------------------------------------------------------------------

# What is generated when the client goes, whether the engine tells usage, and what has to be paid.
DEPARTURES = {
    "immediately after the headers": (0, True, 1),
    "before usage": (HELD, False, HELD),
    "half way": (HELD, True, PROMPT + HELD),
}


@pytest.mark.parametrize("when", DEPARTURES)
def test_d58_who_goes_away_pays_for_what_was_made(chain: Chain, when: str) -> None:
    made, usage, cost = DEPARTURES[when]
    tenant = chain.tenant()
    body = completion(PROMPT + 50, LLAMA, PROMPT, rehearsal={"hold_after": made, "usage": usage})
    with chain.streaming(tenant, body) as response:
        assert response.status == 200
        for _ in range(made):
            next_event(response)
    (line,) = chain.log(tenant, 1)
    assert line["flags"] == "DC"
    assert line["source"] == ("usage" if made and usage else "estimate")
    chain.settled(tenant, cost)
    # What the engine makes for nobody is not paid either.
    chain.release()
    assert chain.spent(tenant) == cost == line["cost"]


def test_d58_who_goes_away_before_the_answer_pays_the_attempt(chain: Chain) -> None:
    tenant = chain.tenant()
    body = client.encoded(completion(50, rehearsal={"hold_after": 0}))
    headers = {**dict(tenant.headers), "content-length": str(len(body))}
    with closing(client.raw(chain.plane.url)) as connection:
        connection.sendall(client.request_bytes("POST", "/v1/completions", headers, body))
        chain.settled(tenant, 1)
    (line,) = chain.log(tenant, 1)
    assert (line["flags"], line["cost"]) == ("DC", 1)
    assert chain.spent(tenant) == 1


@pytest.mark.parametrize(("usage", "cost"), [(True, PROMPT + HELD), (False, HELD)])
def test_c47_a_stream_that_the_engine_breaks_off_costs_what_arrived(
    chain: Chain, usage: bool, cost: int
) -> None:
    tenant = chain.tenant()
    body = completion(PROMPT + 50, LLAMA, PROMPT, rehearsal={"hold_after": HELD, "usage": usage})
    body["rehearsal"] |= {"reset_after": HELD + 1}
    with chain.streaming(tenant, body) as response:
        for _ in range(HELD):
            next_event(response)
        # One more token is made before the connection ends; it may or may not be sent.
        chain.release()
        chain.log(tenant, 1)
    wait_until(lambda: cost <= chain.spent(tenant) <= cost + 1, lambda: f"{chain.spent(tenant)} was spent")
