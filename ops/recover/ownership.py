"""Whose an object in the cluster is, judged from what it says about itself. Pure.

Pulumi's Kubernetes provider creates an object under the field manager
`pulumi-kubernetes` and applies changes, and every Patch resource, under
`pulumi-kubernetes-<random>`, which the state keeps as `__fieldManager`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from ops.kube import Manifest
from ops.state import is_secret

MANAGER = "pulumi-kubernetes"
_CLOCKS = timedelta(seconds=30)
"""How far the clocks of the API server and of the engine's host may be apart."""


def is_ours(live: Manifest, inputs: Mapping[str, Any], begun: str = "") -> bool:
    """Whether the object can only come from an interrupted creation with these `inputs`.

    It was made by our provider, with the very labels asked for, and not before
    `begun`, a time (ISO 8601, empty when unknown) at which the creation cannot
    have begun yet.
    """
    metadata = live["metadata"]
    labels, asked = metadata.get("labels") or {}, (inputs.get("metadata") or {}).get("labels") or {}
    alike = not is_secret(asked) and asked.items() <= labels.items()
    return made_by_pulumi(live) and alike and not _older(metadata.get("creationTimestamp", ""), begun)


def _older(created: str, begun: str) -> bool:
    if not created or not begun:
        return False
    return datetime.fromisoformat(created) + _CLOCKS < datetime.fromisoformat(begun)


def made_by_pulumi(live: Manifest) -> bool:
    """Whether our provider, run from anywhere, manages fields of the object."""
    return any(entry.get("manager", "").startswith(MANAGER) for entry in _managed(live))


def patch_manager(live: Manifest, inputs: Mapping[str, Any], taken: Collection[str]) -> str:
    """The field manager under which a Patch resource was applied; empty when it never was.

    It is the latest that manages every field that the patch sets and that no
    other resource of the state uses.
    """
    wanted = set(_paths(inputs))
    applied = [
        entry
        for entry in _managed(live)
        if entry.get("operation") == "Apply"
        and entry["manager"].startswith(MANAGER)
        and entry["manager"] not in taken
        and all(_holds(entry.get("fieldsV1") or {}, path) for path in wanted)
    ]
    return max(applied, key=lambda entry: entry.get("time", ""))["manager"] if applied else ""


def _managed(live: Manifest) -> list[Manifest]:
    return live["metadata"].get("managedFields") or []


def _paths(inputs: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The fields a patch sets, down to where lists begin, without those that only say which object it is."""
    identity = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
    for path in _leaves(inputs, ()):
        if path not in identity:
            yield path


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Mapping) and value and not is_secret(value):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    else:
        yield path


def _holds(fields: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    for part in path:
        if f"f:{part}" not in fields:
            return False
        fields = fields[f"f:{part}"]
    return True
