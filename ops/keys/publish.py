"""Making a change of keys known: the stack's configuration, and the one object that carries revocations."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from ops.errors import OpsError
from ops.keys import settings
from ops.keys.ledger import now
from ops.pulumi import Pulumi
from ops.state import Resource, State

KIND = "kubernetes:networking.istio.io/v1alpha3:EnvoyFilter"
TABLES, FILTERS = "-tables", "-filters"
"""How the objects' names end: that in which the gateway looks revoked ids up, and that with the public keys."""
UP_COMMAND = "LLMP_UP_COMMAND"
"""A program that does what `pulumi up` does, where the CLI alone cannot; it gets the `--target` arguments."""
SPREADING = timedelta(seconds=10)
"""How long istiod may collect changes before it hands them to the gateways (PILOT_DEBOUNCE_MAX)."""


def add_public_key(stack: Pulumi, kid: str, jwk: Mapping[str, str]) -> None:
    """Put a public key into the configuration, whole or not at all."""
    place = f"{stack.project}:access.publicKeys.{kid}"
    _set(stack, {f"{place}.{name}": jwk[name] for name in ("x", "y")})


def remove_public_key(stack: Pulumi, kid: str) -> None:
    """Take a public key out of the configuration."""
    stack.call("config", "rm", "--stack", stack.stack, "--path", f"{stack.project}:access.publicKeys.{kid}")


def set_revoked(stack: Pulumi, before: Sequence[str], wanted: Sequence[str]) -> None:
    """Make `wanted` the list of revoked ids, which was `before`.

    At no point of it is an id missing that is in both: first the list is
    written over at once, then what is too long is cut off.
    """
    place = f"{stack.project}:access.revoked"
    other = {i: wanted[i] for i in range(len(wanted)) if i >= len(before) or before[i] != wanted[i]}
    if other:
        _set(stack, {f"{place}[{index}]": identity for index, identity in other.items()})
    for index in reversed(range(len(wanted), len(before))):
        stack.call("config", "rm", "--stack", stack.stack, "--path", f"{place}[{index}]")
    access = settings.read(stack).access
    if access is None or list(access.revoked) != list(wanted):
        raise OpsError(
            f"`{place}` is not what was written there: is somebody else changing the configuration?"
        )


def _set(stack: Pulumi, values: Mapping[str, str]) -> None:
    pairs = (part for place, value in values.items() for part in ("--plaintext", f"{place}={value}"))
    stack.call("config", "set-all", "--stack", stack.stack, "--path", *pairs)


def deployed(state: State, kid: str) -> bool:
    """Whether the gateway that is deployed knows the public key."""
    return any(kid in json.dumps(dict(r.inputs), default=str) for r in _those(state, FILTERS))


def targets(state: State) -> list[str]:
    """The URNs of the objects with the gateway's tables."""
    return [r.urn for r in _those(state, TABLES) if not r.raw.get("delete")]


def _those(state: State, end: str) -> list[Resource]:
    return [r for r in state.resources if r.type == KIND and r.name.endswith(end)]


def up_command(stack: Pulumi, urns: Iterable[str]) -> list[str]:
    """The command that brings just these objects up to date."""
    chosen = [part for urn in urns for part in ("--target", urn)]
    if own := os.environ.get(UP_COMMAND):
        return [*shlex.split(own), *chosen]
    return ["pulumi", "up", "--stack", stack.stack, "--yes", "--skip-preview", *chosen]


def up(stack: Pulumi, command: Sequence[str]) -> datetime:
    """Run the command, its output on standard error; when it ended. :class:`OpsError` when it failed."""
    environment = {"PULUMI_SKIP_UPDATE_CHECK": "true", **os.environ}
    sys.stderr.flush()
    try:
        ended = subprocess.run(
            command,
            cwd=Path(stack.directory),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=2,
            check=False,
        ).returncode
    except OSError as error:
        raise OpsError(f"`{shlex.join(command)}` cannot be run: {error.strerror}") from None
    if ended:
        raise OpsError(
            f"`{shlex.join(command)}` failed (exit code {ended}): the gateway has NOT heard of the change and "
            "still accepts the keys. Put right what it says above, then run the same command again"
        )
    return now()
