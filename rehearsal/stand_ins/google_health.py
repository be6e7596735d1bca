"""Google's health checks: each endpoint asked again and again, at the port and path of its backend service.

A new endpoint counts as unhealthy until it has answered. The clock runs faster than Google's, as that of the
kubelets here does; how often an endpoint must answer or fail is the policy's.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rehearsal.gateway.google_backends import Check
from rehearsal.node import probes

TICK_SECONDS = 0.2
# One that hangs must not keep the others from being asked.
AT_ONCE = 8

Key = tuple[str, str]
"""A backend service's cluster and a pod's uid."""


@dataclass(frozen=True)
class Subject:
    """What is asked: the check, where it really goes, and whether the pod's NetworkPolicies let it through."""

    check: Check
    where: tuple[str, int]
    let_through: bool = True


@dataclass
class State:
    """How an endpoint does: `streak` answers in a row that speak against `healthy`."""

    healthy: bool = False
    streak: int = 0
    due: float = 0.0


def answers(check: Check, host: str, port: int) -> bool:
    """Whether an endpoint passes within the check's time: a 200 by HTTP, SERVING by gRPC; no certificate counts."""
    if check.kind == "GRPC":
        return _serving(check, host, port)
    if check.kind == "TCP":
        return probes.passes({"tcpSocket": {"port": port}}, lambda _: (host, port), 0.0)
    connection: http.client.HTTPConnection = http.client.HTTPConnection(host, port, timeout=check.timeout)
    if check.kind == "HTTPS":
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(host, port, timeout=check.timeout, context=context)
    try:
        connection.request("GET", check.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _serving(check: Check, host: str, port: int) -> bool:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"{host}:{port}", options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=check.timeout)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class HealthChecks:
    """Asks what `watch` names, and calls `changed` whenever an endpoint changes sides."""

    def __init__(self, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic):
        self._changed, self._clock = changed, clock
        self._lock = threading.Lock()
        self._subjects: dict[Key, Subject] = {}
        self._states: dict[Key, State] = {}

    def watch(self, subjects: Mapping[Key, Subject]) -> None:
        """Ask these from now on; one that is asked in another way starts anew in its old state."""
        with self._lock:
            for key, subject in subjects.items():
                if self._subjects.get(key) != subject:
                    self._states.setdefault(key, State()).due = 0.0
            self._subjects = dict(subjects)
            self._states = {key: state for key, state in self._states.items() if key in subjects}

    def healthy(self, key: Key) -> bool:
        """Whether an endpoint takes traffic."""
        with self._lock:
            state = self._states.get(key)
        return state is not None and state.healthy

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop."""
        while not stop.wait(TICK_SECONDS):
            self.round()

    def round(self, everything: bool = False) -> None:
        """Ask what is due, or everything."""
        now = self._clock()
        with self._lock:
            due = [(k, s) for k, s in self._subjects.items() if everything or self._states[k].due <= now]
        if not due:
            return
        with futures.ThreadPoolExecutor(AT_ONCE) as pool:
            passed = pool.map(self._passes, [subject for _, subject in due])
            changes = [self._note(*known, found) for known, found in zip(due, passed, strict=True)]
        if any(changes):
            self._changed()

    @staticmethod
    def _passes(subject: Subject) -> bool:
        return subject.let_through and answers(subject.check, *subject.where)

    def _note(self, key: Key, subject: Subject, passed: bool) -> bool:
        """Count one answer; whether the endpoint has changed sides by it."""
        with self._lock:
            state = self._states.get(key)
            if state is None:
                return False
            state.due = self._clock() + subject.check.interval / probes.CLOCK
            state.streak = 0 if passed == state.healthy else state.streak + 1
            needed = subject.check.healthy if passed else subject.check.unhealthy
            if state.streak < needed:
                return False
            state.healthy, state.streak = passed, 0
            return True
