"""Processes of a killed engine on this host, read from `/proc`; without it, less is assumed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

_POLL = 0.2
_BACKEND = "PULUMI_BACKEND_URL"


def is_running(pid: int, since: str) -> bool:
    """Whether process `pid` of this host, which held a lock at time `since` (ISO 8601), may still run.

    One that waits to be collected by its parent has ended. One that is not
    called after Pulumi and began later only has the same number. Where there
    is no `/proc`, any process of that number counts.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # Somebody else's process; it may have taken over the number.
    try:
        name, status = _stat(pid)
        began = _boot_time() + int(status[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration):
        return True
    return status[0] not in "ZX" and (
        "pulumi" in name or began <= datetime.fromisoformat(since).timestamp() + 1
    )


def orphans(project: str, patience: float) -> tuple[int, ...]:
    """Providers of `project` whose engine is gone, still there after `patience` seconds.

    A provider outlives a killed engine until it notices, the official ones for
    up to five minutes, and goes on with what it was doing meanwhile.
    """
    deadline = time.monotonic() + patience
    while (found := tuple(_orphans(project))) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return found


def _orphans(project: str) -> Iterator[int]:
    for directory in Path("/proc").glob("[0-9]*"):
        pid = int(directory.name)
        try:
            entries = (directory / "environ").read_bytes().split(b"\0")  # Only one's own can be read.
        except OSError:
            continue
        environment = dict(entry.split("=", 1) for entry in map(os.fsdecode, entries) if "=" in entry)
        if _is_provider(environment, project) and not any("pulumi" in name for name in _ancestors(pid)):
            yield pid


def _is_provider(environment: Mapping[str, str], project: str) -> bool:
    """Whether an engine started it for the project; one that keeps another backend's state is left out."""
    mine = os.environ.get(_BACKEND)
    elsewhere = environment.get(_BACKEND, mine) != mine
    return environment.get("PULUMI_PROJECT") == project and "PULUMI_CONFIG" in environment and not elsewhere


def _ancestors(pid: int) -> Iterator[str]:
    """The names of a process's parent, its parent's parent and so on, as far as this container knows them."""
    try:
        while pid := int(_stat(pid)[1][1]):
            yield _stat(pid)[0]
    except OSError:
        return  # One of them ended just now.


def _stat(pid: int) -> tuple[str, list[str]]:
    """The name of a process, and what `/proc/<pid>/stat` says after it: state, parent's pid, …"""
    name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return name.partition("(")[2], rest.split()


def _boot_time() -> float:
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))
