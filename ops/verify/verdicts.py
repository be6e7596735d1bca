"""What a check says, and what all of them mean for the exit code. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ops import cli
from ops.errors import OpsError


class Outcome(StrEnum):
    """How a check ended, as the table has it."""

    PASSED = "passed"
    FAILED = "FAILED"
    UNCHECKED = "NOT CHECKED"
    INAPPLICABLE = "not applicable"


@dataclass(frozen=True)
class Verdict:
    """One outcome: what was seen, or why nothing was, and what to do about it."""

    outcome: Outcome
    evidence: str
    fix: str = ""


@dataclass(frozen=True)
class Result:
    """A verdict on one subject: `model qwen`, `tier free`, `gateway`."""

    subject: str
    check: str
    verdict: Verdict


class Unchecked(OpsError):
    """Something that a check needs is not there: why, and how to supply it."""

    def __init__(self, reason: str, fix: str):
        super().__init__(f"{reason}: {fix}")
        self.verdict = unchecked(reason, fix)


def passed(evidence: str) -> Verdict:
    """All is as it should be."""
    return Verdict(Outcome.PASSED, evidence)


def failed(evidence: str, fix: str) -> Verdict:
    """Something is wrong; `fix` says what to do or where to look."""
    return Verdict(Outcome.FAILED, evidence, fix)


def unchecked(reason: str, fix: str) -> Verdict:
    """Nobody can tell yet; `fix` says what makes it possible."""
    return Verdict(Outcome.UNCHECKED, reason, fix)


def inapplicable(reason: str) -> Verdict:
    """There is nothing to check, and nothing missing."""
    return Verdict(Outcome.INAPPLICABLE, reason)


def exit_code(results: Iterable[Result]) -> int:
    """Failed when anything has, undecided when something could not be checked, else done."""
    outcomes = {result.verdict.outcome for result in results}
    if Outcome.FAILED in outcomes:
        return cli.FAILED
    return cli.UNDECIDED if Outcome.UNCHECKED in outcomes else cli.DONE
