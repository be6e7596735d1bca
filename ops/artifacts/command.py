"""`python -m ops artifacts`: pin, check and fetch what the lock file names."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ops import cli
from ops.artifacts.lockfile import LOCK_FILE, Entry, fill, read
from ops.artifacts.sources import Altered, Sources, Unavailable, sha256
from ops.errors import OpsError
from ops.report import coloured, table

EXPLANATION = """
The lock file names every chart, manifest and image of the platform by exact version. Its digests say which
content that version had when it was reviewed; they are only ever computed from the content itself.
"""
_MOVED = "the source has {actual}, but {locked} is locked: review the change, then `pin --accept {name}`"


@dataclass(frozen=True)
class Outcome:
    """What became of one entry: `code` is the command's exit code if all were like it."""

    entry: Entry
    text: str
    code: int = cli.DONE
    digest: str = ""


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (parser.description or "") + EXPLANATION
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    common = ArgumentParser(add_help=False)
    common.add_argument(
        "--lock", type=Path, default=LOCK_FILE, metavar="FILE", help="default: the platform's own"
    )
    common.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="only this entry (repeatable; default: all)",
    )
    pin = actions.add_parser("pin", parents=[common], help="fill in the digests of what its sources have")
    pin.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="NAME",
        help="lock this entry's new content, although another digest is locked (repeatable)",
    )
    pin.set_defaults(run=run_pin)
    check = actions.add_parser(
        "check", parents=[common], help="compare sources or files with the locked digests"
    )
    check.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        help="compare the files of a `platform.artifacts.directory` instead",
    )
    check.set_defaults(run=run_check)
    fetch = actions.add_parser("fetch", parents=[common], help="fill a `platform.artifacts.directory`")
    fetch.add_argument("--directory", type=Path, metavar="DIR", required=True, help="where the files go")
    fetch.set_defaults(run=run_fetch)


def run_pin(arguments: Namespace) -> int:
    """Fill in digests; what cannot be had, or is not what was locked, stays as it is and is named."""
    text, entries = _entries(arguments)
    _known(arguments.accept, entries)
    sources = Sources()
    outcomes = [_guarded(entry, lambda e: _pin(e, sources, arguments.accept)) for entry in entries]
    digests = {o.entry.span: o.digest for o in outcomes if o.digest}
    if digests:
        arguments.lock.write_text(fill(text, digests))
    return _report(outcomes)


def _pin(entry: Entry, sources: Sources, accepted: Iterable[str]) -> Outcome:
    actual, locked = sources.digest(entry.locked), entry.locked.digest
    if locked == actual:
        return Outcome(entry, f"unchanged: {actual}")
    if locked is None or entry.name in accepted:
        return Outcome(entry, f"pinned to {actual}", digest=actual)
    return Outcome(entry, _MOVED.format(actual=actual, locked=locked, name=entry.name), cli.FAILED)


def run_check(arguments: Namespace) -> int:
    """Compare whatever is pinned, and list what is not."""
    _, entries = _entries(arguments)
    sources = Sources()

    def actual(entry: Entry) -> str:
        return sha256(_file(entry, arguments.directory).read_bytes())

    if arguments.directory:
        entries = [
            entry for entry in entries if entry.section != "images"
        ]  # They come from a registry anyway.
    compare = actual if arguments.directory else lambda entry: sources.digest(entry.locked)
    return _report([_guarded(entry, lambda e: _check(e, compare)) for entry in entries])


def _check(entry: Entry, actual: Callable[[Entry], str]) -> Outcome:
    locked = entry.locked.digest
    if locked is None:
        return Outcome(
            entry, f"not pinned: run `python -m ops artifacts pin --only {entry.name}`", cli.UNDECIDED
        )
    found = actual(entry)
    if found == locked:
        return Outcome(entry, f"as locked: {locked}")
    return Outcome(
        entry, f"{found} was found, but {locked} is locked: it is not what was reviewed", cli.FAILED
    )


def run_fetch(arguments: Namespace) -> int:
    """Write every chart and manifest to a directory, unless it is not what is locked."""
    _, entries = _entries(arguments)
    sources = Sources()
    files = [entry for entry in entries if entry.section != "images"]
    return _report([_guarded(entry, lambda e: _fetch(e, sources, arguments.directory)) for entry in files])


def _fetch(entry: Entry, sources: Sources, directory: Path) -> Outcome:
    content, locked = sources.fetch(entry.locked), entry.locked.digest
    if locked not in (None, sha256(content)):
        return Outcome(
            entry, _MOVED.format(actual=sha256(content), locked=locked, name=entry.name), cli.FAILED
        )
    target = directory / entry.locked.file
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    partial.write_bytes(content)
    partial.replace(target)
    return Outcome(entry, f"{target}" + ("" if locked else " (not pinned, so not verified)"))


def _file(entry: Entry, directory: Path) -> Path:
    path = directory / entry.locked.file
    if not path.is_file():
        raise Unavailable(f"{path} is not there: `python -m ops artifacts fetch --directory {directory}`")
    return path


def _entries(arguments: Namespace) -> tuple[str, list[Entry]]:
    text, entries = read(arguments.lock)
    _known(arguments.only, entries)
    return text, [entry for entry in entries if not arguments.only or entry.name in arguments.only]


def _known(names: Iterable[str], entries: Iterable[Entry]) -> None:
    known = {entry.name for entry in entries}
    if unknown := sorted(set(names) - known):
        raise OpsError(f"the lock file has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")


def _guarded(entry: Entry, work: Callable[[Entry], Outcome]) -> Outcome:
    """One entry's outcome; what cannot be had is an outcome too, so that the others are still tried."""
    if sys.stderr.isatty():
        print(f"{entry.label} …", file=sys.stderr)
    try:
        return work(entry)
    except Unavailable as error:
        return Outcome(entry, f"could not be had: {error}", cli.FAILED)
    except Altered as error:
        return Outcome(entry, f"is not what its source says: {error}", cli.FAILED)


def _report(outcomes: list[Outcome]) -> int:
    print(table(("WHAT", "OUTCOME"), [(o.entry.label, o.text) for o in outcomes]))
    codes = {outcome.code for outcome in outcomes}
    code = next((c for c in (cli.FAILED, cli.UNDECIDED) if c in codes), cli.DONE)
    wrong = sum(outcome.code != cli.DONE for outcome in outcomes)
    verdict = (
        f"{wrong} of {len(outcomes)} are not as they should be"
        if wrong
        else f"all {len(outcomes)} are in order"
    )
    print("\n" + coloured(verdict, "yellow" if wrong else "green"))
    return code
