"""The commands of `python -m ops`, and how they are run.

A command is a module with `configure(parser)`, which adds its arguments and
sets `run`, a function from the parsed arguments to an exit code. Only the
module of the command that was asked for is imported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from ops.errors import OpsError

DONE = 0
"""All is as it should be, or was put right."""
FAILED = 1
"""Something is not as it should be, or could not be done; the output names it."""
UNDECIDED = 3
"""Nothing failed, but something is left that only a person can decide; the output names it."""

EXIT_CODES = """exit codes:
  0  all is as it should be, or was put right
  1  something is not as it should be, or could not be done; the output names it
  2  wrong usage
  3  something is left that only you can decide or supply; the output names it"""


@dataclass(frozen=True)
class Command:
    """One entry of the table: the module that implements it, and its line of help."""

    module: str
    help: str


COMMANDS = {
    "status": Command(
        "ops.status.command", "say whether everything of a stack is Ready, and otherwise what is not"
    ),
    "rollout": Command("ops.rollout.command", "follow a changed model until every replica runs the change"),
    "watch": Command(
        "ops.watch.command",
        "say what a person must know while a stack comes up, such as nodes that do not come",
    ),
    "recover": Command("ops.recover.command", "put right what a killed or timed-out `pulumi up` left behind"),
    "doctor": Command(
        "ops.doctor.command",
        "walk each model's chain from node to gateway, and name what is broken and the fix",
    ),
    "artifacts": Command(
        "ops.artifacts.command", "pin and check the digests of charts, manifests and images"
    ),
    "verify": Command(
        "ops.verify.command", "ask a deployed stack whether it does what its configuration promises"
    ),
    "keys": Command("ops.keys.command", "issue, list and revoke API keys, and change what signs them"),
    "preflight": Command(
        "ops.preflight.command", "say before the first `up` what would stand in its way, and the fix"
    ),
    "usage": Command(
        "ops.usage.command", "sum the requests and tokens of tenants from the gateway's access log"
    ),
}


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser of all commands; only the `chosen` one's arguments are filled in."""
    parser = argparse.ArgumentParser(
        prog="python -m ops",
        description="Day-two operations on a stack.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        described = command.help[0].upper() + command.help[1:] + "."
        sub = commands.add_parser(
            name,
            help=command.help,
            description=described,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            import_module(command.module).configure(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    parsed = build_parser(chosen).parse_args(arguments)
    try:
        return parsed.run(parsed)
    except OpsError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        sys.stderr.close()  # The reader of the output went away, as `| head` does.
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
