"""Asking a gateway as its clients do, and remembering when what came.

Nothing is repeated and no redirect followed. A request that gets no answer is an answer with status 0 and the
reason, so that judgements need not catch anything.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import urllib3

PATIENCE = 120.0
"""Seconds without a byte after which a request counts as not answered; long prompts take a while."""
CONNECTING = 10.0
PORTS = {"https": 443, "http": 80}
_END = "[DONE]"


@dataclass(frozen=True, kw_only=True)
class Door:
    """One listener: the `host` that clients write, and the `address` and `port` that connections go to."""

    scheme: str
    host: str
    address: str
    port: int
    ca_file: str | None = None
    ca_data: str | None = None

    @property
    def url(self) -> str:
        """The base URL as clients write it."""
        return f"{self.scheme}://{self.host}"

    @property
    def where(self) -> str:
        """Where connections really go."""
        return f"{self.address}:{self.port}"

    def trust(self) -> ssl.SSLContext:
        """The authorities that count: those given, else those of this machine."""
        return ssl.create_default_context(cafile=self.ca_file, cadata=self.ca_data)


@dataclass(frozen=True)
class Answer:
    """What came: headers in small letters, the body, and how long it took. Status 0: no answer, `error` says why."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    error: str = ""

    @property
    def json(self) -> dict[str, Any]:
        """The body as an object; empty for anything else."""
        try:
            read = json.loads(self.body)
        except ValueError:
            return {}
        return read if isinstance(read, dict) else {}

    @property
    def code(self) -> str:
        """The code of an error in OpenAI's shape; empty without one."""
        error = self.json.get("error")
        return str(error.get("code") or "") if isinstance(error, dict) else ""

    @property
    def tokens(self) -> int:
        """What the answer says that it took, prompt included; 0 where it says nothing."""
        return count(self.json.get("usage"), "total_tokens")

    def number(self, header: str) -> int | None:
        """A header that is a whole number; None for everything else."""
        value = self.headers.get(header, "")
        return int(value) if value.isascii() and value.isdigit() else None

    def __str__(self) -> str:
        """Status and reason, for evidence: never a whole body, which may repeat what was sent."""
        if not self.status:
            return f"no answer ({self.error})"
        said = self.json.get("error")
        message = said.get("message") if isinstance(said, dict) else None
        return f"HTTP {self.status}" + (f" ({' '.join(str(message).split())[:200]})" if message else "")


@dataclass(frozen=True)
class Stream:
    """A streamed answer: the data of its events, each with the seconds after which it came, and whether it ended."""

    answer: Answer
    events: tuple[tuple[float, dict[str, Any]], ...] = ()
    ended: bool = False


class Client:
    """Asks one door; `connections` at the same time."""

    def __init__(self, door: Door, connections: int = 1):
        self.door = door
        common = {"maxsize": connections, "block": True, "retries": False}
        if door.scheme == "https":
            named = {"server_hostname": door.host, "assert_hostname": door.host}
            self._pool: urllib3.HTTPConnectionPool = urllib3.HTTPSConnectionPool(
                door.address, door.port, ssl_context=door.trust(), **named, **common
            )
        else:
            self._pool = urllib3.HTTPConnectionPool(door.address, door.port, **common)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def ask(
        self,
        method: str,
        path: str,
        key: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request and its whole answer."""
        began = time.monotonic()
        try:
            response = self._send(method, path, key, body, headers)
            content = response.read()
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return _broken(error, began)
        return Answer(response.status, _lower(response.headers), content, time.monotonic() - began)

    def stream(self, path: str, key: str | None, body: Mapping[str, Any]) -> Stream:
        """One request whose answer is read as it comes."""
        began, events, ended = time.monotonic(), [], False
        try:
            response = self._send("POST", path, key, {**body, "stream": True}, None)
            if response.status != 200:
                content = response.read()
                return Stream(Answer(response.status, _lower(response.headers), content))
            for data in _events(response):
                ended = ended or data == _END
                if data != _END:
                    events.append((time.monotonic() - began, _object(data)))
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return Stream(_broken(error, began), tuple(events))
        answer = Answer(200, _lower(response.headers), b"", time.monotonic() - began)
        return Stream(answer, tuple(events), ended)

    def _send(
        self, method: str, path: str, key: str | None, body: Any, headers: Mapping[str, str] | None
    ) -> urllib3.BaseHTTPResponse:
        sent = {"host": self.door.host, "content-type": "application/json", **(headers or {})}
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        return self._pool.request(
            method,
            path,
            headers=sent,
            body=None if body is None else json.dumps(body),
            timeout=urllib3.Timeout(connect=CONNECTING, read=PATIENCE),
            redirect=False,
            preload_content=False,
        )


def _events(response: urllib3.BaseHTTPResponse) -> Iterator[str]:
    """The data of each event, as soon as its line is complete."""
    rest = b""
    for part in response.stream(65536):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip().decode(errors="replace")


def _object(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def count(usage: Any, name: str) -> int:
    """A count of a usage object; 0 where there is none."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else 0


def _broken(error: Exception, began: float) -> Answer:
    text = " ".join(str(error).split())
    # urllib3 puts the object that failed before the reason.
    reason = text.rpartition(">: ")[2] or type(error).__name__
    return Answer(0, error=reason[:300], seconds=time.monotonic() - began)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def certificate(door: Door) -> dict[str, Any]:
    """The certificate that a door shows, verified for its host.

    Raises ssl.SSLError where it is none that is trusted for the host, OSError where nobody answers.
    """
    with (
        socket.create_connection((door.address, door.port), CONNECTING) as plain,
        door.trust().wrap_socket(plain, server_hostname=door.host) as secure,
    ):
        return dict(secure.getpeercert() or {})
