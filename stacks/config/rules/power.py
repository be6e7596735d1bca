"""Power and its schedule."""

from __future__ import annotations

from collections.abc import Iterator

from stacks.config.errors import Problem
from stacks.config.rules.draft import Draft, problem


def schedule_is_there(draft: Draft) -> Iterator[Problem]:
    """A stack that follows a schedule has one."""
    if draft.config.power == "schedule" and draft.config.schedule is None and draft.knows("schedule"):
        yield problem(
            ("schedule",),
            "is missing, but power is schedule",
            "nobody could tell when the accelerators run",
            'add {timezone: Europe/Berlin, awake: ["Mon-Fri 08:00-20:00"]}, or set power to awake or asleep',
        )


RULES = (schedule_is_there,)
