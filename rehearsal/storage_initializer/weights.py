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
# What an engine reads by vLLM's `--load-format`, and what it leaves alone beside it (vllm-project/vllm,
# model_executor/model_loader/default_loader.py, read 2026-11). `auto` takes Mistral's own set where it is there.
_SHARDED = ("*.safetensors", "consolidated*")
_READ = {
    "auto": ("*.safetensors", ""),
    "mistral": ("consolidated*.safetensors", ""),
    "hf": _SHARDED,
    "safetensors": _SHARDED,
}


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


def are_in(directory: Path, load_format: str = "auto") -> bool:
    """Whether an engine finds weights of a format in a directory; of formats that are not known, any will do."""
    wanted, unwanted = _READ.get(load_format, _READ["auto"])
    return any(not fnmatch(file.name, unwanted) for file in directory.glob(wanted))
