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
WORKERS = 2
# As Istio's agent has it.
FLUSH_MILLISECONDS = 1000


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


def arguments(file: Path, workers: int, flush_milliseconds: int) -> list[str]:
    """Envoy's arguments for a bootstrap file; its log is written every so many milliseconds.

    When a listener has changed, each connection of the old one ends with its next answer, or after 45 s: how
    Istio's agent starts it (pkg/envoy/proxy.go).
    """
    return [
        "-c", str(file), "--disable-hot-restart", "--concurrency", str(workers), "-l", "warning",
        "--file-flush-interval-msec", str(flush_milliseconds), "--drain-time-s", "45", "--drain-strategy", "immediate",
    ]  # fmt: skip


def command(file: Path, environment: Mapping[str, str]) -> list[str]:
    """Envoy's command line. Raises NoEnvoy, with what installs it, where there is none on the search path."""
    envoy = shutil.which("envoy", path=environment.get("PATH"))
    if envoy is None:
        raise NoEnvoy("envoy is not on the search path; `make venv toolchain` installs it")
    return [envoy, *arguments(file, WORKERS, FLUSH_MILLISECONDS)]


def main() -> None:
    """Wait, then become Envoy; a pod that is told no configuration never becomes ready."""
    file, owner = configuration(os.environ)
    argv = command(file, os.environ)
    while not ready(file, owner):
        time.sleep(POLL_SECONDS)
    os.execv(argv[0], argv)
