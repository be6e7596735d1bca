"""`python -m ops watch`: says what a person must know while a stack comes up, and is quiet otherwise."""

from __future__ import annotations

import os
import signal
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from ops import cli, cluster, pulumi
from ops.errors import OpsError
from ops.pulumi import Pulumi
from ops.watch import news
from ops.watch.news import News, Snapshot, Teller
from ops.watch.place import Place
from ops.watch.source import Source
from stacks.config import ConfigError, load_stack_file

LOOK_SECONDS = 5.0


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    pulumi.add_arguments(parser)
    cluster.add_arguments(parser)
    parser.add_argument("--until-ready", action="store_true", help="end with 0 when every model is Ready")
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="end after this time: with 1 if it was to end when Ready",
    )
    parser.add_argument(
        "--every",
        type=float,
        default=LOOK_SECONDS,
        metavar="SECONDS",
        help="time between two looks (default: 5)",
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Look again and again until told to end, by a signal, by the options, or by the end of whoever started it."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    place = _place(arguments)
    watch = Watch(Source(Pulumi(arguments.stack, arguments.project), arguments, place), place)
    return watch.run(arguments, stop)


def _place(arguments: Namespace) -> Place:
    """What the stack file says; without a valid one, advice is general and nobody knows which models to wait for."""
    file = Path(arguments.project, f"Pulumi.{arguments.stack}.yaml")
    try:
        return Place.of(load_stack_file(file))
    except (ConfigError, OSError) as error:
        if arguments.until_ready:
            raise OpsError(
                f"{file} cannot be read, so nobody knows which models to wait for: {error}"
            ) from None
        return Place()


class Watch:
    """Looks, and tells what is new."""

    def __init__(self, source: Source, place: Place):
        self._source, self._place = source, place
        self._teller, self._began = Teller(), time.monotonic()

    def run(self, arguments: Namespace, stop: threading.Event) -> int:
        """Until something ends it; returns the exit status."""
        parent = os.getppid()
        while True:
            ending = stop.is_set()
            seen = self._look()
            if arguments.until_ready and seen is not None and news.ready(seen, self._place):
                self._print([f"every model is Ready after {self._elapsed:.0f} s"])
                return cli.DONE
            if ending or os.getppid() != parent:
                return cli.FAILED if arguments.until_ready else cli.DONE
            if arguments.timeout is not None and self._elapsed >= arguments.timeout:
                return self._late(arguments)
            stop.wait(arguments.every)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _look(self) -> Snapshot | None:
        """One look, told; None where there was nothing to see."""
        now = datetime.now(UTC)
        try:
            seen = self._source.look()
        except OpsError as trouble:
            found, seen = [News(("trouble",), str(trouble), str(trouble), repeats=False)], None
        else:
            found = news.news(seen, self._place, now)
        self._print(self._teller.new(found, now))
        return seen

    def _late(self, arguments: Namespace) -> int:
        if not arguments.until_ready:
            return cli.DONE
        self._print([f"not every model is Ready after {arguments.timeout:.0f} s: see `python -m ops status`"])
        return cli.FAILED

    @staticmethod
    def _print(lines: Iterable[str]) -> None:
        for line in lines:
            print(f"watch {time.strftime('%H:%M:%S')}  {line}", flush=True)
