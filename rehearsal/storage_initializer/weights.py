"""What a simulated repository or bucket holds: the files of a model, each of a few bytes."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

# As the repositories of Mistral's models have it: both sets of the weights side by side.
FILES = (
    "README.md",
    "config.json",
    "generation_config.json",
    "params.json",
    "tekken.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
    *(f"model-{number:05}-of-00010.safetensors" for number in range(1, 11)),
    "consolidated.safetensors",
)
WEIGHTS = "*.safetensors"


def chosen(include: Iterable[str] | None, exclude: Iterable[str] | None) -> list[str]:
    """The files that the patterns let through, as `kserve_storage` and the hub's client decide."""
    wanted, unwanted = list(include or ("*",)), list(exclude or ())
    return [
        name
        for name in FILES
        if any(fnmatch(name, pattern) for pattern in wanted)
        and not any(fnmatch(name, pattern) for pattern in unwanted)
    ]


def write(directory: Path, source: str, names: Iterable[str] = FILES) -> None:
    """Put the files into a directory; each says where it is from."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text(f"{name} of {source}\n")


def are_in(directory: Path) -> bool:
    """Whether an engine finds weights in a directory."""
    return any(directory.glob(WEIGHTS))
