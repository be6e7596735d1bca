"""Data planes for tests: one for each configuration and module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.data_plane.chain import Chain

Start = Callable[..., AbstractContextManager[Chain]]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts a data plane; takes the arguments of `Chain.running` but for the directory."""
    return lambda **arguments: Chain.running(tmp_path_factory.mktemp("chain"), **arguments)


@pytest.fixture(scope="module")
def chain(start: Start, request: pytest.FixtureRequest) -> Iterator[Chain]:
    """The module's main data plane, of the arguments that the module names in `CHAIN`."""
    arguments: dict[str, Any] = getattr(request.module, "CHAIN", {})
    with start(**arguments) as running:
        yield running
