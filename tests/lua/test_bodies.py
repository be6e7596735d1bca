"""Which model a body asks for, as a JSON reader would have it."""

from __future__ import annotations

import json

import pytest

from tests.lua.envoy import Worker

QUESTION = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker()


def asked(worker: Worker, body: object) -> str | int:
    """The model that a body is routed to, or the status that refuses it."""
    got = worker.request(body=body if isinstance(body, str | bytes) else json.dumps(body))
    return got.status or got.noted["model"]


@pytest.mark.parametrize(
    "body",
    [
        {"model": "qwen", "messages": QUESTION},
        {"messages": QUESTION, "model": "qwen"},
        '  \r\n\t{ "model" \n:\t "qwen" }  ',
        '{"model":"qwen"}trailing is the engine\'s matter',
        {
            "tools": [{"function": {"parameters": {"properties": {"model": {"type": "string"}}}}}],
            "model": "qwen",
        },
        {"metadata": {"model": "llama3-8b"}, "model": "qwen"},
        {"model": "qwen", "metadata": {"model": "llama3-8b"}},
        {"model": "qwen", "metadata": {"model": "llama3-8b", "deep": [{"model": "nope"}]}},
        {"a": [[{"model": 1}], {"b": {"model": None}}], "model": "qwen"},
        '{"model":"llama3-8b","model":"qwen"}',
        '{"model":17,"model":"qwen"}',
        '{"mod\\u0065l":"qwen"}',
        '{"\\u006dodel":"\\u0071\\u0077en"}',
        {"x": "model", "y": '"model":"llama3-8b"', "model": "qwen"},
        {"content": 'he said "model": "llama3-8b" \\" {[', "model": "qwen", "z": {"model": 2}},
        {"content": "ends with a backslash \\", "z": {"model": 2}, "model": "qwen"},
        {"content": '\\\\"}]{[\\', "z": {"model": 2}, "model": "qwen"},
        {"ä": "☃ \ud83d\ude00", "z": {"model": 2}, "model": "qwen"},
        '{"ä":"☃ 😀","z":{"model":2},"model":"qwen"}'.encode(),
        {"Model": "llama3-8b", "model ": "llama3-8b", "model": "qwen", "z": {"model": 1}},
        {"models": ["llama3-8b"], "model": "qwen"},
        {"model": "publishers/other/models/qwen"},
    ],
    ids=range(22),
)
def test_the_bodys_own_model_counts(worker: Worker, body: object) -> None:
    assert asked(worker, body) == "qwen"


def test_a_name_with_an_escaped_slash_is_the_same_name(worker: Worker) -> None:
    assert asked(worker, '{"model":"google\\/gemma-2b"}') == "gemma-2b"
    assert asked(worker, '{"model":"google\\u002Fgemma-2b"}') == "gemma-2b"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": QUESTION},
        {"model": "nope"},
        {"model": "qwen "},
        {"model": "QWEN"},
        {"model": ""},
        {"model": None},
        {"model": 5},
        {"model": 5, "metadata": {"model": "qwen"}},
        {"model": 'qw"en', "metadata": {"model": "qwen"}},
        {"model": ["qwen"]},
        {"model": {"model": "qwen", "x": {"model": 1}}},
        {"metadata": {"model": "qwen", "x": {"model": 1}}},
        '{"model":"qwen","model":"nope"}',
        '{"model":"qwen","model":null}',
        '{"model":"qw\\u00e9n"}',
        '{"model":"qwe\\u006"}',
        {"prompt": '"model":"qwen"'},
        {"prompt": "model"},
        "{}",
    ],
    ids=str,
)
def test_no_model_and_an_unknown_model_are_404(worker: Worker, body: object) -> None:
    refused = worker.request(body=body if isinstance(body, str) else json.dumps(body))
    assert (refused.status, refused.noted["code"]) == (404, "model_not_found")
    assert "model" not in refused.noted and "tier" not in refused.noted


@pytest.mark.parametrize(
    "body",
    [
        "",
        " ",
        "null",
        "[]",
        '["model","qwen"]',
        '[{"model":"qwen"}]',
        '"model"',
        '"{\\"model\\":\\"qwen\\"}"',
        "model=qwen",
        "{",
        '{"a":',
        '{"a":"',
        '{"a":{"model":1}',
        '{"a":{"model":1},"model":"',
        "\ufeff".encode() + b'{"model":"qwen"}',
        '{"model":"qwen"}'.encode("utf-16"),
        b"\x1f\x8b\x08\x00 not really gzip",
    ],
    ids=repr,
)
def test_what_is_no_json_object_is_400(worker: Worker, body: str | bytes) -> None:
    refused = worker.request(body=body)
    assert (refused.status, refused.noted["code"]) == (400, "bad_request")


@pytest.mark.parametrize("noise", ["", '"tools":{"model":{}},'], ids=["searched", "read"])
def test_a_five_megabyte_prompt_passes(worker: Worker, noise: str) -> None:
    prompt = json.dumps('say "model": "llama3-8b" \\ {[ ' * 180_000)
    body = "{" + noise + f'"messages":[{{"role":"user","content":{prompt}}}],"model":"qwen"}}'
    assert len(body) > 5_000_000
    assert asked(worker, body) == "qwen"


def test_a_body_that_would_hold_the_worker_up_is_sent_to_the_header(worker: Worker) -> None:
    """Two million keys on the top level: nothing but an attack writes that."""
    body = '{"a":{"model":1},' + '"a":1,' * 2_000_000 + '"model":"qwen"}'
    refused = worker.request(body=body)
    assert (refused.status, refused.noted["code"]) == (413, "request_too_large")
    assert "x-gateway-model-name" in refused.text
    assert worker.request(body=body, headers=[("x-gateway-model-name", "qwen")]).status is None


def test_many_mentions_of_a_model_are_read_properly(worker: Worker) -> None:
    body = {"a": [{"model": "qwen"}] * 100, "model": "llama3-8b"}
    assert asked(worker, body) == "llama3-8b"


def test_a_second_model_that_is_hidden_reaches_an_engine_that_refuses_it(worker: Worker) -> None:
    """The plain name is searched for, not read; a JSON reader takes the hidden one, which that engine lacks."""
    assert asked(worker, '{"model":"gemma-2b"}') == 404
    assert asked(worker, '{"model":"llama3-8b","mo\\u0064el":"qwen"}') == "llama3-8b"
