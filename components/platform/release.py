"""What one Helm release of the platform is, apart from how it is installed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ReleaseSpec:
    """A release: `name` is the chart's name in the lock file and the release's own.

    `needs` are names of releases and manifests that must be there first; those that the
    stack does not install (provided, or not needed) are left out. `timeout_seconds` bounds
    installation and readiness of everything in the chart. `keeps` are API groups whose
    definitions stay in the cluster when the release goes.
    """

    name: str
    namespace: str
    values: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    timeout_seconds: int = 600
    keeps: tuple[str, ...] = ()
