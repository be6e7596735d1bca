"""The signing key of a rehearsed stack: made at the first start, published in the private copy of its file.

A stack file names the public halves of its signing keys, and those who may
sign have the private ones. A rehearsal is nobody's, so it makes a key of its own,
which `make down` deletes with everything else.

    keys/<stack>.pem    the private key, for its owner only
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rehearsal.engine import PROJECT
from rehearsal.paths import Paths

ACCESS = f"{PROJECT}:access"
# What `python -m ops keys` changes in the private copy; a new copy of the stack file must not lose it.
KEPT = ("publicKeys", "revoked")

Ops = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
"""Runs `python -m ops` with arguments, its output captured."""


class NoKey(Exception):
    """The signing key could not be made; the message says why."""


def private_key(paths: Paths, stack: str) -> Path:
    """Where the private key lies."""
    return paths.root / "keys" / f"{stack}.pem"


def remembered(paths: Paths, stack: str) -> dict[str, Any]:
    """What the private copy of the stack file says about keys, before it is written anew."""
    try:
        settings = yaml.safe_load((paths.work / f"Pulumi.{stack}.yaml").read_text())
    except OSError:
        return {}
    access = settings["config"].get(ACCESS) or {}
    return {name: access[name] for name in KEPT if access.get(name)}


def publish(paths: Paths, stack: str, before: Mapping[str, Any], ops: Ops) -> None:
    """Complete the `access` section of the private copy with this rehearsal's key.

    A section that names its own public keys is left alone, and one that asks for
    no signed keys. `before` is what :func:`remembered` said. Raises NoKey.
    """
    file = paths.work / f"Pulumi.{stack}.yaml"
    settings = yaml.safe_load(file.read_text())
    access = settings["config"].get(ACCESS)
    if not access or access.get("publicKeys") or access.get("keys", "signed") != "signed":
        return
    public = before.get("publicKeys") or _make(paths, stack, ops)
    revoked = list(dict.fromkeys([*(access.get("revoked") or ()), *before.get("revoked", ())]))
    access |= {"publicKeys": public, **({"revoked": revoked} if revoked else {})}
    file.write_text(yaml.safe_dump(settings))


def _make(paths: Paths, stack: str, ops: Ops) -> dict[str, Any]:
    """The public half by its id, of a new key or of the one that an interrupted start made."""
    file = private_key(paths, stack)
    arguments = ["keys", "init", "--stack", stack, "--signer", f"file:{file}", "--no-config", "--json"]
    made = ops([*arguments, *(["--existing"] if file.exists() else [])])
    if made.returncode:
        raise NoKey(f"the signing key of {stack} could not be made:\n{made.stderr.strip()}")
    answer = json.loads(made.stdout)
    return {answer["kid"]: {name: answer["jwk"][name] for name in ("x", "y")}}
