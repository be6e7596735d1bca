"""A kubelet's API as far as logs go: what `kubectl logs` shows are the files in the rehearsal's `logs`.

    GET /containerLogs/<namespace>/<pod>/<container>[?tailLines=N&limitBytes=N&follow=true]

Only clients with a certificate of the cluster's authority are served, which is
how the API server shows that it is allowed to ask. Lines carry no time of their
own, so `sinceTime`, `sinceSeconds` and `timestamps` change nothing; a container's
earlier lives are in the same file, so there is no `previous` one.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import ssl
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, unquote, urlsplit

FOLLOW_SECONDS = 0.2
BLOCK = 65536

Find = Callable[[str, str, str], Path | None]
"""The file of (namespace, pod, container), or None when no such container is here."""


class NotAnswered(Exception):
    """A request that gets an error: its status and the text for it."""

    def __init__(self, status: HTTPStatus, text: str):
        super().__init__(text)
        self.status = status


class LogServer:
    """Serves the logs of all simulated nodes, on one local port."""

    def __init__(self, find: Find, certificate: Path, key: Path, authority: Path):
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.find = find
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
        self._server.context = context

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def run(self, stop: threading.Event) -> None:
        """Serve until told to stop."""
        threading.Thread(target=self._server.serve_forever, args=(FOLLOW_SECONDS,), daemon=True).start()
        stop.wait()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Speaks TLS in the thread of each connection, so that a silent client delays nobody."""

    daemon_threads = True
    find: Find
    context: ssl.SSLContext

    def finish_request(self, request, client_address) -> None:
        request.settimeout(30)
        # A client without a certificate, or one that goes away, is no error of ours.
        with contextlib.suppress(OSError), self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answer one request for a log."""
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        try:
            file = self._file(url.path)
            tail, limit = _number(query, "tailLines"), _number(query, "limitBytes")
            if query.get("previous") == "true":
                raise NotAnswered(HTTPStatus.BAD_REQUEST, "previous terminated container not found")
        except NotAnswered as error:
            self._error(error.status, str(error))
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._send(file, tail, limit, follow=query.get("follow") == "true")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Requests for logs are not worth a log."""

    def _file(self, path: str) -> Path:
        parts = [unquote(part) for part in path.split("/")[1:]]
        if len(parts) != 4 or parts[0] != "containerLogs":
            raise NotAnswered(HTTPStatus.NOT_FOUND, "the simulated kubelet only serves logs")
        file = self.server.find(*parts[1:])
        if file is None:
            raise NotAnswered(
                HTTPStatus.NOT_FOUND, f"container {parts[3]} of pod {parts[1]}/{parts[2]} is not here"
            )
        return file

    def _error(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, file: Path, tail: int | None, limit: int | None, follow: bool) -> None:
        """Send the file from its last `tail` lines on; following, until the pod or the client is gone."""
        left = limit if limit is not None else float("inf")
        # A simulated container writes none.
        with file.open("rb") if file.exists() else io.BytesIO() as log:
            if tail is not None:
                log.seek(_start_of_last(log, tail))
            while left > 0:
                if block := log.read(int(min(left, BLOCK))):
                    left -= len(block)
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
                elif not follow or self._gone() or not self._still_here():
                    return

    def _still_here(self) -> bool:
        with contextlib.suppress(NotAnswered):
            self._file(urlsplit(self.path).path)
            return True
        return False

    def _gone(self) -> bool:
        """Wait a moment for more; true when the client closed the connection meanwhile."""
        readable, _, _ = select.select([self.connection], [], [], FOLLOW_SECONDS)
        return bool(readable)


def _number(query: Mapping[str, str], name: str) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    if not value.isdigit():
        raise NotAnswered(HTTPStatus.BAD_REQUEST, f"{name} is {value!r}, not a number")
    return int(value)


def tail(file: Path, begin: int = 0, limit: int = 2048) -> str:
    """The end of a log from `begin` on: what a kubelet takes for a container's last words."""
    if not file.exists():
        return ""
    with file.open("rb") as log:
        log.seek(max(begin, log.seek(0, os.SEEK_END) - limit))
        return log.read().decode(errors="replace")


def _start_of_last(log: IO[bytes], lines: int) -> int:
    """The position where the last `lines` lines begin, read from the end."""
    position, found = log.seek(0, os.SEEK_END), 0
    end = position - 1  # the newline that ends the last line begins none
    while position > 0 and lines > 0:
        size = min(BLOCK, position)
        position -= size
        log.seek(position)
        block = log.read(size)
        index = block.rfind(b"\n", 0, max(end - position, 0))
        while index >= 0:
            found += 1
            if found == lines:
                return position + index + 1
            index = block.rfind(b"\n", 0, index)
    return position if lines > 0 else end + 1
