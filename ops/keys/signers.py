"""Where the private key is, and how it signs: a file of the user's own, or a cloud's KMS.

A signer is written `file:PATH`, `gcpkms:RESOURCE` or `awskms:ID`. The clouds
are reached through their own command lines, with the login that the user has
there. What is signed goes through pipes: two halves of a key never lie in files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from ops.errors import OpsError

_PATIENCE = 60.0
"""Seconds that a cloud's command line may take; longer than its own retries of one request."""
_GCP = re.compile(
    r"projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/keyRings/(?P<keyring>[^/]+)"
    r"/cryptoKeys/(?P<key>[^/]+)/cryptoKeyVersions/(?P<version>[0-9]+)"
)
_AWS = re.compile(r"(?P<arn>arn:[\w-]+:kms:(?P<region>[\w-]+):\d+:)?(key/|alias/)?[\w/-]+")


class Signer(Protocol):
    """Something that signs with a key that it does not hand out."""

    @property
    def reference(self) -> str:
        """How the signer is written, on the command line and in the ledger."""

    def public(self) -> Any:
        """The public half of its key."""

    def sign(self, message: bytes) -> bytes:
        """The ECDSA signature of the message's SHA-256 digest, in DER."""


@dataclass(frozen=True)
class FileSigner:
    """A key in a file that only its owner can read: PKCS8 in PEM, mode 0600."""

    path: Path

    @classmethod
    def parse(cls, text: str) -> Self:
        if not text:
            raise OpsError("`file:` names no file: write file:PATH")
        return cls(Path(os.path.abspath(os.path.expanduser(text))))

    @property
    def reference(self) -> str:
        """With `~` for the home directory, so that it means the same to everybody who has the file there."""
        home = Path(os.path.expanduser("~"))
        return f"file:~/{self.path.relative_to(home)}" if home in self.path.parents else f"file:{self.path}"

    def create(self) -> None:
        """Make a new key; :class:`OpsError` where there is one, or where it could be committed."""
        refuse_in_checkout(self.path)
        try:
            _make_private(self.path.parent)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise OpsError(
                f"{self.path} exists, and is never overwritten: every key that it signed would end. "
                "Name another file with --signer, or use the key in it with --existing"
            ) from None
        except OSError as error:
            raise OpsError(f"{self.path} cannot be made: {error.strerror}") from None
        key = ec.generate_private_key(ec.SECP256R1())
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())

    def public(self) -> Any:
        return self._key().public_key()

    def sign(self, message: bytes) -> bytes:
        return self._key().sign(message, ec.ECDSA(hashes.SHA256()))

    def _key(self) -> Any:
        try:
            key = load_pem_private_key(self._read(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise OpsError(f"{self.path} holds no unencrypted private key in PEM") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise OpsError(f"{self.path} holds no ECDSA key: make one with `python -m ops keys init`")
        return key

    def _read(self) -> bytes:
        """The file's content, if nobody else can read it; judged by the open file, not by its name."""
        try:
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise OpsError(f"{self.path} is not a file")
                if found.st_mode & 0o077 or found.st_uid != os.geteuid():
                    raise OpsError(
                        f"{self.path} belongs to another user or can be read by others "
                        f"(mode {stat.S_IMODE(found.st_mode):04o}), so its key may be known: make a new one with "
                        f"`python -m ops keys rotate`, or if you know better: chmod 600 {self.path}"
                    )
                return file.read()
        except OSError as error:
            raise OpsError(
                f"the signing key {self.path} cannot be read ({error.strerror}): "
                "have it brought here, name another signer with --signer, or make a new key with "
                "`python -m ops keys rotate`"
            ) from None


def _make_private(directory: Path) -> None:
    """Make a directory and those above it that are missing, all with mode 0700."""
    for missing in reversed([d for d in (directory, *directory.parents) if not d.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def refuse_in_checkout(path: Path) -> None:
    """:class:`OpsError` where a file at `path` could be committed: in a git work tree that does not ignore it."""
    real = path.resolve()
    tree = next((d for d in real.parents if (d / ".git").exists()), None)
    if tree is None:
        return
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-C", str(tree), "check-ignore", "--quiet", str(real)]
    git = shutil.which("git")
    asked = git and subprocess.run(command, env=environment, capture_output=True, check=False)
    if not asked or asked.returncode != 0:
        raise OpsError(
            f"{path} is in the git work tree {tree}, and not ignored there: a private key must never be "
            "committed. Leave --signer out, or name a file elsewhere"
        )


@dataclass(frozen=True)
class GcpKms:
    """A version of a key of Google's Cloud KMS, through `gcloud`."""

    resource: str

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _GCP.fullmatch(text):
            raise OpsError(
                f"`{text}` is not a key version: write gcpkms:projects/…/locations/…/keyRings/…/cryptoKeys/…"
                "/cryptoKeyVersions/1"
            )
        return cls(text)

    @property
    def reference(self) -> str:
        return f"gcpkms:{self.resource}"

    def public(self) -> Any:
        parts = self._parts()
        version = parts.pop("version")
        answer = _run(["gcloud", "kms", "keys", "versions", "get-public-key", version, *_flags(parts)])
        return _loaded(load_pem_public_key, answer, self.reference)

    def sign(self, message: bytes) -> bytes:
        """`gcloud` computes the digest; the signature comes in DER (its help calls it base64)."""
        ends = ["--digest-algorithm=sha256", "--input-file=/dev/stdin", "--signature-file=-"]
        answer = _run(["gcloud", "kms", "asymmetric-sign", *_flags(self._parts()), *ends], message)
        return answer if answer[:1] == b"\x30" else _decoded(answer, self.reference)

    def _parts(self) -> dict[str, str]:
        found = _GCP.fullmatch(self.resource)
        return found.groupdict() if found else {}


@dataclass(frozen=True)
class AwsKms:
    """A key of AWS KMS by its id, alias or ARN, through `aws`."""

    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _AWS.fullmatch(text):
            raise OpsError(
                f"`{text}` is not a key: write awskms:KEY-ID, awskms:alias/NAME or awskms:arn:aws:kms:…"
            )
        return cls(text)

    @property
    def reference(self) -> str:
        return f"awskms:{self.key}"

    def public(self) -> Any:
        answer = str(self._call("get-public-key").get("PublicKey", ""))
        return _loaded(load_der_public_key, _decoded(answer, self.reference), self.reference)

    def sign(self, message: bytes) -> bytes:
        """`fileb://` is read as it is by both major versions of `aws`, which differ in how they take arguments."""
        how = ["--message-type=DIGEST", "--signing-algorithm=ECDSA_SHA_256", "--message=fileb:///dev/stdin"]
        answer = self._call("sign", *how, given=hashlib.sha256(message).digest())
        return _decoded(str(answer.get("Signature", "")), self.reference)

    def _call(self, action: str, *flags: str, given: bytes = b"") -> dict[str, Any]:
        found = _AWS.fullmatch(self.key)
        region = [f"--region={found['region']}"] if found and found["region"] else []
        answer = _run(["aws", "kms", action, f"--key-id={self.key}", *flags, "--output=json", *region], given)
        try:
            return dict(json.loads(answer))
        except (ValueError, TypeError):
            raise OpsError(f"`aws kms {action}` answered with something that is not JSON") from None


SIGNERS: dict[str, type[FileSigner | GcpKms | AwsKms]] = {
    "file": FileSigner,
    "gcpkms": GcpKms,
    "awskms": AwsKms,
}
_INSTALL = {"gcloud": "https://cloud.google.com/sdk/docs/install", "aws": "https://aws.amazon.com/cli/"}


def parse(reference: str) -> FileSigner | GcpKms | AwsKms:
    """The signer that is written `kind:name`; :class:`OpsError` for one that is no such thing."""
    kind, _, name = reference.partition(":")
    if kind not in SIGNERS:
        raise OpsError(
            f"`{reference}` is not a signer: write file:PATH, gcpkms:KEY-VERSION-RESOURCE or awskms:KEY-ID-OR-ARN"
        )
    return SIGNERS[kind].parse(name)


def _flags(parts: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in parts.items()]


def _run(command: Sequence[str], given: bytes = b"") -> bytes:
    """A cloud's command line, with `given` as its input; its standard output, or :class:`OpsError`."""
    program, said = command[0], " ".join(command[:4])
    binary = shutil.which(program)
    if binary is None:
        raise OpsError(
            f"there is no `{program}` on PATH, which reaches the KMS: install it ({_INSTALL[program]})"
        )
    environment = {**os.environ, "AWS_PAGER": "", "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    try:
        answer = subprocess.run(
            [binary, *command[1:]],
            input=given,
            env=environment,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OpsError(f"`{said}` gave no answer for {_PATIENCE:.0f} s: is the network there?") from None
    if answer.returncode != 0:
        message = answer.stderr.decode(errors="replace").strip() or f"exit code {answer.returncode}"
        raise OpsError(f"`{said}` failed:\n{message}")
    return answer.stdout


def _decoded(text: str | bytes, reference: str) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except ValueError:
        raise OpsError(f"{reference} answered with something that is not base64") from None


def _loaded(load: Any, data: bytes, reference: str) -> Any:
    try:
        return load(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise OpsError(f"{reference} answered with something that is not a public key") from None
