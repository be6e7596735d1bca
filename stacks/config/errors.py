"""Problems of a configuration: where, what is wrong, what it would lead to, and how to put it right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pydantic_core import PydanticCustomError

from stacks.config.credentials import redact

PREFIX = "llm-platform:"
REFUSED = "refused"
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with a configuration.

    `path` is the place in the stack file as its author wrote it, the other three are
    sentences without a full stop.
    """

    path: str
    wrong: str
    consequence: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}: {self.wrong}; {self.consequence}. Fix: {self.fix}."


def _redacted(problem: Problem) -> Problem:
    return Problem(*(redact(getattr(problem, field.name)) for field in fields(problem)))


class ConfigError(Exception):
    """A configuration that is refused; `problems` holds everything that was found, in order of the path."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(dict.fromkeys(_redacted(problem) for problem in sorted(problems)))
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"the stack's configuration has {count}; nothing was created or changed:\n{lines}")


def path_of(*parts: str | int) -> str:
    """The path in the stack file: `llm-platform:models.qwen.args[0]`."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return PREFIX + text


def refusal(wrong: str, consequence: str, fix: str) -> PydanticCustomError:
    """What a validator raises; it becomes a :class:`Problem` at the place of the value."""
    return PydanticCustomError(REFUSED, "{wrong}", {"wrong": wrong, "consequence": consequence, "fix": fix})


def nearest(word: Any, known: Iterable[str]) -> str | None:
    """The known word that `word` most likely stands for, if there is one."""
    by_fold = {name.lower().replace("_", "").replace("-", ""): name for name in known}
    folded = str(word).lower().replace("_", "").replace("-", "")
    found = difflib.get_close_matches(folded, by_fold, n=1, cutoff=0.6)
    return by_fold[found[0]] if found else None


def choice(word: Any, known: Sequence[str], prefix: str = "") -> str:
    """Advice that names the nearest valid word, if any is near, and all valid ones."""
    guess = nearest(word, known)
    if not known:
        return "remove it"
    listed = ", ".join(prefix + name for name in known)
    return f"use {prefix}{guess} (valid are {listed})" if guess else f"use one of {listed}"
