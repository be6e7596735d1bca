"""Stands in for `gcloud`, as far as this program's commands call it.

    python -m rehearsal.cloud.gcloud auth application-default print-access-token

prints a token that only the simulated Google takes. It refuses outside a rehearsal, and what it does not know by name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence

import requests

from ops.errors import OpsError
from ops.google import Google, backends
from rehearsal.cloud.google_api import TOKEN
from rehearsal.providers.guard import OutsideRehearsal, require_rehearsal


def _token(_: Mapping[str, str], __: Mapping[str, str]) -> str:
    return TOKEN


def _version(_: Mapping[str, str], __: Mapping[str, str]) -> str:
    return "Google Cloud SDK (simulated by a rehearsal)"


def _health(flags: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """`gcloud compute backend-services get-health NAME --region R --project P --format=json`."""
    google = Google(flags["project"], environ)
    found = [backend for backend in backends(google, flags["region"]) if backend.service == flags[""]]
    groups = sorted({backend.group for backend in found})
    return json.dumps(
        [
            {
                "backend": group,
                "status": {
                    "healthStatus": [
                        {"ipAddress": b.address, "healthState": b.state} for b in found if b.group == group
                    ]
                },
            }
            for group in groups
        ]
    )


Command = Callable[[Mapping[str, str], Mapping[str, str]], str]
COMMANDS: Mapping[tuple[str, ...], Command] = {
    ("auth", "print-access-token"): _token,
    ("auth", "application-default", "print-access-token"): _token,
    ("version",): _version,
    ("compute", "backend-services", "get-health"): _health,
}


def parse(arguments: Sequence[str]) -> tuple[Command, dict[str, str]]:
    """The command and its flags; the one word that is no flag has the name "". OutsideRehearsal for what is unknown."""
    for words, command in COMMANDS.items():
        if tuple(arguments[: len(words)]) == words:
            return command, flags_of(arguments[len(words) :])
    known = ", ".join(" ".join(words) for words in COMMANDS)
    raise OutsideRehearsal(f"`gcloud {' '.join(arguments)}` is not rehearsed; there are: {known}")


def flags_of(arguments: Sequence[str]) -> dict[str, str]:
    """Flags by name without dashes, as `--name value` or `--name=value`; a word that is none has the name ""."""
    flags: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--"):
            flags[""] = argument
            continue
        name, equals, value = argument.removeprefix("--").partition("=")
        flags[name] = value if equals else next(rest, "")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the command says; 1 and a sentence on stderr where it is refused."""
    try:
        require_rehearsal(os.environ)
        command, flags = parse(sys.argv[1:] if arguments is None else arguments)
        print(command(flags, os.environ))
    except (OutsideRehearsal, OpsError, KeyError, requests.RequestException) as refusal:
        print(f"this simulated gcloud refuses: {refusal}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
