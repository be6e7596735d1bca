"""The table of docs/limits-tests.md and the tests that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
TABLE = CHECKOUT / "docs" / "limits-tests.md"
NUMBERS = range(1, 76)


def rows() -> dict[int, str]:
    """What the table says proves each number."""
    found = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", TABLE.read_text(), re.MULTILINE)
    assert len({number for number, _ in found}) == len(found), "a number has two rows"
    return {int(number): proof for number, proof in found}


def functions() -> set[str]:
    """The names of all tests."""
    files = (CHECKOUT / "tests").rglob("test_*.py")
    return {
        name for file in files for name in re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE)
    }


def numbered() -> dict[int, set[str]]:
    """The tests by the number in their names."""
    found: dict[int, set[str]] = {}
    for name in functions():
        if match := re.match(r"test_([a-e])(\d\d)_", name):
            found.setdefault(int(match[2]), set()).add(name)
    return found


def test_the_table_has_a_row_for_every_number() -> None:
    assert list(rows()) == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_has_a_test_or_a_reason(number: int) -> None:
    proof = rows()[number]
    if proof.startswith("`test_") and (named := re.match(r"`test_[a-e](\d\d)`", proof)):
        assert int(named[1]) == number and numbered().get(number), f"there is no test of number {number}"
    else:
        assert "tests/rehearsed" in proof or len(proof.split()) > 5, f"number {number} has no reason"


def test_every_test_of_a_number_stands_in_its_row() -> None:
    for number, names in numbered().items():
        assert number in NUMBERS, f"{names} have a number that does not exist"
        shown = {name[: len("test_a00")] for name in names if not name.startswith("test_b")}
        row = rows()[number]
        assert "tests/rehearsed" in row or all(f"`{n}`" in row for n in shown), f"row {number}: no {shown}"


def test_every_test_that_the_table_names_exists() -> None:
    known = functions()
    for number, proof in rows().items():
        for name in re.findall(r"`(test_\w+)`", proof):
            short = re.fullmatch(r"test_[a-e]\d\d", name)
            assert name in known or (short and any(k.startswith(f"{name}_") for k in known)), (number, name)
