"""The command line of the embedded environment; the Makefile's targets call it.

python -m rehearsal up|down|preview|preflight|start|status|url|key|logs|kubeconfig|ops
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from rehearsal import toolchain
from rehearsal.address import NoAddress
from rehearsal.cluster.control_plane import ControlPlaneFailed
from rehearsal.cluster.ports import NoFreePort
from rehearsal.keys import NoKey
from rehearsal.processes import ProcessFailed
from rehearsal.rehearsal import Refused, Rehearsal, from_environment
from stacks.config import ConfigError

EXPECTED = (
    Refused,
    ControlPlaneFailed,
    ProcessFailed,
    NoFreePort,
    NoAddress,
    NoKey,
    ConfigError,
    toolchain.ToolchainError,
    TimeoutError,
)


def parser() -> argparse.ArgumentParser:
    """The arguments of every verb."""
    result = argparse.ArgumentParser(prog="python -m rehearsal", description="Any stack, on this machine.")
    verbs = result.add_subparsers(dest="verb", required=True)
    for verb, text in {
        "up": "bring the stack up on an embedded cluster",
        "preview": "show what `up` would change",
        "start": "start the embedded cluster without a stack",
        "preflight": "say what would stand in the way of the first `up`",
    }.items():
        verbs.add_parser(verb, help=text).add_argument("--stack", default="dev")
    down = verbs.add_parser("down", help="destroy the stack and end every process")
    down.add_argument("--force", action="store_true", help="end the processes even if destroy fails")
    verbs.add_parser("status", help="exit 0 exactly when everything is Ready")
    verbs.add_parser("kubeconfig", help="print the path of a kubeconfig for kubectl")
    verbs.add_parser("url", help="print the address that answers for the stack's gateway")
    key = verbs.add_parser("key", help="print a new API key")
    key.add_argument("--tenant", required=True, help="a tenant of the stack's configuration")
    logs = verbs.add_parser("logs", help="list the logs, or print one")
    logs.add_argument("name", nargs="?", help="part of a log's name")
    logs.add_argument("-f", "--follow", action="store_true")
    ops = verbs.add_parser("ops", help="run `python -m ops` against the embedded environment")
    ops.add_argument("arguments", nargs=argparse.REMAINDER)
    return result


def logs(rehearsal: Rehearsal, name: str | None, follow: bool) -> int:
    """List the logs, or show the one whose name contains `name`."""
    found = sorted(f for f in rehearsal.paths.logs.glob("*.log") if name is None or name in f.name)
    if not found:
        raise Refused(f"no log matches {name!r}" if name else "there are no logs: start with `make up`")
    if name is None:
        print("\n".join(f.stem for f in found))
        return 0
    return subprocess.run(
        ["tail", *(["-f"] if follow else ["-n", "200"]), *map(str, found)], check=False
    ).returncode


def kubeconfig(rehearsal: Rehearsal) -> int:
    """Print the path of the embedded cluster's kubeconfig."""
    rehearsal.kube()
    print(rehearsal.paths.kubeconfig)
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Carry out one verb; returns the exit status."""
    rehearsal = from_environment()
    verbs = {
        "up": lambda: rehearsal.up(arguments.stack),
        "preview": lambda: rehearsal.preview(arguments.stack),
        "start": lambda: rehearsal.start(arguments.stack) and 0,
        "preflight": lambda: rehearsal.preflight(arguments.stack),
        "down": lambda: rehearsal.down(arguments.force),
        "status": rehearsal.status,
        "url": rehearsal.url,
        "key": lambda: rehearsal.key(arguments.tenant),
        "kubeconfig": lambda: kubeconfig(rehearsal),
        "logs": lambda: logs(rehearsal, arguments.name, arguments.follow),
        "ops": lambda: rehearsal.ops(*arguments.arguments),
    }
    return verbs[arguments.verb]()


def main() -> int:
    """Run the command line; expected failures are one message, without a traceback."""
    try:
        return run(parser().parse_args())
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; `make up` continues from here, `make down` ends everything", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
