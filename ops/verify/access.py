"""Who is let in, and how far: keys that must be refused, and the budget of each tier."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from components.serving.manifests import token_limits, verification
from ops.verify.bench import Bench, Target
from ops.verify.client import Answer
from ops.verify.models import COMPLETIONS
from ops.verify.verdicts import Result, Unchecked, Verdict, failed, inapplicable, passed
from stacks.config import Access

SUBJECT = "keys"
MINUTE = 60
LATE = 10
"""Seconds by which a counter may outlive its minute (the service's jitter)."""
LEAST_LEFT = 20
"""Seconds of a minute that trying a tier may take; with less left, the next minute is waited for."""
MOST_REQUESTS = 40
"""Requests within which a budget must be spent, or trying it is left."""
STEPS = 4
"""Requests that spend a budget where the model's length allows."""
SETTLING = 5.0
"""Seconds within which what an answer cost must be counted."""
_PAUSE = 0.2
_FILTERS = "look at the gateway's EnvoyFilters and AuthorizationPolicy: `pulumi up` puts them back"
_WORD, _WORD_TOKENS = "harbour ", 2
"""A word and the tokens that it has at most, for prompts of a size."""


# -- who is refused --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refusal:
    """A key that must not open: what it is, how to get it, and the answer that it must have."""

    check: str
    key: Callable[[Bench, Access], str | None]
    status: int
    code: str


def _forged(bench: Bench, access: Access) -> str:
    return bench.passes.forged(next(iter(access.public_keys), "none"))


REFUSALS = (
    Refusal("no key", lambda bench, access: None, 401, "invalid_api_key"),
    Refusal("forged key", _forged, 401, "invalid_api_key"),
    Refusal("expired key", lambda bench, access: bench.passes.expired(), 401, "invalid_api_key"),
    Refusal(
        "key of another stack",
        lambda bench, access: bench.passes.new(verification.LOAD, aud="another/stack/gateway"),
        401,
        "invalid_api_key",
    ),
    Refusal(
        "unknown tenant",
        lambda bench, access: bench.passes.of(verification.UNKNOWN),
        403,
        "unknown_tenant",
    ),
    Refusal(
        "foreign model", lambda bench, access: bench.passes.of(verification.NONE), 403, "model_not_allowed"
    ),
)


def refusals(bench: Bench) -> Iterator[Result]:
    """Every key that must be refused, at the first model."""
    access, targets = bench.config.access, bench.targets()
    if access is None or not targets:
        why = "the stack asks for no keys" if access is None else "no model is awake to ask for"
        yield Result(SUBJECT, "refusals", inapplicable(why))
        return
    for refusal in REFUSALS:
        bench.say(f"  {refusal.check}")
        yield Result(SUBJECT, refusal.check, _refused(bench, access, targets[0], refusal))


def _refused(bench: Bench, access: Access, target: Target, refusal: Refusal) -> Verdict:
    try:
        key = refusal.key(bench, access)
    except Unchecked as lacking:
        return lacking.verdict
    body = {"model": target.name, "prompt": "Hello", "max_tokens": 1}
    return judge_refusal(bench.gateway.ask("POST", COMPLETIONS, key, body), refusal)


def judge_refusal(answer: Answer, refusal: Refusal) -> Verdict:
    """Whether a key was refused in the way that clients can read."""
    if (answer.status, answer.code) == (refusal.status, refusal.code):
        return passed(f"HTTP {answer.status}, {answer.code}")
    if answer.status == 200:
        return failed("it was let in, and answered", f"close the gateway until this is known; {_FILTERS}")
    if answer.code == "unknown_tenant":
        return failed(
            str(answer), "the gateway does not have the tenants of the configuration: run `pulumi up`"
        )
    code = f", code {answer.code}" if answer.code else ""
    return failed(f"{answer}{code}, not {refusal.status} {refusal.code}", _FILTERS)


# -- how far ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """One request and what it cost of the budget."""

    answer: Answer
    cost: int


@dataclass(frozen=True, kw_only=True)
class Tier:
    """A budget per minute, as it is counted, and the model that it is tried with."""

    name: str
    budget: int
    measure: str
    shadow: bool
    target: Target

    @property
    def step(self) -> int:
        """Tokens that one request should take: a part of the budget, as far as the model's length allows."""
        room = (self.target.longest or 1024) // 2
        return max(min(math.ceil(self.budget / self.target.price / STEPS), room), 1)

    @property
    def requests(self) -> int:
        """Requests that spend the budget, about."""
        each = self.step * self.target.price if self.measure == "tokens" else 1
        return math.ceil(self.budget / max(each, 1)) + 1

    @property
    def tokens(self) -> int:
        """Tokens of the model that trying takes, about."""
        return self.requests * (self.step if self.measure == "tokens" else 2)

    def header(self, answer: Answer, name: str) -> int | None:
        """What a header of the limits says."""
        return answer.number(token_limits.header(self.measure, name))

    def cost(self, answer: Answer) -> int:
        """What an answer costs of the budget, by its own usage."""
        if self.measure == "requests":
            return 1
        return max(math.ceil(round(answer.tokens * self.target.price, 6)), 1)


def tiers(bench: Bench) -> list[Tier]:
    """Every tier, the smallest budget first, to be tried with the model whose tokens count most."""
    access, targets = bench.config.access, bench.targets()
    if access is None or not targets:
        return []
    dear = max(targets, key=lambda target: target.price)
    field = f"{access.limit_by}_per_minute"
    budgets = sorted((getattr(tier, field), name) for name, tier in access.tiers.items())
    shared = {"measure": access.limit_by, "shadow": access.shadow, "target": dear}
    return [Tier(name=name, budget=budget, **shared) for budget, name in budgets]


def within(found: Sequence[Tier], most: int) -> dict[str, bool]:
    """Which budgets can be spent with `most` tokens in all, the smallest first."""
    left, chosen = most, {}
    for tier in found:
        chosen[tier.name] = tier.tokens <= left and tier.requests <= MOST_REQUESTS
        left -= tier.tokens if chosen[tier.name] else 0
    return chosen


def limits(bench: Bench) -> Iterator[Result]:
    """The headers and the boundary of every tier, each asked as a tenant that nobody else is."""
    found = tiers(bench)
    affordable = within(found, bench.wishes.max_tokens)
    for tier in found:
        subject = f"tier {tier.name}"
        bench.say(f"  {subject}: {tier.budget} {tier.measure} per minute")
        try:
            yield from _tier(bench, tier, subject, affordable[tier.name])
        except Unchecked as lacking:
            yield Result(subject, "budget", lacking.verdict)
    if not found:
        yield Result("tiers", "budget", inapplicable("no tier, or no model that is awake"))


def _tier(bench: Bench, tier: Tier, subject: str, spend: bool) -> Iterator[Result]:
    key = bench.passes.of(verification.of_tier(tier.name))
    first = _fresh(bench, tier, key)
    yield Result(subject, "headers", judge_headers(tier, first))
    if not spend and tier.budget:
        reason = f"about {tier.tokens} tokens in {tier.requests} requests would be needed (--max-tokens)"
        yield Result(subject, "boundary", inapplicable(reason))
        return
    yield Result(subject, "boundary", judge_boundary(tier, _spend(bench, tier, key, first)))


def _ask(bench: Bench, tier: Tier, key: str, tokens: int) -> Attempt:
    prompt = _WORD * max((tokens - 1) // _WORD_TOKENS, 1)
    body = {"model": tier.target.name, "prompt": prompt, "max_tokens": 1}
    answer = bench.gateway.ask("POST", COMPLETIONS, key, body)
    return Attempt(answer, tier.cost(answer) if answer.status == 200 else 0)


def _fresh(bench: Bench, tier: Tier, key: str) -> Attempt:
    """A first request in a minute with enough of it left, in which nobody else has asked as this tenant."""
    attempt = _ask(bench, tier, key, 1)
    for _ in range(2):
        left = tier.header(attempt.answer, "reset")
        used = tier.header(attempt.answer, "used")
        alone = attempt.answer.status == 200 and used == attempt.cost
        if left is None or not tier.budget or (alone and left >= LEAST_LEFT):
            break
        bench.say(f"    waiting {left} s for the next minute")
        time.sleep(left + 1)
        attempt = _ask(bench, tier, key, 1)
    return attempt


def _spend(bench: Bench, tier: Tier, key: str, first: Attempt) -> list[Attempt]:
    """Ask until the budget is spent, and then until that is counted."""
    attempts = [first]
    while attempts[-1].answer.status == 200 and len(attempts) <= 2 * MOST_REQUESTS:
        spent = sum(attempt.cost for attempt in attempts)
        if spent >= tier.budget:
            break
        rest = math.ceil((tier.budget - spent) / tier.target.price)
        attempts.append(_ask(bench, tier, key, min(tier.step, rest)))
    deadline = time.monotonic() + SETTLING
    while attempts[-1].answer.status == 200 and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        attempts.append(_ask(bench, tier, key, 1))
        if tier.shadow:
            break
    return attempts


def judge_headers(tier: Tier, attempt: Attempt) -> Verdict:
    """Whether the headers tell a client its budget, and what its answer took of it."""
    answer = attempt.answer
    if answer.code == "unknown_tenant":
        return failed(
            str(answer), "the gateway does not have the tenants of the configuration: run `pulumi up`"
        )
    if answer.status != (200 if tier.budget or tier.shadow else 429):
        return failed(str(answer), "the gateway's log says why")
    said = {name: tier.header(answer, name) for name in ("limit", "used", "remaining")}
    text = ", ".join(f"{token_limits.header(tier.measure, name)} {value}" for name, value in said.items())
    used = min(attempt.cost, tier.budget)
    if said == {"limit": tier.budget, "used": used, "remaining": tier.budget - used}:
        return passed(f"{text} after an answer that cost {attempt.cost}")
    if None in said.values():
        return failed(f"headers are missing: {text}", "is the limit service reached? look at its log")
    wanted = f"a budget of {tier.budget} and a cost of {attempt.cost}"
    return failed(f"{text} do not fit {wanted}", "is the configuration deployed? `pulumi preview` shows it")


def judge_boundary(tier: Tier, attempts: Sequence[Attempt]) -> Verdict:
    """Whether everything below the budget passed, and nothing above."""
    spent = sum(attempt.cost for attempt in attempts)
    last = attempts[-1].answer
    done = (
        f"{spent} of {tier.budget} {tier.measure} in {sum(a.answer.status == 200 for a in attempts)} answers"
    )
    if last.status not in (200, 429):
        return failed(f"{last} after {done}", "the gateway's log says why")
    if tier.shadow:
        if last.status == 429:
            return failed(
                f"HTTP 429 after {done}, in shadow mode", "nobody should be refused: run `pulumi up`"
            )
        return passed(f"{done}; shadow mode counts and refuses nobody")
    if last.status == 200:
        return failed(
            f"{done}, and still answered", "limits have no effect: look at the limit service and its store"
        )
    if spent < tier.budget:
        return failed(
            f"HTTP 429 after {done} already", "is the configuration deployed? does another run use the tier?"
        )
    wait = last.number("retry-after")
    if wait is None or not 0 <= wait <= MINUTE + LATE:
        return failed(f"HTTP 429 with retry-after {wait}", "clients would not know when to come back")
    return passed(f"HTTP 429 after {done}, retry-after {wait} s")
