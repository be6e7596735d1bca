"""Everything that is pinned in two places is pinned to the same version."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from rehearsal import artifacts
from rehearsal.cloud.releases import RELEASES
from rehearsal.paths import CHECKOUT
from rehearsal.toolchain import packages
from rehearsal.toolchain.packages import PACKAGED
from rehearsal.toolchain.sources import CHARTS, MANIFESTS, SOURCES, google_pins
from rehearsal.toolchain.table import MODULES, TOOLS, requirements

DIRECTORIES = sorted(path.name for path in MODULES.iterdir())
REQUIREMENTS = sorted(path.name for path in CHECKOUT.glob("requirements*.txt"))
EXACT = re.compile(r"([A-Za-z0-9_.-]+)==([0-9][A-Za-z0-9.]*)")


def pinned(name: str) -> dict[str, str]:
    """The packages of a requirements or constraints file, by their normalised names."""
    lines = [line.strip() for line in (CHECKOUT / name).read_text().splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "-r ", "-c "))]
    found = [EXACT.fullmatch(line) for line in lines]
    assert all(found), f"{name} has a line that is not an exact pin: {lines}"
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in found if match}


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_every_required_module_has_its_checksums_committed(directory: str) -> None:
    sums = (MODULES / directory / "go.sum").read_text()
    for module, version in requirements(directory).items():
        assert f"{module} {version} h1:" in sums
        assert f"{module} {version}/go.mod h1:" in sums


def test_every_directory_of_pins_is_used() -> None:
    google = {google_pins(minor) for minor in RELEASES}
    assert set(DIRECTORIES) == {tool.directory for tool in TOOLS.values()} | {SOURCES} | google


def test_every_tool_lies_in_a_module_that_its_directory_requires() -> None:
    for tool in TOOLS.values():
        assert tool.module in requirements(tool.directory)
        assert tool.package.startswith(tool.module)


def test_a_module_has_one_version_wherever_it_is_required() -> None:
    versions = defaultdict(set)
    # Google brings what it brings, another edition with every minor.
    for directory in set(DIRECTORIES) - {google_pins(minor) for minor in RELEASES}:
        for module, version in requirements(directory).items():
            versions[module].add(version)
    assert {module: v for module, v in versions.items() if len(v) > 1} == {}


def test_every_pinned_source_is_read_and_every_source_is_pinned() -> None:
    used = {source.module for source in (*CHARTS.values(), *MANIFESTS.values())}
    assert used == set(requirements(SOURCES))


def test_kubernetes_parts_are_of_its_own_release() -> None:
    minor = TOOLS["kube-apiserver"].version.removeprefix("v1.")
    staged = re.findall(r"=> k8s\.io/\S+ (\S+)", (MODULES / "kubernetes" / "go.mod").read_text())
    assert set(staged) == {f"v0.{minor}"}


def test_the_helm_of_the_rehearsal_assumes_the_kubernetes_of_the_rehearsal() -> None:
    minor = TOOLS["kube-apiserver"].version.split(".")[1]
    assert TOOLS["helm"].link_flags.count(f"k8sVersionMinor={minor}") == 2


def test_the_engine_and_its_sdk_are_of_one_version() -> None:
    assert TOOLS["pulumi"].version == f"v{pinned('requirements.txt')['pulumi']}"


def test_the_modules_provide_what_the_platform_pins() -> None:
    lockfile = artifacts.read_lock_file()
    artifacts.check(lockfile, requirements(SOURCES))
    # A chart that appears here is skipped in every rehearsal: add its module, or accept that and name it.
    assert {chart.name for chart in lockfile.charts} - set(CHARTS) == {"cluster-autoscaler", "gpu-operator"}


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_python_packages_are_pinned_exactly_and_as_constrained(name: str) -> None:
    constraints = pinned("constraints.txt")
    assert pinned(name).items() <= constraints.items()


def test_packaged_programs_are_pinned_where_the_error_message_says() -> None:
    assert {tool.package for tool in PACKAGED.values()} <= set(pinned(packages.REQUIREMENTS))
