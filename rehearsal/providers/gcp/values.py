"""Small makers of outputs that Google has on most resources, for the tables of kinds."""

from __future__ import annotations

from collections.abc import Mapping

from rehearsal.providers.cloud.kinds import Value
from rehearsal.providers.cloud.values import always, at, fields, number, time, token
from rehearsal.providers.gcp.call import Call

__all__ = [
    "COMPUTE", "always", "at", "fields", "labelled", "link", "number", "project", "region", "time", "token",
]  # fmt: skip
COMPUTE = "https://www.googleapis.com/compute/v1/"


def link(call: Call) -> str:
    """The self link of a compute resource."""
    return COMPUTE + call.identity


def project(call: Call) -> str:
    """The project's id."""
    return call.project


def region(call: Call) -> str:
    """The region's name."""
    return call.region


def labelled(given: str = "labels") -> Mapping[str, Value]:
    """The two outputs that the provider adds to what has labels."""
    return {
        "effectiveLabels": lambda call: call.labels(given),
        "pulumiLabels": lambda call: call.labels(given),
    }
