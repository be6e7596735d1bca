"""Commands that a page tells people to type: ours are parsed, others' are in a table with their flags."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping

from ops import cli
from rehearsal.paths import CHECKOUT

Known = Mapping[str, Collection[str]]
"""Flags that the pages use, by the command and its verbs."""


def words(command: str) -> list[str]:
    """A command's words, without where its output goes."""
    return shlex.split(re.split(r" [<>] ", command)[0])


def verb_of(command: str, known: Known) -> str | None:
    """The known command that this one is; None for another."""
    said = words(command)
    return next((verb for verb in known if said[: len(verb.split())] == verb.split()), None)


def assert_exists(command: str, known: Known) -> None:
    """Fails unless the command is one of ours, or known with all its flags."""
    said = words(command)
    if said[:3] == ["python", "-m", "ops"]:
        cli.build_parser(said[3]).parse_args(said[3:])
        return
    if said[0] == "make":
        makefile = (CHECKOUT / "Makefile").read_text()
        assert re.search(rf"^{said[1]}:", makefile, re.MULTILINE)
        return
    verb = verb_of(command, known)
    assert verb is not None, f"nobody has looked whether `{command}` exists"
    flags = {word.split("=")[0] for word in said if word.startswith("--")}
    assert flags <= set(known[verb])
