"""Whole stacks on embedded clusters: the real engine, control plane and controllers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.kube import Kube, Manifest
from rehearsal.paths import CHECKOUT, Paths
from rehearsal.progress import Progress
from rehearsal.rehearsal import Rehearsal

MODELS = "llm-platform:models"
UP_SECONDS = 240


@dataclass(frozen=True)
class Outcome:
    """One engine operation: its exit status, what it printed, and the steps it took by URN."""

    status: int
    output: str
    steps: dict[str, dict[str, Any]]

    def changed(self) -> dict[str, str]:
        """Resource names and operations of all steps that change something."""
        same = {"same", "refresh", "read"}
        return {urn.rsplit("::", 1)[1]: s["op"] for urn, s in self.steps.items() if s["op"] not in same}


class Stack:
    """A stack in a rehearsal of its own."""

    def __init__(self, directory: Path, name: str = "dev"):
        self.name = name
        self.rehearsal = Rehearsal(Paths(directory), Progress(directory.parent / "durations.json"))
        self.committed = yaml.safe_load((CHECKOUT / f"Pulumi.{name}.yaml").read_text())["config"]
        self._overrides: dict[str, Any] = {}

    @property
    def paths(self) -> Paths:
        return self.rehearsal.paths

    @property
    def kube(self) -> Kube:
        return self.rehearsal.kube()

    def configure(self, key: str, change: Callable[[Any], Any]) -> None:
        """Change one config value from what is in force; laid over the committed stack file."""
        current = self._overrides.get(key, self.committed.get(key))
        self._overrides[key] = change(json.loads(json.dumps(current)))
        self.paths.work.mkdir(parents=True, exist_ok=True)
        (self.paths.work / "overrides.yaml").write_text(yaml.safe_dump(self._overrides))

    def add_nodes(self) -> None:
        """Give every accelerator pool one node more than the committed stack has."""

        def grow(cluster: dict[str, Any]) -> dict[str, Any]:
            pools = {k: {**p, "maxNodes": p["maxNodes"] + 1} for k, p in cluster["accelerators"].items()}
            return {**cluster, "accelerators": pools}

        self.configure("llm-platform:cluster", grow)

    def inject(self, faults: dict[str, Any]) -> None:
        """Put faults into force (rehearsal/node/faults.py)."""
        self.paths.cluster.mkdir(parents=True, exist_ok=True)
        self.paths.faults.write_text(yaml.safe_dump(faults))

    def reset(self) -> None:
        """Back to the committed stack file."""
        self._overrides = {}
        (self.paths.work / "overrides.yaml").unlink(missing_ok=True)

    def run(self, operation: str, *arguments: str) -> Outcome:
        """Run one engine operation to its end."""
        return self.finish(self.begin(operation, *arguments))

    def begin(self, operation: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one engine operation with the configuration in force, on a running cluster."""
        self.rehearsal.start(self.name)
        return self.launch(operation, *arguments)

    def launch(self, operation: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one engine operation on whatever runs or does not run."""
        self._events = self.paths.root / f"events-{time.monotonic_ns()}.jsonl"
        command = [
            sys.executable,
            "-m",
            "rehearsal.engine",
            operation,
            self.name,
            "--events",
            self._events,
            *arguments,
        ]
        self._output = self._events.with_suffix(".log")
        with self._output.open("w") as out:
            return subprocess.Popen(
                [str(c) for c in command],
                env=self.rehearsal.environment(),
                cwd=CHECKOUT,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def finish(self, process: subprocess.Popen[str]) -> Outcome:
        """Wait for an operation and read what it did."""
        status = process.wait(timeout=UP_SECONDS)
        lines = self._events.read_text().splitlines() if self._events.exists() else []
        steps = {s["urn"]: s for s in map(json.loads, lines)}
        return Outcome(status, self._output.read_text(), steps)

    def kill_engine(self, process: subprocess.Popen[str]) -> None:
        """End the engine, its plugins and the program at once, as a machine that goes away."""
        for pid in processes_with(f"LLMP_REHEARSAL={self.paths.root}"):
            kill(pid)
        process.wait(timeout=30)

    def ops(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m ops` against this stack."""
        command = [sys.executable, "-m", "ops", *arguments]
        return subprocess.run(
            command,
            env=self.rehearsal.environment(),
            cwd=self.paths.work,
            capture_output=True,
            text=True,
            check=False,
        )

    def exported(self) -> list[dict[str, Any]]:
        """The resources in the stack's state."""
        file = self.paths.state / ".pulumi" / "stacks" / "llm-platform" / f"{self.name}.json"
        state = json.loads(file.read_text())["checkpoint"]["latest"] or {}
        return state.get("resources") or []

    def model(self, name: str) -> Manifest:
        """The LLMInferenceService of a model."""
        found = self.kube.get("serving.kserve.io/v1alpha2", "LLMInferenceService", name, "llm-models")
        assert found is not None, f"there is no LLMInferenceService {name}"
        return found


def processes_with(mark: str) -> list[int]:
    """The processes whose environment has `mark`, a variable with its value."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark.encode() in environment:
                found.append(int(entry.name))
    return found


def program_of(pid: int) -> str:
    """The name of the program that a process runs; empty when it ended meanwhile."""
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()).name
    except OSError:
        return ""


def kill(pid: int) -> None:
    """End a process at once; one that ended by itself meanwhile is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def conditions(manifest: Manifest) -> dict[str, str]:
    """A status's conditions by type."""
    return {c["type"]: c["status"] for c in (manifest.get("status") or {}).get("conditions", [])}


def eventually(check: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Ask until the answer is true; fails naming `what`."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := check():
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The dev stack in a rehearsal of its own, ended after the module."""
    result = Stack(tmp_path_factory.mktemp("rehearsed") / "rehearsal")
    yield result
    result.rehearsal.down(force=True)
