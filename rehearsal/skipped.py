"""Charts that a rehearsal cannot have and stand-ins act for: which are installed, and how they are set.

The Kubernetes plugin notes them when it skips their installation (rehearsal/providers/kubernetes/release.py). Only the
values that a stand-in reads are kept; others may be secret.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AUTOSCALER, GPU_OPERATOR = "cluster-autoscaler", "gpu-operator"
# By the chart's name: the values that its stand-in reads.
_READ: Mapping[str, tuple[str, ...]] = {
    AUTOSCALER: ("autoDiscovery", "awsRegion", "cloudProvider", "rbac"),
    GPU_OPERATOR: ("devicePlugin", "driver", "gfd", "toolkit"),
}


@dataclass(frozen=True)
class Installed:
    """A release as its stand-in sees it."""

    namespace: str
    values: Mapping[str, Any]


def note(rehearsal: Path, chart: str, namespace: str, values: Mapping[str, Any]) -> None:
    """Remember that a chart was installed; nothing where nobody stands in for it."""
    if chart in _READ:
        kept = {name: values[name] for name in _READ[chart] if name in values}
        fresh = _file(rehearsal, chart).with_suffix(".new")
        fresh.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps({"namespace": namespace, "values": kept}))
        os.replace(fresh, _file(rehearsal, chart))


def forget(rehearsal: Path, chart: str) -> None:
    """The chart was uninstalled."""
    if chart in _READ:
        _file(rehearsal, chart).unlink(missing_ok=True)


def installed(rehearsal: Path, chart: str) -> Installed | None:
    """The release of a chart, or None."""
    try:
        found = json.loads(_file(rehearsal, chart).read_text())
    except FileNotFoundError:
        return None
    return Installed(found["namespace"], found["values"])


def _file(rehearsal: Path, chart: str) -> Path:
    return rehearsal / "skipped" / f"{chart}.json"
