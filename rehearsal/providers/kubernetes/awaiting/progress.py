"""What a check of readiness sees, and what it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ops.kube import Kube, Manifest


@dataclass(frozen=True)
class Progress:
    """One look at an object: `status` is for the display, `reasons` tell why it is not ready, if it is not."""

    ready: bool
    status: str = ""
    reasons: tuple[str, ...] = ()
    failed: bool = False


@dataclass
class Look:
    """An object as it is now, `last` as it was before the change (None when it was created).

    `memory` is kept from one look to the next of the same wait; `settled` is
    true where the caller takes the present for final, as a refresh does.
    """

    kube: Kube
    live: Manifest
    last: Manifest | None = None
    settled: bool = False
    memory: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        return self.live["metadata"]["name"]

    @property
    def namespace(self) -> str:
        return self.live["metadata"].get("namespace", "")

    def of(self, *path: str, default: Any = None) -> Any:
        """A nested field of the object."""
        return pluck(self.live, *path, default=default)

    def owned(self, api_version: str, kind: str, owner: Manifest | None = None) -> list[Manifest]:
        """Objects of the namespace whose owner is this object, or another."""
        uid = (owner or self.live)["metadata"]["uid"]
        return [item for item in self.kube.list(api_version, kind, self.namespace) if uid in _owners(item)]


Check = Callable[[Look], Progress]


def pluck(manifest: Any, *path: str, default: Any = None) -> Any:
    """The value at the path, `default` where any part is missing."""
    for part in path:
        if not isinstance(manifest, dict) or part not in manifest:
            return default
        manifest = manifest[part]
    return manifest


def condition(manifest: Manifest, kind: str) -> Manifest:
    """A condition of the object's status, empty when there is none."""
    return next((c for c in pluck(manifest, "status", "conditions", default=()) if c.get("type") == kind), {})


def told(found: Manifest) -> str:
    """A condition's reason and message as the official provider words them, "" when it gives none."""
    return f"[{found['reason']}] {found['message']}" if found.get("reason") and found.get("message") else ""


def _owners(item: Manifest) -> set[str]:
    return {reference["uid"] for reference in item["metadata"].get("ownerReferences", ())}
