"""What the configuration can say and this release cannot build. Pure.

Refused rather than ignored: a stack without the keys or the cluster that its file asks for would look right.
"""

from __future__ import annotations

from collections.abc import Callable

from stacks.config import Problem, StackConfig
from stacks.config.errors import path_of


def _access(config: StackConfig) -> Problem | None:
    if config.access is None or config.access.keys == "signed":
        return None
    return Problem(
        path_of("access", "keys"),
        "this release has no component for opaque keys yet",
        "no key could be looked up",
        "use signed",
    )


def _power(config: StackConfig) -> Problem | None:
    if config.power != "schedule":
        return None
    return Problem(
        path_of("power"),
        "this release does not follow a schedule yet, and the program never reads the clock",
        "nobody could tell whether the models run",
        "write awake or asleep",
    )


_LIMITS: tuple[Callable[[StackConfig], Problem | None], ...] = (_access, _power)


def limits(config: StackConfig) -> list[Problem]:
    """Everything in the configuration that this release cannot do."""
    return [problem for problem in (limit(config) for limit in _LIMITS) if problem is not None]
