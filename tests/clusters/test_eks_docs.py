"""The table of traps names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(test_[a-z0-9_]+)`")


def test_every_trap_s_test_exists() -> None:
    named = NAMED.findall((ROOT / "docs" / "eks.md").read_text())
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_[a-z0-9_]+)\(", file.read_text(), re.MULTILINE)
    }
    assert len(named) > 35
    assert [name for name in named if name not in defined] == []


def test_every_row_has_a_test() -> None:
    rows = [row for row in (ROOT / "docs" / "eks.md").read_text().splitlines() if row.startswith("| ")]
    traps = [row for row in rows if not row.startswith("| trap |")]
    assert [row for row in traps if not NAMED.search(row)] == []
