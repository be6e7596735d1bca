"""Locks on a stack in a backend of one's own (`file://`, `s3://`, `gs://`, `azblob://`).

The CLI keeps one JSON file per lock, `.pulumi/locks/<stack>/<id>.json`, with
pid, user name, host name and time of the process that holds it, and removes
it when that process ends; one that is killed leaves it behind. A file backend
is read directly. In a bucket the CLI is asked instead, by `pulumi stack init`
of the stack that exists already: that takes the lock before it refuses, and
names whoever holds it.
"""

from __future__ import annotations

import getpass
import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ops.errors import OpsError
from ops.pulumi import Pulumi
from ops.recover.processes import is_running

_HOLDER = re.compile(r"^\s*(\S+): created by (.+)@(\S+) \(pid (\d+)\) at (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Lock:
    """A lock, who holds it, and whether that process can still be at work.

    `stale` is true only where it is known: the lock is of this user on this
    host, and its process has ended.
    """

    where: str
    username: str
    hostname: str
    pid: int
    since: str
    stale: bool = False

    def __str__(self) -> str:
        return f"lock of {self.username}@{self.hostname} (pid {self.pid}, since {self.since})"


def read(pulumi: Pulumi) -> tuple[Lock, ...]:
    """The locks on the stack, wherever it is kept."""
    if pulumi.backend.startswith("file://"):
        found = _in_files(pulumi)
    elif pulumi.backend.startswith(("https://", "http://")):
        found = _in_service(pulumi)
    else:
        found = parse_refusal(pulumi.run("stack", "init", pulumi.stack, "--no-select").stderr)
    return tuple(_judge(lock) for lock in found)


def _in_files(pulumi: Pulumi) -> list[Lock]:
    location = Path(unquote(urlsplit(pulumi.backend).path))
    if pulumi.backend.startswith("file://~"):
        location = Path(pulumi.backend.removeprefix("file://")).expanduser()
    stack = pulumi.stack.rsplit("/", 1)[-1]
    names = (
        f"organization/{pulumi.project}/{stack}",
        stack,
    )  # The second is how backends before 2023 keep it.
    files = [file for name in names for file in sorted((location / ".pulumi/locks" / name).glob("*.json"))]
    return [lock for file in files if (lock := _parse(file)) is not None]


def _parse(file: Path) -> Lock | None:
    try:
        content = json.loads(file.read_text())
        return Lock(
            str(file),
            content["username"],
            content["hostname"],
            int(content["pid"]),
            str(content["timestamp"]),
        )
    except FileNotFoundError:
        return None  # Its process ended just now.
    except (ValueError, KeyError, TypeError):
        raise OpsError(
            f"the lock {file} cannot be read, so whoever holds it is unknown: when no `pulumi` is at work on "
            "this stack, remove it with `pulumi cancel`"
        ) from None


def _in_service(pulumi: Pulumi) -> list[Lock]:
    """Pulumi Cloud keeps no lock files: it says whether an update is in progress."""
    stacks = json.loads(pulumi.call("stack", "ls", "--json"))
    mine = pulumi.stack.rsplit("/", 1)[-1]
    busy = [s for s in stacks if s["name"].rsplit("/", 1)[-1] == mine and s.get("updateInProgress")]
    return [Lock(pulumi.backend, "the service", pulumi.backend, 0, "unknown") for _ in busy]


def parse_refusal(said: str) -> list[Lock]:
    """The holders named in the CLI's refusal to work on a locked stack; empty when it names none."""
    return [Lock(m[1], m[2], m[3], int(m[4]), m[5]) for m in _HOLDER.finditer(said)]


def _judge(lock: Lock) -> Lock:
    mine = (lock.username, lock.hostname) == (getpass.getuser(), socket.gethostname())
    stale = mine and not is_running(lock.pid, lock.since)
    return Lock(lock.where, lock.username, lock.hostname, lock.pid, lock.since, stale)
