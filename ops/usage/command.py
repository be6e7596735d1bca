"""`python -m ops usage`: requests and tokens per tenant and model, from the gateway's access log."""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from ops import cli, cluster, pulumi
from ops.keys import settings
from ops.pulumi import Pulumi
from ops.report import table
from ops.state import State
from ops.usage import logs
from ops.usage.records import COUNTED, KEYS, REFUSED, Sum, Usage, summed

EXPLANATION = """
Without --file it reads what the nodes still keep of the logs of the gateway's pods: a quick look, not a bill. For
bills, keep the gateway's log (one JSON object per request) in a log store, and pass its lines with --file.
"""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_LONGEST = timedelta(days=3660)


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (parser.description or "") + EXPLANATION
    pulumi.add_arguments(parser)
    cluster.add_arguments(parser)
    parser.add_argument(
        "--since", type=_duration, metavar="1h", help="only requests begun since then: 90s, 15m, 1h, 7d"
    )
    parser.add_argument("--tenant", metavar="NAME", help="only this tenant")
    parser.add_argument(
        "--all",
        action="store_true",
        help="what `python -m ops verify` asked for as well, which is no tenant's use",
    )
    parser.add_argument(
        "--by",
        type=_groups,
        default=("tenant", "model"),
        metavar="FIELDS",
        help="tenant,model (default), tier, key",
    )
    parser.add_argument(
        "--file",
        action="append",
        metavar="FILE",
        help="read lines from a file, - for standard input (repeatable)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for programs instead of a table")
    parser.set_defaults(run=run)


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    span = timedelta(seconds=int(found[1]) * _UNITS[found[2]]) if found else None
    if span is None or span > _LONGEST:
        raise ArgumentTypeError(f"{text!r} is not a duration such as 90s, 15m, 1h or 7d")
    return span


def _groups(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(KEYS) or len(set(names)) < len(names):
        raise ArgumentTypeError(f"{text!r} is not a list of {', '.join(KEYS)}, each at most once")
    return names


def run(arguments: Namespace) -> int:
    """Sum the lines, print the sums, and say what could not be counted."""
    since = datetime.now(UTC) - arguments.since if arguments.since else None
    lines = logs.of_files(arguments.file) if arguments.file else _pod_lines(arguments)
    usage = summed(lines, arguments.by, arguments.tenant, since, arguments.all)
    if arguments.json:
        print(json.dumps(_as_json(usage, arguments.by)))
    else:
        print(_as_table(usage, arguments.by))
    _notes(usage)
    return cli.DONE


def _pod_lines(arguments: Namespace) -> Iterable[str]:
    stack = Pulumi(arguments.stack, arguments.project)
    gateway = settings.read(stack).gateway
    kube = cluster.connect(State.parse(stack.deployed()), arguments)
    seconds = round(arguments.since.total_seconds()) if arguments.since else None
    return logs.of_pods(kube, gateway.namespace, gateway.name, seconds)


def _sorted(usage: Usage) -> list[tuple[tuple[str, ...], Sum]]:
    """Who used most comes first."""
    return sorted(usage.groups.items(), key=lambda item: (-item[1].cost, -item[1].total, item[0]))


def _as_table(usage: Usage, by: Sequence[str]) -> str:
    headers = [*by, "requests", *COUNTED, "estimated", *REFUSED]
    rows = [(*names, *_cells(one)) for names, one in _sorted(usage)]
    if len(rows) != 1:
        rows.append(("all", *[""] * (len(by) - 1), *_cells(usage.total)))
    return table([header.upper() for header in headers], rows)


def _cells(one: Sum) -> list[str]:
    counts = [str(getattr(one, name)) for name in ("requests", *COUNTED)]
    return [*counts, f"{one.estimated_share:.1%}", *(str(one.refused[name]) for name in REFUSED)]


def _as_json(usage: Usage, by: Sequence[str]) -> dict[str, Any]:
    rows = [{**dict(zip(by, names, strict=True)), **asdict(one)} for names, one in _sorted(usage)]
    return {"rows": rows, "total": asdict(usage.total), "skipped": usage.skipped, "damaged": usage.damaged}


def _notes(usage: Usage) -> None:
    if usage.skipped:
        print(
            f"note: {usage.skipped} lines are no entries of the access log and were skipped", file=sys.stderr
        )
    if usage.damaged:
        print(
            f"warning: {usage.damaged} entries carry a number or time that cannot be read, which counts as nothing",
            file=sys.stderr,
        )
