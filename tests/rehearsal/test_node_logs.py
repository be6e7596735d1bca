"""The simulated kubelet shows containers' logs to the API server and to nobody else."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehearsal.cluster import certificates
from rehearsal.node.logs import LogServer


class Kubelet:
    """A log server with one container, whose pod can go."""

    def __init__(self, directory: Path):
        self.log, self.here = directory / "apps_web_main.log", True
        ca, stranger = certificates.authority("cluster"), certificates.authority("somebody else")
        for name, pair in {
            "ca": ca,
            "kubelet": certificates.issue(ca, "kubelet", names=("127.0.0.1",)),
            "client": certificates.issue(ca, "kube-apiserver-kubelet-client"),
            "stranger": certificates.issue(stranger, "kube-apiserver-kubelet-client"),
        }.items():
            (directory / f"{name}.crt").write_bytes(pair.certificate)
            (directory / f"{name}.key").write_bytes(pair.key)
        self._directory = directory
        self.server = LogServer(
            self._find, *(directory / f for f in ("kubelet.crt", "kubelet.key", "ca.crt"))
        )

    def _find(self, namespace: str, pod: str, container: str) -> Path | None:
        return self.log if self.here and (namespace, pod, container) == ("apps", "web", "main") else None

    def connect(self, client: str | None = "client") -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self._directory / "ca.crt"))
        if client:
            context.load_cert_chain(self._directory / f"{client}.crt", self._directory / f"{client}.key")
        return http.client.HTTPSConnection(*self.server.address, timeout=10, context=context)

    def get(self, path: str) -> tuple[int, str]:
        connection = self.connect()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[Kubelet]:
    result, stop = Kubelet(tmp_path), threading.Event()
    thread = threading.Thread(target=result.server.run, args=(stop,))
    thread.start()
    yield result
    stop.set()
    thread.join()


LOG = "/containerLogs/apps/web/main"
LINES = [f"line {n} {'x' * (n % 90)}\n" for n in range(3000)]


@pytest.mark.parametrize("tail", [0, 1, 2, 999, 2999, 3000, 5000])
def test_the_last_lines_are_found_in_a_log_of_any_length(kubelet: Kubelet, tail: int) -> None:
    kubelet.log.write_text("".join(LINES))
    assert kubelet.get(f"{LOG}?tailLines={tail}") == (200, "".join(LINES[-tail:] if tail else []))


def test_a_last_line_without_an_end_counts(kubelet: Kubelet) -> None:
    kubelet.log.write_text("one\ntwo\nthr")
    assert kubelet.get(f"{LOG}?tailLines=2") == (200, "two\nthr")


def test_what_cannot_be_honoured_is_no_error_and_a_limit_is_kept(kubelet: Kubelet) -> None:
    kubelet.log.write_text("one\ntwo\n")
    assert kubelet.get(f"{LOG}?sinceTime=2026-01-01T00%3A00%3A00Z&timestamps=true") == (200, "one\ntwo\n")
    assert kubelet.get(f"{LOG}?limitBytes=5") == (200, "one\nt")


def test_a_container_that_wrote_nothing_has_an_empty_log(kubelet: Kubelet) -> None:
    assert kubelet.get(LOG) == (200, "")
    assert kubelet.get(f"{LOG}?tailLines=5") == (200, "")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/containerLogs/apps/web/other", 404),
        ("/containerLogs/apps/..%2F..%2Fetc/passwd", 404),
        ("/exec/apps/web/main", 404),
        (f"{LOG}?tailLines=-1", 400),
        (f"{LOG}?limitBytes=many", 400),
        (f"{LOG}?previous=true", 400),
    ],
)
def test_other_requests_are_refused(kubelet: Kubelet, path: str, status: int) -> None:
    assert kubelet.get(path)[0] == status


@pytest.mark.parametrize("client", [None, "stranger"])
def test_only_the_clusters_own_clients_are_served(kubelet: Kubelet, client: str | None) -> None:
    kubelet.log.write_text("secret\n")
    connection = kubelet.connect(client)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        connection.request("GET", LOG)
        connection.getresponse()
    connection.close()


def test_following_shows_what_comes_and_ends_with_the_pod(kubelet: Kubelet) -> None:
    kubelet.log.write_text("one\n")
    connection = kubelet.connect()
    connection.request("GET", f"{LOG}?follow=true")
    answer = connection.getresponse()
    assert answer.readline() == b"one\n"
    with kubelet.log.open("a") as log:
        log.write("two\n")
    assert answer.readline() == b"two\n"
    kubelet.here = False
    assert answer.read() == b""
    connection.close()
