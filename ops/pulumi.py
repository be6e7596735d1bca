"""The user's own Pulumi CLI: a stack's state, its backend, and the locks on it.

Secrets stay encrypted: the state is exported and imported without being shown in the
clear. The one exception is :meth:`Pulumi.opened`, whose answer never leaves memory.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from argparse import ArgumentParser
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ops.errors import OpsError

CHECKOUT = Path(__file__).resolve().parent.parent
_NO_SUCH_STACK = "no stack named"


def add_arguments(parser: ArgumentParser) -> None:
    """The flags that name a stack and the project it belongs to."""
    here = Path.cwd()
    default = here if (here / "Pulumi.yaml").is_file() else CHECKOUT
    parser.add_argument("--stack", required=True, metavar="NAME", help="the stack, as `pulumi` knows it")
    parser.add_argument(
        "--project",
        type=Path,
        default=default,
        metavar="DIR",
        help="where Pulumi.yaml is (default: the current directory, else that of this program)",
    )


class Pulumi:
    """The Pulumi CLI found on PATH, for one stack of the project in `directory`."""

    def __init__(self, stack: str, directory: Path = CHECKOUT):
        self.stack, self.directory = stack, directory
        self._binary = shutil.which("pulumi")
        if self._binary is None:
            raise OpsError(
                "there is no `pulumi` on PATH, so the stack's state cannot be read: install the Pulumi CLI "
                "(https://www.pulumi.com/docs/install/), or run `make toolchain` for the one of the rehearsal"
            )
        if not (directory / "Pulumi.yaml").is_file():
            raise OpsError(f"{directory} holds no Pulumi.yaml: name the project's directory with --project")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the CLI in the project's directory and return what it said, whether it succeeded or not."""
        command = [self._binary, *arguments, "--non-interactive", "--color", "never"]
        environment = {"PULUMI_SKIP_UPDATE_CHECK": "true", **os.environ}
        return subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False
        )

    def call(self, *arguments: str) -> str:
        """Run the CLI and return its standard output; :class:`OpsError` with its message when it fails."""
        answer = self.run(*arguments)
        if answer.returncode != 0:
            said = (answer.stderr or answer.stdout).strip()
            raise OpsError(f"`pulumi {' '.join(arguments)}` failed:\n{said}")
        return answer.stdout

    def export(self) -> dict[str, Any] | None:
        """The stack's state as `pulumi stack export` writes it, or None where there is no such stack."""
        answer = self.run("stack", "export", "--stack", self.stack)
        if answer.returncode != 0:
            if _NO_SUCH_STACK in answer.stderr:
                return None
            raise OpsError(f"the state of stack {self.stack} cannot be read:\n{answer.stderr.strip()}")
        return json.loads(answer.stdout)

    def deployed(self) -> dict[str, Any]:
        """The same for commands that make no sense without a stack. Raises OpsError that says how to get one."""
        exported = self.export()
        if exported is None:
            raise OpsError(f"there is no stack {self.stack} in {self.backend}: bring it up with `up`")
        return exported

    def opened(self) -> dict[str, Any]:
        """The stack's state with its secrets in the clear, for one who takes the one that he needs and drops the rest.

        Works while an update runs, before there are outputs. Raises OpsError where the secrets cannot be decrypted.
        """
        answer = self.run("stack", "export", "--stack", self.stack, "--show-secrets")
        if answer.returncode != 0:
            # Never its standard output: that may already hold some of them.
            raise OpsError(f"the secrets of stack {self.stack} cannot be decrypted:\n{answer.stderr.strip()}")
        return json.loads(answer.stdout)

    def restore(self, state: dict[str, Any]) -> None:
        """Put `state` back as the stack's state. The CLI drops every pending operation when it does so."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "state.json")
            file.write_text(json.dumps(state))
            self.call("stack", "import", "--stack", self.stack, "--file", str(file))

    @cached_property
    def project(self) -> str:
        """The project's name, which is part of a stack's full name."""
        return str(yaml.safe_load((self.directory / "Pulumi.yaml").read_text())["name"])

    @cached_property
    def backend(self) -> str:
        """The URL of the backend that keeps the state: `file://…`, `s3://…`, `gs://…`, `https://…`."""
        return str(json.loads(self.call("whoami", "--json"))["url"])
