"""The ledger of issued keys, as far as a preview needs it. `python -m ops keys` writes it; it holds no secret."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stacks.config import Problem, StackConfig
from stacks.config.errors import path_of


def ledger_file(stack: str, project: Path) -> Path:
    """Where the ledger of a stack lies in a project directory."""
    return project / "keys" / f"{stack}.ledger.jsonl"


def key_problems(config: StackConfig, stack: str, project: Path) -> list[Problem]:
    """What is wrong with the keys of the configuration that only this checkout can tell."""
    access = config.access
    if access is None or access.keys != "signed":
        return []
    if not access.public_keys:
        return [
            Problem(
                path_of("access", "publicKeys"),
                "is missing",
                "no key could be verified, and every request would be refused",
                f"make a signing key: python -m ops keys init --stack {stack}",
            )
        ]
    file = ledger_file(stack, project)
    if not file.is_file():
        return []
    issued = _issued(file)
    return [
        Problem(
            path_of("access", "revoked", index),
            f"{key_id} was never issued",
            "the key that was meant stays valid",
            f"take the id from: python -m ops keys list --stack {stack}",
        )
        for index, key_id in enumerate(access.revoked)
        if key_id not in issued
    ]


def _issued(file: Path) -> set[str]:
    return {event["jti"] for event in _events(file) if event.get("event") == "issued"}


def _events(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text().splitlines():
        # A line that a merge or a full disk broke is for `ops keys` to complain about.
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event
