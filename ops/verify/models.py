"""What every model must answer: to its own path, to one base URL, whole and in a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from components.serving.manifests.gateway import MODEL_HEADER, model_name
from ops.verify.bench import Bench, Target
from ops.verify.client import Answer, Stream, count
from ops.verify.verdicts import Result, Verdict, failed, inapplicable, passed, unchecked

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
TOKENS = 16
STREAMED = 64
"""Tokens of a stream: enough that its parts cannot all come at once."""
_SPREAD = 0.01
"""The part of its time over which a stream's events must come; one that somebody held back comes at once."""
_MESSAGES = [{"role": "user", "content": "Count from one to fifty in words."}]
_PROMPT = {"prompt": "The first ten prime numbers are", "max_tokens": TOKENS}
_LOOK = "`python -m ops status` says what is not ready; the model's log says why it refuses"


def completion(**fields: Any) -> dict[str, Any]:
    """A short text completion."""
    return {**_PROMPT, **fields}


def chat(tokens: int = TOKENS, **fields: Any) -> dict[str, Any]:
    """A short chat completion."""
    return {"messages": _MESSAGES, "max_tokens": tokens, **fields}


def look(bench: Bench) -> Iterator[Result]:
    """Every question to every model."""
    for target in bench.targets():
        for question in QUESTIONS:
            bench.say(f"  {target}: {question.check}")
            yield Result(str(target), question.check, question.ask(bench, target))
    if not bench.targets():
        yield Result("models", "serving", inapplicable("no model is configured, wanted and awake"))


@dataclass(frozen=True)
class Question:
    """One row for each model."""

    check: str
    ask: Callable[[Bench, Target], Verdict]


def _health(bench: Bench, target: Target) -> Verdict:
    answer = bench.gateway.ask("GET", f"{target.prefix}/health", bench.passes.general())
    return passed(f"HTTP 200 at {target.prefix}/health") if answer.status == 200 else refused(answer)


def _listed(bench: Bench, target: Target) -> Verdict:
    path = bench.path(target, "/v1/models")
    return judge_list(bench.gateway.ask("GET", path, bench.passes.general()), target.name, path)


def _by_path(bench: Bench, target: Target) -> Verdict:
    path = target.prefix + COMPLETIONS
    return judge_completion(
        bench.gateway.ask("POST", path, bench.passes.general(), completion(model=target.name)), path
    )


def _by_body(bench: Bench, target: Target) -> Verdict:
    if not bench.reads_bodies:
        return inapplicable("Google's gateway chooses by path and header only")
    body = completion(model=target.name)
    return judge_completion(
        bench.gateway.ask("POST", COMPLETIONS, bench.passes.general(), body), f'"model": "{target.name}"'
    )


def _by_header(bench: Bench, target: Target) -> Verdict:
    value = model_name(target.namespace, target.name)
    headers = {MODEL_HEADER: value}
    # The body names it as well: a picker answers 400 to one that names none.
    body = completion(model=target.name)
    answer = bench.gateway.ask("POST", COMPLETIONS, bench.passes.general(), body, headers)
    return judge_completion(answer, f"{MODEL_HEADER}: {value}")


def _chat(bench: Bench, target: Target) -> Verdict:
    body = chat(model=target.name)
    answer = bench.gateway.ask("POST", bench.path(target, CHAT), bench.passes.general(), body)
    return _no_template(answer) or judge_completion(answer, "one message")


def _stream(bench: Bench, target: Target) -> Verdict:
    body = chat(STREAMED, model=target.name, stream_options={"include_usage": True})
    stream = bench.gateway.stream(bench.path(target, CHAT), bench.passes.general(), body)
    return _no_template(stream.answer) or judge_stream(stream)


QUESTIONS = (
    Question("health", _health),
    Question("listed", _listed),
    Question("own path", _by_path),
    Question("by body", _by_body),
    Question("by header", _by_header),
    Question("chat", _chat),
    Question("stream", _stream),
)


def refused(answer: Answer) -> Verdict:
    """What an answer that is no success means."""
    if answer.code == "model_not_allowed":
        return unchecked(f"the key's tenant may not use this model ({answer})", "use a key that may")
    if answer.code == "unknown_tenant":
        return failed(
            f"{answer}", "the gateway does not have the tenants of the configuration yet: run `pulumi up`"
        )
    if answer.status == 429:
        return unchecked(f"the key's budget is spent ({answer})", "wait a minute, or use a key that has more")
    return failed(str(answer), _LOOK)


def _no_template(answer: Answer) -> Verdict | None:
    """A model that was only trained to go on with texts cannot chat: vLLM says so."""
    if answer.status == 400 and b"chat template" in answer.body:
        return inapplicable("the model has no chat template")
    return None


def judge_list(answer: Answer, name: str, path: str) -> Verdict:
    """Whether a list of models has one of that name."""
    if answer.status != 200:
        return refused(answer)
    data = answer.json.get("data")
    names = [str(m.get("id")) for m in data if isinstance(m, dict)] if isinstance(data, list) else []
    if name in names:
        return passed(f"{path} lists {len(names)}, {name} among them")
    return failed(f"{path} lists {', '.join(names) or 'nothing'}", "is the model's name in requests another?")


def judge_completion(answer: Answer, asked: str) -> Verdict:
    """Whether an answer is a completion, with its cost."""
    if answer.status != 200:
        return refused(answer)
    if not answer.json.get("choices"):
        return failed(f"HTTP 200 without choices ({asked})", _LOOK)
    if not answer.tokens:
        return failed(
            f"HTTP 200 without usage ({asked})", "nobody could count it: look at the engine's flags"
        )
    return passed(f"{asked}: {answer.tokens} tokens in {answer.seconds * 1000:.0f} ms")


def judge_stream(stream: Stream) -> Verdict:
    """Whether a stream came bit by bit, to its end, and says what it cost."""
    if stream.answer.status != 200:
        return refused(stream.answer)
    times = [when for when, data in stream.events if data.get("choices")]
    used = max((count(data.get("usage"), "total_tokens") for _, data in stream.events), default=0)
    if not times or not stream.ended:
        return failed(f"it broke off after {len(times)} parts", _LOOK)
    if not used:
        return failed(
            "no part says what it cost", "streams would be charged by an estimate: look at the flags"
        )
    first, last = times[0], times[-1]
    if last - first < _SPREAD * last:
        return failed(
            f"all {len(times)} parts came at once, after {first * 1000:.0f} ms",
            "somebody on the way holds the answer back: look for filters and proxies that buffer",
        )
    span = f"the first of {len(times)} parts after {first * 1000:.0f} ms, the last after {last * 1000:.0f} ms"
    return passed(f"{span}; {used} tokens")
