"""What the gateway's access log says of the last requests. Pure: text in, requests out, and no line that can stop it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

LAST = 50
"""Requests of a model that are looked at: enough for a share, few enough to be about now."""
OURS = {"model", "status", "flags", "replica"}
"""Fields that make a JSON line one of the access log."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request: milliseconds to the first byte and to the last, and the prompt's tokens where they are known."""

    model: str
    status: int
    flags: str
    replica: str
    first_byte: float | None = None
    duration: float | None = None
    prompt: float | None = None

    @property
    def failed(self) -> bool:
        """Whether the platform failed it; a refused client is no failure of the platform."""
        return self.status >= 500 or self.status == 0


def requests(lines: Iterable[str]) -> Iterator[Request]:
    """The requests of a log, in its order; lines that are none are passed over."""
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.keys() >= OURS:
            yield _request(record)


def _request(record: dict[str, Any]) -> Request:
    return Request(
        model=str(record["model"] or "-"),
        status=int(_number(record["status"]) or 0),
        flags=str(record["flags"] or "-"),
        replica=str(record["replica"] or "-"),
        first_byte=_number(record.get("first_byte_ms")),
        duration=_number(record.get("duration_ms")),
        prompt=_number(record.get("prompt")),
    )


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def of(model: str, all_requests: Iterable[Request]) -> tuple[Request, ...]:
    """The last requests for one model."""
    return tuple(request for request in all_requests if request.model == model)[-LAST:]
