"""The lock file: every chart, manifest and image of the platform, by our own name for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LOCK_FILE = Path(__file__).with_name("lock.yaml")


@dataclass(frozen=True, kw_only=True)
class LockedChart:
    """A Helm chart: `chart` in `repository` (https:// or oci://). `digest` is the sha256 of the archive, or None."""

    name: str
    chart: str
    repository: str
    version: str
    digest: str | None

    @property
    def file(self) -> str:
        """Path of the archive in an artifacts directory."""
        return f"charts/{self.chart}-{self.version}.tgz"


@dataclass(frozen=True, kw_only=True)
class LockedManifest:
    """A file of Kubernetes objects at `url`. `digest` is the sha256 of the file, or None."""

    name: str
    url: str
    version: str
    digest: str | None

    @property
    def file(self) -> str:
        """Path of the file in an artifacts directory."""
        return f"manifests/{self.name}-{self.version}.yaml"


@dataclass(frozen=True, kw_only=True)
class LockedImage:
    """An image with an exact tag. `digest` is `sha256:` and 64 hex digits, or None."""

    name: str
    reference: str
    digest: str | None

    @property
    def pinned(self) -> str:
        """The reference to run: with the digest where it is known."""
        return f"{self.reference}@{self.digest}" if self.digest else self.reference


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The lock file's entries by name."""

    charts: Mapping[str, LockedChart]
    manifests: Mapping[str, LockedManifest]
    images: Mapping[str, LockedImage]


def load_lock(path: Path = LOCK_FILE) -> Lock:
    """Reads a lock file. Raises ValueError that names the entry for a duplicate or a missing field."""
    content = yaml.safe_load(path.read_text())
    return Lock(
        charts=_entries(content, "charts", LockedChart),
        manifests=_entries(content, "manifests", LockedManifest),
        images=_entries(content, "images", LockedImage),
    )


def _entries(content: Mapping[str, Any], section: str, kind: type) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for raw in content[section]:
        name = raw.get("name")
        if name in entries:
            raise ValueError(f"{section} of the lock file: {name} is there twice; keep one")
        try:
            entries[name] = kind(**raw)
        except TypeError as fault:
            raise ValueError(f"{section} of the lock file: {name}: {fault}") from None
    return entries
