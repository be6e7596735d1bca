"""Stands for the entry point of Istio's proxy image: waits for its configuration, then becomes Envoy."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from rehearsal.gateway.translate import BOOTSTRAP, node_id

POLL_SECONDS = 0.05
# How Istio's agent starts it (pkg/envoy/proxy.go): the log is written every second, and when a listener has changed, each
# connection of the old one ends with its next answer, or after 45 s.
DRAINING = ("--drain-time-s", "45", "--drain-strategy", "immediate")
ARGUMENTS = (
    "--disable-hot-restart", "--concurrency", "2", "-l", "warning", "--file-flush-interval-msec", "1000", *DRAINING,
)  # fmt: skip


class NoEnvoy(Exception):
    """There is no Envoy to become."""


def configuration(environment: Mapping[str, str]) -> tuple[Path, str | None]:
    """The bootstrap file of this pod, and whose it must be (None where the pod's name is not told)."""
    address = environment["REHEARSAL_ADDRESS"]
    file = Path(environment["LLMP_REHEARSAL_PROCESS"]) / "gateway" / address / BOOTSTRAP
    names = environment.get("POD_NAME"), environment.get("POD_NAMESPACE")
    return file, node_id(address, *names) if names[0] and names[1] else None


def ready(file: Path, owner: str | None) -> bool:
    """Whether the file is there and this pod's: a former pod may have had the same address."""
    try:
        node = json.loads(file.read_text())["node"]
    except OSError:
        return False
    return owner in (None, node["id"])


def command(file: Path, environment: Mapping[str, str]) -> list[str]:
    """Envoy's command line. Raises NoEnvoy, with what installs it, where there is none on the search path."""
    envoy = shutil.which("envoy", path=environment.get("PATH"))
    if envoy is None:
        raise NoEnvoy("envoy is not on the search path; `make venv toolchain` installs it")
    return [envoy, "-c", str(file), *ARGUMENTS]


def main() -> None:
    """Wait, then become Envoy; a pod that is told no configuration never becomes ready."""
    file, owner = configuration(os.environ)
    arguments = command(file, os.environ)
    while not ready(file, owner):
        time.sleep(POLL_SECONDS)
    os.execv(arguments[0], arguments)
