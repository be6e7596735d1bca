"""A client that shows what is on the wire: every header, events as they come, connections to break off."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 30.0
Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """A whole answer; `headers` as they came, names in small letters."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The one value of a header; None without it."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, f"{name} came {len(found)} times"
        return found[0] if found else None

    def number(self, name: str) -> int:
        """A header that is a number."""
        value = self.header(name)
        assert value is not None, f"there is no {name} among {self.headers}"
        return int(value)

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error in OpenAI's shape."""
        error = self.json["error"]
        assert {"message", "type", "code"} <= error.keys() and error["message"]
        return str(error["code"])

    @property
    def events(self) -> list[Any]:
        """The data of a stream, without the mark at its end."""
        return [data for line in self.body.splitlines() if (data := event(line)) is not None]


def event(line: bytes) -> Any:
    """What one line of a stream carries; None for lines without data."""
    data = line.removeprefix(b"data:").strip()
    return json.loads(data) if line.startswith(b"data:") and data != b"[DONE]" else None


def encoded(body: Any) -> bytes:
    """A body as it is sent: bytes as they are, all else as JSON."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def connect(url: str) -> http.client.HTTPConnection:
    """A connection to the gateway at `url`."""
    parts = urlsplit(url)
    assert parts.hostname
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)


def send(
    connection: http.client.HTTPConnection, method: str, path: str, headers: Headers, body: Any = None
) -> http.client.HTTPResponse:
    """Send exactly these headers; the answer is not read yet."""
    given = list(headers)
    skipped = any(name.lower() == "host" for name, _ in given)
    connection.putrequest(method, path, skip_host=skipped, skip_accept_encoding=True)
    content = None if body is None else encoded(body)
    for name, value in given:
        connection.putheader(name, value)
    if content is not None:
        connection.putheader("content-length", str(len(content)))
    connection.endheaders(content)
    return connection.getresponse()


def answer_of(response: http.client.HTTPResponse) -> Answer:
    """Read the rest of an answer."""
    headers = tuple((name.lower(), value) for name, value in response.getheaders())
    return Answer(response.status, headers, response.read())


def ask(url: str, method: str, path: str, headers: Headers, body: Any = None) -> Answer:
    """One request on a connection of its own."""
    connection = connect(url)
    try:
        return answer_of(send(connection, method, path, headers, body))
    finally:
        connection.close()


@contextmanager
def streaming(url: str, path: str, headers: Headers, body: Any) -> Iterator[http.client.HTTPResponse]:
    """An answer that is read as it comes; leaving breaks the connection off."""
    connection = connect(url)
    try:
        response = send(connection, "POST", path, headers, body)
        try:
            yield response
        finally:
            response.close()
    finally:
        connection.close()


def next_event(response: http.client.HTTPResponse) -> Any:
    """The data of the next event of a stream."""
    while line := response.readline():
        if (data := event(line)) is not None:
            return data
    raise AssertionError("the stream is over")


def raw(url: str) -> socket.socket:
    """A bare connection to the gateway at `url`."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port or 80), TIMEOUT_SECONDS)


def request_bytes(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A request in HTTP/1.1 as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "host: gateway", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
