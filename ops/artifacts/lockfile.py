"""The lock file as text: entries with the place of their digest, so that only that is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.platform.lock import LOCK_FILE, LockedChart, LockedImage, LockedManifest
from ops.errors import OpsError

KINDS: Mapping[str, type] = {"charts": LockedChart, "manifests": LockedManifest, "images": LockedImage}
"""Section of the lock file -> what its entries are."""

__all__ = ["KINDS", "LOCK_FILE", "Entry", "fill", "parse", "read"]


@dataclass(frozen=True)
class Entry:
    """One entry: what it locks, and where in the text its digest's value is (start, end)."""

    section: str
    locked: Any
    span: tuple[int, int]

    @property
    def name(self) -> str:
        return self.locked.name

    @property
    def label(self) -> str:
        """How people call it: `chart istiod 1.30.3`, `image vllm/vllm-tpu:v0.22.0`."""
        if isinstance(self.locked, LockedImage):
            return f"image {self.locked.reference}"
        return f"{self.section.removesuffix('s')} {self.name} {self.locked.version}"


def read(path: Path) -> tuple[str, list[Entry]]:
    """The text of a lock file and its entries."""
    try:
        text = path.read_text()
    except OSError as error:
        raise OpsError(f"the lock file {path} cannot be read: {error.strerror}") from None
    return text, parse(text, str(path))


def parse(text: str, path: str = "lock file") -> list[Entry]:
    """The entries of a lock file in its order; :class:`OpsError` names the entry and its fault."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OpsError(f"{path} is not YAML: {error}") from None
    sections = {key.value: node for key, node in root.value}
    found = []
    for section, kind in KINDS.items():
        nodes = sections[section].value if section in sections else []
        for index, node in enumerate(nodes):
            where = f"{path}: {section}[{index}]"
            found.append(Entry(section, _locked(kind, content[section][index], where), _span(node, where)))
    return found


def _locked(kind: type, fields: Mapping[str, Any], where: str) -> Any:
    try:
        return kind(**fields)
    except TypeError as error:
        raise OpsError(
            f"{where} ({fields.get('name')}): {str(error).partition('()')[2].strip() or error}"
        ) from None


def _span(node: yaml.MappingNode, where: str) -> tuple[int, int]:
    for key, value in node.value:
        if key.value == "digest":
            return value.start_mark.index, value.end_mark.index
    raise OpsError(f"{where}: there is no `digest`: write `digest: null`")


def fill(text: str, digests: Mapping[tuple[int, int], str]) -> str:
    """The text with each digest written at its span; everything else stays as it is, comments included."""
    for (start, end), digest in sorted(digests.items(), reverse=True):
        space = " " if text[start - 1] == ":" else ""
        text = f'{text[:start]}{space}"{digest}"{text[end:]}'
    return text
