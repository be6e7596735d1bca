"""Statuses as controllers write them: conditions with times, and nothing written that is there already."""

from __future__ import annotations

from typing import Any

from ops.kube import Kube, Manifest
from rehearsal.node.nodes import timestamp


def condition(item: Manifest, kind: str, true: bool, reason: str = "", message: str = "") -> dict[str, Any]:
    """One condition of an object at its present generation; the reason is the kind where none is given."""
    return {
        "type": kind,
        "status": "True" if true else "False",
        "reason": reason or kind,
        "message": message,
        "observedGeneration": item["metadata"]["generation"],
        "lastTransitionTime": timestamp(),
    }


def write(kube: Kube, item: Manifest, status: dict[str, Any]) -> None:
    """Patch the status where it differs from the live one in anything but times."""
    live = item.get("status") or {}
    if all(_timeless(live.get(k)) == _timeless(v) for k, v in status.items()):
        return
    meta = item["metadata"]
    kube.patch(
        item["apiVersion"], item["kind"], meta["name"], meta.get("namespace"), {"status": status},
        subresource="status",
    )  # fmt: skip


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k != "lastTransitionTime"}
    return [_timeless(v) for v in value] if isinstance(value, list) else value
