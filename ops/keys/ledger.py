"""The ledger of a stack: which keys were issued to whom, what was revoked, which signer has which key id.

One JSON object per line in `keys/<stack>.ledger.jsonl` beside Pulumi.yaml, only
ever appended to, and made to be committed. It holds no key and no secret.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ops.errors import OpsError
from stacks.ledger import ledger_file

_WANTED = {
    "signer": ("kid", "signer"),
    "issued": ("jti", "tenant", "kid", "exp", "at"),
    "revoked": ("jti",),
}
"""The fields, all text, that an entry of each event cannot do without."""


def now() -> datetime:
    """The time, in UTC and whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def stamp(when: datetime) -> str:
    """A time as it is written: `2026-01-31T12:00:00Z`."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True)
class Issued:
    """One key that was given out."""

    jti: str
    tenant: str
    kid: str
    issued: datetime
    expires: datetime
    by: str = ""
    note: str = ""


class Ledger:
    """The ledger of `stack` in the project's directory; one that does not exist is empty."""

    def __init__(self, directory: Path, stack: str):
        self.path = ledger_file(stack.rsplit("/", 1)[-1], directory)

    @cached_property
    def entries(self) -> list[dict[str, str]]:
        """Everything in the order in which it happened; :class:`OpsError` for a line that cannot be read."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise OpsError(f"the ledger {self.path} cannot be read: {error}") from None
        return [self._entry(number, line) for number, line in enumerate(lines, 1) if line.strip()]

    def _entry(self, number: int, line: str) -> dict[str, str]:
        try:
            entry = json.loads(line)
            wanted = _WANTED[entry["event"]]
            if not all(isinstance(entry[name], str) for name in wanted):
                raise TypeError
            for name in {"exp", "at"} & set(wanted):
                if datetime.fromisoformat(entry[name]).tzinfo is None:
                    raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise OpsError(
                f"line {number} of {self.path} is not an entry: correct or remove it (a merge that was not "
                "resolved, or a write that was cut short); nothing was changed"
            ) from None
        return entry

    @property
    def signers(self) -> dict[str, str]:
        """Signer by key id, the current one last."""
        found: dict[str, str] = {}
        for entry in self._of("signer"):
            found.pop(entry["kid"], None)
            found[entry["kid"]] = entry["signer"]
        return found

    @property
    def issued(self) -> dict[str, Issued]:
        """Every key by its id, oldest first."""
        return {entry["jti"]: _issued(entry) for entry in self._of("issued")}

    @property
    def revoked(self) -> frozenset[str]:
        """The ids that were revoked at some time."""
        return frozenset(entry["jti"] for entry in self._of("revoked"))

    def _of(self, event: str) -> Iterator[dict[str, str]]:
        return (entry for entry in self.entries if entry["event"] == event)

    def append(self, event: str, **fields: str) -> None:
        """Write one more entry, with who did it when; it is on the disk when this returns."""
        fields = {"event": event, **fields, "by": _who(), "at": stamp(now())}
        self.path.parent.mkdir(exist_ok=True)
        try:
            with self.path.open("a+b") as file:
                line = _separator(file) + json.dumps(fields, ensure_ascii=False).encode() + b"\n"
                file.write(line)  # One write to the end of the file: two of these never mix.
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OpsError(f"the ledger {self.path} cannot be written: {error.strerror}") from None
        self.__dict__.pop("entries", None)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other commands of this machine that change the stack's keys waiting; reads the ledger anew."""
        self.path.parent.mkdir(exist_ok=True)
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("waiting for another command that changes keys", file=sys.stderr)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            self.__dict__.pop("entries", None)
            yield
        finally:
            os.close(descriptor)


def _separator(file: Any) -> bytes:
    """A line end, where the last write was cut short before its own."""
    if file.seek(0, os.SEEK_END) == 0:
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def _issued(entry: Mapping[str, str]) -> Issued:
    issued, expires = (datetime.fromisoformat(entry[name]) for name in ("at", "exp"))
    return Issued(
        entry["jti"],
        entry["tenant"],
        entry["kid"],
        issued,
        expires,
        str(entry.get("by", "")),
        str(entry.get("note", "")),
    )


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # A container whose user has no name.
        user = str(os.geteuid())
    return f"{user}@{socket.gethostname()}"
