"""The names of a resource's inputs and outputs, read from the source of the installed SDK.

Read rather than imported: the SDK's modules for one service weigh megabytes and take seconds.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Names:
    """Property names on the wire: what may be given, what must be, and what the resource has."""

    inputs: frozenset[str]
    required: frozenset[str]
    outputs: frozenset[str]

    @property
    def computed(self) -> frozenset[str]:
        """What only the cloud decides."""
        return self.outputs - self.inputs


@cache
def names(token: str) -> Names:
    """The names of a type such as `gcp:compute/network:Network`."""
    cloud, module, name = token.split(":")
    source = _source(f"pulumi_{cloud}", module)
    classes = {c.name: c for c in ast.parse(source).body if isinstance(c, ast.ClassDef)}
    arguments = classes[f"{name}Args"]
    given = _properties(arguments)
    return Names(
        inputs=frozenset(given.values()),
        required=frozenset(given[a] for a in _without_default(arguments)),
        outputs=frozenset(_properties(classes[name]).values()),
    )


def _source(sdk: str, module: str) -> str:
    """The SDK's file of `compute/routerNat`; file names follow Python's habit, `router_nat.py`."""
    service, _, resource = module.partition("/")
    package = importlib.util.find_spec(sdk)
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError(f"{sdk.replace('_', '-')} is not installed; run `make install`")
    directory = Path(package.submodule_search_locations[0]) / service
    plain = resource.replace("iAMMember", "iamMember").replace("IAMMember", "IamMember")
    file = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", plain).lower()
    return (directory / f"{file}.py").read_text(encoding="utf-8")


def _properties(class_: ast.ClassDef) -> dict[str, str]:
    """Names on the wire by names in Python, of the properties of a class."""
    return {
        method.name: wire
        for method in class_.body
        if isinstance(method, ast.FunctionDef)
        for decorator in method.decorator_list
        if (wire := _wire(decorator, method.name))
    }


def _wire(decorator: ast.expr, name: str) -> str | None:
    """The name that `@pulumi.getter` or `@pulumi.getter(name=…)` gives; None for other decorators."""
    if isinstance(decorator, ast.Attribute) and decorator.attr == "getter":
        return name
    if isinstance(decorator, ast.Call) and getattr(decorator.func, "attr", "") == "getter":
        return ast.literal_eval(decorator.keywords[0].value)
    return None


def _without_default(class_: ast.ClassDef) -> list[str]:
    init = next(m for m in class_.body if isinstance(m, ast.FunctionDef) and m.name == "__init__")
    pairs = zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    return [argument.arg for argument, default in pairs if default is None]
