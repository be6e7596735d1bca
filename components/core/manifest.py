"""Kubernetes objects as plain dicts in the API's own spelling. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

Manifest = dict[str, Any]


def manifest(
    api_version: str,
    kind: str,
    name: str,
    namespace: str | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **body: Any,
) -> Manifest:
    """An object; `body` are its other top-level fields. Fields that are None are left out."""
    metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}
    return drop_none({"apiVersion": api_version, "kind": kind, "metadata": metadata, **body})


def drop_none(value: Any) -> Any:
    """The value without fields that are None, at any depth; other empty values stay, they have a meaning."""
    if isinstance(value, Mapping):
        return {key: drop_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [drop_none(item) for item in value]
    return value


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on it: maps merge, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            deep_merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


def revision(value: Any) -> str:
    """Twelve hex digits that change when the value does; fit for a label or an annotation."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
