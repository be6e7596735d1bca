"""`python -m ops rollout`: exits with 0 once every replica runs the latest configuration."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from ops import cli, cluster, pulumi
from ops.errors import OpsError
from ops.kube import Kube
from ops.pulumi import Pulumi
from ops.report import coloured
from ops.rollout.look import Model, look, models
from ops.rollout.progress import Progress
from ops.state import State

LOOK_SECONDS = 2.0


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    pulumi.add_arguments(parser)
    cluster.add_arguments(parser)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="default: every model of the stack")
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="per model, from now on (default: its load budget for each of its replicas)",
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Follow one model after the other, and return the exit code."""
    stack = Pulumi(arguments.stack, arguments.project)
    state = State.parse(stack.deployed())
    known = models(state)
    chosen = [arguments.model] if arguments.model else list(known)
    if not chosen or chosen[0] not in known:
        there = ", ".join(known) or "none"
        raise OpsError(f"stack {stack.stack} has no model {arguments.model or 'at all'}; its models: {there}")
    kube = cluster.connect(state, arguments)
    followed = [_follow(kube, known[name], arguments.timeout) for name in chosen]
    return cli.DONE if all(followed) else cli.FAILED


def _follow(kube: Kube, model: Model, timeout: float | None) -> bool:
    """Say what the model's rollout takes, and every step of it; whether it came to its end in time."""
    if model.plan:
        print(f"{model.name}: a change {model.plan}", flush=True)
    began, last = time.monotonic(), ""
    while True:
        found, took = look(kube, model), time.monotonic() - began
        budget = timeout or model.budget * max(1, found.wanted)
        if str(found) != last:
            last = str(found)
            print(f"{took:4.0f} of {budget:.0f} s  {last}", flush=True)
        if found.done:
            return True
        if took > budget:
            _say_why(found, budget)
            return False
        time.sleep(LOOK_SECONDS)


def _say_why(found: Progress, budget: float) -> None:
    reasons = found.problems or found.waits or (f"{found.old} old replicas are still there",)
    print(coloured(f"{found.model} did not come to its end within {budget:.0f} s:", "red"))
    print("\n".join(f"  {text}" for text in reasons), flush=True)
