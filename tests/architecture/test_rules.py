"""Rules of the house that a reader would otherwise have to check by eye."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PRODUCT = ("components", "stacks")
EVERYTHING = (*PRODUCT, "ops", "rehearsal", "benchmarks")
MAX_FUNCTION_LINES = 60
MAX_ENTRY_LINES = 25
# Who may import whom, from the outermost layer in: a layer uses itself and what stands after it.
LAYERS = (
    ("stacks",),
    ("components.serving", "components.pipelines"),
    ("components.platform",),
    ("components.clusters",),
    ("components.core",),
)
ONLY_THERE = {
    "ProviderResource": {"components/clusters/provider.py"},
    # Kubernetes, the clouds, and passwords.
    "Provider": {
        "components/clusters/provider.py",
        "components/clusters/eks/amazon.py",
        "components/clusters/gke/google.py",
        "components/serving/chain.py",
    },
    "Release": {"components/platform/helm_release.py"},
    "Config": {"stacks/build.py"},
}


@cache
def sources(*folders: str) -> tuple[Path, ...]:
    """Every Python file below the folders."""
    found = tuple(file for folder in folders for file in sorted((CHECKOUT / folder).rglob("*.py")))
    assert found
    return found


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def name(file: Path) -> str:
    """The path as people write it."""
    return file.relative_to(CHECKOUT).as_posix()


def imports(file: Path) -> Iterator[str]:
    """Full names of everything that a file imports, wherever in the file."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(file)}: write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def layer_of(module: str) -> int | None:
    """The number of the layer that a module belongs to, counted from the outside."""
    return next((n for n, layer in enumerate(LAYERS) if any(inside(module, p) for p in layer)), None)


def calls(node: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call below a node, with the last part of what is called."""
    for found in ast.walk(node):
        if isinstance(found, ast.Call):
            what = found.func
            yield found, what.attr if isinstance(what, ast.Attribute) else getattr(what, "id", "")


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def components() -> Iterator[tuple[Path, ast.ClassDef]]:
    """Every class that is a component."""
    for file in sources("components"):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ClassDef) and any(
                getattr(b, "id", "") == "Component" for b in node.bases
            ):
                yield file, node


def test_layers_import_downwards_only() -> None:
    for file in sources(*PRODUCT):
        own = layer_of(name(file).removesuffix(".py").replace("/", "."))
        for module in imports(file):
            other = layer_of(module)
            assert own is None or other is None or other >= own, f"{name(file)} imports {module}"


def test_the_product_does_not_know_what_uses_it() -> None:
    for file in (*sources(*PRODUCT), CHECKOUT / "__main__.py"):
        for module in imports(file):
            assert not any(
                inside(module, user) for user in ("ops", "rehearsal", "policy", "tests", "benchmarks")
            ), f"{name(file)} imports {module}"


def test_components_know_nothing_of_configuration() -> None:
    for file in sources("components"):
        for module in imports(file):
            assert not inside(module, "pydantic") and not inside(module, "stacks"), f"{name(file)}: {module}"


def test_builders_do_not_import_pulumi() -> None:
    for file in sources("components/serving/manifests"):
        assert not [module for module in imports(file) if inside(module, "pulumi")], name(file)


@pytest.mark.parametrize("what", ONLY_THERE)
def test_some_things_are_made_in_one_place_only(what: str) -> None:
    makers = {
        name(file)
        for file in (*sources(*PRODUCT), CHECKOUT / "__main__.py")
        if any(called == what for _, called in calls(tree(file)))
    }
    assert makers <= ONLY_THERE[what]


def test_every_component_has_the_literal_token_of_its_class() -> None:
    tokens = []
    for file, node in components():
        values = [
            s.value.value
            for s in node.body
            if isinstance(s, ast.Assign) and s.targets[0].id == "TOKEN" and isinstance(s.value, ast.Constant)
        ]
        assert values == [f"llmp:index:{node.name}"], f"{name(file)}: {node.name}"
        tokens += values
    assert tokens and len(set(tokens)) == len(tokens)


def test_every_component_ends_by_registering_its_outputs() -> None:
    for file, node in components():
        init = next(f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__")
        assert [a.arg for a in init.args.args] == ["self", "name", "args", "opts"], (
            f"{name(file)}: {node.name}"
        )
        (last,) = (called for _, called in calls(init.body[-1]) if called == "register_outputs")
        assert last, f"{name(file)}: {node.name}"


def test_nothing_happens_inside_apply() -> None:
    """No resource and no assertion: in a preview the function may never run, and its errors get lost."""
    classes = {node.name for _, node in components()} | {"KubernetesObject", "KubernetesPatch", "Release"}
    for file in sources(*PRODUCT):
        local = {f.name: f for f in functions(file)}
        for call, called in calls(tree(file)):
            if called != "apply":
                continue
            for argument in call.args:
                body = local.get(getattr(argument, "id", ""), argument)
                assert not [c for _, c in calls(body) if c in classes], f"{name(file)}:{call.lineno}"
                assert not [n for n in ast.walk(body) if isinstance(n, ast.Assert)], (
                    f"{name(file)}:{call.lineno}"
                )


def test_no_object_of_a_cluster_is_read() -> None:
    """`SomeKind.get(...)` asks the cluster, and breaks previews where there is none."""
    for file in sources(*PRODUCT):
        for call, called in calls(tree(file)):
            owner = getattr(call.func, "value", None)
            owner_name = getattr(owner, "attr", getattr(owner, "id", ""))
            assert not (called == "get" and owner_name[:1].isupper() and not owner_name.isupper()), (
                f"{name(file)}:{call.lineno} reads a {owner_name}"
            )


def test_functions_are_short() -> None:
    long = [
        f"{name(file)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for file in sources(*EVERYTHING)
        for node in functions(file)
        if node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert not long


def test_what_is_public_says_what_it_is_and_what_it_returns() -> None:
    for file in sources(*PRODUCT):
        assert ast.get_docstring(tree(file)), f"{name(file)} has no docstring"
        for node in tree(file).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name(file)}:{node.lineno} {node.name}"
            if isinstance(node, ast.FunctionDef):
                assert node.returns or node.name.startswith("_"), f"{name(file)}:{node.lineno} {node.name}"


def test_the_program_is_a_table_of_contents() -> None:
    assert len((CHECKOUT / "__main__.py").read_text().splitlines()) < MAX_ENTRY_LINES
