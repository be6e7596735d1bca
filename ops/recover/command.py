"""`python -m ops recover`: look, judge, put right, and say what was done."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable

from ops import cli, cluster, pulumi
from ops.errors import OpsError
from ops.kube import Kube
from ops.pulumi import Pulumi
from ops.recover import facts, locks, processes
from ops.recover.actions import Doer
from ops.recover.facts import Facts
from ops.recover.findings import Finding, find, find_locks, find_orphans, plan
from ops.recover.rules import ReleaseLock
from ops.report import coloured, table
from ops.state import State

EXPLANATION = """
It looks at the locks on the stack, the operations that its state records as begun and not ended, and the Helm
releases that are the stack's. Afterwards the next `pulumi up` (or `destroy`) needs no other step. It touches
nothing that is not provably this stack's, and does nothing at all while an update may be at work.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (parser.description or "") + EXPLANATION
    pulumi.add_arguments(parser)
    cluster.add_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--created",
        type=_created,
        action="append",
        default=[],
        metavar="URN=ID",
        help="a cloud resource whose creation was interrupted exists, under this ID (repeatable)",
    )
    parser.add_argument(
        "--not-created",
        action="append",
        default=[],
        metavar="URN",
        help="a cloud resource whose creation was interrupted does not exist (repeatable)",
    )
    parser.set_defaults(run=run)


def _created(text: str) -> tuple[str, str]:
    urn, separator, identity = text.partition("=")
    if not (urn.startswith("urn:") and separator and identity):
        raise ArgumentTypeError(f"{text!r} is not URN=ID")
    return urn, identity


def run(arguments: Namespace) -> int:
    """Put the stack right; returns the exit code."""
    stack = Pulumi(arguments.stack, arguments.project)
    if stack.export() is None:
        print(f"stack {stack.stack} does not exist in {stack.backend}: nothing to put right")
        return cli.DONE
    found = find_locks(locks.read(stack), stack.stack)
    _carry_out(found, Doer(stack), arguments.dry_run)
    if not _blocked(found):
        found += find_orphans(processes.orphans(stack.project, facts.PATIENCE))
    if not _blocked(found):
        found += _recover(stack, arguments)
    return _report(found, stack.stack, arguments.dry_run)


def _blocked(found: Iterable[Finding]) -> bool:
    return any(finding.blocks for finding in found)


def _recover(stack: Pulumi, arguments: Namespace) -> list[Finding]:
    """Judge and put right everything but locks, now that nobody else is at work."""
    exported = stack.export()
    state = State.parse(exported)
    kube, known = _look(state, arguments)
    if known.unseen:
        print(f"note: the Helm releases were not looked at: {known.unseen}", file=sys.stderr)
    decisions = dict(arguments.created) | dict.fromkeys(arguments.not_created)
    found = find(state, known, decisions)
    _carry_out(found, Doer(stack, kube, exported), arguments.dry_run)
    return found


def _look(state: State, arguments: Namespace) -> tuple[Kube | None, Facts]:
    """Look into the cluster if there is anything to look for; fails only if nothing can be judged without."""
    if not state.releases and not facts.needs_cluster(state):
        return None, Facts()
    patience = 0 if arguments.dry_run else facts.PATIENCE
    try:
        kube = cluster.connect(state, arguments)
    except OpsError as error:
        if not facts.needs_cluster(state):
            return None, Facts(unseen=str(error))
        raise OpsError(
            f"{error}\nNothing was changed: the interrupted operations can only be judged there."
        ) from None
    return kube, facts.gather(state, kube, lambda text: print(text, file=sys.stderr), patience)


def _carry_out(found: Iterable[Finding], doer: Doer, dry_run: bool) -> None:
    for action in plan(found) if not dry_run else ():
        doer.do(action)


def _report(found: list[Finding], stack: str, dry_run: bool) -> int:
    """Print every finding with what was done or must be decided; returns the exit code."""
    if not found:
        print(f"stack {stack}: nothing was left behind")
        return cli.DONE
    blocked = _blocked(found)
    rows = [(finding.subject, finding.found, _outcome(finding, blocked)) for finding in found]
    print(table(("WHAT", "FOUND", "WOULD BE DONE" if dry_run else "DONE"), rows))
    undecided = [finding for finding in found if finding.decide]
    for finding in undecided:
        print(f"\n{coloured('to decide', 'yellow')}: {finding.subject}\n  {finding.decide}")
    if undecided:
        return cli.UNDECIDED
    print(f"\n`pulumi up --stack {stack}` needs no other step" + (" after that" if dry_run else ""))
    return cli.DONE


def _outcome(finding: Finding, blocked: bool) -> str:
    if finding.decide:
        return "nothing: see below"
    waits = blocked and finding.actions and not any(isinstance(a, ReleaseLock) for a in finding.actions)
    return "nothing until what is named below is decided" if waits else finding.done
