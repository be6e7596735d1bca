"""What the data plane says before it starts."""

from __future__ import annotations

import os

import pytest

from rehearsal.data_plane import NotStarted, require_watches


def test_where_no_more_files_can_be_watched_the_limit_is_named() -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    found = iter((descriptor, -1, -1))
    with pytest.raises(NotStarted, match=r"sysctl fs\.inotify\.max_user_instances"):
        require_watches(3, lambda: next(found))
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_nothing_stays_open_where_files_can_be_watched() -> None:
    before = len(os.listdir("/proc/self/fd"))
    require_watches(2)
    assert len(os.listdir("/proc/self/fd")) == before
