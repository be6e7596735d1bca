"""Small makers of outputs, for the tables of kinds."""

from __future__ import annotations

from string import Formatter
from typing import Any

from rehearsal.providers.cloud.call import Call
from rehearsal.providers.cloud.kinds import Value


def at(template: str) -> Value:
    """An id such as `projects/{project}/global/networks/{name}`: places of the call, and inputs."""
    words = [word for _, word, _, _ in Formatter().parse(template) if word]

    def value(call: Call) -> str:
        return template.format_map(
            {w: getattr(call, w) if w in call.PLACES else str(call.inputs.get(w, "")) for w in words}
        )

    return value


def always(value: Any) -> Value:
    """The same for every resource."""
    return lambda _: value


def time(call: Call) -> str:
    """When the resource was made."""
    return call.time


def number(call: Call) -> str:
    """A number of the resource's own."""
    return call.number()


def token(call: Call) -> str:
    """A fingerprint or etag."""
    return call.token()


def fields(*names: str) -> frozenset[str]:
    """A set of paths."""
    return frozenset(names)
