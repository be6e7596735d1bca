"""Charts and manifests for the lock file; the modules, and Helm but for one test, are stand-ins."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from rehearsal import artifacts, toolchain
from rehearsal.artifacts import Lockfile, Wanted
from rehearsal.cloud.releases import RELEASES
from rehearsal.toolchain import Store, ToolchainError, Tools, charts
from rehearsal.toolchain.sources import CHARTS, GOOGLE, MANIFESTS, SOURCES, Source
from rehearsal.toolchain.table import requirements

PINS = requirements(SOURCES)

# `helm package CHART --version V --destination D …`, without Helm's checks.
HELM = """#!/bin/sh
exec tar -C "$(dirname "$2")" -czf "$6/$(basename "$2")-$4.tgz" "$(basename "$2")"
"""


def served(name: str, source: Source) -> Wanted:
    chart = {"istio-base": "base"}.get(name, name)
    return Wanted(name, source.version(PINS), chart)


LOCKFILE = Lockfile(
    charts=(*(served(n, s) for n, s in CHARTS.items()), Wanted("gpu-operator", "v26.3.3", "gpu-operator")),
    manifests=tuple(served(n, s) for n, s in MANIFESTS.items()),
)


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, Path]:
    """Modules with as much in them as the sources say, read-only as in Go's module cache."""
    found = {module: tmp_path / "modules" / module for module in PINS}
    for name, source in CHARTS.items():
        chart = found[source.module] / source.path
        chart.mkdir(parents=True)
        (chart / "Chart.yaml").write_text(
            f"apiVersion: v2\nname: {served(name, source).chart}\nversion: 0.0.0\n"
        )
        (chart / "values.yaml").write_text("".join(f"{old}\n" for old, _ in source.edits))
        (chart / "values.yaml").chmod(0o444)
    for source in MANIFESTS.values():
        directory = (found[source.module] / source.path).parent
        directory.mkdir(parents=True)
        for name in ("gateway_b.yaml", "gateway_a.yaml"):
            (directory / name).write_text(f"---\nkind: {name}\n")
    return found


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    helm = tmp_path / "helm-v3" / "helm"
    helm.parent.mkdir()
    helm.write_text(HELM)
    helm.chmod(0o755)
    return Tools({"helm": helm})


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    """A lock file as the platform's, with digests that do not matter here."""
    items = {
        "charts": [{"name": c.name, "chart": c.chart, "version": c.version} for c in LOCKFILE.charts],
        "manifests": [{"name": m.name, "version": m.version} for m in LOCKFILE.manifests],
    }
    file = tmp_path / "lock.yaml"
    file.write_text(yaml.safe_dump(items | {"images": [{"name": "vllm", "reference": "x:v1"}]}))
    return file


def fill(directory: Path, modules: dict[str, Path], helm: Path) -> Path:
    directory.mkdir()
    artifacts.fill(directory, LOCKFILE, modules, PINS, helm)
    return directory


def digests(directory: Path) -> dict[str, str]:
    files = (file for file in directory.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {str(f.relative_to(directory)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def chart_file(archive: Path, name: str) -> str:
    with tarfile.open(archive) as opened:
        member = next(m for m in opened.getmembers() if m.name.endswith(f"/{name}"))
        file = opened.extractfile(member)
        assert file is not None
        return file.read().decode()


def test_every_entry_of_the_lock_file_becomes_a_file_of_that_name_and_version(
    tmp_path: Path, modules: dict[str, Path], tools: Tools
) -> None:
    made = fill(tmp_path / "out", modules, tools.binary("helm"))
    expected = {f"charts/{c.chart}-{c.version}.tgz" for c in LOCKFILE.charts}
    expected |= {f"manifests/{m.name}-{m.version}.yaml" for m in LOCKFILE.manifests}
    assert set(digests(made)) == expected | {"sources.json"}
    assert set(json.loads((made / "sources.json").read_text())) == expected


def test_equal_content_gives_equal_bytes_whenever_it_is_packaged(
    tmp_path: Path, modules: dict[str, Path], tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = digests(fill(tmp_path / "first", modules, tools.binary("helm")))
    monkeypatch.setattr("time.time", lambda: 1e9)
    for file in (tmp_path / "modules").rglob("*.yaml"):
        os.utime(file, (1, 1))
    assert digests(fill(tmp_path / "second", modules, tools.binary("helm"))) == first


def test_what_a_release_fills_into_values_is_filled_in(
    tmp_path: Path, modules: dict[str, Path], tools: Tools
) -> None:
    made = fill(tmp_path / "out", modules, tools.binary("helm"))
    istiod = next(chart for chart in LOCKFILE.charts if chart.name == "istiod")
    values = chart_file(made / "charts" / f"istiod-{istiod.version}.tgz", "values.yaml")
    assert values == f"    hub: docker.io/istio\n    tag: {istiod.version}\n"


@pytest.mark.parametrize("values", ["", "    tag: main\n    tag: main\n    pullPolicy: Always\n"])
def test_a_line_to_fill_in_that_is_not_there_exactly_once_is_refused(
    tmp_path: Path, modules: dict[str, Path], tools: Tools, values: str
) -> None:
    file = modules["sigs.k8s.io/lws"] / "charts/lws/values.yaml"
    file.chmod(0o644)
    file.write_text(values)
    with pytest.raises(ToolchainError, match=r"'tag: main' where one is expected"):
        fill(tmp_path / "out", modules, tools.binary("helm"))


def test_a_manifest_holds_the_documents_of_all_its_files_in_order(
    tmp_path: Path, modules: dict[str, Path], tools: Tools
) -> None:
    made = fill(tmp_path / "out", modules, tools.binary("helm"))
    for manifest in LOCKFILE.manifests:
        text = (made / "manifests" / f"{manifest.name}-{manifest.version}.yaml").read_text()
        assert list(yaml.safe_load_all(text)) == [{"kind": "gateway_a.yaml"}, {"kind": "gateway_b.yaml"}]


def test_a_module_without_the_files_of_a_manifest_is_refused(
    tmp_path: Path, modules: dict[str, Path], tools: Tools
) -> None:
    for file in modules["sigs.k8s.io/gateway-api"].rglob("*.yaml"):
        file.unlink()
    with pytest.raises(ToolchainError, match="No file matches"):
        fill(tmp_path / "out", modules, tools.binary("helm"))


def test_a_lock_file_that_moved_without_its_modules_is_refused_with_all_that_do_not_fit(
    tmp_path: Path, lock_file: Path, tools: Tools
) -> None:
    moved = yaml.safe_load(lock_file.read_text())
    moved["charts"][0]["version"] = "v9.9.9"
    moved["manifests"][0]["version"] = "v8.8.8"
    moved["manifests"].append({"name": "other", "version": "v1"})
    lock_file.write_text(yaml.safe_dump(moved))
    with pytest.raises(ToolchainError) as refusal:
        artifacts.ensure(tools, store=Store(tmp_path / "cache"), lock_file=lock_file)
    for part in ("cert-manager v9.9.9", "gateway-api v8.8.8", "manifest other", "sources/go.mod"):
        assert part in str(refusal.value)


def test_a_leading_v_is_no_mismatch() -> None:
    lws = Wanted("lws", "0.8.0", "lws")
    assert PINS["sigs.k8s.io/lws"] == "v0.8.0"
    artifacts.check(Lockfile((lws,), ()), PINS)


def test_the_directory_is_made_once_and_again_when_a_version_changes(
    tmp_path: Path, modules: dict[str, Path], tools: Tools, lock_file: Path
) -> None:
    downloads: list[str] = []

    def download(*_: object) -> dict[str, Path]:
        downloads.append("all")
        return modules

    def ensure() -> Path:
        store = Store(tmp_path / "cache")
        return artifacts.ensure(tools, said.append, store, lock_file, download)

    said: list[str] = []
    first = ensure()
    assert said
    said.clear()
    assert ensure() == first
    assert (downloads, said) == (["all"], [])
    lock_file.write_text(lock_file.read_text().replace("v26.3.3", "v26.3.4"))
    second = ensure()
    assert second != first
    assert (second / "charts" / "gpu-operator-v26.3.4.tgz").exists()


def test_a_helm_that_refuses_a_chart_is_quoted(
    tmp_path: Path, modules: dict[str, Path], tools: Tools
) -> None:
    tools.binary("helm").write_text("#!/bin/sh\necho 'Error: bad chart' >&2; exit 1\n")
    with pytest.raises(ToolchainError, match="Helm refuses the chart cert-manager v1.21.1: Error: bad chart"):
        fill(tmp_path / "out", modules, tools.binary("helm"))


@pytest.fixture(scope="module")
def helm() -> Path:
    return toolchain.ensure(only=["helm"]).binary("helm")


@pytest.mark.rehearsed
def test_the_real_helm_packages_a_stand_in_that_tells_its_reason(tmp_path: Path, helm: Path) -> None:
    charts.stand_in(tmp_path / "gpu-operator", "v26.3.3", "no module")
    target = tmp_path / "gpu-operator-v26.3.3.tgz"
    charts.package(helm, tmp_path / "gpu-operator", "v26.3.3", None, target)
    chart = yaml.safe_load(chart_file(target, "Chart.yaml"))
    assert (chart["name"], chart["version"]) == ("gpu-operator", "v26.3.3")
    assert chart["annotations"] == {charts.UNAVAILABLE: "no module"}


@pytest.mark.rehearsed
def test_the_platforms_real_charts_carry_the_names_and_versions_of_the_lock_file(helm: Path) -> None:
    made = artifacts.ensure(Tools({"helm": helm}))
    lockfile = artifacts.read_lock_file()
    for item in lockfile.charts:
        chart = yaml.safe_load(chart_file(made / "charts" / f"{item.chart}-{item.version}.tgz", "Chart.yaml"))
        assert (chart["name"], chart["version"]) == (item.chart, item.version)
    for item in lockfile.manifests:
        text = (made / "manifests" / f"{item.name}-{item.version}.yaml").read_text()
        assert "CustomResourceDefinition" in {document["kind"] for document in yaml.safe_load_all(text)}


def definition(name: str, kind: str = "CustomResourceDefinition") -> str:
    """A definition whose spec has a default with a config, as a HealthCheckPolicy's has."""
    schema: dict[str, Any] = {"type": "object", "properties": {"config": {"type": "object"}}}
    for field in ("default", "spec"):
        schema = {"type": "object", "properties": {field: schema}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    return yaml.safe_dump({"kind": kind, "metadata": {"name": name}, "spec": {"versions": [version]}})


@pytest.fixture
def googles(tmp_path: Path) -> dict[str, Path]:
    """Modules with Google's definitions, and with a policy of the API server's that is none."""
    found = {source.module: tmp_path / "google" / source.module for source in GOOGLE.values()}
    for source in GOOGLE.values():
        directory = (found[source.module] / source.path).parent
        directory.mkdir(parents=True)
        file = Path(source.path).name.replace("*", "s")
        text = definition("healthcheckpolicies.networking.gke.io")
        (directory / file).write_text(text + "---\n" + definition("safe", "ValidatingAdmissionPolicy"))
    return found


def test_google_brings_definitions_alone_for_every_minor(tmp_path: Path, googles: dict[str, Path]) -> None:
    store = Store(tmp_path / "cache")
    made = artifacts.ensure_google(store=store, modules=lambda *_: googles)
    assert {d.name for d in made.iterdir() if d.is_dir()} == set(RELEASES)
    for file in made.glob("*/*.json"):
        assert [d["kind"] for d in json.loads(file.read_text())] == ["CustomResourceDefinition"]
    again = artifacts.ensure_google(store=store, modules=lambda *_: pytest.fail("it was there"))
    assert again == made


def test_rules_that_google_added_later_are_added(tmp_path: Path, googles: dict[str, Path]) -> None:
    made = artifacts.ensure_google(store=Store(tmp_path / "cache"), modules=lambda *_: googles)
    (found,) = json.loads((made / "1.34" / "networking.json").read_text())
    spec = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    (rule,) = spec["properties"]["default"]["x-kubernetes-validations"]
    assert rule["message"] == "checkIntervalSec must not be less than timeoutSec"
