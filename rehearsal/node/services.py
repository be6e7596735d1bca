"""What kube-proxy does for the API server: connections to Services reach ready pods.

The API server sends the connections to webhook Services through this HTTP
CONNECT proxy on a Unix socket (its egress selector), since no user can listen
on a cluster address. A Service without a ready pod refuses, as on a cluster.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

from ops.kube import Kube, Manifest
from rehearsal.node.faults import Faults
from rehearsal.node.kubelet import Kubelet

REFUSED = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
ACCEPTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class ServiceProxy:
    """Connects the API server to the pods behind Services."""

    def __init__(self, kube: Kube, kubelet: Kubelet, faults: Faults, path: Path):
        self._kube, self._kubelet, self._faults, self._path = kube, kubelet, faults, path
        self._services: dict[str, Manifest] = {}
        self._stand_ins: dict[str, tuple[str, int]] = {}
        self._open: set[tuple[str, int]] = set()

    def stand_in(self, service: str, address: tuple[str, int]) -> None:
        """Answer for `namespace/name` at `address`, for a program that cannot be had here."""
        self._stand_ins[service] = address

    def open(self, address: tuple[str, int]) -> None:
        """Let the API server connect to `address` itself: it asks for kubelets by their own address."""
        self._open.add(address)

    def run(self, stop: threading.Event) -> None:
        """Serve until told to stop."""
        threading.Thread(target=self._follow, args=(stop,), daemon=True).start()
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._path))
            listener.listen(64)
            listener.settimeout(0.5)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _follow(self, stop: threading.Event) -> None:
        for event, service in self._kube.follow("v1", "Service", stop):
            address = service["spec"].get("clusterIP")
            if event == "DELETED":
                self._services.pop(address, None)
            elif address:
                self._services[address] = service

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                target = self._target(_request(client))
                if target is None:
                    client.sendall(REFUSED)
                    return
                with socket.create_connection(target, timeout=5) as server:
                    server.settimeout(None)
                    client.sendall(ACCEPTED)
                    _pipe(client, server)
            except OSError:
                with contextlib.suppress(OSError):
                    client.sendall(REFUSED)

    def _target(self, authority: str) -> tuple[str, int] | None:
        """The local address behind `clusterIP:port`, or None when nothing may answer there."""
        host, _, port = authority.rpartition(":")
        if (host, int(port)) in self._open:
            return host, int(port)
        service = self._services.get(host)
        if service is None:
            return None
        name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
        if name in self._stand_ins:
            return self._stand_ins[name]
        entry = next((p for p in service["spec"]["ports"] if p["port"] == int(port)), None)
        selector = service["spec"].get("selector")
        if entry is None or not selector:
            return None
        found = self._kubelet.endpoints(
            service["metadata"]["namespace"],
            selector,
            entry.get("targetPort", entry["port"]),
            self._faults.refuse_seconds(name),
        )
        return found[0] if found else None


def _request(client: socket.socket) -> str:
    """Read one CONNECT request; returns its host:port."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = client.recv(4096)
        if not part:
            raise ConnectionError("closed before the request")
        head += part
    return head.split(b" ", 2)[1].decode()


def _pipe(a: socket.socket, b: socket.socket) -> None:
    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=copy, args=(b, a), daemon=True)
    back.start()
    copy(a, b)
    back.join()
