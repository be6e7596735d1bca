"""The way back: what an answer cost, whatever its shape and however it is cut.

Names carry the numbers of the list of tests for token limits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from components.serving.manifests.gateway import INFERENCE_PATHS
from components.serving.manifests.lua import LuaAccess, LuaModel, requests_source
from tests.lua.envoy import MODELS, TENANTS, Outcome, Worker

SMALL = 16384
CARRY = 8192
SSE = "text/event-stream"
USAGE = {"prompt_tokens": 8, "completion_tokens": 68, "total_tokens": 76}
FAKE = '"usage":{"total_tokens":1}'
BUDGET = (("x-tokens-limit", "200"), ("x-tokens-remaining", "199"))


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker()


def event(data: object, gap: str = " ", end: str = "\n\n") -> str:
    return f"data:{gap}{data if isinstance(data, str) else json.dumps(data)}{end}"


def chunk(text: str = "word", usage: object = None, **more: object) -> dict[str, object]:
    """One event of a chat stream as vLLM writes it."""
    return {"id": "x", "choices": [{"index": 0, "delta": {"content": text}}], "usage": usage, **more}


def stream(*events: object, **style: str) -> str:
    return "".join(event(each, **style) for each in events)


FULL = stream(chunk("a ☃"), chunk(FAKE), chunk('\\"usage\\":{'), {"choices": [], "usage": USAGE}, "[DONE]")


def charged(outcome: Outcome) -> tuple[int, int, str]:
    """Total, charge and source, which must agree with the cost."""
    assert outcome.error is None
    noted = outcome.noted
    assert noted["charge"] == noted["cost"] - 1 >= 0
    return noted["total"], noted["charge"], noted["source"]


def estimated(text: str) -> int:
    """Tokens by size: one per four bytes, and a part is a whole."""
    return -(-len(text.encode()) // 4)


def every_chunking(worker: Worker, body: str | bytes, kind: str = SSE, **more: Any) -> Iterable[Outcome]:
    size = len(body if isinstance(body, bytes) else body.encode())
    raw = body if isinstance(body, bytes) else body.encode()
    return (worker.answer(raw, kind, size=n, **more) for n in range(1, size + 1))


def test_b20_usage_in_one_chunk_is_the_charge(worker: Worker) -> None:
    for body, kind in ((FULL, SSE), (json.dumps({"usage": USAGE}), "application/json")):
        got = worker.answer(body, kind)
        assert charged(got) == (76, 75, "usage")
        assert (got.noted["prompt"], got.noted["completion"]) == (8, 68)
        assert not got.buffered


def test_b21_every_chunking_of_a_stream_gives_the_same_charge(worker: Worker) -> None:
    """Splits the key, the number, the object and each multi-byte character at every place."""
    for got in every_chunking(worker, FULL):
        assert charged(got) == (76, 75, "usage")


def test_b21_a_number_that_is_split_is_one_number(worker: Worker) -> None:
    body = '{"usage":{"prompt_tokens":34,"total_tokens":1234}}'
    cut = body.index("1234") + 2
    got = worker.answer([body[:cut], body[cut:]])
    assert charged(got) == (1234, 1233, "usage")


@pytest.mark.parametrize(
    "body",
    [
        stream(chunk(), {"choices": [], "usage": USAGE}, "[DONE]"),
        stream(chunk(), {"choices": [], "usage": USAGE}),
        stream({"usage": USAGE}, *[chunk()] * 50, "[DONE]"),
        stream(*[chunk(usage={"prompt_tokens": 8, "total_tokens": 8 + n}) for n in range(1, 69)]),
        stream(chunk(usage=None), {"usage": None}, {"usage": USAGE}),
        stream('{"usage" : null}', '{"usage":\tnull , "x" : 1}', {"usage": USAGE}),
    ],
    ids=["before-done", "no-done", "then-more", "continuous", "null-first", "null-spaced"],
)
def test_b22_usage_counts_wherever_it_stands(worker: Worker, body: str) -> None:
    for size in (1, 2, 3, 5, 7, 11, 64, 1000, len(body)):
        got = worker.answer(body, SSE, size=size)
        assert charged(got) == (76, 75, "usage")
        assert got.noted["completion"] == 68


@pytest.mark.parametrize("gap", ["", " "])
@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
def test_b23_line_ends_gaps_comments_and_empty_chunks_change_nothing(
    worker: Worker, gap: str, end: str
) -> None:
    with_usage = ": ping" + end + stream(chunk(), {"usage": USAGE}, "[DONE]", gap=gap, end=end)
    without = (
        ": data: keep-alive" + end + stream(chunk("data: x"), chunk("\ndata:"), chunk(), gap=gap, end=end)
    )
    for size in range(1, len(without)):
        assert charged(worker.answer(with_usage, SSE, size=size)) == (76, 75, "usage")
        assert charged(worker.answer(without, SSE, size=size)) == (3, 2, "estimate")
    pieces = ["", with_usage[:30], "", with_usage[30:], ""]
    assert charged(worker.answer(pieces, SSE)) == (76, 75, "usage")


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"content": FAKE}},
        {"delta": {"content": '{"usage":{"prompt_tokens":0,"total_tokens":9999}}'}},
        {
            "delta": {
                "tool_calls": [{"function": {"arguments": json.dumps({"usage": {"total_tokens": 9999}})}}]
            }
        },
        {"text": 'echo of the prompt: "usage": {"total_tokens": 9999}\\'},
        {"text": '\\\\"usage":{"total_tokens":9999}'},
    ],
)
def test_b24_text_of_the_model_or_the_client_is_no_usage(worker: Worker, choice: dict[str, object]) -> None:
    honest = stream({"choices": [choice]}, {"choices": [choice], "usage": USAGE})
    cut_off = stream({"choices": [choice]}, {"choices": [choice]})
    for size in range(1, len(honest) + 1):
        assert charged(worker.answer(honest, SSE, size=size)) == (76, 75, "usage")
        assert charged(worker.answer(cut_off, SSE, size=size)) == (2, 1, "estimate")


def test_b25_the_largest_of_several_usages_counts(worker: Worker) -> None:
    smaller = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
    for body in (stream({"usage": USAGE}, {"usage": smaller}), stream({"usage": smaller}, {"usage": USAGE})):
        for got in every_chunking(worker, body):
            assert charged(got) == (76, 75, "usage")
            assert (got.noted["prompt"], got.noted["completion"]) == (8, 68)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 9, "total_tokens": 999}, **USAGE}, (8, 68, 76)),
        ({"note": "}", **USAGE, "more": "{"}, (8, 68, 76)),
        ({"details": {"a": {"b": {}}, "c": "}{"}, **USAGE}, (8, 68, 76)),
        ({"input_tokens": 8, "output_tokens": 68}, (8, 68, 76)),
        (
            {"input_tokens": 8, "output_tokens": 68, "output_tokens_details": {"x": 1}, "total_tokens": 76},
            (8, 68, 76),
        ),
        ({"prompt_tokens": 8, "completion_tokens": 68}, (8, 68, 76)),
        ({"total_tokens": 76}, (0, 76, 76)),
        ({"prompt_tokens": 76, "total_tokens": 76, "completion_tokens": None}, (76, 0, 76)),
    ],
    ids=["details", "brace", "braces", "messages", "responses", "no-total", "only-total", "embedding"],
)
def test_b26_usage_of_every_shape(worker: Worker, usage: object, expected: tuple[int, int, int]) -> None:
    for got in every_chunking(worker, json.dumps({"object": "x", "usage": usage}), "application/json"):
        assert charged(got) == (76, 75, "usage")
        assert (got.noted["prompt"], got.noted["completion"], got.noted["total"]) == expected


def test_b26_messages_tell_input_and_output_in_different_events(worker: Worker) -> None:
    body = (
        "event: message_start\n"
        + event({"message": {"usage": {"input_tokens": 8, "output_tokens": 1}}})
        + "event: message_delta\n"
        + event({"delta": {}, "usage": {"output_tokens": 68}})
    )
    for got in every_chunking(worker, body):
        assert charged(got) == (76, 75, "usage")
        assert (got.noted["prompt"], got.noted["completion"]) == (8, 68)


def test_b26_a_usage_of_nothing_does_not_silence_the_estimate(worker: Worker) -> None:
    for usage in ({"total_tokens": 0}, {}, {"total_tokens": None}):
        body = stream({"usage": usage}, chunk(), chunk())
        assert charged(worker.answer(body, SSE)) == (3, 2, "estimate")


def test_b27_usage_before_much_else_is_found(worker: Worker) -> None:
    body = json.dumps({"usage": USAGE, "prompt_logprobs": [{"1": {"logprob": -0.5}}] * 800})
    assert len(body) > 20_000
    for size in (1, 7, 1000, 4096, len(body)):
        assert charged(worker.answer(body, size=size)) == (76, 75, "usage")


def test_b28_pretty_printed_json_is_json(worker: Worker) -> None:
    body = json.dumps({"id": 1, "usage": {**USAGE, "details": {"a": [1, {"b": 2}]}}}, indent=4)
    body = body.replace('": ', '"\n\t:\r\n   ')
    for got in every_chunking(worker, body, "application/json"):
        assert charged(got) == (76, 75, "usage")


@pytest.mark.parametrize(
    ("written", "total"),
    [
        ("1000000001", 10**9),
        ("1e300", 10**9),
        ("76.0", 76),
        ("75.2", 76),
        ("7.6e1", 76),
    ],
)
def test_b29_odd_numbers_are_counted_within_bounds(worker: Worker, written: str, total: int) -> None:
    got = worker.answer(f'{{"usage":{{"total_tokens":{written}}}}}')
    assert charged(got) == (total, total - 1, "usage")


@pytest.mark.parametrize(
    "written", ["-76", '"76"', "null", "[76]", "true", "nan", "inf", "-", "1.2.3", "--5", "{}"]
)
def test_b29_what_is_no_count_leaves_the_estimate(worker: Worker, written: str) -> None:
    body = f'{{"usage":{{"total_tokens":{written}}}}}'
    assert charged(worker.answer(body)) == (estimated(body), estimated(body) - 1, "estimate")


def test_b29_counts_below_nothing_are_not_logged(worker: Worker) -> None:
    got = worker.answer('{"usage":{"prompt_tokens":-5,"completion_tokens":900,"total_tokens":76}}')
    assert (got.noted["prompt"], got.noted["completion"], got.noted["total"]) == (0, 76, 76)


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "text/plain", None, ""]
)
def test_b30_usage_is_read_whatever_the_content_type(worker: Worker, kind: str | None) -> None:
    for body in (FULL, json.dumps({"usage": USAGE})):
        assert charged(worker.answer(body, kind)) == (76, 75, "usage")


@pytest.mark.parametrize("kind", ["Text/Event-Stream", "text/event-stream; charset=utf-8"])
def test_b30_a_stream_of_events_is_one_however_it_is_spelt(worker: Worker, kind: str) -> None:
    assert charged(worker.answer(stream(*[chunk()] * 5), kind)) == (5, 4, "estimate")


def padded(size: int) -> str:
    """A JSON answer with usage, of exactly that size."""
    bare = json.dumps({"pad": "", "usage": USAGE})
    return bare.replace('"pad": "', '"pad": "' + "x" * (size - len(bare)))


@pytest.mark.parametrize(
    ("size", "told", "held"),
    [
        (SMALL, SMALL, True),
        (SMALL + 1, SMALL + 1, False),
        (1000, None, True),
        (SMALL * 10, None, True),
        (1000, 0, True),
        (400, 1000, True),
    ],
    ids=["small", "larger", "chunked", "chunked and large", "zero", "shorter"],
)
def test_b30_only_a_json_answer_that_is_small_or_does_not_say_is_held(
    worker: Worker, size: int, told: int | None, held: bool
) -> None:
    length = [("content-length", str(told))] if told is not None else []
    got = worker.answer(padded(size), headers=[*BUDGET, *length], size=100)
    assert charged(got) == (76, 75, "usage")
    assert got.buffered == held
    shown = (124, 76) if held else (200, 0)
    assert (int(got.headers["x-tokens-remaining"]), int(got.headers["x-tokens-used"])) == shown


def test_b30_nothing_is_held_that_is_no_json_or_has_no_budget_to_show(worker: Worker) -> None:
    length = ("content-length", "500")
    for kind, headers in (
        (SSE, [*BUDGET, length]),
        ("text/plain", [*BUDGET, length]),
        ("application/json", [length]),
        ("application/json", [*BUDGET, length, ("content-encoding", "gzip")]),
    ):
        assert not worker.answer(padded(500), kind, headers=headers).buffered


def test_b30_an_answer_without_a_body_costs_the_least(worker: Worker) -> None:
    for headers in ([*BUDGET], [*BUDGET, ("content-length", "0")], [*BUDGET, ("content-length", "300")]):
        got = worker.answer([], headers=headers)
        assert got.error is None and got.noted["source"] == "estimate"
        assert int(got.headers["x-tokens-used"]) + int(got.headers["x-tokens-remaining"]) == 200


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP", "zstd", "identity, gzip"])
def test_b31_a_compressed_answer_is_estimated_by_its_size(worker: Worker, coding: str) -> None:
    for kind in (SSE, "application/json"):
        got = worker.answer(FULL, kind, headers=[("content-encoding", coding)], size=50)
        assert charged(got) == (estimated(FULL), estimated(FULL) - 1, "estimate")
    assert charged(worker.answer(FULL, SSE, headers=[("content-encoding", "Identity")]))[2] == "usage"


@pytest.mark.parametrize("status", [429, 401, 403, 404, 503, 500, 204, 301, 304])
def test_b32_only_answers_are_charged(worker: Worker, status: int) -> None:
    got = worker.answer(json.dumps({"usage": USAGE}), status=status)
    assert got.error is None and not set(got.noted) & {"charge", "total", "cost", "source"}
    assert not got.buffered and "x-tokens-used" not in got.headers


def test_b32_an_attempt_that_was_counted_is_logged_with_what_it_cost(worker: Worker) -> None:
    spent = [("x-tokens-limit", "200"), ("x-tokens-remaining", "0")]
    attempt = {"model": "qwen", "kind": "/v1/chat/completions", "tier": "premium", "cost": 1}
    refused = worker.answer("{}", status=429, headers=spent, noted=attempt)
    assert (refused.noted["cost"], refused.headers["x-tokens-used"]) == (1, "200")
    failed = worker.answer("{}", status=502, headers=BUDGET, noted=attempt)
    assert (failed.noted["cost"], failed.headers["x-tokens-used"]) == (1, "1")
    uncounted = worker.answer("{}", status=503, noted=attempt)
    assert uncounted.noted["cost"] == 0
    assert not [got for got in (refused, failed, uncounted) if "charge" in got.noted]


@pytest.mark.parametrize(
    "noted", [{}, {"tier": "-", "kind": "plain", "model": "qwen"}, {"code": "x", "tenant": "a"}]
)
def test_b32_only_inference_is_charged(worker: Worker, noted: dict[str, str]) -> None:
    got = worker.answer(json.dumps({"usage": USAGE}), noted=noted)
    assert got.error is None and got.noted == noted


@pytest.mark.parametrize("kind", INFERENCE_PATHS)
def test_b32_all_inference_is_charged(worker: Worker, kind: str) -> None:
    got = worker.answer(json.dumps({"usage": USAGE}), noted={"kind": kind, "model": "qwen"})
    assert charged(got) == (76, 75, "usage")


@pytest.mark.parametrize(
    ("model", "total", "cost"),
    [
        ("gemma-2b", 1, 1),
        ("gemma-2b", 10, 1),
        ("gemma-2b", 11, 2),
        ("gemma-2b", 30, 3),
        ("gemma-2b", 999_999_990, 99_999_999),
        ("gemma-2b", 999_999_991, 100_000_000),
        ("llama3-8b", 1, 3),
        ("llama3-8b", 2, 5),
        ("llama3-8b", 3, 8),
        ("llama3-8b", 10**9, 10**9),
        ("qwen", 7, 7),
        ("removed-meanwhile", 10, 25),
    ],
)
def test_b33_prices_are_exact_and_an_unknown_model_has_the_highest(
    worker: Worker, model: str, total: int, cost: int
) -> None:
    known = {"kind": "/v1/completions", "model": model}
    # What the answer says of its model has no say in its price.
    body = json.dumps({"model": "google/gemma-2b", "usage": {"total_tokens": total}})
    got = worker.answer(body, noted=known)
    assert (got.noted["total"], got.noted["cost"], got.noted["charge"]) == (total, cost, cost - 1)


@pytest.mark.parametrize(
    "micros", [1, 3, 33_333, 100_000, 1_100_000, 333_333, 999_999, 1_000_001, 7_000_000, 1_000_000_000]
)
def test_b33_every_total_is_rounded_up_once(micros: int) -> None:
    model = LuaModel(key="m", namespace="n", names=("m",), multiplier=micros / 1e6)
    worker = Worker(requests_source([model], LuaAccess(tenants={})))
    for total in (1, 2, 3, 10, 30, 99, 100, 1000, 12_345, 999_999, 1_000_000, 123_456_789):
        got = worker.answer(
            f'{{"usage":{{"total_tokens":{total}}}}}', noted={"kind": "/v1/completions", "model": "m"}
        )
        assert got.noted["cost"] == min(max(-(-total * micros // 10**6), 1), 10**9), total


@pytest.mark.parametrize("events", [0, 1, 2, 7, 40])
def test_b34_a_stream_that_is_cut_pays_for_its_events(worker: Worker, events: int) -> None:
    for size in (1, 10, 1000):
        got = worker.answer(stream(*[chunk()] * events), SSE, size=size, cut=True)
        assert charged(got) == (events, max(events - 1, 0), "estimate")


def test_b34_a_stream_that_is_cut_pays_its_last_usage(worker: Worker) -> None:
    growing = [
        chunk(usage={"prompt_tokens": 8, "completion_tokens": n, "total_tokens": 8 + n}) for n in range(1, 69)
    ]
    body = stream(*growing[:20]) + event(growing[20])[:-10]
    for size in (1, 10, 1000):
        got = worker.answer(body, SSE, size=size, cut=True)
        assert charged(got) == (28, 27, "usage")
        assert (got.noted["prompt"], got.noted["completion"]) == (8, 20)


def test_b34_an_answer_that_is_cut_before_its_first_byte_is_charged_already(worker: Worker) -> None:
    assert charged(worker.answer([], SSE, cut=True)) == (0, 0, "estimate")
    # A complete answer waits upstream: its size is known, and so is what it cost to make.
    large = [("content-length", "40000")]
    assert charged(worker.answer([], headers=large, cut=True)) == (10_000, 9_999, "estimate")


def test_b35_an_event_without_end_is_not_collected(worker: Worker) -> None:
    for start in ("data: ", 'data: {"usage":{', 'data: {"usage":{"a":"', 'data: {"usage" '):
        body = start + "x" * 2**20
        assert worker.answer(body, SSE, size=4096, watched=True).growth < 64 * 1024, start


def test_b35_a_usage_after_an_object_that_is_too_long_is_found(worker: Worker) -> None:
    for pad in (CARRY - 60, CARRY, CARRY + 1, 5 * CARRY):
        body = json.dumps({"tools": {"usage": {"pad": "{" * pad}}, "usage": USAGE})
        for size in (13, 1000, len(body)):
            assert charged(worker.answer(body, size=size)) == (76, 75, "usage")


@pytest.mark.parametrize("hidden", ["{" * 4, "{" * 50, '\\"{', "}{", '"usage":{'])
def test_b24_a_clients_own_object_cannot_hide_the_usage_behind_it(worker: Worker, hidden: str) -> None:
    """/v1/responses gives the client's tools back, before the usage."""
    tools = [{"parameters": {"properties": {"usage": {"type": "string", "description": hidden}}}}]
    body = json.dumps({"tools": tools, "usage": {"input_tokens": 8, "output_tokens": 68, "total_tokens": 76}})
    for got in every_chunking(
        worker, body, "application/json", noted={"kind": "/v1/responses", "model": "qwen"}
    ):
        assert charged(got) == (76, 75, "usage")


def test_b24_a_clients_own_small_usage_does_not_make_a_cut_stream_cheap(worker: Worker) -> None:
    tools = [{"parameters": {"usage": {"total_tokens": 1}}}]
    body = "event: response.created\n" + event({"response": {"tools": tools, "usage": None}})
    body += "".join("event: response.output_text.delta\n" + event({"delta": "x.delta"}) for _ in range(30))
    done = "event: response.completed\n" + event(
        {"response": {"tools": tools, "usage": {"total_tokens": 76}}}
    )
    responses = {"kind": "/v1/responses", "model": "qwen"}
    for size in (1, 5, 64, 10_000):
        assert charged(worker.answer(body, SSE, noted=responses, size=size, cut=True)) == (30, 29, "estimate")
        whole = worker.answer(body + done, SSE, noted=responses, size=size)
        assert charged(whole) == (76, 75, "usage")


def test_b36_a_second_answer_does_not_know_the_first() -> None:
    worker = Worker()
    before = worker.globals()
    first = worker.answer(FULL, SSE, size=7, headers=BUDGET)
    worker.answer('data: {"usage":{"total_tokens":5', SSE, cut=True)
    worker.answer("x" * 100, "text/plain")
    assert worker.answer(FULL, SSE, size=7, headers=BUDGET) == first
    assert worker.globals() == before


def test_b36_a_defect_while_reading_charges_by_size_and_is_counted(worker: Worker) -> None:
    body = stream(*[chunk()] * 4)
    got = worker.answer(body, SSE, size=50, broken_chunk=3)
    assert "broken getBytes" in got.error
    assert got.noted["source"] == "estimate"
    assert got.noted["total"] == estimated(body)
    assert got.noted["charge"] == got.noted["total"] - 1
    assert got.seen == -(-len(body) // 50)


def test_b36_a_defect_after_the_usage_keeps_it(worker: Worker) -> None:
    body = stream({"usage": USAGE}, chunk(), chunk())
    got = worker.answer(body, SSE, size=len(body) // 2 + 1, broken_chunk=2)
    assert "broken getBytes" in got.error
    assert (got.noted["total"], got.noted["charge"], got.noted["source"]) == (76, 75, "usage")


def test_b36_a_defect_at_the_start_charges_by_size_at_the_highest_price(worker: Worker) -> None:
    got = worker.answer("x" * 400, headers=BUDGET, broken=["headers"], size=100)
    assert "broken headers" in got.error
    assert (got.noted["total"], got.noted["cost"], got.noted["charge"]) == (100, 250, 249)
    assert got.seen == 4


def test_b36_a_defect_while_an_answer_is_held_charges_by_its_size(worker: Worker) -> None:
    got = worker.answer(padded(500), headers=[*BUDGET, ("content-length", "500")], broken=["body"])
    assert "broken body" in got.error
    assert (got.noted["total"], got.noted["charge"], got.noted["source"]) == (125, 124, "estimate")


# Headers


@pytest.mark.parametrize(
    ("limit", "remaining", "cost", "left", "used"),
    [
        ("200", "199", 76, 124, 76),
        ("200", "123", 76, 48, 152),
        ("200", "0", 300, 0, 200),
        ("200", "75", 76, 0, 200),
        ("4294967295", "4294967294", 76, 4294967219, 76),
        ("200", "900", 1, 200, 0),
    ],
)
def test_headers_of_a_held_answer_add_up(
    worker: Worker, limit: str, remaining: str, cost: int, left: int, used: int
) -> None:
    body = json.dumps({"usage": {"total_tokens": cost}})
    headers = [
        ("x-tokens-limit", limit),
        ("x-tokens-remaining", remaining),
        ("content-length", str(len(body))),
    ]
    got = worker.answer(body, headers=headers)
    assert (got.headers["x-tokens-remaining"], got.headers["x-tokens-used"]) == (str(left), str(used))
    assert got.headers["x-tokens-limit"] == limit


@pytest.mark.parametrize("remaining", ["199", "0", "200", "100000"])
def test_headers_of_a_stream_show_the_budget_before_it(worker: Worker, remaining: str) -> None:
    got = worker.answer(FULL, SSE, headers=[("x-tokens-limit", "200"), ("x-tokens-remaining", remaining)])
    left = min(int(remaining) + 1, 200)
    assert (got.headers["x-tokens-remaining"], got.headers["x-tokens-used"]) == (str(left), str(200 - left))


@pytest.mark.parametrize(
    "headers",
    [
        [("x-tokens-limit", "200")],
        [("x-tokens-remaining", "5")],
        [("x-tokens-limit", "many"), ("x-tokens-remaining", "5")],
        [("x-tokens-limit", "200"), ("x-tokens-remaining", "-1")],
        [("x-tokens-limit", "nan"), ("x-tokens-remaining", "inf")],
        [("x-tokens-limit", "200"), ("x-tokens-limit", "300"), ("x-tokens-remaining", "5")],
    ],
)
def test_without_a_budget_in_numbers_the_charge_is_written_all_the_same(
    worker: Worker, headers: list
) -> None:
    got = worker.answer(FULL, SSE, headers=headers)
    assert charged(got) == (76, 75, "usage")
    assert "x-tokens-used" not in got.headers


def test_a_budget_in_requests_is_shown_as_such_and_tokens_are_logged_uncharged() -> None:
    worker = Worker(requests_source(MODELS, LuaAccess(tenants=TENANTS, measure="requests")))
    budget = [("x-requests-limit", "10"), ("x-requests-remaining", "7")]
    for status in (200, 429, 500):
        got = worker.answer(padded(500), status=status, headers=[*budget, ("content-length", "500")])
        assert (got.headers["x-requests-used"], got.headers["x-requests-remaining"]) == ("3", "7")
        assert not got.buffered and "charge" not in got.noted and "x-tokens-used" not in got.headers
        logged = tuple(got.noted.get(name) for name in ("total", "cost", "source"))
        assert logged == ((76, 76, "usage") if status == 200 else (None, None, None))


def test_without_access_usage_is_logged_and_nothing_is_charged() -> None:
    worker = Worker(requests_source(MODELS, None))
    known = {"tenant": "", "tier": "-", "key": "", "model": "qwen", "kind": "/v1/completions"}
    got = worker.answer(FULL, SSE, size=9, noted=known)
    assert (got.error, got.noted["total"], got.noted["source"]) == (None, 76, "usage")
    assert "charge" not in got.noted and "x-tokens-used" not in got.headers
