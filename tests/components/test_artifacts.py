"""Charts and manifests: what the lock file says is what is installed."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from components.platform import artifacts
from components.platform.artifacts import ArtifactError, ArtifactSource, resolve
from components.platform.lock import Lock, load_lock
from tests.support.stacks import make_artifacts

BUNDLE = "gateway-api"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_artifacts(tmp_path)


def with_digest(lock: Lock, section: str, name: str, digest: str) -> Lock:
    """The lock with the digest of one entry set."""
    entries = dict(getattr(lock, section))
    entries[name] = dataclasses.replace(entries[name], digest=digest)
    return dataclasses.replace(lock, **{section: entries})


def test_every_entry_is_pinned_to_an_exact_version() -> None:
    lock = load_lock()
    for entry in (*lock.charts.values(), *lock.manifests.values()):
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", entry.version), entry.name
    for image in lock.images.values():
        assert re.search(r":(v?\d+\.\d+\.\d+(-alpine\d+\.\d+)?|[0-9a-f]{8})$", image.reference), image.name


def test_an_image_runs_by_digest_once_its_digest_is_known() -> None:
    image = load_lock().images["vllm-cuda"]
    assert image.pinned == image.reference
    known = dataclasses.replace(image, digest="sha256:" + "0" * 64)
    assert known.pinned == f"{image.reference}@sha256:{'0' * 64}"


def test_a_name_may_stand_in_the_lock_file_once(tmp_path: Path) -> None:
    entry = "{name: a, reference: 'x:1.0.0', digest: null}"
    file = tmp_path / "lock.yaml"
    file.write_text(f"charts: []\nmanifests: []\nimages: [{entry}, {entry}]")
    with pytest.raises(ValueError, match="a is there twice"):
        load_lock(file)


def test_a_directory_s_files_are_used_by_name_and_version(directory: Path) -> None:
    found = resolve(load_lock(), ["istio-base"], [BUNDLE], ArtifactSource(directory=str(directory)))
    chart = found.charts["istio-base"]
    assert chart.chart == str(directory / "charts" / "base-1.30.3.tgz") and chart.repository is None
    assert [m["kind"] for m in found.manifests[BUNDLE]] == ["CustomResourceDefinition"]
    assert found.versions == {"istio-base": "1.30.3", BUNDLE: "v1.5.1"}


@pytest.mark.parametrize(("section", "name"), [("charts", "lws"), ("manifests", BUNDLE)])
def test_an_altered_file_is_refused_unless_digests_are_not_checked(
    directory: Path, section: str, name: str
) -> None:
    lock = with_digest(load_lock(), section, name, "sha256:" + "0" * 64)
    names: dict[str, Any] = {"charts": [], "manifests": []}
    names[section] = [name]
    with pytest.raises(ArtifactError, match=f"{name}.*not the file that was reviewed"):
        resolve(lock, source=ArtifactSource(directory=str(directory)), **names)
    resolve(lock, source=ArtifactSource(directory=str(directory), verify_digests=False), **names)


def test_a_file_with_the_digest_of_the_lock_is_accepted(directory: Path) -> None:
    lock = load_lock()
    content = (directory / lock.manifests[BUNDLE].file).read_bytes()
    pinned = with_digest(lock, "manifests", BUNDLE, "sha256:" + hashlib.sha256(content).hexdigest())
    assert resolve(pinned, [], [BUNDLE], ArtifactSource(directory=str(directory))).manifests[BUNDLE]


def test_without_a_directory_charts_come_from_their_repositories() -> None:
    charts = resolve(load_lock(), ["istiod", "lws"], [], ArtifactSource()).charts
    assert charts["istiod"].repository == "https://istio-release.storage.googleapis.com/charts"
    assert charts["lws"].chart == "oci://registry.k8s.io/lws/charts/lws" and charts["lws"].repository is None


def test_a_manifest_is_downloaded_once_per_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(b"kind: CustomResourceDefinition")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(artifacts.urllib.request, "urlopen", answer)
    lock = load_lock()
    for _ in range(2):
        resolve(lock, [], [BUNDLE], ArtifactSource())
    assert asked == [lock.manifests[BUNDLE].url]


def test_a_download_that_fails_names_the_way_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, timeout: float) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(artifacts.urllib.request, "urlopen", fail)
    with pytest.raises(ArtifactError, match="platform.artifacts.directory"):
        resolve(load_lock(), [], [BUNDLE], ArtifactSource())
    assert not list(tmp_path.rglob("*.yaml")), "a failed download must not be cached"


def test_nothing_is_fetched_in_the_clear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lock = load_lock()
    plain = dataclasses.replace(lock.manifests[BUNDLE], url="http://example.com/crds.yaml")
    with pytest.raises(ArtifactError, match="is not https"):
        resolve(dataclasses.replace(lock, manifests={BUNDLE: plain}), [], [BUNDLE], ArtifactSource())


def test_every_missing_file_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as refusal:
        resolve(load_lock(), ["lws", "istiod"], [BUNDLE], ArtifactSource(directory=str(tmp_path)))
    assert len(str(refusal.value).splitlines()) == 3
