"""When the accelerators run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from stacks.config.base import Strict, entry
from stacks.config.errors import choice, refusal
from stacks.config.types import IsoDate, TimeZone, sequence

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
STATES = ("awake", "asleep", "schedule")
_SWITCHES = {True: "awake", "true": "awake", "on": "awake", "yes": "awake", False: "asleep"}
_SWITCHES |= {"false": "asleep", "off": "asleep", "no": "asleep"}
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_WINDOW = re.compile(rf"([A-Z][a-z]{{2}}(?:[-,][A-Z][a-z]{{2}})*) ({_CLOCK})-({_CLOCK}|24:00)")


@dataclass(frozen=True)
class Window:
    """A time of the week: `days` as 0 (Monday) to 6, `start` and `end` in minutes of the local day."""

    days: frozenset[int]
    start: int
    end: int


def parse_window(text: str) -> Window:
    """Reads `Mon-Fri 08:00-20:00` or `Sat,Sun 10:00-24:00`.

    Raises `ValueError` with what is wrong.
    """
    found = _WINDOW.fullmatch(text)
    if not found:
        raise ValueError("it does not have the form days, space, start-end")
    start, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in found.groups()[1:])
    if end <= start:
        raise ValueError("it ends before it starts; a night is two windows, up to 24:00 and from 00:00")
    return Window(_days(found[1]), start, end)


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        names = part.split("-")
        unknown = [name for name in names if name not in DAYS]
        if unknown or len(names) > 2:
            raise ValueError(f'"{part}" is neither a day nor a range of days ({", ".join(DAYS)})')
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        days.update(day % 7 for day in range(first, last + 1 if last >= first else last + 8))
    return frozenset(days)


def _window(text: str) -> str:
    try:
        parse_window(text)
    except ValueError as fault:
        raise refusal(
            f'"{text}" is not a window: {fault}',
            "the models would sleep when they are needed",
            'write for example "Mon-Fri 08:00-20:00"',
        ) from None
    return text


def _not_a_switch(value: Any) -> Any:
    switch = value.lower() if isinstance(value, str) else value
    if isinstance(switch, bool | str) and switch in _SWITCHES:
        raise refusal(
            f"{str(value).lower()} is a switch, and YAML readers disagree on those (on may arrive as true)",
            "the stack could end up in the other state",
            f"write {_SWITCHES[switch]}",
        )
    if value not in STATES:
        raise refusal(
            f'"{value}" is not a power state',
            "nobody could tell whether to run the accelerators",
            choice(value, STATES),
        )
    return value


PowerState = Annotated[Literal["awake", "asleep", "schedule"], BeforeValidator(_not_a_switch)]
WindowText = Annotated[
    str,
    AfterValidator(_window),
    WithJsonSchema({"type": "string", "pattern": f"^{_WINDOW.pattern}$", "title": "window"}),
]


class Schedule(Strict):
    """Working hours. The program reads no clock: `python -m ops power resolve` makes a state of them."""

    timezone: TimeZone = entry("Time zone of the windows.")
    awake: Annotated[sequence(WindowText), Field(min_length=1)] = entry(
        'When the models run, for example `["Mon-Fri 08:00-20:00"]`.'
    )
    holidays: sequence(IsoDate) = entry("Days in quotes on which they sleep all day.", ())

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows, parsed."""
        return tuple(parse_window(text) for text in self.awake)
