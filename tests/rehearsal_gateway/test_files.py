"""What Envoy reads changes as a whole, in order, and only where it differs."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from rehearsal.gateway import files


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that came into place, in order."""
    seen: list[str] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        # Whole before anybody can see it under its name.
        json.loads(self.read_text())
        seen.append(target.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    return seen


def test_files_come_into_place_whole_in_order_and_once(tmp_path: Path, renamed: list[str]) -> None:
    first: dict[str, Any] = {"b.json": {"x": 1}, "a.json": {"x": 1}}
    files.write(tmp_path, first, {})
    assert renamed == ["b.json", "a.json"]
    files.write(tmp_path, {**first, "a.json": {"x": 2}}, first)
    assert renamed == ["b.json", "a.json", "a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 2}


def test_a_changed_file_is_another_file_since_that_is_what_envoy_watches(tmp_path: Path) -> None:
    files.write(tmp_path, {"a.json": 1}, {})
    before = os.stat(tmp_path / "a.json").st_ino
    files.write(tmp_path, {"a.json": 2}, {"a.json": 1})
    assert os.stat(tmp_path / "a.json").st_ino != before


def test_what_is_no_longer_named_goes_after_the_others_have_come(tmp_path: Path) -> None:
    files.write(tmp_path, {"old.json": 1}, {})
    files.write(tmp_path, {"new.json": 1}, {"old.json": 1})
    assert sorted(os.listdir(tmp_path)) == ["new.json"]


def test_only_the_owner_may_read_since_keys_are_among_them(tmp_path: Path) -> None:
    directory = tmp_path / "gateway" / "127.0.0.1"
    files.write(directory, {"sds.json": 1}, {})
    assert stat.S_IMODE(os.stat(directory / "sds.json").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    files.remove(tmp_path / "nothing")
