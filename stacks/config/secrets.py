"""Secrets that must not be in plain configuration: how they look, and how to speak of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stacks.config.credentials import looks_secret
from stacks.config.errors import Problem, path_of

# Names whose values are secrets whatever they look like.
_SECRET_NAME = re.compile(
    r"(^|_)(PASSWORD|PASSWD|SECRET|SECRET_ACCESS_KEY|API_KEY|PRIVATE_KEY|TOKEN)$|^\.dockerconfigjson$"
)

CONSEQUENCE = "whoever can read the file, the state or a pull request can use it"
_FIX = (
    "remove it, withdraw it where it was issued, and keep the new one out of the file: "
    "pulumi config set --secret llm-platform:hfToken (Hugging Face) or llm-platform:pullSecret (registry)"
)


def shown(value: Any) -> str:
    """A value for a message: quoted, short, and hidden when it looks like a credential."""
    kind = looks_secret(value) if isinstance(value, str) else None
    if kind:
        return f"({kind}, not shown)"
    if isinstance(value, str):
        return f'"{value if len(value) <= 60 else value[:57] + "..."}"'
    if isinstance(value, Mapping | list | tuple):
        return "this map" if isinstance(value, Mapping) else "this list"
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def plain_secrets(raw: Mapping[str, Any]) -> list[Problem]:
    """Every value of the plain configuration that is, or is named like, a credential."""
    found = []
    for parts, value in _leaves(raw, ()):
        kind = looks_secret(value)
        if kind is None and value and _SECRET_NAME.search(str(parts[-1])):
            kind = "a value named like a credential"
        if kind:
            found.append(Problem(path_of(*parts), f"{kind} is written in plain text", CONSEQUENCE, _FIX))
    return found


def _leaves(value: Any, parts: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, (*parts, str(name)))
            if looks_secret(name):
                yield (*parts, "(a key, not shown)"), name
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*parts, index))
    else:
        yield parts, value
