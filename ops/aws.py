"""A small client of AWS through its own command line, with the user's own login.

    aws = Aws("us-east-1")
    aws.call("ec2", "describe-vpcs")["Vpcs"]

`aws` looks for credentials where Pulumi's provider does, and the kubeconfig runs `aws` itself: whoever is asked here
is who `up` acts as. Nothing that is asked here changes anything.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

from ops.errors import OpsError

COMMAND = "aws"
INSTALL = "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"
LOG_IN = "aws sso login (or aws configure)"
_PATIENCE = 120.0  # Seconds for one question, with all its pages.
_REFUSAL = re.compile(
    r"An error occurred \((?P<code>[\w.]+)\)(?: when calling the \w+ operation)?(?: \([^)]*\))?: (?P<text>.*)",
    re.DOTALL,
)
_LACKING = re.compile(r"not authorized to perform: ([\w-]+:\w+)")
# How services call a permission that is missing.
DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "403"}
)
# And credentials that are wrong or over. An unopened region calls good ones so, too.
UNKNOWN_CALLER = frozenset(
    {
        "AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId",
        "RequestExpired", "SignatureDoesNotMatch", "UnrecognizedClientException",
    }
)  # fmt: skip
# What the command says by itself where it has nobody to ask as.
_NOBODY = (
    "Unable to locate credentials",
    "could not be found",
    "SSO session",
    "SSO Token",
    "Token has expired",
    "Partial credentials",
)
# What it says of a command that a newer release has.
_TOO_OLD = ("Invalid choice", "Unknown options", "argument operation")
Runner = Callable[[Sequence[str], Mapping[str, str]], "subprocess.CompletedProcess[str]"]
"""From a command and its environment to how it ended. OpsError where it cannot be run."""


class AwsError(OpsError):
    """A refusal by AWS, or by its command line.

    `code` is AWS's word for it, for example `UnauthorizedOperation`, or "" where the command gave none. `reason` and
    `details` are as those of :class:`ops.google.GoogleError`: `PERMISSION_DENIED` names the `permission`.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code, self.message = code, message
        self.reason = "PERMISSION_DENIED" if code in DENIED else code
        lacking = _LACKING.search(message)
        self.details = {"permission": lacking[1]} if lacking else {}


@dataclass(frozen=True)
class Identity:
    """Who asks. `principal` is the ARN of the user or role behind a session; `kind` is user, role, root or other."""

    account: str
    arn: str
    kind: str
    name: str

    @property
    def principal(self) -> str:
        """As far as the session tells it: without the path that a role may have."""
        return f"arn:aws:iam::{self.account}:role/{self.name}" if self.kind == "role" else self.arn


@dataclass
class Aws:
    """AWS in one region, as the user who is logged in."""

    region: str
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    run: Runner = field(default_factory=lambda: run)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def call(
        self, service: str, operation: str, region: str | None = None, **flags: str | Sequence[str] | bool
    ) -> dict[str, Any]:
        """The answer to one question, with all its pages. Raises AwsError.

        `flags` are the command's own, with underscores; True is one without a value.
        """
        command = [COMMAND, service, operation, "--region", region or self.region, "--output", "json"]
        for name, value in flags.items():
            given = [] if value is True else [value] if isinstance(value, str) else value
            command += [f"--{name.replace('_', '-')}", *given]
        answer = self.run(command, {**self.environ, "AWS_PAGER": ""})
        if answer.returncode:
            raise refusal(service, operation, answer.stderr)
        try:
            return dict(json.loads(answer.stdout or "{}"))
        except (ValueError, TypeError):
            raise AwsError(
                "", f"`aws {service} {operation}` answered with something that is not JSON"
            ) from None

    @property
    def version(self) -> str:
        """The command's own version, for example 2.31.2."""
        answer = self.run([COMMAND, "--version"], self.environ)
        found = re.search(r"aws-cli/([\d.]+)", answer.stdout + answer.stderr)
        if found is None:
            raise AwsError("", "`aws --version` does not say a version: is it the AWS CLI?")
        return found[1]

    @property
    def identity(self) -> Identity:
        """Whose the credentials are; asked once."""
        with self._lock:
            return self._identity

    @cached_property
    def _identity(self) -> Identity:
        told = self.call("sts", "get-caller-identity")
        return identity(told["Account"], told["Arn"])


def identity(account: str, arn: str) -> Identity:
    """What an ARN such as `arn:aws:sts::123456789012:assumed-role/deploy/session` says."""
    kind, _, rest = arn.rpartition(":")[2].partition("/")
    if kind == "assumed-role":
        return Identity(account, arn, "role", rest.partition("/")[0])
    known = {"user": "user", "root": "root"}
    return Identity(account, arn, known.get(kind, "other"), rest.rpartition("/")[2])


def run(command: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. OpsError where there is none, or where it does not end."""
    binary = shutil.which(command[0], path=environ.get("PATH"))
    if binary is None:
        raise AwsError(
            "NoCommand", f"there is no `aws` on PATH, so AWS cannot be asked: install it ({INSTALL})"
        )
    try:
        return subprocess.run(
            [binary, *command[1:]],
            env=dict(environ),
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AwsError("", f"`{' '.join(command[:3])}`: {error}") from None


def refusal(service: str, operation: str, said: str) -> AwsError:
    """What the command's last words mean."""
    found = _REFUSAL.search(said)
    if found is not None:
        code, text = found["code"], " ".join(found["text"].split())
        if code in UNKNOWN_CALLER:
            return AwsError(
                code, f"AWS does not know these credentials, or no longer ({text}): run: {LOG_IN}"
            )
        return AwsError(code, f"{text} ({code})")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it failed and said nothing"
    if any(word in said for word in _NOBODY):
        return AwsError("NoCredentials", f"nobody is logged in to AWS ({last}): run: {LOG_IN}")
    if any(word in said for word in _TOO_OLD):
        return AwsError("TooOld", f"this `aws` does not know `{service} {operation}`: update it ({INSTALL})")
    return AwsError("", f"`aws {service} {operation}`: {last}")
