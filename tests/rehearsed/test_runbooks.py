"""Every command of the runbooks that asks a cluster or this program is run against a living stack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops import doctor_pages as pages
from tests.rehearsed.conftest import Stack

pytestmark = [pytest.mark.rehearsed, pytest.mark.stacks]

RUN = {"kubectl", "python -m ops"}
COMMANDS = [
    (page, command)
    for page in [pages.INDEX, *pages.names()]
    for command in pages.commands(page)
    if pages.program(command) in RUN
]


@pytest.fixture(scope="module")
def served(stack: Stack) -> Stack:
    """The dev stack, which the index's variables name, up."""
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    return stack


def shell(stack: Stack, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody who followed the index would."""
    environment = dict(stack.rehearsal.environment())
    path = (str(stack.paths.bin), str(Path(sys.executable).parent), environment.get("PATH", os.defpath))
    environment |= {"PATH": os.pathsep.join(path), "KUBECONFIG": str(stack.paths.kubeconfig)}
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", f"{pages.variables()}\n{command}"],
        env=environment,
        cwd=stack.paths.work,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda text: text[:60])
def test_a_runbooks_command_works(served: Stack, page: str, command: str) -> None:
    answer = shell(served, command)
    assert answer.returncode == 0, f"{page}: {command}\n{answer.stdout}{answer.stderr}"
