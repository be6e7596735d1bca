"""How fast answers come: one after the other, and many at once."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ops.verify.bench import Bench, Target, Wishes
from ops.verify.client import Answer
from ops.verify.models import COMPLETIONS
from ops.verify.verdicts import Result, Verdict, failed, passed, unchecked

TOKENS = 32
PROMPT_TOKENS = 24
"""About what the prompt below has; for the estimate of what this costs."""


@dataclass(frozen=True)
class Measured:
    """The answers of one run and how long it took, in seconds."""

    answers: tuple[Answer, ...]
    seconds: float

    @property
    def rate(self) -> float:
        """Answers per second."""
        return sum(a.status == 200 for a in self.answers) / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second, prompts included."""
        return sum(a.tokens for a in self.answers) / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        """Milliseconds within which that share of the answers came (nearest rank)."""
        times = sorted(a.seconds * 1000 for a in self.answers if a.status == 200)
        return times[max(math.ceil(len(times) * share), 1) - 1] if times else 0.0

    def __str__(self) -> str:
        return (
            f"{self.rate:.1f} req/s, p50 {self.percentile(0.5):.0f} ms, p99 {self.percentile(0.99):.0f} ms, "
            f"{self.tokens_per_second:.0f} tokens/s over {len(self.answers)} requests"
        )


def look(bench: Bench) -> Iterator[Result]:
    """Each model in turn, so that none is measured while another works."""
    wishes = bench.wishes
    for target in bench.targets():
        bench.say(f"  {target}: {wishes.requests} requests in turn, then {wishes.concurrent} at a time")
        # The first answer pays for connections, and for what the engine compiles at first use.
        _ask(bench, target, "warm")
        serial = _measure(bench, target, 1)
        yield Result(str(target), "serial", judge(serial, Wishes()))
        parallel = _measure(bench, target, wishes.concurrent)
        yield Result(str(target), "parallel", judge(parallel, wishes))


def _measure(bench: Bench, target: Target, at_once: int) -> Measured:
    began = time.monotonic()
    with ThreadPoolExecutor(at_once) as threads:
        marks = [f"{at_once}/{number}" for number in range(bench.wishes.requests)]
        answers = list(threads.map(lambda mark: _ask(bench, target, mark), marks))
    return Measured(tuple(answers), time.monotonic() - began)


def _ask(bench: Bench, target: Target, mark: str) -> Answer:
    # Prompts differ from their first word on, so that no cache answers for the engine.
    prompt = f"Question {mark}: write a few sentences about what a port in the north needs in winter."
    body = {"model": target.name, "prompt": prompt, "max_tokens": TOKENS}
    return bench.gateway.ask("POST", bench.path(target, COMPLETIONS), bench.passes.general(), body)


def judge(measured: Measured, wishes: Wishes) -> Verdict:
    """Whether all were answered, and fast enough."""
    wrong = [a for a in measured.answers if a.status != 200]
    if wrong:
        return _not_answered(wrong, measured)
    slow = list(_misses(measured, wishes))
    if slow:
        return failed(f"{'; '.join(slow)} ({measured})", "more replicas, or look for what makes it slow")
    return passed(str(measured))


def _not_answered(wrong: Sequence[Answer], measured: Measured) -> Verdict:
    kinds = Counter(str(answer) for answer in wrong)
    said = f"{len(wrong)} of {len(measured.answers)} were not answered: " + ", ".join(
        f"{number} times {kind}" for kind, number in kinds.most_common(3)
    )
    if all(answer.status == 429 for answer in wrong):
        return unchecked(
            said, "the key's budget ends the measurement: use the signing key, or fewer --requests"
        )
    return failed(said, "the gateway's log and the model's say why")


def _misses(measured: Measured, wishes: Wishes) -> Iterator[str]:
    if wishes.min_rps is not None and measured.rate < wishes.min_rps:
        yield f"{measured.rate:.1f} req/s are less than {wishes.min_rps:g}"
    median = measured.percentile(0.5)
    if wishes.max_p50 is not None and median > wishes.max_p50:
        yield f"p50 of {median:.0f} ms is more than {wishes.max_p50:g}"
