"""The runbooks as the tests read them: pages, and the commands of their shell blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "runbooks"
INDEX = "README"
OTHERS = {INDEX, "change-capacity"}
"""Pages that are about no case of trouble."""
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"^[A-Z]+=")


def names() -> list[str]:
    """The pages of cases, by name."""
    return sorted(file.stem for file in FOLDER.glob("*.md") if file.stem not in OTHERS)


def text(page: str) -> str:
    return (FOLDER / f"{page}.md").read_text()


def _lines(page: str) -> Iterator[str]:
    for block in _BLOCK.findall(text(page)):
        yield from (line for line in block.splitlines() if line.strip())


def variables() -> str:
    """The lines of the index that set what the commands refer to."""
    return "\n".join(line for line in _lines(INDEX) if _ASSIGNMENT.match(line))


def commands(page: str) -> list[str]:
    """Every command of a page."""
    return [line for line in _lines(page) if not _ASSIGNMENT.match(line)]


def program(command: str) -> str:
    """What a command runs: kubectl, gcloud, pulumi, or `python -m ops`."""
    words = shlex.split(command)
    return " ".join(words[:3]) if words[0] == "python" else words[0]
