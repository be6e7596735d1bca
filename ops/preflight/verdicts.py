"""Checks, the facts they read, and their outcomes. Pure but for the collectors, which are called at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ops import cli
from ops.errors import OpsError


class State(StrEnum):
    """What became of a check. Advice does not fail a preflight; what could not be looked at is for people."""

    PASSED = "passed"
    ADVICE = "advice"
    OPEN = "NOT CHECKED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Finding:
    """One sentence of a check: the evidence, and how to put it right unless it passed; `what` it is about."""

    state: State
    evidence: str
    fix: str = ""
    what: str = ""


@dataclass(frozen=True)
class Verdict:
    """A finding with the name of its check."""

    check: str
    finding: Finding

    @property
    def subject(self) -> str:
        """How people call it."""
        return f"{self.check}: {self.finding.what}" if self.finding.what else self.check

    def as_json(self) -> dict[str, str]:
        """For programs."""
        found = self.finding
        return {
            "check": self.check, "what": found.what, "state": found.state.name.lower(),
            "evidence": found.evidence, "fix": found.fix,
        }  # fmt: skip


def passed(evidence: str, what: str = "") -> Finding:
    """All is well."""
    return Finding(State.PASSED, evidence, "", what)


def advice(evidence: str, fix: str, what: str = "") -> Finding:
    """It works, and could be better, or will be needed later."""
    return Finding(State.ADVICE, evidence, fix, what)


def failed(evidence: str, fix: str, what: str = "") -> Finding:
    """`up` would fail, or its result would not work."""
    return Finding(State.FAILED, evidence, fix, what)


def unseen(evidence: str, fix: str, what: str = "") -> Finding:
    """It could not be looked at, or only a person can decide it."""
    return Finding(State.OPEN, evidence, fix, what)


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be had: why, and what would let it be had."""

    reason: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """`judge` gets the facts named in `reads`, in that order; one that is Unknown leaves the check open."""

    name: str
    reads: tuple[str, ...]
    judge: Callable[..., Iterable[Finding]]


Facts = Mapping[str, Any]
Collector = Callable[[Any], Any]
"""From where facts come from to one fact. OpsError makes it Unknown."""
Explain = Callable[[OpsError], Unknown]


def collect(
    collectors: Mapping[str, Collector], site: Any, explain: Explain, threads: int = 8
) -> dict[str, Any]:
    """Every fact by name; what cannot be had is Unknown."""

    def one(collector: Collector) -> Any:
        try:
            return collector(site)
        except OpsError as error:
            return explain(error)

    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(collectors, pool.map(one, collectors.values()), strict=True))


def judge(checks: Iterable[Check], facts: Facts) -> list[Verdict]:
    """The outcome of every check."""
    return [Verdict(check.name, finding) for check in checks for finding in _findings(check, facts)]


def _findings(check: Check, facts: Facts) -> Iterable[Finding]:
    read = [facts[name] for name in check.reads]
    missing = next((fact for fact in read if isinstance(fact, Unknown)), None)
    if missing is not None:
        return [unseen(missing.reason, missing.fix)]
    return check.judge(*read)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """Of the whole command, as ops/cli.py has them."""
    states = {verdict.finding.state for verdict in verdicts}
    if State.FAILED in states:
        return cli.FAILED
    return cli.UNDECIDED if State.OPEN in states else cli.DONE
