"""How `doctor` reads what is no object: metrics of pods, near and far, and lines of the access log."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ops.doctor import metrics, traffic
from ops.errors import OpsError
from ops.kube import Kube
from rehearsal.cluster import certificates

PAGE = """# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="qwen",engine="0"} 2
vllm:num_requests_waiting{model_name="qwen",engine="1"} 3
vllm:prompt_tokens_total{model_name="qwen"} 1.5e3
vllm:odd{le="+Inf"} NaN-ish
vllm:cache_config_info{block_size="16",enable_prefix_caching="False"} 1
"""
# RFC 6455, 1.3: what a server adds to the client's key.
WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Page(BaseHTTPRequestHandler):
    """An engine's metrics."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = PAGE.encode() if self.path == "/metrics" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    """A server while the block runs; gives its port."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class ApiServer(BaseHTTPRequestHandler):
    """Forwards ports as a kubelet does behind the API server: two channels for a port, over one WebSocket."""

    protocol_version = "HTTP/1.1"
    port = 0
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if "/portforward" not in self.path or not self.port:
            self.send_error(403, "Forbidden")
            return
        digest = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + WEBSOCKET).encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        port = int(self.path.rpartition("ports=")[2])
        for channel in (0, 1):
            self._send(bytes((channel,)) + struct.pack("<H", port))
        with socket.create_connection(("127.0.0.1", self.port)) as pod:
            back = threading.Thread(target=self._answers, args=(pod,), daemon=True)
            back.start()
            while frame := self._frame():
                pod.sendall(frame[1:])
            back.join()
        self.close_connection = True

    def _answers(self, pod: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := pod.recv(4096):
                self._send(b"\0" + data)
            self.connection.sendall(b"\x88\x00")

    def _send(self, data: bytes) -> None:
        length = struct.pack("!BH", 126, len(data)) if len(data) > 125 else bytes((len(data),))
        self.connection.sendall(b"\x82" + length + data)

    def _frame(self) -> bytes:
        """The next binary frame of the client, unmasked; empty when it has gone."""
        head = self.rfile.read(2)
        if len(head) < 2 or head[0] & 0x0F == 8:
            return b""
        size = head[1] & 0x7F
        size = struct.unpack("!H", self.rfile.read(2))[0] if size == 126 else size
        mask = self.rfile.read(4)
        return bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(size)))

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def pod(address: str, port: int, scheme: str = "HTTP") -> dict[str, Any]:
    probe = {"httpGet": {"path": "/health", "port": port, "scheme": scheme}}
    spec = {"containers": [{"name": "main", "readinessProbe": probe}]}
    return {
        "metadata": {"name": "qwen-0", "namespace": "llm-models"},
        "spec": spec,
        "status": {"podIP": address},
    }


def reaching(port: int) -> Kube:
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {}}
    return Kube({"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "x"})


@pytest.fixture(params=["HTTP", "HTTPS"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Scheme and port of an engine that signs its own certificate, as KServe's do."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    if request.param == "HTTPS":
        pair = certificates.authority("qwen")
        files = tmp_path / "tls.crt", tmp_path / "tls.key"
        for file, content in zip(files, (pair.certificate, pair.key), strict=True):
            file.write_bytes(content)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        yield request.param, port


def test_a_pod_on_this_machine_is_asked_directly(engine):
    scheme, port = engine
    assert metrics.read(reaching(1), pod("127.0.0.1", port, scheme)) == PAGE


def test_a_pod_elsewhere_is_asked_over_a_forwarded_port(engine):
    scheme, port = engine
    handler = type("Handler", (ApiServer,), {"port": port, "asked": []})
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as api:
        assert metrics.read(reaching(api), pod("10.1.2.3", 8000, scheme)) == PAGE
    assert handler.asked == ["/api/v1/namespaces/llm-models/pods/qwen-0/portforward?ports=8000"]


def test_metrics_that_do_not_come_say_whose_and_why():
    handler = type("Handler", (ApiServer,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with serving(server) as api, pytest.raises(OpsError, match="pod qwen-0: .*Forbidden"):
        metrics.read(reaching(api), pod("10.1.2.3", 8000))


def test_metrics_are_summed_over_their_labels_and_odd_lines_left_out():
    assert metrics.sums(PAGE) == {
        "vllm:num_requests_waiting": 5.0,
        "vllm:prompt_tokens_total": 1500.0,
        "vllm:cache_config_info": 1.0,
    }
    assert metrics.engine(PAGE) == {"block_size": "16", "enable_prefix_caching": "False"}
    assert metrics.engine("") == {}


def test_the_access_log_is_read_among_other_lines_and_only_the_last_requests_count():
    good = {"model": "qwen", "status": 200, "flags": "-", "replica": "10.0.0.1:8000", "prompt": 900}
    refused = {**good, "status": "429", "prompt": None}
    strange = ["", "[warning] no JSON", "7", '{"level": "info"}']
    lines = [
        *strange,
        json.dumps(refused),
        *map(json.dumps, [good] * 60),
        json.dumps({**good, "model": "other"}),
    ]
    requests = list(traffic.requests(lines))
    assert len(requests) == 62
    assert (requests[0].status, requests[0].prompt, requests[0].failed) == (429, None, False)
    assert len(traffic.of("qwen", requests)) == traffic.LAST
    assert {r.status for r in traffic.of("qwen", requests)} == {200}
