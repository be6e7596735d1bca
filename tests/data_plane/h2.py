"""As much of HTTP/2 (RFC 9113, 7541) as a request takes: headers written out in full, bodies read, no windows."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x7
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(text: str) -> bytes:
    assert len(text) < 16384
    head, rest = (len(text), b"") if len(text) < 127 else (127, _rest(len(text) - 127))
    return bytes([head]) + rest + text.encode()


def _rest(number: int) -> bytes:
    """The rest of an integer that does not fit into its prefix."""
    out = b""
    while number >= 128:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


class Connection:
    """A connection that speaks HTTP/2 from its first byte; one request after another."""

    def __init__(self, connection: socket.socket):
        self._socket, self._file, self._stream = connection, connection.makefile("rb"), -1
        connection.sendall(PREFACE + _frame(SETTINGS, 0, 0))

    def close(self) -> None:
        """End the connection."""
        self._file.close()
        self._socket.close()

    def post(self, path: str, headers: Iterable[tuple[str, str]], body: bytes) -> tuple[bool, bytes]:
        """Whether the answer was 200, and its body."""
        self._stream += 2
        pseudo = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "gateway"))
        block = b"".join(b"\x00" + _literal(k) + _literal(v) for k, v in (*pseudo, *headers))
        self._socket.sendall(
            _frame(HEADERS, END_HEADERS, self._stream, block) + _frame(DATA, END_STREAM, self._stream, body)
        )
        return self._answer()

    def _answer(self) -> tuple[bool, bytes]:
        ok, body, flags = False, b"", 0
        while not flags & END_STREAM:
            kind, flags, stream, payload = self._read()
            if kind == SETTINGS and not flags & ACK:
                self._socket.sendall(_frame(SETTINGS, ACK, 0))
            assert kind not in (RESET, GOAWAY), f"the gateway ended the stream: {payload!r}"
            if kind == HEADERS and not body:
                # The field `:status: 200` of the static table, which comes first.
                ok = payload[:1] == b"\x88"
            body += payload if kind == DATA else b""
            flags = flags if stream == self._stream and kind in (DATA, HEADERS) else 0
        return ok, body

    def _read(self) -> tuple[int, int, int, bytes]:
        head = self._file.read(9)
        assert len(head) == 9, "the gateway closed the connection"
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return kind, flags, stream, self._file.read(int.from_bytes(head[:3], "big"))
