"""Fills a directory of a volume with one set of weights. Runs in a pod of its own, in KServe's storage initializer.

    python3 fill_claim.py SOURCE DIRECTORY FINGERPRINT

A note in the directory says which set it holds and whether that is complete, so that a second run does nothing, one
that was interrupted goes on, and another set takes the place of the first. The downloads are KServe's
(`kserve_storage` 0.20). That from Hugging Face leaves complete files alone and goes on within others; that from S3
writes a file under another name until it is complete, so that what has its own name is not fetched again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTE = ".llm-platform-weights.json"
# Where the hub's client notes what it has of each file.
CACHE = ".cache"
# What is no part of a set, and what a new file system brings along.
FOREIGN = frozenset({NOTE, f"{NOTE}.new", CACHE, "lost+found"})
# Names of weights that vLLM loads.
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
# boto3's name of a file that is not complete.
PARTIAL = re.compile(r"\.[0-9A-Fa-f]{8}$")
GIB = 2**30
PROGRESS_SECONDS = 30


class Refused(Exception):
    """The directory cannot be filled as things are; the message says what is wrong and what to do."""


def fill(source: str, place: Path, fingerprint: str, include: list[str], exclude: list[str]) -> None:
    """Make the directory hold the set. Raises Refused, and whatever the download raises."""
    began, found = time.monotonic(), read_note(place)
    if found.get("fingerprint") == fingerprint and found["complete"]:
        say(f"{place} holds {source} already ({size(place)}): nothing to do")
        return
    prepare(place, found, source, fingerprint)
    write_note(place, fingerprint=fingerprint, source=source, complete=False)
    over = threading.Event()
    threading.Thread(target=tell, args=(place, began, over), daemon=True).start()
    try:
        download(source, place, include, exclude)
    finally:
        over.set()
    if not any(next(place.rglob(pattern), None) for pattern in WEIGHTS):
        raise Refused(f"no weights among the files of {source} that the patterns let through")
    write_note(place, fingerprint=fingerprint, source=source, complete=True, files=contents(place))
    say(f"{source} is complete: {size(place)} in {time.monotonic() - began:.0f} s")


def prepare(place: Path, found: dict[str, Any], source: str, fingerprint: str) -> None:
    """Leave nothing of another set in the directory. It goes when the new one can be had, and nothing else ever does."""
    place.mkdir(parents=True, exist_ok=True)
    if found.get("fingerprint") == fingerprint:
        return
    there = contents(place)
    # A set that is not complete has no list; where it was begun there was nothing else.
    mine = set(found.get("files", there)) if found else set()
    strangers = sorted(name for name in there if name not in mine or Path(name).name == NOTE)
    if strangers:
        raise Refused(
            f"the claim holds {strangers[0]} and {len(strangers) - 1} more that this job did not write, and a second set of "
            "weights would be laid over them; remove them, or name another path in the model's uri"
        )
    if there:
        look(source)
        say(f"removing {found['source']}, which the claim held before")
        remove(place, there)


def contents(place: Path) -> list[str]:
    """The files of a directory and of those below it, but for what its file system, the hub's client and we keep there."""
    files = (file.relative_to(place) for file in place.rglob("*") if not file.is_dir() or file.is_symlink())
    return sorted(str(name) for name in files if name.parts[0] not in FOREIGN)


def remove(place: Path, names: list[str]) -> None:
    """Files, and the directories that they leave empty."""
    for name in names:
        (place / name).unlink()
    shutil.rmtree(place / CACHE, ignore_errors=True)
    for folder in sorted({parent for name in names for parent in Path(name).parents}, reverse=True):
        if folder.parts and not any((place / folder).iterdir()):
            (place / folder).rmdir()


def look(source: str) -> None:
    """Whether the source gives anything: its small files, which every model has, into a place of the pod's own."""
    from kserve_storage import Storage

    with tempfile.TemporaryDirectory() as scratch:
        Storage.download(source, scratch, ["*.json"], None)


def download(source: str, place: Path, include: list[str], exclude: list[str]) -> None:
    """KServe's download, without the files that are there."""
    from kserve_storage import Storage

    there = kept(place) if source.startswith("s3://") else []
    say(f"downloading {source}: {include or 'all files'} without {exclude}")
    Storage.download(source, str(place), include or None, [*exclude, *there] or None)


def kept(place: Path) -> list[str]:
    """Patterns of the files of an interrupted download from S3 that are complete; what is not complete goes.

    The smallest is left out: a download with nothing to do is a failure for KServe.
    """
    files = [place / name for name in contents(place)]
    for file in [file for file in files if PARTIAL.search(file.name)]:
        file.unlink()
        files.remove(file)
    complete = sorted(files, key=lambda file: file.stat().st_size)[1:]
    return [re.sub(r"([*?[])", r"[\1]", str(file.relative_to(place))) for file in complete]


def read_note(place: Path) -> dict[str, Any]:
    """What the note says; nothing where there is none."""
    try:
        return dict(json.loads((place / NOTE).read_text()))
    except FileNotFoundError:
        return {}


def write_note(place: Path, **note: Any) -> None:
    """In one step, and on the disk before the job ends well."""
    fresh = place / f"{NOTE}.new"
    with fresh.open("w") as file:
        json.dump(note, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, place / NOTE)


def size(place: Path) -> str:
    """What the directory holds, for people."""
    return f"{sum(sizes(place)) / GIB:.1f} GiB"


def sizes(place: Path) -> Iterator[int]:
    """Of every file, those that are not complete as well."""
    for file in place.rglob("*"):
        try:
            yield file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:  # A part that has just become a file.
            yield 0


def tell(place: Path, began: float, over: threading.Event) -> None:
    """Say now and then how far it is."""
    while not over.wait(PROGRESS_SECONDS):
        say(f"{size(place)} after {time.monotonic() - began:.0f} s")


def say(line: str) -> None:
    """A line of the log, at once."""
    print(line, flush=True)


def main() -> int:
    """Fill what the command line names, with the patterns of the environment."""
    source, directory, fingerprint = sys.argv[1:]
    include, exclude = (json.loads(os.environ.get(name, "[]")) for name in ("INCLUDE", "EXCLUDE"))
    try:
        fill(source, Path(directory), fingerprint, include, exclude)
    except Exception as failure:  # noqa: BLE001 (the end of the log is what people are shown)
        say(f"{source}: {failure or type(failure).__name__}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
