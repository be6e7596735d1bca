"""Where facts come from: the stack, its files, the Pulumi CLI, the clouds and the web."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import yaml

from components.platform.lock import Lock as Locked
from components.platform.lock import load_lock
from ops.aws import Aws
from ops.errors import OpsError
from ops.google import Google
from ops.preflight.verdicts import Unknown
from ops.pulumi import Pulumi
from stacks.config import ConfigError, EksCluster, GkeCluster, StackConfig, load_stack_file
from stacks.config.errors import PREFIX
from stacks.config.load import SECRET_KEYS

_NO_SUCH_STACK = "no stack named"


@dataclass
class Site:
    """One stack as this machine sees it. Its secrets are read when they are asked for, and held in memory only.

    `resolve` asks the DNS for a name and a port, as `socket.getaddrinfo` does.
    """

    stack: str
    project: Path
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    resolve: Callable[[str, int], list[Any]] = field(default=socket.getaddrinfo)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def file(self) -> Path:
        """The stack file."""
        return self.project / f"Pulumi.{self.stack.rsplit('/', 1)[-1]}.yaml"

    @cached_property
    def config(self) -> StackConfig:
        """The configuration; OpsError with every problem that it has."""
        try:
            return load_stack_file(self.file)
        except FileNotFoundError:
            raise OpsError(
                f"{self.file} does not exist: copy a stack file or an example of docs/examples there"
            ) from None
        except ConfigError as error:
            raise OpsError(str(error)) from None

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What the stack file says beside the configuration: its secrets provider, its salt."""
        return yaml.safe_load(self.file.read_text(encoding="utf-8")) or {}

    @cached_property
    def locked(self) -> Locked:
        """The lock file's entries."""
        return load_lock()

    @cached_property
    def google(self) -> Google:
        """Google, for the stack's project."""
        if not isinstance(self.config.cluster, GkeCluster):
            raise OpsError(f"the cluster is of kind {self.config.cluster.kind}: nothing is asked of Google")
        return Google(self.config.cluster.project, self.environ)

    @cached_property
    def aws(self) -> Aws:
        """AWS, in the stack's region."""
        if not isinstance(self.config.cluster, EksCluster):
            raise OpsError(f"the cluster is of kind {self.config.cluster.kind}: nothing is asked of AWS")
        return Aws(self.config.cluster.region, self.environ)

    @cached_property
    def pulumi(self) -> Pulumi:
        """The Pulumi CLI; OpsError where there is none."""
        return Pulumi(self.stack, self.project)

    def secret_keys(self) -> frozenset[str] | None:
        """The encrypted keys of this project that are set; None where the backend has no such stack."""
        answer = self.pulumi.run("config", "--json", "--stack", self.stack)
        if answer.returncode != 0:
            if _NO_SUCH_STACK in answer.stderr:
                return None
            raise OpsError(
                f"the configuration of stack {self.stack} cannot be read:\n{answer.stderr.strip()}"
            )
        values = json.loads(answer.stdout)
        names = {name.removeprefix(PREFIX) for name, value in values.items() if value.get("secret")}
        return frozenset(names & set(SECRET_KEYS))

    def secret(self, name: str) -> str | None:
        """The value of a secret, or None where it is not set. OpsError where it cannot be decrypted."""
        with self._lock:
            if name not in self._set:
                return None
            answer = self.pulumi.run("config", "get", PREFIX + name, "--stack", self.stack)
        if answer.returncode != 0:
            # Never its standard output.
            raise OpsError(f"the secret {name} cannot be decrypted:\n{answer.stderr.strip()}")
        return answer.stdout.rstrip("\n")

    @cached_property
    def _set(self) -> frozenset[str]:
        return self.secret_keys() or frozenset()


def explain(error: OpsError) -> Unknown:
    """Why a fact cannot be had, and what would let it be had."""
    reason = getattr(error, "reason", "")
    details = getattr(error, "details", {})
    if reason in ("SERVICE_DISABLED", "accessNotConfigured"):
        service = details.get("service", "the API")
        return Unknown(f"{service} is off, so it cannot be asked", f"run: gcloud services enable {service}")
    if reason in ("IAM_PERMISSION_DENIED", "forbidden", "PERMISSION_DENIED", "USER_PROJECT_DENIED"):
        wanted = details.get("permission", "the permission to read it")
        return Unknown(
            f"you lack {wanted}: {error}",
            "have a role that holds it given to you; `python -m ops preflight --print-role preview` has all",
        )
    text, _, fix = str(error).partition(": run: ")
    return Unknown(text, f"run: {fix}" if fix else "")
