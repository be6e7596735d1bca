"""Small valid stacks of each kind, and a way to change one thing in them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest

MODEL = {"uri": "hf://Qwen/Qwen2.5-3B-Instruct", "accelerator": "pool", "maxModelLen": 2048}
CLUSTERS: dict[str, dict[str, Any]] = {
    "existing": {
        "kind": "existing",
        "context": "somewhere",
        "accelerators": {"pool": {"type": "nvidia-l4", "maxNodes": 2}},
    },
    "gke": {
        "kind": "gke",
        "project": "my-project",
        "zone": "europe-west4-a",
        "accelerators": {"pool": {"machineType": "ct6e-standard-4t", "topology": "2x2", "maxNodes": 3}},
    },
    "eks": {
        "kind": "eks",
        "region": "us-east-1",
        "zones": ["us-east-1a", "us-east-1b"],
        "accelerators": {"pool": {"instanceType": "g6.12xlarge", "maxNodes": 2}},
    },
}
# A value that no stack has: it takes the key away.
ABSENT = "\0absent"

Change = Mapping[str, Any]


def changed(stack: dict[str, Any], change: Change) -> dict[str, Any]:
    """The stack with values put at slash-separated places; ABSENT removes a key."""
    result = copy.deepcopy(stack)
    for place, value in change.items():
        *above, last = place.split("/")
        target = result
        for step in above:
            target = target.setdefault(step, {})
        if value == ABSENT:
            target.pop(last)
        else:
            target[last] = copy.deepcopy(value)
    return result


@pytest.fixture
def stack() -> Callable[..., dict[str, Any]]:
    """Makes a valid raw configuration of a kind, with changes."""

    def make(kind: str = "existing", change: Change | None = None) -> dict[str, Any]:
        return changed({"cluster": CLUSTERS[kind], "models": {"qwen": MODEL}}, change or {})

    return make
