"""`python -m ops doctor`: one line per link of the chain, and for the broken ones evidence, fix and runbook."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from ops import cli, cluster, pulumi
from ops.doctor.chain import MODEL_LINKS, STACK_LINKS, Finding, Judged, Verdict, judge
from ops.doctor.collect import Collector
from ops.doctor.facts import Scene
from ops.doctor.rules import MODEL_RULES, STACK_RULES
from ops.doctor.summary import SUMMARIES
from ops.errors import OpsError
from ops.pulumi import Pulumi
from ops.report import coloured, table
from ops.state import State

EXPLANATION = """
It reads objects, events, last lines of logs and metrics, and changes nothing. What rests on a broken link is not
judged, since what would be seen there are echoes; faults that have nothing to do with each other are all
shown. What is told as "wait" ends by itself; "decide" is what only you can decide or supply.
"""
RUNBOOKS = "docs/runbooks"
STACK = "stack"
_SAYS: dict[Verdict, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "note": ("ok", "green"),
    "wait": ("wait", "yellow"),
    "decide": ("DECIDE", "red"),
    "broken": ("BROKEN", "red"),
    "skipped": ("-", "yellow"),
}


@dataclass(frozen=True, kw_only=True)
class Examined:
    """The verdicts on the links of one model, or of what all models share (`stack`).

    `summaries` say of each link that holds what was looked at.
    """

    name: str
    links: tuple[Judged, ...]
    summaries: Mapping[str, str]


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (parser.description or "") + EXPLANATION
    parser.add_argument("model", nargs="?", metavar="MODEL", help="one model (default: all of the stack)")
    pulumi.add_arguments(parser)
    cluster.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object for programs instead of a table")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Examine the stack, say what is found, and return the exit code."""
    stack = Pulumi(arguments.stack, arguments.project)
    state = State.parse(stack.deployed())
    if not state.objects:
        raise OpsError(f"nothing of stack {stack.stack} is in a cluster: run `up`")
    examined = list(examine(Collector(cluster.connect(state, arguments), state), arguments.model))
    if arguments.json:
        print(json.dumps({"stack": stack.stack, "examined": [asdict(one) for one in examined]}))
    else:
        _print(stack.stack, examined)
    return outcome(finding for one in examined for link in one.links for finding in link.findings)


def examine(collector: Collector, model: str | None) -> Iterator[Examined]:
    """Judge the models, or the one that is named, and what they share. OpsError where there is no such model."""
    models = collector.models
    if model is not None and model not in models:
        known = ", ".join(models) or "none"
        raise OpsError(f"the stack has no model {model}: its models are {known}")
    stack = collector.stack()
    shared = judge(Scene(stack=stack), STACK_LINKS, STACK_RULES)
    for name, ref in models.items():
        if model in (None, name):
            scene = Scene(stack=stack, model=collector.model(ref, stack))
            yield _examined(name, scene, judge(scene, MODEL_LINKS, MODEL_RULES, shared))
    yield _examined(STACK, Scene(stack=stack), shared)


def _examined(name: str, scene: Scene, links: list[Judged]) -> Examined:
    summaries = {link.link: SUMMARIES[link.link](scene) for link in links if link.verdict == "ok"}
    return Examined(name=name, links=tuple(links), summaries=summaries)


def outcome(findings: Iterable[Finding]) -> int:
    """0 for none but notes; 3 where only decisions of a person are left; else 1."""
    severities = {finding.severity for finding in findings} - {"note"}
    if not severities:
        return cli.DONE
    return cli.UNDECIDED if severities == {"decide"} else cli.FAILED


def _print(stack: str, examined: list[Examined]) -> None:
    rows = [
        (one.name, link.link, _SAYS[link.verdict][0], _details(one, link))
        for one in examined
        for link in one.links
    ]
    print(table(("OF", "LINK", "", "DETAILS"), rows))
    findings = [
        (one.name, link.link, finding)
        for one in examined
        for link in one.links
        for finding in link.findings
        if finding.severity != "note"
    ]
    for owner, link, finding in findings:
        print(f"\n{_explained(owner, link, finding)}")
    verdict = f"{len(findings)} found" if findings else "every link holds"
    print(f"\nstack {stack}: " + coloured(verdict, "red" if findings else "green"))


def _details(one: Examined, link: Judged) -> str:
    if link.link in one.summaries:
        return one.summaries[link.link]
    if link.because:
        return f"not judged: it rests on {' and '.join(link.because)}"
    return "; ".join(_short(finding) for finding in link.findings)


def _short(finding: Finding) -> str:
    return f"{finding.found} ({finding.fix})" if finding.severity == "note" else finding.found


def _explained(owner: str, link: str, finding: Finding) -> str:
    word, colour = _SAYS[finding.severity]
    lines = [
        f"{coloured(word, colour)}: {owner}, {link}: {finding.found}",
        f"  on        {', '.join(finding.subjects)}",
        *(f"  evidence  {text}" for text in finding.evidence),
        f"  fix       {finding.fix}",
        f"  more      {RUNBOOKS}/{finding.page}.md",
    ]
    return "\n".join(lines)
