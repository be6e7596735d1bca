"""Files that a running program watches: they change as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(directory: Path, files: Mapping[str, Any], last: Mapping[str, Any]) -> None:
    """Bring `directory` from the content `last` to `files`, both content by name.

    Writes what differs, in the order of `files`, then removes what is no longer named. Each file is replaced
    by renaming, which is what Envoy watches for. Readable by the owner only, since certificates are among them.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in files.items():
        if name not in last or last[name] != content:
            _replace(directory / name, json.dumps(content, separators=(",", ":")).encode())
    for name in last.keys() - files.keys():
        (directory / name).unlink(missing_ok=True)


def _replace(file: Path, content: bytes) -> None:
    new = file.with_name(f".{file.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
    new.rename(file)


def remove(directory: Path) -> None:
    """Remove a directory with its files, if it is there."""
    shutil.rmtree(directory, ignore_errors=True)
