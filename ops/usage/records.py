"""From lines of the access log to sums. Pure: text in, exact integers out, and no line that can stop it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from components.serving.manifests import verification

KEYS = ("tenant", "tier", "model", "key")
"""Fields of a line that sums can be made by."""
COUNTED = ("prompt", "completion", "total", "cost")
REFUSED = ("401", "403", "429", "5xx")
NOBODY = "-"
"""Stands for a field without a value: a request that was refused before it was known whose it is."""
_EXACT = 2**53
"""Envoy's metadata holds numbers as doubles; above this they are no counts any more."""
_WHOLE = re.compile(r"[0-9]{1,16}(\.0+)?")
_OURS = {"tenant", "status", "request_id"}
"""Fields that make a JSON line one of the access log, and not one of the proxy's own."""


@dataclass
class Sum:
    """The requests of one group. `estimated` are those of the total tokens that are estimates."""

    requests: int = 0
    prompt: int = 0
    completion: int = 0
    total: int = 0
    cost: int = 0
    estimated: int = 0
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REFUSED, 0))

    @property
    def estimated_share(self) -> float:
        """Between 0 and 1."""
        return self.estimated / self.total if self.total else 0.0

    def add(self, other: Sum) -> None:
        """Add another sum to this one."""
        for name in ("requests", *COUNTED, "estimated"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in REFUSED:
            self.refused[name] += other.refused[name]


@dataclass
class Usage:
    """Sums by group, and what could not be counted.

    `skipped` lines are no entries of the access log, `damaged` ones carry a
    number or, where a time matters, a time that cannot be read.
    """

    groups: dict[tuple[str, ...], Sum] = field(default_factory=dict)
    skipped: int = 0
    damaged: int = 0

    @property
    def total(self) -> Sum:
        """All groups together."""
        everything = Sum()
        for group in self.groups.values():
            everything.add(group)
        return everything


def summed(
    lines: Iterable[str],
    by: Sequence[str],
    tenant: str | None = None,
    since: datetime | None = None,
    everybody: bool = False,
) -> Usage:
    """The sums of `lines`, of one tenant and of requests begun since a time if those are given.

    What `python -m ops verify` asked for is nobody's use: it is left out unless `everybody` counts.
    """
    usage = Usage()
    for line in lines:
        record = _record(line)
        if record is None:
            usage.skipped += bool(line.strip())
            continue
        name = _text(record.get("tenant"))
        if name != tenant and (tenant is not None or (verification.is_reserved(name) and not everybody)):
            continue
        begun = _time(record.get("time")) if since else None
        if since and begun is None:
            usage.damaged += 1
        elif since is None or begun >= since:
            one, whole = _sum(record)
            usage.damaged += not whole
            usage.groups.setdefault(tuple(_text(record.get(name)) for name in by), Sum()).add(one)
    return usage


def _record(line: str) -> dict[str, Any] | None:
    """The line as an entry of the access log, or None where it is something else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and record.keys() >= _OURS else None


def _text(value: Any) -> str:
    """A field in a form that is safe on a terminal: a refused request's model is the client's own text."""
    if not isinstance(value, str) or not value:
        return NOBODY
    return "".join(c if c.isprintable() else "?" for c in value[:256])


def _time(value: Any) -> datetime | None:
    try:
        when = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _sum(record: Mapping[str, Any]) -> tuple[Sum, bool]:
    """One request as a sum, and whether all its numbers could be read; one that could not counts as 0."""
    numbers = {name: _number(record.get(name)) for name in COUNTED}
    status = _number(record.get("status"))
    one = Sum(requests=1, **{name: number or 0 for name, number in numbers.items()})
    one.estimated = one.total if record.get("source") == "estimate" else 0
    refused = "5xx" if status is not None and 500 <= status < 600 else str(status)
    if refused in one.refused:
        one.refused[refused] = 1
    return one, None not in (status, *numbers.values())


def _number(value: Any) -> int | None:
    """A count; a field without a value is 0, and what is no count (negative, broken, true, 1e99, NaN) None."""
    if value is None or value in ("", NOBODY):
        return 0
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    counts = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _EXACT
    return value if counts else None
