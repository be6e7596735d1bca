"""What happens now, how far it is, and how long it took last time."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path


class Progress:
    """Prints phases with their durations; remembers each for the next run in `file`."""

    def __init__(self, file: Path):
        self._file = file

    def say(self, text: str) -> None:
        """Print one line at once."""
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Announce `name`, and its duration at the end."""
        before = self._durations().get(name)
        self.say(f"==> {name}" + (f" (last time {before:.0f} s)" if before and before >= 1 else ""))
        start = time.monotonic()
        yield
        took = time.monotonic() - start
        self.say(f"    done in {took:.1f} s")
        self._remember(name, took)

    def _durations(self) -> dict[str, float]:
        try:
            found = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _remember(self, name: str, seconds: float) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps({**self._durations(), name: round(seconds, 1)}))
