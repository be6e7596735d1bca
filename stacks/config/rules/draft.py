"""What the rules judge: a configuration without its unreadable parts, so that all problems show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stacks.config.errors import Problem, path_of
from stacks.config.model import Model
from stacks.config.pools import PoolShape
from stacks.config.root import StackConfig

Parts = tuple[str | int, ...]


@dataclass(frozen=True)
class Draft:
    """A configuration and the places that were `removed` because they are already reported."""

    config: StackConfig
    removed: frozenset[Parts] = frozenset()

    def knows(self, *parts: str | int) -> bool:
        """False when this place, or one that contains it, was taken out."""
        return not any(parts[: len(gone)] == gone for gone in self.removed)

    def pools(self) -> dict[str, PoolShape]:
        """The cluster's accelerators by name."""
        return {name: pool.shape() for name, pool in self.config.cluster.accelerators.items()}

    def placed(self) -> Iterator[tuple[str, Model, PoolShape]]:
        """Every model whose accelerator is there, with that pool."""
        pools = self.pools()
        for name, model in self.config.models.items():
            if model.accelerator in pools:
                yield name, model, pools[model.accelerator]


def problem(parts: Parts, wrong: str, consequence: str, fix: str) -> Problem:
    """A problem at a place of the stack file."""
    return Problem(path_of(*parts), wrong, consequence, fix)
