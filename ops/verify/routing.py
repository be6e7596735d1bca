"""Whether prompts that begin alike go to the replica that has their beginning in its cache.

The evidence is the gateway's access log, which names the replica of each request: metrics of replicas cannot be
read from outside where policies are enforced, and latency alone proves little.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from components.serving.manifests import verification
from ops.verify.bench import Bench, Target
from ops.verify.client import Answer
from ops.verify.models import COMPLETIONS, refused
from ops.verify.passes import identity
from ops.verify.verdicts import Result, Unchecked, Verdict, failed, inapplicable, passed

PREFIXES, REPEATS = 4, 5
"""Beginnings, and requests with each: by chance alone, all land as they should once in 65,000 times on two replicas."""
STAYING = 0.9
"""The share of later requests that must go where the first went; load may move one."""
LEAST_BLOCKS = 4
"""Blocks that a beginning must fill to tell replicas apart."""
WANTED_TOKENS, WANTED_BLOCKS = 1024, 8
ANSWERED = 8
"""Tokens of each answer."""
FLUSH = 20.0
"""Seconds within which Envoy writes its log and the node shows it."""
_POLL = 0.5
_SENTENCE = "The keeper of the lighthouse wrote down the wind and the ships that passed. "
_CHARACTERS = 4
"""Of a token of English text; the picker assumes the same."""


@dataclass(frozen=True)
class Sent:
    """One request: which beginning, its answer, and the replica that gave it."""

    prefix: int
    answer: Answer
    replica: str = ""


def prefix_tokens(target: Target) -> int:
    """How long the beginnings are: several blocks, and short enough for the model. 0: it cannot hold that much."""
    room = (target.longest or 2 * WANTED_TOKENS) // 2
    wanted = max(WANTED_TOKENS, WANTED_BLOCKS * target.block)
    tokens = min(wanted, room)
    return tokens if tokens >= LEAST_BLOCKS * target.block else 0


def look(bench: Bench) -> Iterator[Result]:
    """Each model that is routed by cached prefix."""
    for target in bench.targets():
        yield Result(str(target), "cache routing", _routed(bench, target))


def _routed(bench: Bench, target: Target) -> Verdict:
    tokens = prefix_tokens(target)
    reasons = (
        (target.routing != "prefix-cache", f"its routing is {target.routing}"),
        (target.replicas < 2, "one replica gets everything"),
        (not tokens, f"{target.longest} tokens hold no {LEAST_BLOCKS} blocks of {target.block}"),
    )
    if reason := next((text for holds, text in reasons if holds), None):
        return inapplicable(reason)
    bench.say(f"  {target}: {PREFIXES} beginnings of {tokens} tokens, {REPEATS} requests with each")
    asked = bench.passes
    key = asked.given or (asked.new(verification.LOAD) if asked.asked else None)
    log = replicas_of(bench.log, target, identity(key))
    sent = [_ask(bench, target, key, n, text) for _ in range(REPEATS) for n, text in _texts(tokens)]
    wrong = next((s.answer for s in sent if s.answer.status != 200), None)
    return refused(wrong) if wrong else judge(_with_replicas(sent, log), target.replicas)


_RUN = secrets.token_hex(4)


def _texts(tokens: int) -> list[tuple[int, str]]:
    """Beginnings that differ from their first word on, and from those of every other run."""
    filler = _SENTENCE * (tokens * _CHARACTERS // len(_SENTENCE) + 1)
    return [
        (number, f"{_RUN} report {number}. {filler}"[: tokens * _CHARACTERS]) for number in range(PREFIXES)
    ]


def _ask(bench: Bench, target: Target, key: str | None, number: int, text: str) -> Sent:
    ending = f"\nQuestion {secrets.token_hex(4)}: what happened?"
    body = {"model": target.name, "prompt": text + ending, "max_tokens": ANSWERED}
    return Sent(number, bench.gateway.ask("POST", bench.path(target, COMPLETIONS), key, body))


Log = Callable[[int], list[str]]


def replicas_of(log: Callable[[], Iterable[str]] | None, target: Target, key: str | None) -> Log | None:
    """A reader of the replicas that answered a model's requests from now on, in their order; None without a log.

    Requests are known by their key; without keys everybody's count, so that a number of them that is not ours shows.
    """
    if log is None:
        return None

    def mine() -> dict[str, dict[str, Any]]:
        entries = (_entry(line) for line in log())
        return {e["request_id"]: e for e in entries if _is_mine(e, target, key)}

    before = set(mine())

    def since(count: int) -> list[str]:
        deadline = time.monotonic() + FLUSH
        while True:
            found = [entry for name, entry in mine().items() if name not in before]
            if len(found) >= count or time.monotonic() > deadline:
                return [str(e["replica"]) for e in sorted(found, key=lambda e: str(e["time"]))]
            time.sleep(_POLL)

    return since


def _entry(line: str) -> dict[str, Any]:
    try:
        read = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def _is_mine(entry: Mapping[str, Any], target: Target, key: str | None) -> bool:
    wanted = ("request_id", "time", "replica")
    return (
        all(isinstance(entry.get(name), str) for name in wanted)
        and entry.get("method") == "POST"
        and entry.get("model") == target.key
        and (key is None or entry.get("key") == key)
    )


def _with_replicas(sent: Sequence[Sent], log: Log | None) -> list[Sent]:
    found = log(len(sent)) if log else []
    if log is None:
        raise Unchecked(
            f"which replica answered cannot be seen: there is no log of the gateway ({latencies(sent)})",
            "look how vllm:prefix_cache_hits_total of the replicas grows",
        )
    if len(found) != len(sent):
        raise Unchecked(
            f"the gateway's log has {len(found)} requests where {len(sent)} were sent",
            "with more, others ask as well: use the signing key, or run it again when it is quiet; with less, look "
            "whether the gateway's log can be read (`python -m ops usage` reads it too)",
        )
    return [Sent(s.prefix, s.answer, replica) for s, replica in zip(sent, found, strict=True)]


def latencies(sent: Sequence[Sent]) -> str:
    """How long first and later requests with a beginning took."""
    seen: set[int] = set()
    first, later = [], []
    for one in sent:
        (later if one.prefix in seen else first).append(one.answer.seconds * 1000)
        seen.add(one.prefix)
    if not first or not later:
        return "too few requests"
    return f"the first of each {median(first):.0f} ms, later ones {median(later):.0f} ms (medians)"


def judge(sent: Sequence[Sent], replicas: int) -> Verdict:
    """Whether requests that begin alike were answered by the replica that answered the first of them."""
    home: dict[int, str] = {}
    stayed: list[bool] = []
    for one in sent:
        if one.prefix in home:
            stayed.append(one.replica == home[one.prefix])
        home.setdefault(one.prefix, one.replica)
    share = sum(stayed) / len(stayed)
    used = Counter(home.values())
    said = (
        f"{sum(stayed)} of {len(stayed)} repeats went to the replica of their beginning, {len(home)} beginnings on "
        f"{len(used)} of {replicas} replicas; {latencies(sent)}"
    )
    if share < STAYING:
        return failed(
            said, "the picker does not see the prompts: look at its log, and whether it runs at all"
        )
    return passed(said)
