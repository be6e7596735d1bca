"""Processes of a killed engine on this host, read from `/proc` (Linux; elsewhere less is known, and less assumed)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

_POLL = 0.2


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
    wanted = f"PULUMI_PROJECT={project}".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        pid = int(directory.name)
        try:
            environment = (directory / "environ").read_bytes().split(b"\0")  # Only one's own can be read.
            if wanted not in environment or not any(
                entry.startswith(b"PULUMI_CONFIG=") for entry in environment
            ):
                continue
            _, status = _stat(pid)
        except OSError:
            continue
        if pid != os.getpid() and status[0] not in "ZX" and "pulumi" not in _name(int(status[1])):
            yield pid


def _name(pid: int) -> str:
    try:
        return _stat(pid)[0]
    except OSError:
        return ""  # It ended just now, or is outside this container.


def _stat(pid: int) -> tuple[str, list[str]]:
    """The name of a process, and what `/proc/<pid>/stat` says after it: state, parent's pid, …"""
    name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return name.partition("(")[2], rest.split()


def _boot_time() -> float:
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))
