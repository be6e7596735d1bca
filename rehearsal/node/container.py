"""One container of a pod: what runs for it, and how it is doing as a kubelet would say."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

from ops.kube import Manifest
from rehearsal.node import images
from rehearsal.node.nodes import timestamp

BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0)
OUT_OF_MEMORY = "OOMKilled"
KILLED = 137
# A container that is told to end by itself and does not say more ends like this.
FAILED = 1


@dataclass
class Running:
    """Its process where it has one, and its states: waiting, running since `started`, or ended for good.

    `what` is None until the image is here. `started` is on the monotonic clock, 0 while nothing runs; `begun` is
    the same moment as the API writes it. `passed` is whether this life passed its startup probe.
    `last` tells of the life before.
    """

    spec: Manifest
    what: images.Program | images.Container | None = None
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    begun: str = ""
    restarts: int = 0
    passed: bool = False
    ready: bool = False
    waiting: dict[str, str] | None = None
    ended: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    retry_at: float = 0.0
    log_start: int = 0
    ports: dict[int, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def image(self) -> str:
        return str(self.spec["image"])

    @property
    def lived(self) -> bool:
        """Whether it runs or ran before."""
        return bool(self.started or self.restarts or self.ended)

    def begin(self) -> None:
        """It runs from now on."""
        self.started, self.begun, self.waiting = time.monotonic(), timestamp(), None
        self.passed = self.ready = False

    def finish(self, code: int, message: str = "") -> None:
        """It ended, and is not started again."""
        told = {"message": message} if message else {}
        self.ended = self._end(code, "Completed" if code == 0 else "Error") | told
        self.last, self.restarts = (None, 0) if code else (self.last, self.restarts)
        self.process, self.started, self.waiting, self.ready = None, 0.0, None, code == 0

    def crash(self, pod: Manifest, code: int, reason: str = "Error", message: str = "") -> None:
        """It ended and is started again, after longer and longer pauses."""
        delay = BACKOFF_SECONDS[min(self.restarts, len(BACKOFF_SECONDS) - 1)]
        self.last = self._end(code, reason) | ({"message": message} if message else {})
        self.process, self.started, self.passed, self.ready = None, 0.0, False, False
        self.restarts += 1
        self.retry_at = time.monotonic() + delay
        meta = pod["metadata"]
        where = f"container={self.name} pod={meta['name']}_{meta['namespace']}({meta['uid']})"
        text = f"back-off {delay:g}s restarting failed {where}"
        self.waiting = {"reason": "CrashLoopBackOff", "message": text}

    def _end(self, code: int, reason: str) -> dict[str, Any]:
        now = timestamp()
        return {"exitCode": code, "reason": reason, "startedAt": self.begun or now, "finishedAt": now}

    def state(self, before: str) -> dict[str, Any]:
        """Its state; `before` is the reason why it waits where it has none of its own yet."""
        if self.ended:
            return {"terminated": self.ended}
        if self.waiting:
            return {"waiting": self.waiting}
        return {"running": {"startedAt": self.begun}} if self.started else {"waiting": {"reason": before}}


def exit_code(returned: int) -> int:
    """A process's end as the API writes it: a signal counts from 128."""
    return returned if returned >= 0 else 128 - returned
