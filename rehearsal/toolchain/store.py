"""A cache directory that never serves anything half made.

An entry is made in a scratch directory and appears by one rename, together with
a record of every file's size; whatever does not match its record is thrown away
and made again. One lock serialises the makers of all checkouts of a user. A
compiler inherits the lock, so one that outlived a killed parent is waited for
and not raced, and everything in the scratch directory is known to be dead
whenever the lock is ours.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rehearsal.toolchain.errors import ToolchainError

Report = Callable[[str], None]

RECORD = ".complete.json"
POLL_SECONDS = 0.2


def say(message: str) -> None:
    """Print one line of progress at once, also into a pipe."""
    print(message, flush=True)


def default_root() -> Path:
    """`LLMP_CACHE`, else `llm-platform` in the user's cache directory: never in a checkout."""
    if chosen := os.environ.get("LLMP_CACHE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-platform"


class Store:
    """The entries below `root`, each a directory named `<kind>/<name>-<version>-<content key>`."""

    def __init__(self, root: Path | None = None):
        self.root = root or default_root()

    def path(self, entry: str) -> Path:
        return self.root / entry

    def has(self, entry: str) -> bool:
        """Whether the entry is there whole: each file that its record names, in the recorded size."""
        path = self.path(entry)
        try:
            sizes = json.loads((path / RECORD).read_text())
            return bool(sizes) and all((path / f).stat().st_size == size for f, size in sizes.items())
        except (OSError, ValueError, AttributeError):
            return False

    @contextmanager
    def lock(self, report: Report = say) -> Iterator[Lock]:
        """Wait until no other process adds entries, saying what it does; clear what the dead left."""
        with _errors_named(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            opened = (self.root / "lock").open("a+")
        with opened as file:
            _acquire(file, report)
            lock = Lock(self, file)
            lock.tell(f"process {os.getpid()} prepares")
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir()
            try:
                yield lock
            finally:
                lock.tell("")

    def seconds(self, name: str) -> float | None:
        """How long `name` took last time, in seconds, or None."""
        return self._timings().get(name)

    def remember(self, name: str, seconds: float) -> None:
        """Keep how long `name` took, for the next forecast."""
        file = self.root / "timings.json"
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(self._timings() | {name: round(seconds, 1)}, indent=1, sort_keys=True))
        fresh.replace(file)

    @property
    def scratch(self) -> Path:
        """Where entries are made; what lies here while nobody holds the lock is rubbish."""
        return self.root / "scratch"

    def _timings(self) -> dict[str, float]:
        try:
            return dict(json.loads((self.root / "timings.json").read_text()))
        except (OSError, ValueError, TypeError):
            return {}


@dataclass(frozen=True)
class Lock:
    """The right to add entries to a store, held by one process at a time."""

    store: Store
    file: IO[str]

    def tell(self, activity: str) -> None:
        """Set the line that others see while they wait, for example `process 12 builds etcd for /src`."""
        self.file.seek(0)
        self.file.truncate()
        self.file.write(activity)
        self.file.flush()

    def add(self, entry: str, make: Callable[[Path], None]) -> Path:
        """Let `make` fill an empty directory, then publish that as `entry`, whole or not at all."""
        with _errors_named(self.store.root):
            scratch = Path(tempfile.mkdtemp(dir=self.store.scratch))
            scratch.chmod(0o755)
            make(scratch)
            sizes = {str(f.relative_to(scratch)): f.stat().st_size for f in _files(scratch)}
            (scratch / RECORD).write_text(json.dumps(sizes, sort_keys=True))
            os.sync()  # all at once: one fsync per file takes a minute for a Go distribution
            path = self.store.path(entry)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            scratch.rename(path)
        return path


def _files(directory: Path) -> Iterator[Path]:
    return (f for f in sorted(directory.rglob("*")) if f.is_file())


def _acquire(file: IO[str], report: Report) -> None:
    told = None
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            activity = file.read()
        if activity and activity != told:
            report(f"waiting: {activity}")
            told = activity
        time.sleep(POLL_SECONDS)


@contextmanager
def _errors_named(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = {
            errno.ENOSPC: "Free some space, or set LLMP_CACHE to a directory elsewhere.",
            errno.EACCES: "Make it writable, or set LLMP_CACHE to a directory that is.",
            errno.EROFS: "Set LLMP_CACHE to a directory elsewhere.",
            errno.ENOTDIR: "Set LLMP_CACHE to a directory.",
            errno.EEXIST: "Set LLMP_CACHE to a directory.",
        }.get(error.errno or 0)
        if fix is None:
            raise
        raise ToolchainError(f"The cache directory {root} cannot be used: {error.strerror}. {fix}") from error
