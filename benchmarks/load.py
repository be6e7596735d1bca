"""A load generator for HTTP/1.1 over kept connections, and what processes cost meanwhile.

One thread and raw sockets: what it sends is made beforehand and what it reads is
parsed no further than status and length, so that it costs less than what it measures. Two kinds of load: a closed one,
where each connection asks again as soon as it is answered (how much goes through), and an open one, where
requests come at random times of a given rate and wait while no connection is free (how long it takes). In the
open one a request's time begins when it was due and not when it was sent, so that a stall is not hidden by
the requests that it kept from being sent.
"""

from __future__ import annotations

import itertools
import os
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

RECEIVE = 65536
# After the last request was sent, its answer is awaited for so long.
DRAIN_SECONDS = 30.0
_HEAD_END, _LENGTH, _CHUNKED, _LAST_CHUNK = b"\r\n\r\n", b"content-length:", b"chunked", b"0\r\n\r\n"


class LoadFailed(Exception):
    """The server did not behave as one can measure; the message says how."""


@dataclass(frozen=True)
class Target:
    """Where requests go, and whole requests as they are sent, in turn."""

    host: str
    port: int
    requests: Sequence[bytes]


@dataclass(frozen=True)
class Result:
    """Answers by status, the time that each took in milliseconds, and the whole duration in seconds."""

    seconds: float
    statuses: Mapping[int, int]
    milliseconds: Sequence[float] = field(repr=False)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.milliseconds) / self.seconds

    def percentile(self, percent: float) -> float:
        """The time in milliseconds within which so many percent of the requests were answered."""
        ranked = sorted(self.milliseconds)
        return ranked[min(int(len(ranked) * percent / 100), len(ranked) - 1)]

    def expect(self, *statuses: int) -> Result:
        """Itself. Raises LoadFailed where there is any other status, or no answer at all."""
        if not self.statuses or set(self.statuses) - set(statuses):
            raise LoadFailed(f"answers by status: {dict(self.statuses)}, expected only {statuses}")
        return self


def request(host: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole POST request."""
    fields = {
        "host": host,
        "content-type": "application/json",
        "content-length": str(len(body)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def closed(target: Target, connections: int, seconds: float, most: int | None = None) -> Result:
    """Each connection asks again when it is answered, for so long and at most so often altogether."""
    due = itertools.repeat(0.0) if most is None else itertools.repeat(0.0, most)
    return _Run(target, connections).drive(due, seconds)


def opened(target: Target, rate: float, seconds: float, connections: int = 64, seed: int = 1) -> Result:
    """Requests at random times, so many per second on average; the same times for the same seed, which also says with
    which request it begins.
    """
    due = itertools.takewhile(lambda at: at < seconds, _arrivals(rate, seed))
    # What was due is sent, however late.
    first = random.Random(seed).randrange(len(target.requests))
    return _Run(target, connections, first).drive(due, seconds + DRAIN_SECONDS)


def _arrivals(rate: float, seed: int) -> Iterator[float]:
    """Seconds since the start of a Poisson process."""
    gap = random.Random(seed).expovariate
    return itertools.accumulate(gap(rate) for _ in itertools.repeat(None))


class _Connection:
    """One connection: when its request was due, and what has come of the answer."""

    __slots__ = ("began", "received", "socket", "wanted")

    def __init__(self, target: Target):
        self.socket = socket.create_connection((target.host, target.port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0
        self.received, self.wanted = b"", 0

    def take(self, data: bytes) -> bool:
        """Whether the answer is complete with these bytes."""
        self.received += data
        if not self.wanted:
            end = self.received.find(_HEAD_END)
            if end < 0:
                return False
            head = self.received[:end].lower()
            at = head.find(_LENGTH)
            if at >= 0:
                line = head.find(b"\r", at)
                length = int(head[at + len(_LENGTH) : line if line >= 0 else end])
                self.wanted = end + len(_HEAD_END) + length
            elif _CHUNKED in head:
                return self.received.endswith(_LAST_CHUNK)
            else:
                raise LoadFailed(f"an answer without a length: {head[:200]!r}")
        return len(self.received) >= self.wanted


class _Run:
    """One run of load."""

    def __init__(self, target: Target, connections: int, first: int = 0):
        self._target = target
        self._bodies = itertools.islice(itertools.cycle(target.requests), first, None)
        self._poll = select.epoll()
        self._all: dict[int, _Connection] = {}
        self._idle = [self._connect() for _ in range(connections)]
        self._busy = 0
        self._times: list[float] = []
        self._statuses: Counter[bytes] = Counter()

    def _connect(self) -> _Connection:
        made = _Connection(self._target)
        self._all[made.socket.fileno()] = made
        self._poll.register(made.socket, select.EPOLLIN)
        return made

    def drive(self, due: Iterator[float], seconds: float) -> Result:
        """Send what is due, for so long at most, and await what is under way."""
        start = time.perf_counter()
        try:
            self._send_until(start, start + seconds, due)
            end = time.perf_counter() + DRAIN_SECONDS
            while self._busy and time.perf_counter() < end:
                self._receive(1.0)
            took = time.perf_counter() - start
        finally:
            for connection in self._all.values():
                connection.socket.close()
            self._poll.close()
        if self._busy:
            raise LoadFailed(f"{self._busy} requests had no answer within {DRAIN_SECONDS:.0f} s")
        statuses = {int(status): count for status, count in self._statuses.items()}
        return Result(took, statuses, self._times)

    def _send_until(self, start: float, end: float, due: Iterator[float]) -> None:
        clock, following = time.perf_counter, next(due, None)
        while following is not None and (now := clock()) < end:
            while self._idle and following is not None and start + following <= now:
                self._send(self._idle.pop(), start + following if following else clock())
                following = next(due, None)
            if not self._idle or following is None:
                self._receive(min(1.0, end - now))
            elif (gap := start + following - clock()) > 0:
                # epoll counts in milliseconds; select, to which it is just another file, in microseconds.
                select.select([self._poll], [], [], min(gap, max(end - now, 0)))
                self._receive(0)

    def _send(self, connection: _Connection, began: float) -> None:
        connection.began = began
        self._busy += 1
        connection.socket.sendall(next(self._bodies))

    def _receive(self, timeout: float) -> None:
        for number, _ in self._poll.poll(timeout):
            connection = self._all[number]
            data = connection.socket.recv(RECEIVE)
            if not data:
                self._reopen(connection)
            elif connection.take(data):
                self._times.append((time.perf_counter() - connection.began) * 1000)
                self._statuses[connection.received[9:12]] += 1
                connection.received, connection.wanted = b"", 0
                self._idle.append(connection)
                self._busy -= 1

    def _reopen(self, connection: _Connection) -> None:
        """Servers may close what is idle, and nothing else."""
        if connection not in self._idle:
            raise LoadFailed(
                f"the server closed a connection within an answer: {connection.received[:200]!r}"
            )
        self._idle.remove(connection)
        del self._all[connection.socket.fileno()]
        connection.socket.close()
        self._idle.insert(0, self._connect())


# -- processes ------------------------------------------------------------------------------------------------------


@contextmanager
def on_cores(cores: Iterable[int]) -> Iterator[None]:
    """Run this thread, and all that it starts meanwhile, on some cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Time that processes have spent on cores, in hundredths of a second; proc(5), `stat`."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Time that all cores together have been busy, for whomever; proc(5), `/proc/stat`."""
    first = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, first[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def megabytes(pids: Iterable[int]) -> float:
    """Resident memory of processes together, what they share counted for each."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
