"""The documentation as a reader finds it."""

from __future__ import annotations

import re
from pathlib import Path

from rehearsal.paths import CHECKOUT

_LINK = re.compile(r"\]\(([^)#\s]+)")


def linked(page: Path) -> set[Path]:
    """The files of this repository that a page links to."""
    targets = (link for link in _LINK.findall(page.read_text()) if "://" not in link)
    return {(page.parent / target).resolve() for target in targets}


def test_every_link_leads_somewhere_and_every_page_is_reached_from_the_readme() -> None:
    found, waiting = set(), [CHECKOUT / "README.md"]
    while waiting:
        page = waiting.pop()
        for target in linked(page) - found:
            assert target.exists(), f"{page.name} links to {target}, which does not exist"
            found.add(target)
            if target.suffix == ".md":
                waiting.append(target)
    pages = set((CHECKOUT / "docs").rglob("*.md"))
    assert pages <= found, f"nobody links to {sorted(path.name for path in pages - found)}"
