"""Plain tables for people: columns that line up, colours only on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1"}
_NARROWEST = 24


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    """`text` in a colour where `stream` (standard output) is a terminal that wants one."""
    stream = sys.stdout if stream is None else stream
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def width() -> int:
    """Characters per line: the terminal's, else enough for a log (120)."""
    return shutil.get_terminal_size((120, 24)).columns


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], total: int | None = None) -> str:
    """Lay `rows` out under `headers` within `total` characters; the later, longer columns are wrapped.

    Nothing is cut: what does not fit goes to the next line of its cell.
    """
    lines = [tuple(headers), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = _fit([max(len(line[i]) for line in lines) for i in range(len(headers))], total or width())
    return "\n".join(_row(line, widths) for line in lines)


def _fit(wanted: list[int], total: int) -> list[int]:
    """Take from the widest column until all fit, but never below a readable width."""
    widths = list(wanted)
    while sum(widths) + 2 * (len(widths) - 1) > total:
        widest = max(range(len(widths)), key=lambda i: widths[i])
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return widths


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    wrapped = [
        textwrap.wrap(cell, wide, break_long_words=False, break_on_hyphens=False) or [""]
        for cell, wide in zip(cells, widths, strict=True)
    ]
    height = max(len(cell) for cell in wrapped)
    padded = [cell + [""] * (height - len(cell)) for cell in wrapped]
    return "\n".join(
        "  ".join(cell[i].ljust(wide) for cell, wide in zip(padded, widths, strict=True)).rstrip()
        for i in range(height)
    )
