"""The pinned charts and definitions, rendered once by the real Helm."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.platform.lock import LockedChart, load_lock
from components.platform.platform import OPERATORS, releases_of
from components.platform.release import ReleaseSpec
from rehearsal import artifacts, toolchain
from stacks import translate
from stacks.config import load_config
from tests.support.stacks import raw_stack

# No module carries it; the artifacts hold an empty stand-in (rehearsal/artifacts.py).
UNAVAILABLE = frozenset({"gpu-operator"})
Manifest = dict[str, Any]
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Charts:
    """The charts of a stack, as Helm sees them with our values."""

    def __init__(self, helm: Path, directory: Path, releases: tuple[ReleaseSpec, ...], scratch: Path):
        self._helm, self.directory, self._scratch = helm, directory, scratch
        self.releases = releases
        self._rendered: dict[str, list[Manifest]] = {}

    def render(self, spec: ReleaseSpec) -> list[Manifest]:
        """Every object of a release, its definitions included."""
        if spec.name not in self._rendered:
            values = self._scratch / f"{spec.name}.yaml"
            values.write_text(yaml.safe_dump(dict(spec.values)))
            text = self._run(
                "template", spec.name, self._path(spec), "--namespace", spec.namespace, "--include-crds",
                "--values", str(values), "--kube-version", "v1.34.1",
            )  # fmt: skip
            self._rendered[spec.name] = [item for item in yaml.load_all(text, _Loader) if item]
        return self._rendered[spec.name]

    def defaults(self, spec: ReleaseSpec) -> Manifest:
        """The chart's own values."""
        return yaml.load(self._run("show", "values", self._path(spec)), _Loader) or {}

    def everything(self) -> Iterator[tuple[str, Manifest]]:
        """(owner, object) of all releases and manifests."""
        for spec in self.releases:
            yield from ((spec.name, item) for item in self.render(spec))
        for entry in load_lock().manifests.values():
            text = (self.directory / entry.file).read_text()
            yield from ((entry.name, item) for item in yaml.load_all(text, _Loader) if item)

    def _path(self, spec: ReleaseSpec) -> str:
        chart: LockedChart = load_lock().charts[spec.name]
        return str(self.directory / chart.file)

    def _run(self, *arguments: str) -> str:
        command = [str(self._helm), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Charts:
    """All charts that can be had, with the values of the dev stack."""
    tools = toolchain.ensure(print, only=("helm",))
    directory = artifacts.ensure(tools, print)
    settings = translate.kserve_args(load_config(raw_stack("dev")))
    releases = tuple(s for s in releases_of(OPERATORS, settings) if s.name not in UNAVAILABLE)
    return Charts(tools.binary("helm"), directory, releases, tmp_path_factory.mktemp("values"))


@pytest.fixture(scope="session")
def schema_of(charts: Charts) -> Callable[[str, str], Manifest | None]:
    """Finds the pinned schema of a custom kind."""
    schemas: dict[tuple[str, str], Manifest] = {}
    for _, item in charts.everything():
        if item["kind"] == "CustomResourceDefinition":
            spec = item["spec"]
            for version in spec["versions"]:
                api = f"{spec['group']}/{version['name']}"
                schemas[api, spec["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    return lambda api_version, kind: schemas.get((api_version, kind))
