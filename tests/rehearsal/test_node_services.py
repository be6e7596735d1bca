"""The API server's connections reach Ready pods and the kubelet, and nothing else."""

from __future__ import annotations

import queue
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rehearsal.node.faults import Faults
from rehearsal.node.services import ServiceProxy

SERVICE = {
    "metadata": {"namespace": "apps", "name": "web"},
    "spec": {
        "clusterIP": "10.96.0.9",
        "selector": {"app": "web"},
        "ports": [{"port": 443, "targetPort": "https"}],
    },
}


class Api:
    """One Service; `known` is set when it has been handed out."""

    def __init__(self) -> None:
        self.known = threading.Event()

    def follow(self, _api: str, _kind: str, stop: threading.Event) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "ADDED", SERVICE
        self.known.set()
        stop.wait()


class Kubelet:
    """Remembers what was asked for; one pod is behind the labels, or none."""

    def __init__(self, address: tuple[str, int]):
        self.found, self.asked = [address], queue.Queue()

    def endpoints(self, *question: Any) -> list[tuple[str, int]]:
        self.asked.put(question)
        return self.found


class Backend:
    """Answers every connection with its name."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"here")

    def close(self) -> None:
        self._listener.close()


class Cluster:
    def __init__(self, directory: Path):
        self.backend, self.api, self._stop = Backend(), Api(), threading.Event()
        self.kubelet = Kubelet(self.backend.address)
        self._socket = directory / "services.sock"
        faults = Faults(directory / "faults.yaml")
        faults.file.write_text("services:\n- {match: apps/web, refuseSeconds: 7}\n")
        self.proxy = ServiceProxy(self.api, self.kubelet, faults, self._socket)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self.proxy.run, args=(self._stop,))
        self._thread.start()
        assert self.api.known.wait(10)

    def connect(self, authority: str) -> str:
        """The status of the proxy's answer, and what came through the connection."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            while client.connect_ex(str(self._socket)):
                assert self._thread.is_alive()
            client.sendall(f"CONNECT {authority} HTTP/1.1\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(100), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return f"{head.split()[1].decode()} {body.decode()}".strip()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.backend.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as directory:  # the path of a socket must be short
        result = Cluster(Path(directory))
        yield result
        result.close()


def test_a_service_leads_to_a_pod_behind_its_selector_and_target_port(cluster: Cluster) -> None:
    assert cluster.connect("10.96.0.9:443") == "200 here"
    assert cluster.kubelet.asked.get_nowait() == ("apps", {"app": "web"}, "https", 7.0)


def test_a_service_without_pods_and_a_port_or_address_that_none_has_refuse(cluster: Cluster) -> None:
    cluster.kubelet.found = []
    assert {cluster.connect(a) for a in ("10.96.0.9:443", "10.96.0.9:80", "10.96.0.8:443")} == {"503"}


def test_only_an_address_that_was_opened_is_reached_itself(cluster: Cluster) -> None:
    host, port = cluster.backend.address
    assert cluster.connect(f"{host}:{port}") == "503"
    cluster.proxy.open((host, port))
    assert cluster.connect(f"{host}:{port}") == "200 here"
