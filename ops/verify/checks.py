"""The table of what is verified, in the order in which one thing rests on another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ops.errors import OpsError
from ops.kube import ApiError
from ops.verify import (
    access,
    address,
    backends,
    isolation,
    models,
    operators,
    references,
    routing,
    throughput,
)
from ops.verify.bench import Bench
from ops.verify.verdicts import Outcome, Result, Unchecked, Verdict, unchecked


@dataclass(frozen=True, kw_only=True)
class Group:
    """A part of the verification.

    `asks` says whether it needs a gateway that answers; `models` whether it needs more than operators.
    """

    name: str
    look: Callable[[Bench], Iterator[Result]]
    asks: bool = True
    models: bool = True


GROUPS = (
    Group(name="operators", look=operators.look, asks=False, models=False),
    Group(name="secrets", look=references.look, asks=False),
    Group(name="gateway", look=address.look, asks=False),
    Group(name="backends", look=backends.look, asks=False),
    Group(name="models", look=models.look),
    Group(name="cache routing", look=routing.look),
    Group(name="throughput", look=throughput.look),
    Group(name="keys", look=access.refusals),
    Group(name="tiers", look=access.limits),
    Group(name="isolation", look=isolation.look, asks=False),
)


def results(bench: Bench, operators_only: bool = False) -> Iterator[Result]:
    """Every result, as it comes. What is missing for one group does not keep the others from being looked at."""
    door: list[Result] = []
    for group in GROUPS:
        if operators_only and group.models:
            continue
        bench.say(f"verify: {group.name}")
        reason = _closed(door) if group.asks else None
        if reason is not None:
            yield Result(group.name, "all", reason)
            continue
        for result in _looked(group, bench):
            door += [result] if group.name == "gateway" else []
            yield result


def _looked(group: Group, bench: Bench) -> Iterator[Result]:
    try:
        yield from group.look(bench)
    except Unchecked as lacking:
        yield Result(group.name, "the rest", lacking.verdict)
    except ApiError as error:
        yield Result(group.name, "the rest", _refused(error))
    except OpsError as error:
        yield Result(group.name, "the rest", unchecked(str(error), "put that right and run it again"))


def _refused(error: ApiError) -> Verdict:
    return unchecked(f"the API server refuses: {error.message}", "ask with an account that may look at this")


def _closed(door: list[Result]) -> Verdict | None:
    """Why nothing can be asked, from what was found about the gateway; None where it answers."""
    vital = [r for r in door if r.check in address.VITAL]
    open_ = any(r.check == "answers" and r.verdict.outcome is Outcome.PASSED for r in vital)
    if open_ and all(r.verdict.outcome in (Outcome.PASSED, Outcome.INAPPLICABLE) for r in vital):
        return None
    return unchecked("the gateway does not answer as it should", "put that right first: see `gateway` above")
