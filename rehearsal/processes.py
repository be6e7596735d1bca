"""Background processes of one rehearsal: started, recognised and ended by it alone.

A process is ours when its environment carries this rehearsal's marker, so a
recycled process id is never mistaken for ours, and children that outlived a
killed parent are still found.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rehearsal.paths import Paths

MARKER = "LLMP_REHEARSAL_PROCESS"
GRACE_SECONDS = 10.0


class ProcessFailed(Exception):
    """A background process ended when it should run; the message holds its last words."""


class Processes:
    """The named background processes of one rehearsal."""

    def __init__(self, paths: Paths):
        self._paths = paths
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of every process of ours: nothing of the user's but the search path."""
        return {
            "PATH": f"{self._paths.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._paths.home),
            "LANG": "C.UTF-8",
            MARKER: str(self._paths.root),
            **(extra or {}),
        }

    def start(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        """Start `argv` as `name` unless it runs already; its output goes to logs/<name>.log."""
        if self.running(name):
            return
        with (self._paths.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [str(a) for a in argv],
                env=self.environment(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._paths.root,
                start_new_session=True,
            )
        self._children[name] = child
        self._file(name).write_text(json.dumps({"pid": child.pid}))

    def running(self, name: str) -> bool:
        """Whether the process that we started as `name` is still alive."""
        if name in self._children:
            return self._children[name].poll() is None
        try:
            pid = self.pid(name)
        except (OSError, ValueError, KeyError):
            return False
        return _is_ours(pid, self._paths.root)

    def pid(self, name: str) -> int:
        """The id of the process that was started as `name`."""
        return int(json.loads(self._file(name).read_text())["pid"])

    def names(self) -> list[str]:
        """Every process that was started and not stopped, running or not."""
        return sorted(f.stem for f in self._paths.run.glob("*.json"))

    def check(self, name: str) -> None:
        """Raise ProcessFailed with the end of its log when `name` is not running."""
        if not self.running(name):
            raise ProcessFailed(f"{name} stopped. The end of its log:\n{self.tail(name)}")

    def tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a process's log."""
        try:
            text = (self._paths.logs / f"{name}.log").read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, name: str) -> None:
        """End the process that we started as `name`, if it is there, and forget it."""
        try:
            pid = self.pid(name)
        except (OSError, ValueError, KeyError):
            return
        if _is_ours(pid, self._paths.root):
            _end([pid], self._paths.root)
        if child := self._children.pop(name, None):
            child.wait()
        self._file(name).unlink(missing_ok=True)

    def stop_all(self) -> list[int]:
        """End every process of this rehearsal, however it was started; returns the ids ended."""
        ended = list(_ours(self._paths.root))
        _end(ended, self._paths.root)
        for child in self._children.values():
            child.wait()
        self._children.clear()
        for name in self.names():
            self._file(name).unlink(missing_ok=True)
        return ended

    def _file(self, name: str) -> Path:
        return self._paths.run / f"{name}.json"


def _is_ours(pid: int, root: Path) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (OSError, IndexError):
        return False
    return state != "Z" and f"{MARKER}={root}".encode() in environment


def _ours(root: Path) -> Iterable[int]:
    """Ids of all living processes of the rehearsal in `root`, but for the one that asks."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _is_ours(int(entry.name), root):
            yield int(entry.name)


def _end(pids: list[int], root: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = [pid for pid in pids if _is_ours(pid, root)]
        for pid in alive:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(_is_ours(pid, root) for pid in alive):
            time.sleep(0.05)
