"""Small makers of outputs, for the tables of kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

from rehearsal.providers.gcp.call import Call

COMPUTE = "https://www.googleapis.com/compute/v1/"
Value = Callable[[Call], Any]


def at(template: str) -> Value:
    """An id such as `projects/{project}/global/networks/{name}`; other words are inputs."""
    words = [word for _, word, _, _ in Formatter().parse(template) if word]
    own = ("project", "region", "location", "name")

    def value(call: Call) -> str:
        return template.format_map(
            {word: getattr(call, word) if word in own else str(call.inputs.get(word, "")) for word in words}
        )

    return value


def always(value: Any) -> Value:
    """The same for every resource."""
    return lambda _: value


def link(call: Call) -> str:
    """The self link of a compute resource."""
    return COMPUTE + call.identity


def project(call: Call) -> str:
    """The project's id."""
    return call.project


def region(call: Call) -> str:
    """The region's name."""
    return call.region


def time(call: Call) -> str:
    """When the resource was made."""
    return call.time


def number(call: Call) -> str:
    """A number of the resource's own."""
    return call.number()


def token(call: Call) -> str:
    """A fingerprint or etag."""
    return call.token()


def labelled(given: str = "labels") -> Mapping[str, Value]:
    """The two outputs that the provider adds to what has labels."""
    return {
        "effectiveLabels": lambda call: call.labels(given),
        "pulumiLabels": lambda call: call.labels(given),
    }


def fields(*names: str) -> frozenset[str]:
    """A set of paths."""
    return frozenset(names)
