"""`python -m ops preflight` in a rehearsal: before anything else runs, with the simulated Google on loopback.

AWS is asked by its command line, for which a stand-in is on PATH; the rest of the web is asked on loopback as well.

A stack that makes its own cluster needs no control plane for it, only the Pulumi CLI, the private copy of the
stack file and the simulated APIs; `make up` goes on from there, or `make down` removes it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from rehearsal import engine, keys, toolchain
from rehearsal.cloud import aws_questions, google_api
from rehearsal.paths import stack_file
from rehearsal.processes import ProcessFailed
from stacks.config import load_stack_file

if TYPE_CHECKING:
    from rehearsal.rehearsal import Rehearsal

PROCESS = "google-api"
TOOLS = ("pulumi", "kubectl")
# Commands that ask the web or Google; others get no way there. All but the first ask Google only.
ASKING = ("preflight", "doctor", "verify")
_SECONDS = 20.0


def run(rehearsal: Rehearsal, stack: str) -> int:
    """Prepare what the command looks at, and run it; returns its exit status."""
    if load_stack_file(stack_file(stack)).cluster.kind == "existing":
        rehearsal.start(stack)
    else:
        _prepare(rehearsal, stack)
    _make_stack(rehearsal, stack)
    return rehearsal.asked("preflight", "--stack", stack)


def _prepare(rehearsal: Rehearsal, stack: str) -> None:
    paths = rehearsal.paths
    with rehearsal.progress.phase("tools"):
        tools = toolchain.ensure(rehearsal.progress.say, only=TOOLS)
    paths.create()
    before = keys.remembered(paths, stack)
    engine.copy_stack(paths, stack, _artifacts(rehearsal, stack))
    rehearsal.link(tools)
    keys.publish(paths, stack, before, rehearsal.quiet_ops)


def _make_stack(rehearsal: Rehearsal, stack: str) -> None:
    """What `pulumi stack init` is for a user, with the secrets that the stack asks for; `up` finds both there."""
    _pulumi(rehearsal, "stack", "select", stack, "--create")
    for key, given in engine.missing_secrets(rehearsal.paths, stack).items():
        _pulumi(rehearsal, "config", "set", "--secret", key, "--stack", stack, given=given)


def _pulumi(rehearsal: Rehearsal, *arguments: str, given: str = "") -> None:
    done = subprocess.run(
        [rehearsal.paths.bin / "pulumi", *arguments, "--non-interactive"],
        input=given,
        env=rehearsal.environment(),
        cwd=rehearsal.paths.work,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        what = f"`pulumi {' '.join(arguments[:2])}` failed in the rehearsal's state"
        raise ProcessFailed(f"{what}:\n{done.stderr.strip()}")


def _artifacts(rehearsal: Rehearsal, stack: str) -> Path:
    """The directory that the private copy names already; `make up` fills it in where nothing has yet."""
    file = rehearsal.paths.work / f"Pulumi.{stack}.yaml"
    written = yaml.safe_load(file.read_text())["config"] if file.exists() else {}
    platform = written.get(f"{engine.PROJECT}:platform") or {}
    return Path((platform.get("artifacts") or {}).get("directory") or rehearsal.paths.root / "artifacts")


def google(rehearsal: Rehearsal, arguments: Sequence[str]) -> dict[str, str]:
    """Variables that lead a command of ours to the simulated Google, which is started on demand."""
    command = arguments[0] if arguments else ""
    if command not in ASKING or (command != ASKING[0] and not _has_google(rehearsal)):
        return {}
    root, processes = rehearsal.paths.root, rehearsal.processes
    if not processes.running(PROCESS):
        google_api.forget(root)
        program = [sys.executable, "-m", "rehearsal.cloud.google_api"]
        processes.start(PROCESS, program, engine.environment(rehearsal.paths))
    return {**google_api.environment(_address(rehearsal)), **_account(rehearsal, arguments)}


def _account(rehearsal: Rehearsal, arguments: Sequence[str]) -> dict[str, str]:
    """A variable with the only account that the stack allows, whose credentials the simulated provider has as well."""
    stack = arguments[arguments.index("--stack") + 1] if "--stack" in arguments else ""
    file = rehearsal.paths.work / f"Pulumi.{stack}.yaml"
    allowed = getattr(rehearsal.config(stack).cluster, "account_id", None) if file.exists() else None
    return {aws_questions.ALLOWED: allowed} if allowed else {}


def _has_google(rehearsal: Rehearsal) -> bool:
    return rehearsal.stack is not None and rehearsal.config(rehearsal.stack).cluster.kind == "gke"


def _address(rehearsal: Rehearsal) -> str:
    deadline = time.monotonic() + _SECONDS
    while (address := google_api.address(rehearsal.paths.root)) is None:
        rehearsal.processes.check(PROCESS)
        if time.monotonic() > deadline:
            raise ProcessFailed(f"{PROCESS} did not start:\n{rehearsal.processes.tail(PROCESS)}")
        time.sleep(0.05)
    return address
