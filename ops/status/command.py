"""`python -m ops status`: exits with 0 exactly when everything of the stack is Ready."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from components.core.phases import NOTE
from ops import cli, cluster, pulumi
from ops.pulumi import Pulumi
from ops.recover import locks
from ops.report import coloured, table
from ops.state import State
from ops.status import history, judge
from ops.status.look import Check, checks

_LISTED = {"Helm", "last", *judge.KINDS} - {"Namespace", "CustomResourceDefinition"}
"""First words of the subjects that are always in the table; others only when something is wrong with them."""


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    pulumi.add_arguments(parser)
    cluster.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object for programs instead of a table")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Look at everything, say what is found, and return the exit code."""
    stack = Pulumi(arguments.stack, arguments.project)
    exported = stack.deployed()
    state = State.parse(exported)
    found = [_update(stack, state, exported)]
    if state.releases or state.objects:
        found += checks(state, cluster.connect(state, arguments))
    else:
        found.append(Check(f"stack {stack.stack}", ("nothing is deployed: run `up`",)))
    if arguments.json:
        print(json.dumps(_as_json(stack.stack, found)))
    else:
        _print(stack.stack, found)
    return cli.DONE if all(check.ready for check in found) else cli.FAILED


def _update(stack: Pulumi, state: State, exported: dict) -> Check:
    """Whether the last update came to its end, without which being Ready says little."""
    past = json.loads(stack.call("stack", "history", "--stack", stack.stack, "--json", "--page-size", "1"))
    written = exported.get("deployment", {}).get("manifest", {}).get("time", "")
    at_work = [str(lock) for lock in locks.read(stack) if not lock.stale] if state.pending else []
    return Check("last update", tuple(history.problems(state, past, written, at_work)))


def _as_json(stack: str, found: list[Check]) -> dict:
    ready = all(check.ready for check in found)
    return {"stack": stack, "ready": ready, "checks": [check.as_json() for check in found]}


def _print(stack: str, found: list[Check]) -> None:
    shown = [c for c in found if not c.ready or c.note or c.subject.split()[0] in _LISTED]
    shown.sort(key=lambda check: not check.ready)  # What is wrong stands last, beside the verdict.
    rows = [("ready" if c.ready else "NOT READY", c.subject, _details(c)) for c in shown]
    print(table(("", "WHAT", "DETAILS"), rows))
    missing = [check for check in found if not check.ready]
    others = f", {len(found) - len(shown)} of them not listed" if len(found) > len(shown) else ""
    verdict = (
        f"{len(missing)} of {len(found)} are not ready" if missing else f"all {len(found)} are ready{others}"
    )
    if any(check.stage for check in shown):
        print(f"\n{NOTE[0].upper()}{NOTE[1:]}.")
    print(f"\nstack {stack}: " + coloured(verdict, "red" if missing else "green"))


def _details(check: Check) -> str:
    return "; ".join(part for part in (check.stage, *check.problems, check.note) if part)
