"""`python -m ops verify`: asks a deployed stack whether it does what its configuration promises."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ops import cluster, pulumi
from ops.errors import OpsError
from ops.keys import settings
from ops.kube import Kube
from ops.pulumi import Pulumi
from ops.report import coloured, table
from ops.state import State
from ops.usage import logs
from ops.verify import checks, cost, doors
from ops.verify.bench import Bench, Wishes
from ops.verify.passes import passes
from ops.verify.verdicts import Outcome, Result, exit_code
from stacks.config import ConfigError, Gateway, StackConfig, load_config

EXPLANATION = """
It asks models, so it uses their tokens: how many, is said first. Keys are signed for tenants that every stack
keeps for this, and end after five minutes. docs/verify.md says what each check means and what it cannot see.
"""
_RECENT = 900
"""Seconds of the gateway's log that are read."""
_COLOURS = {Outcome.PASSED: "green", Outcome.FAILED: "red", Outcome.UNCHECKED: "yellow"}


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (parser.description or "") + EXPLANATION
    pulumi.add_arguments(parser)
    cluster.add_arguments(parser)
    _what(parser)
    _who(parser)
    doors.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object for programs instead of a table")
    parser.set_defaults(run=run)


def _what(parser: ArgumentParser) -> None:
    default = Wishes()
    add = parser.add_argument
    add(
        "--operators-only",
        action="store_true",
        help="only what models rest on; works before there is any model",
    )
    add("--model", action="append", default=[], metavar="NAME", help="only this model (repeatable)")
    add(
        "--requests",
        type=_number(1, 10_000),
        default=default.requests,
        metavar="N",
        help="requests of a measurement (20)",
    )
    add(
        "--concurrent",
        type=_number(1, 256),
        default=default.concurrent,
        metavar="N",
        help="of them at a time (10)",
    )
    add(
        "--min-rps",
        type=_measure,
        metavar="X",
        help="fail below so many answers per second, asked in parallel",
    )
    add(
        "--max-p50",
        type=_measure,
        metavar="MS",
        help="fail above this median of milliseconds, asked in parallel",
    )
    text = "tokens that trying the tiers' budgets may take (20000); larger budgets are not spent"
    add("--max-tokens", type=_number(0, 10**9), default=default.max_tokens, metavar="N", help=text)


def _who(parser: ArgumentParser) -> None:
    text = "ask with the key in this file, - for standard input; without the signing key"
    parser.add_argument("--key-file", metavar="FILE", help=text)
    text = "what signs keys, as for `ops keys issue` (default: the newest that the ledger knows)"
    parser.add_argument("--signer", metavar="SIGNER", help=text)


def _number(least: int, most: int) -> Any:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= most:
            raise ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return number


def _measure(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise ArgumentTypeError(f"{text!r} is not a number above zero")
    return value


def run(arguments: Namespace) -> int:
    """Look at everything, print what was found, and return the exit code."""
    bench = _bench(arguments)
    if not arguments.operators_only:
        bench.say(f"verify: this uses about {cost.tokens(bench):,} tokens of the models")
    found = list(checks.results(bench, arguments.operators_only))
    if arguments.json:
        print(json.dumps(as_json(arguments.stack, found)))
    else:
        print(as_table(found))
        print(f"\nstack {arguments.stack}: {_summary(found)}")
    return exit_code(found)


def _bench(arguments: Namespace) -> Bench:
    stack = Pulumi(arguments.stack, arguments.project)
    config = _config(stack)
    unknown = sorted(set(arguments.model) - set(config.models))
    if unknown:
        raise OpsError(f"there is no model {unknown[0]!r}; models are {', '.join(sorted(config.models))}")
    state = State.parse(stack.deployed())
    kube, lacking = _cluster(state, arguments)
    found = doors.find(config.gateway, kube, state, _named(arguments), arguments.concurrent)
    gateway = config.gateway
    given = _given(arguments.key_file)
    return Bench(
        config=config,
        passes=passes(settings.read(stack), arguments, given),
        wishes=Wishes(**{name: getattr(arguments, name) for name in Wishes.__dataclass_fields__}),
        state=state,
        kube=kube,
        lacking=lacking,
        log=_log(kube, gateway),
        only=tuple(arguments.model),
        **found,
    )


def _log(kube: Kube | None, gateway: Gateway) -> Callable[[], Iterable[str]] | None:
    """A reader of the access log; Google's gateway has no pods that write one."""
    if kube is None or gateway.kind != "istio":
        return None
    return lambda: logs.of_pods(kube, gateway.namespace, gateway.name, _RECENT)


def _config(stack: Pulumi) -> StackConfig:
    try:
        return load_config(settings.values(stack))
    except ConfigError as error:
        raise OpsError(f"the configuration of {stack.stack} cannot be used:\n{error}") from None


def _cluster(state: State, arguments: Namespace) -> tuple[Kube | None, str]:
    try:
        return cluster.connect(state, arguments), ""
    except OpsError as error:
        return None, str(error)


def _named(arguments: Namespace) -> Namespace:
    """The arguments, with what the environment says of the gateway's doors where the user says nothing."""
    own = os.environ.get(doors.OPTIONS)
    if own is None or arguments.resolve or arguments.connect_to:
        return arguments
    parser = ArgumentParser()
    doors.add_arguments(parser)
    return parser.parse_args(json.loads(own))


def _given(file: str | None) -> str | None:
    """A key from a file, so that it is on no command line."""
    if file is None:
        return None
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise OpsError(f"the key cannot be read from {file}: {error.strerror}") from None
    if not text.strip().isascii() or len(text.split()) != 1:
        raise OpsError(f"{file} holds no key: it must be one word, as `ops keys issue` prints it")
    return text.strip()


def as_table(found: Sequence[Result]) -> str:
    """What was found, for people; what is wrong says how to put it right."""
    rows = [(r.verdict.outcome.value, r.subject, r.check, _text(r)) for r in found]
    return table(("", "WHAT", "CHECK", "EVIDENCE"), rows)


def _text(result: Result) -> str:
    verdict = result.verdict
    return f"{verdict.evidence} -> {verdict.fix}" if verdict.fix else verdict.evidence


def as_json(stack: str, found: Sequence[Result]) -> dict[str, Any]:
    """What was found, for programs."""
    rows = [
        {
            "subject": r.subject,
            "check": r.check,
            "outcome": r.verdict.outcome.name.lower(),
            "evidence": r.verdict.evidence,
            "fix": r.verdict.fix,
        }
        for r in found
    ]
    return {"stack": stack, "exit": exit_code(found), "checks": rows}


def _summary(found: Sequence[Result]) -> str:
    counts = {o: sum(r.verdict.outcome is o for r in found) for o in Outcome}
    worst = next((o for o in (Outcome.FAILED, Outcome.UNCHECKED) if counts[o]), Outcome.PASSED)
    said = ", ".join(f"{number} {outcome.value}" for outcome, number in counts.items() if number)
    return coloured(said, _COLOURS[worst])
