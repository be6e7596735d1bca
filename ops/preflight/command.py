"""`python -m ops preflight`: exits with 0 exactly when nothing that it knows of stands in the way of an `up`."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter

from ops import cli, pulumi
from ops.preflight import plans, verdicts
from ops.preflight.site import Site
from ops.preflight.verdicts import State, Verdict
from ops.report import coloured, table

EXPLANATION = """
Asked before the first `up`: the login and its permissions, APIs, quotas and offers of the cloud or what an existing
cluster allows, the secrets and what they open, the backend and this machine. Nothing is changed, and no secret is
printed. Advice does not fail the command; what could not be looked at ends it with 3.
"""
_COLOURS = {State.PASSED: "green", State.ADVICE: "yellow", State.OPEN: "yellow", State.FAILED: "red"}
# What is wrong stands last, beside the verdict.
_ORDER = (State.PASSED, State.ADVICE, State.OPEN, State.FAILED)


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (parser.description or "") + EXPLANATION
    pulumi.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object for programs instead of a table")
    parser.add_argument(
        "--print-role",
        choices=("deploy", "preview"),
        help="print a custom role of Google's, or a policy of AWS's, with just the permissions that this stack uses, "
        "and check nothing",
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Ask and judge, say what is found, and return the exit code."""
    site = Site(arguments.stack, arguments.project)
    if arguments.print_role:
        sys.stdout.write(plans.role(site, arguments.print_role))
        return cli.DONE
    found = plans.verdicts(site)
    code = verdicts.exit_code(found)
    if arguments.json:
        checks = [verdict.as_json() for verdict in found]
        print(json.dumps({"stack": site.stack, "ready": code == cli.DONE, "checks": checks}))
    else:
        _print(site.stack, found)
    return code


def _print(stack: str, found: list[Verdict]) -> None:
    ordered = sorted(found, key=lambda verdict: _ORDER.index(verdict.finding.state))
    rows = [(v.finding.state, v.subject, v.finding.evidence) for v in ordered]
    print(table(("", "WHAT", "EVIDENCE"), rows))
    for verdict in ordered:
        if verdict.finding.fix:
            # In one line, however long: it holds commands that people copy.
            print(f"\n{verdict.subject}:\n  {verdict.finding.fix}")
    counts = Counter(verdict.finding.state for verdict in found)
    words = [f"{counts[state]} {state}" for state in _ORDER if counts[state]]
    worst = next(state for state in reversed(_ORDER) if counts[state] or state is State.PASSED)
    print(f"\nstack {stack}: " + coloured(", ".join(words), _COLOURS[worst]))
