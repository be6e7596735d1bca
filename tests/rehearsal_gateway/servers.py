"""Small servers around a real Envoy: backends, a picker, and Envoy itself."""

from __future__ import annotations

import http.client
import json
import os
import queue
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

CHECKOUT = Path(__file__).parents[2]
ENVOY_SECONDS = 30
PICKED = "x-gateway-destination-endpoint"


def eventually(check: Callable[[], Any], what: str, seconds: float = 10) -> Any:
    """The first true result of `check`; fails the test with `what` if there is none in time."""
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)
    return result


class Backend:
    """A model server that tells who it is and what it was sent; `/v1/completions?stream` waits for `go`."""

    def __init__(self, name: str):
        self.name, self.go = name, threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.server.server_address[1])

    def close(self) -> None:
        self.go.set()
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self._body()
                if self.path.endswith("?stream"):
                    return self._stream()
                answer = {
                    "backend": backend.name,
                    "path": self.path,
                    "body": body.decode(),
                    "headers": {k.lower(): v for k, v in self.headers.items()},
                }
                text = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def _body(self) -> bytes:
                # What has gone through a picker comes in chunks, since it may have changed its length.
                if "content-length" in self.headers:
                    return self.rfile.read(int(self.headers["content-length"]))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _stream(self) -> None:
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self._chunk(b"first")
                backend.go.wait(ENVOY_SECONDS)
                self._chunk(b"second")
                self.wfile.write(b"0\r\n\r\n")

            def _chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _length_delimited(number: int, content: bytes) -> bytes:
    """A field of a protobuf message."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _fields(message: bytes) -> dict[int, Any]:
    """The fields of a message with varints and length-delimited ones."""
    found: dict[int, Any] = {}
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(message):
        tag = number()
        if tag & 7 == 0:
            found[tag >> 3] = number()
        else:
            length = number()
            found[tag >> 3] = message[place : place + length]
            place += length
    return found


REQUEST_HEADERS, REQUEST_BODY, RESPONSE_BODY = 2, 4, 5
# Each part of a request or answer, and how the picker's word on it is numbered.
ANSWERS = {2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6}


class Picker:
    """An endpoint picker that always says the same: Envoy's ext_proc protocol, as far as a picker speaks it.

    Numbers are those of `ProcessingRequest` and `ProcessingResponse` (envoy/service/ext_proc/v3).
    """

    def __init__(self, choice: str, credentials: grpc.ServerCredentials | None = None):
        self.choice, self.asked = choice, 0
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        handler = grpc.stream_stream_rpc_method_handler(self._process)
        service = grpc.method_handlers_generic_handler(
            "envoy.service.ext_proc.v3.ExternalProcessor", {"Process": handler}
        )
        self._server.add_generic_rpc_handlers((service,))
        host = "127.0.0.1:0"
        add, secure = self._server.add_insecure_port, self._server.add_secure_port
        self.address = ("127.0.0.1", secure(host, credentials) if credentials else add(host))
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()

    def _process(self, requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
        for request in requests:
            for kind, content in _fields(request).items():
                if kind in (REQUEST_BODY, RESPONSE_BODY):
                    yield self._body(kind, content)
                elif kind == REQUEST_HEADERS:
                    self.asked += 1
                    yield self._headers(kind) + self._choice()
                elif kind in ANSWERS:
                    yield self._headers(kind)

    def _headers(self, kind: int) -> bytes:
        return _length_delimited(ANSWERS[kind], b"")

    def _body(self, kind: int, content: bytes) -> bytes:
        """The same part of the body back: BodyResponse > CommonResponse > BodyMutation > streamed_response."""
        streamed = _length_delimited(3, content)
        response = _length_delimited(1, _length_delimited(3, streamed))
        return _length_delimited(ANSWERS[kind], response)

    def _choice(self) -> bytes:
        metadata = ParseDict({"envoy.lb": {PICKED: self.choice}}, Struct())
        return _length_delimited(8, metadata.SerializeToString())


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Proxy:
    """A running proxy: `python -m rehearsal.gateway`, which becomes Envoy."""

    address: str
    log: Path

    def ask(
        self,
        path: str,
        port: int = 8080,
        method: str = "POST",
        host: str = "any.example.org",
        body: str = "{}",
        tls: bool = False,
        **headers: str,
    ) -> Answer:
        connection = self._connect(port, host, tls)
        try:
            sent = {"Host": host, "content-type": "application/json"}
            sent |= {k.replace("_", "-"): v for k, v in headers.items()}
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(
                response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode()
            )
        finally:
            connection.close()

    def _connect(self, port: int, host: str, tls: bool) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.address, port, timeout=10)
        if tls:
            connection.connect()
            context = ssl._create_unverified_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        return connection

    def stream(self, path: str, parts: queue.Queue[bytes], **headers: str) -> None:
        """Put every part of a streamed answer into `parts` as it comes, and nothing (b"") at its end."""
        connection = http.client.HTTPConnection(self.address, 8080, timeout=30)
        connection.request("POST", path, "{}", headers)
        response = connection.getresponse()
        while part := response.read1():
            parts.put(part)
        parts.put(b"")
        connection.close()

    def certificate(self, host: str) -> bytes:
        """What the proxy shows to who asks for a host by TLS."""
        connection = self._connect(8443, host, tls=True)
        try:
            return connection.sock.getpeercert(binary_form=True)
        finally:
            connection.close()

    def admin(self, path: str) -> str:
        connection = http.client.HTTPConnection(self.address, 15000, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def stat(self, name: str) -> int:
        """One of Envoy's counters."""
        found = self.admin(f"/stats?filter=^{name}$").strip()
        return int(found.rpartition(": ")[2]) if found else 0


@contextmanager
def running(root: Path, address: str, pod: tuple[str, str], envoy: Path) -> Iterator[Proxy]:
    """A proxy that runs as in its pod, until it is ready, and ends with the test."""
    binaries, log = root / "bin", root / "proxy.log"
    binaries.mkdir(exist_ok=True)
    (binaries / "envoy").symlink_to(envoy)
    environment = {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT),
        "LLMP_REHEARSAL_PROCESS": str(root),
        "REHEARSAL_ADDRESS": address,
        "POD_NAMESPACE": pod[0],
        "POD_NAME": pod[1],
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rehearsal.gateway"], env=environment, stdout=output, stderr=output
        )
    proxy = Proxy(address, log)

    def ready() -> bool:
        assert process.poll() is None, f"the proxy ended:\n{log.read_text()}"
        try:
            return proxy.ask("/healthz/ready", port=15021, method="GET").status == 200
        except OSError:
            return False

    try:
        eventually(ready, "the proxy is ready", ENVOY_SECONDS)
        yield proxy
    finally:
        process.terminate()
        process.wait(timeout=ENVOY_SECONDS)
