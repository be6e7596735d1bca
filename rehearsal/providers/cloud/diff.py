"""What differs between a resource as it is and as it is wanted, as the bridge to a cloud's provider sees it.

Wanted values are compared with the last known state, not with the last inputs, so drift that a refresh
found shows; values that only the cloud filled in never do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rehearsal.providers.cloud.kinds import Kind
from rehearsal.providers.values import UNKNOWN, Properties

Path = tuple[str, ...]


@dataclass(frozen=True)
class Dialect:
    """How one cloud writes values.

    `sets` are names of fields, wherever they are, in which order means nothing. `same` says by a field's name
    whether two texts that differ mean the same.
    """

    sets: frozenset[str]
    same: Callable[[str, str, str], bool]


def changes(
    dialect: Dialect,
    kind: Kind,
    state: Properties,
    before: Properties,
    wanted: Properties,
    ignored: Collection[str] = (),
) -> dict[str, bool]:
    """Every path that differs, and whether that replaces the resource."""
    walk = _Walk(dialect)
    found = (path for path in walk((), state, before, wanted) if not _is_computed(kind, path, wanted))
    return {
        text: _forces(kind, path, state, wanted)
        for path in found
        if not text_in(text := _text(path), ignored) and not path[0].startswith("__")
    }


def text_in(text: str, paths: Collection[str]) -> bool:
    """Whether a path is one of `paths` or lies below one."""
    return any(text == p or text.startswith((f"{p}.", f"{p}[")) for p in paths)


@dataclass(frozen=True)
class _Walk:
    """Goes through wanted values and yields the paths of those that differ."""

    dialect: Dialect

    def __call__(self, path: Path, state: Any, before: Any, wanted: Any) -> Iterator[Path]:
        if isinstance(wanted, dict):
            state, before = _block(state), _block(before)
            for key, value in wanted.items():
                yield from self((*path, key), state.get(key), before.get(key), value)
            for key in before.keys() - wanted.keys():
                if before[key] not in (None, [], {}):
                    yield (*path, key)
        elif isinstance(wanted, list) and _all_blocks(wanted) and len(wanted) == len(state or ()):
            pairs = zip(self._ordered(path, state), self._ordered(path, wanted), strict=True)
            olds = before if isinstance(before, list) and len(before) == len(wanted) else [{}] * len(wanted)
            for index, (old, new) in enumerate(pairs):
                yield from self((*path, f"[{index}]"), old, olds[index], new)
        elif not self._same(path, state, wanted):
            yield path

    def _ordered(self, path: Path, values: Sequence[Any]) -> Sequence[Any]:
        return sorted(values, key=repr) if path[-1] in self.dialect.sets else values

    def _same(self, path: Path, old: Any, new: Any) -> bool:
        if new is UNKNOWN:
            return False
        if isinstance(new, list) and isinstance(old, list):
            return list(self._ordered(path, old)) == list(self._ordered(path, new))
        if isinstance(old, str) and isinstance(new, str) and self.dialect.same(path[-1], old, new):
            return True
        # Nothing, false, zero and empty are one and the same to the provider's own differ.
        return old == new or (not old and not new)


def _block(value: Any) -> Properties:
    return value if isinstance(value, dict) else {}


def _all_blocks(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _is_computed(kind: Kind, path: Path, wanted: Properties) -> bool:
    """Whether the field was given before and now is left to the cloud, which keeps it as it is."""
    return path[0] not in wanted and (path[0] in kind.outputs or path[0] in kind.filled)


def _forces(kind: Kind, path: Path, state: Properties, wanted: Properties) -> bool:
    plain = [part for part in path if not part.startswith("[")]
    forced = any(".".join(plain[:length]) in kind.force_new for length in range(1, len(plain) + 1))
    return forced or (kind.replaces is not None and kind.replaces(plain[0], state, wanted))


def _text(path: Path) -> str:
    return ".".join(path).replace(".[", "[")
