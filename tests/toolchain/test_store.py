"""The cache: whole entries or none, whoever is killed when."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rehearsal.paths import CHECKOUT
from rehearsal.toolchain import Store, ToolchainError
from rehearsal.toolchain.store import RECORD, default_root

ENTRY = "tools/thing-v1-abc"


def run_python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Another process of ours, talked to by its standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def write(text: str) -> Callable[[Path], None]:
    return lambda directory: (directory / "thing").write_text(text) and None


def add(store: Store, make: Callable[[Path], None]) -> None:
    with store.lock() as lock:
        lock.add(ENTRY, make)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_an_entry_appears_with_its_content(store: Store) -> None:
    add(store, write("content"))
    assert store.has(ENTRY)
    assert (store.path(ENTRY) / "thing").read_text() == "content"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_maker_leaves_no_entry(store: Store, interruption: type[BaseException]) -> None:
    def make(directory: Path) -> None:
        (directory / "thing").write_text("half")
        raise interruption

    with pytest.raises(interruption):
        add(store, make)
    assert not store.path(ENTRY).exists()


def test_a_killed_maker_leaves_no_entry_and_no_lock_and_its_rubbish_is_cleared(store: Store) -> None:
    maker = run_python(
        "import sys; from pathlib import Path; from rehearsal.toolchain import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "def make(directory):\n"
        "    (directory / 'thing').write_text('half'); print('writing', flush=True); sys.stdin.read()\n"
        "with store.lock() as lock: lock.add(sys.argv[2], make)\n",
        store.root,
        ENTRY,
    )
    with maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "writing\n"
        maker.kill()
    assert not store.has(ENTRY)
    assert list(store.root.rglob("thing")), "the killed maker had begun to write"
    said: list[str] = []
    with store.lock(said.append):
        assert not list(store.root.rglob("thing"))
    assert said == []


def damage_truncated(entry: Path) -> None:
    (entry / "thing").write_text("")


def damage_missing_file(entry: Path) -> None:
    (entry / "thing").unlink()


def damage_missing_record(entry: Path) -> None:
    (entry / RECORD).unlink()


def damage_garbled_record(entry: Path) -> None:
    (entry / RECORD).write_text('{"thing": ')


def damage_record_of_another_shape(entry: Path) -> None:
    (entry / RECORD).write_text("[]")


def damage_record_of_nothing(entry: Path) -> None:
    (entry / RECORD).write_text("{}")


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncated,
        damage_missing_file,
        damage_missing_record,
        damage_garbled_record,
        damage_record_of_another_shape,
        damage_record_of_nothing,
    ],
)
def test_a_damaged_entry_is_refused_and_can_be_made_again(
    store: Store, damage: Callable[[Path], None]
) -> None:
    add(store, write("content"))
    damage(store.path(ENTRY))
    assert not store.has(ENTRY)
    add(store, write("again"))
    assert store.has(ENTRY)
    assert (store.path(ENTRY) / "thing").read_text() == "again"


def test_a_second_process_waits_and_says_for_whom(store: Store) -> None:
    holder = run_python(
        "import sys; from pathlib import Path; from rehearsal.toolchain import Store\n"
        "with Store(Path(sys.argv[1])).lock() as lock:\n"
        "    lock.tell('process 7 builds etcd for /other'); print('held', flush=True); sys.stdin.read()\n",
        store.root,
    )
    said: list[str] = []

    def report(message: str) -> None:
        said.append(message)
        assert holder.stdin is not None
        holder.stdin.close()

    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with store.lock(report):
            assert said == ["waiting: process 7 builds etcd for /other"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_named_with_the_fix(store: Store, code: int) -> None:
    def make(directory: Path) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(ToolchainError, match="LLMP_CACHE") as refusal:
        add(store, make)
    assert str(store.root) in str(refusal.value)


def test_a_cache_that_is_a_file_is_named_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolchainError, match="LLMP_CACHE"), Store(tmp_path / "file").lock():
        raise AssertionError("a file was locked as a cache")


def test_durations_are_remembered_and_a_garbled_memory_is_no_obstacle(store: Store) -> None:
    store.root.mkdir()
    store.remember("etcd", 50)
    store.remember("helm", 60)
    assert (store.seconds("etcd"), store.seconds("helm"), store.seconds("lws")) == (50, 60, None)
    (store.root / "timings.json").write_text("{")
    assert store.seconds("etcd") is None
    store.remember("etcd", 51)
    assert json.loads((store.root / "timings.json").read_text()) == {"etcd": 51}


def test_the_cache_lies_outside_the_checkout_and_can_be_moved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LLMP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "llm-platform"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert not default_root().is_relative_to(CHECKOUT)
    monkeypatch.setenv("LLMP_CACHE", str(tmp_path / "mine"))
    assert default_root() == tmp_path / "mine"
