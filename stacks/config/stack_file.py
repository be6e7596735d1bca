"""The stack file itself, where Pulumi's view of it would hide a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from stacks.config.errors import PREFIX, Problem, path_of


def read_stack_file(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """The file's content and its duplicated keys; of those the last one counts.

    A file that is no YAML map gives an empty content and one problem.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        text = " ".join(str(fault).split())
        return {}, [
            Problem(path.name, f"is not YAML: {text}", "nothing of it can be read", "correct the syntax")
        ]
    if not isinstance(content, dict) or root is None:
        return {}, [
            Problem(path.name, "holds no map", "the stack has no configuration", "start it with config:")
        ]
    return content, list(_duplicates(root, (), path.name))


def check_stack_file(path: Path) -> list[Problem]:
    """Duplicated keys, and syntax that cannot be read. A file that is not there has no problem."""
    return read_stack_file(path)[1] if path.is_file() else []


def config_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of this project without their prefix, and without those that hold an encrypted value."""
    values = content.get("config")
    return {
        str(name).removeprefix(PREFIX): value
        for name, value in (values.items() if isinstance(values, Mapping) else ())
        if str(name).startswith(PREFIX) and not (isinstance(value, Mapping) and set(value) == {"secure"})
    }


def _duplicates(node: yaml.Node, parts: tuple[str | int, ...], name: str) -> Iterator[Problem]:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _duplicates(item, (*parts, index), name)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        line = key_node.start_mark.line + 1
        if key in first:
            yield Problem(
                _place((*parts, key)),
                f"is written twice, in lines {first[key]} and {line} of {name}",
                "one of the two would be lost without a word",
                "keep one, or give the second another name",
            )
        first.setdefault(key, line)
        yield from _duplicates(value_node, (*parts, key), name)


def _place(parts: tuple[str | int, ...]) -> str:
    """Keys under `config:` carry their own namespace; others are named from the top of the file."""
    if len(parts) > 1 and parts[0] == "config":
        return path_of(str(parts[1]).removeprefix(PREFIX), *parts[2:])
    return ".".join(str(part) for part in parts)
