"""Where charts and manifests come from: their own sources, or a directory of the user's.

Everything is resolved and checked before the first resource, so that a missing or altered file
changes nothing. A chart from a repository is fetched by the provider, which takes a version but no
digest: sites that want digests enforced use a directory (`python -m ops artifacts`).
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.core.manifest import Manifest
from components.platform.lock import Lock, LockedChart, LockedManifest

DOWNLOAD_TIMEOUT_SECONDS = 60
# The C parser of libyaml where it is there: the CRDs are megabytes, and pure Python takes seconds for them.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ArtifactError(Exception):
    """Charts or manifests cannot be had as the lock file wants them; one line for each."""


@dataclass(frozen=True, kw_only=True)
class ArtifactSource:
    """`directory` holds all files (None: fetch each from its source); `verify_digests` compares them with the lock."""

    directory: str | None = None
    verify_digests: bool = True


@dataclass(frozen=True, kw_only=True)
class ChartReference:
    """What Helm installs: a path, an oci:// reference, or a name in `repository`."""

    name: str
    chart: str
    version: str
    repository: str | None = None


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """Everything that one stack installs, found and checked."""

    charts: Mapping[str, ChartReference]
    manifests: Mapping[str, tuple[Manifest, ...]]
    versions: Mapping[str, str]


def resolve(lock: Lock, charts: Iterable[str], manifests: Iterable[str], source: ArtifactSource) -> Artifacts:
    """Finds the named entries of the lock. Raises ArtifactError with every problem at once."""
    found_charts: dict[str, ChartReference] = {}
    found_manifests: dict[str, tuple[Manifest, ...]] = {}
    versions: dict[str, str] = {}
    problems: list[str] = []
    for chart in (lock.charts[name] for name in charts):
        try:
            found_charts[chart.name] = _chart(chart, source)
        except ArtifactError as problem:
            problems.append(str(problem))
        versions[chart.name] = chart.version
    for entry in (lock.manifests[name] for name in manifests):
        try:
            found_manifests[entry.name] = _objects(entry, _content(entry, source))
        except ArtifactError as problem:
            problems.append(str(problem))
        versions[entry.name] = entry.version
    if problems:
        raise ArtifactError("\n".join(problems))
    return Artifacts(charts=found_charts, manifests=found_manifests, versions=versions)


def _chart(entry: LockedChart, source: ArtifactSource) -> ChartReference:
    if source.directory is not None:
        path = Path(source.directory) / entry.file
        _verify(entry.name, path, _read(entry.name, path), entry.digest, source)
        return ChartReference(name=entry.name, chart=str(path), version=entry.version)
    if entry.repository.startswith("oci://"):
        return ChartReference(
            name=entry.name, chart=f"{entry.repository}/{entry.chart}", version=entry.version
        )
    return ChartReference(
        name=entry.name, chart=entry.chart, version=entry.version, repository=entry.repository
    )


def _content(entry: LockedManifest, source: ArtifactSource) -> bytes:
    if source.directory is not None:
        path = Path(source.directory) / entry.file
        content = _read(entry.name, path)
    else:
        path = cache_path(entry)
        content = path.read_bytes() if path.is_file() else _download(entry, path)
    _verify(entry.name, path, content, entry.digest, source)
    return content


def cache_path(entry: LockedManifest, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a downloaded manifest is kept for this user, by version and source."""
    base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".cache"
    origin = hashlib.sha256(entry.url.encode()).hexdigest()[:12]
    return Path(base) / "llm-platform" / "manifests" / f"{entry.name}-{entry.version}-{origin}.yaml"


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise ArtifactError(
            f"platform.artifacts.directory: {name} is not there ({path}: {fault.strerror}); nothing was changed. "
            f"Put the file there, or remove the key to fetch it from its source."
        ) from None


def _download(entry: LockedManifest, path: Path) -> bytes:
    if not entry.url.startswith("https://"):
        raise ArtifactError(f"{entry.name}: {entry.url} is not https; correct it in the lock file.")
    try:
        with urllib.request.urlopen(entry.url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as response:
            content: bytes = response.read()
    except OSError as fault:
        raise ArtifactError(
            f"{entry.name}: {entry.url} cannot be downloaded ({fault}); nothing was changed. "
            f"Try again, or set platform.artifacts.directory to a directory that holds {entry.file}."
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)
    return content


def _verify(name: str, path: Path, content: bytes, digest: str | None, source: ArtifactSource) -> None:
    if digest is None or not source.verify_digests:
        return
    actual = hashlib.sha256(content).hexdigest()
    if actual != digest.removeprefix("sha256:"):
        raise ArtifactError(
            f"{name}: {path} has the sha256 {actual}, but the lock file wants {digest}: it is not the file that was "
            f"reviewed. Delete it and fetch it again; if its publisher changed it, review it and run "
            f"`python -m ops artifacts pin`."
        )


def _objects(entry: LockedManifest, content: bytes) -> tuple[Manifest, ...]:
    try:
        return tuple(document for document in yaml.load_all(content, _Loader) if document)
    except yaml.YAMLError as fault:
        raise ArtifactError(
            f"{entry.name}: {entry.file} is not YAML ({fault}); delete it and fetch it again."
        ) from None
