"""Windows of a schedule."""

from __future__ import annotations

import pytest

from stacks.config import load_config
from stacks.config.power import parse_window


@pytest.mark.parametrize(
    ("text", "days", "start", "end"),
    [
        ("Mon-Fri 08:00-20:00", {0, 1, 2, 3, 4}, 480, 1200),
        ("Sun 00:00-24:00", {6}, 0, 1440),
        ("Mon,Wed 09:30-10:00", {0, 2}, 570, 600),
        ("Sat-Mon 10:00-11:00", {5, 6, 0}, 600, 660),
        ("Mon-Tue,Fri 10:00-11:00", {0, 1, 4}, 600, 660),
    ],
)
def test_a_window_is_days_and_minutes_of_the_local_day(
    text: str, days: set[int], start: int, end: int
) -> None:
    window = parse_window(text)
    assert (window.days, window.start, window.end) == (days, start, end)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Mon 24:00-24:00",
        "Mon 08:00-08:00",
        "mon 08:00-09:00",
        "Mon-Wed-Fri 08:00-09:00",
        "Mon 25:00-26:00",
    ],
)
def test_anything_else_is_no_window(text: str) -> None:
    with pytest.raises(ValueError):
        parse_window(text)


def test_a_schedule_gives_its_windows_parsed(stack) -> None:
    config = load_config(stack(change={"schedule": {"timezone": "UTC", "awake": ["Mon 08:00-09:00"]}}))
    assert [window.start for window in config.schedule.windows] == [480]
