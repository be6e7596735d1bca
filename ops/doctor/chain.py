"""The links between a request and its answer, the order in which they are judged, and where guessing stops. Pure.

A link that rests on a broken one is not judged: what would be seen there are echoes. Links that rest on nothing
are always judged, so that faults which have nothing to do with each other are all seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ops.doctor.facts import Scene

Verdict = Literal["ok", "note", "wait", "decide", "broken", "skipped"]
_SHOWN = 4
SEVERITIES: tuple[Verdict, ...] = ("note", "wait", "decide", "broken")


@dataclass(frozen=True)
class Link:
    """One link; `after` are those of the same table that it rests on."""

    name: str
    after: tuple[str, ...] = ()


STACK_LINKS = (
    Link("operators"),
    Link("gateway"),
    Link("certificate", ("gateway",)),
    Link("keys and limits"),
)
"""Judged once for all models."""
MODEL_LINKS = (
    Link("node"),
    Link("pod", ("node",)),
    Link("picker"),
    Link("pool", ("pod", "picker")),
    Link("route", ("gateway", "pool")),
    Link("policies"),
    Link("health checks", ("gateway", "pod")),
    Link(
        "answers", ("gateway", "certificate", "keys and limits", "pod", "picker", "pool", "route", "policies")
    ),
)
"""Judged for each model, in the order in which a model comes up."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One sign of a case: on what, the evidence, and the words that the rule's sentences leave open.

    With `blocks`, nothing that rests on the link can work.
    """

    subject: str
    evidence: tuple[str, ...] = ()
    words: Mapping[str, Any] = field(default_factory=dict)
    blocks: bool = True


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One case of trouble: `look` yields its signs, the rest is what they mean.

    `found` and `fix` are sentences without a full stop, with `{words}` of the sign. `page` is the runbook.
    `severity` is `note` for what is only worth knowing, `wait` for what time puts right, `decide` for
    what only a person can decide or supply, and `broken` for the rest.
    """

    link: str
    page: str
    look: Callable[[Scene], Iterable[Seen]]
    found: str
    fix: str
    severity: Verdict = "broken"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one rule found, on all subjects that show the same."""

    subjects: tuple[str, ...]
    found: str
    evidence: tuple[str, ...]
    fix: str
    page: str
    severity: Verdict
    blocks: bool


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The verdict on one link; `because` names the links for which it was not judged."""

    link: str
    findings: tuple[Finding, ...] = ()
    because: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of its findings."""
        if self.because:
            return "skipped"
        found = [finding.severity for finding in self.findings]
        return max(found, key=SEVERITIES.index, default="ok")

    @property
    def holds(self) -> bool:
        """Whether what rests on it can be judged."""
        return not self.because and not any(finding.blocks for finding in self.findings)


def judge(
    scene: Scene, links: Iterable[Link], rules: Iterable[Rule], before: Iterable[Judged] = ()
) -> list[Judged]:
    """Judge the links in their order; `before` are links judged elsewhere that these may rest on."""
    by_link: dict[str, list[Rule]] = {}
    for rule in rules:
        by_link.setdefault(rule.link, []).append(rule)
    broken = {done.link for done in before if not done.holds}
    judged = []
    for link in links:
        because = tuple(name for name in link.after if name in broken)
        findings = () if because else tuple(_findings(scene, by_link.get(link.name, ())))
        judged.append(Judged(link=link.name, findings=findings, because=because))
        if not judged[-1].holds:
            broken.add(link.name)
    return judged


def _findings(scene: Scene, rules: Iterable[Rule]) -> Iterator[Finding]:
    """The first rule that sees a subject explains it; those that show the same become one finding."""
    explained: set[str] = set()
    for rule in rules:
        signs: dict[tuple[str, str], list[Seen]] = {}
        for sign in rule.look(scene):
            if sign.subject not in explained:
                explained.add(sign.subject)
                said = rule.found.format_map(sign.words), rule.fix.format_map(sign.words)
                signs.setdefault(said, []).append(sign)
        for (found, fix), same in signs.items():
            yield Finding(
                subjects=tuple(sign.subject for sign in same),
                found=found,
                # Of many that show the same, a few are enough to see it.
                evidence=tuple(dict.fromkeys(text for sign in same for text in sign.evidence))[:_SHOWN],
                fix=fix,
                page=rule.page,
                severity=rule.severity,
                blocks=rule.severity != "note" and any(sign.blocks for sign in same),
            )
