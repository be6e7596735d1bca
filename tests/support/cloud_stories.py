"""A cloud's plugin under the real engine: what one program's life shows, run by run."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ops.kube import Manifest
from rehearsal.cloud.project import Project, State
from rehearsal.paths import Paths

LAUNCHER = '#!/bin/sh\nexec "{python}" -m rehearsal.{module} "$@"\n'


@dataclass(frozen=True)
class Story:
    """Outcomes of the engine's runs, and what was in the cluster and the cloud after them."""

    foreseen: Any
    first: Any
    nodes: list[Manifest]
    namespace: Manifest | None
    unchanged: Any
    refreshed: Any
    changed: Any
    nodes_after: list[Manifest]
    destroyed: Any
    left: State
    nodes_left: list[Manifest]


def install(paths: Paths, cloud: str, commands: Mapping[str, str]) -> None:
    """Put a cloud's plugin and its commands (modules by name) where the engine and clients look for them."""
    version = importlib.metadata.version(f"pulumi-{cloud}")
    plugin = paths.pulumi_home / "plugins" / f"resource-{cloud}-v{version}" / f"pulumi-resource-{cloud}"
    wanted = {plugin: f"providers.{cloud}", **{paths.bin / name: module for name, module in commands.items()}}
    for target, module in wanted.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(LAUNCHER.format(python=sys.executable, module=module))
        target.chmod(0o755)


def tell(contract: Any, program: Callable[[], None], namespace: str, change: Callable[[], None]) -> Story:
    """Preview, up, preview, refresh, up after a change, destroy."""
    stack = contract.stack()
    nodes: Callable[[], list[Manifest]] = lambda: contract.kube.list("v1", "Node")
    foreseen, first, at_first = stack.preview(program), stack.up(program), nodes()
    made = contract.kube.get("v1", "Namespace", namespace)
    unchanged, refreshed = stack.preview(program), stack.refresh()
    change()
    changed, later = stack.up(program), nodes()
    return Story(
        foreseen, first, at_first, made, unchanged, refreshed, changed, later,
        stack.destroy(), Project.of(contract.paths.root).read(), nodes(),
    )  # fmt: skip
