"""Recorded inputs against the type hints of the cloud's own SDK, nested ones included.

Mocks take anything. The SDK's argument classes say which names exist, which are required and of what type
each is; what travels on the wire is compared with them. Works for every SDK that Pulumi generates.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin

from pulumi import _types

from tests.support.recorder import Registration

PROVIDERS = "pulumi:providers:"
HIDDEN = "[secret]"
# A number on the wire has lost whether it was whole.
_PLAIN = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}


def of_sdk(registration: Registration, package: str) -> bool:
    """Whether a resource, or the provider, is one of the package, for example `gcp`."""
    return registration.type.startswith(f"{package}:") or registration.type == f"{PROVIDERS}{package}"


def faults(registration: Registration) -> list[str]:
    """What of a resource's inputs the installed SDK does not have, or has with another type; empty if all is well."""
    inputs: Mapping[str, Any] = registration.inputs
    if registration.type.startswith(PROVIDERS):
        inputs = {name: _decoded(value) for name, value in inputs.items()}
    found = _object(arguments_of(registration.type), inputs, "")
    return [f"{registration.name} ({registration.type}){fault}" for fault in found]


def arguments_of(token: str) -> type:
    """The class of a type's arguments: `gcp:container/nodePool:NodePool` has `pulumi_gcp.container.NodePoolArgs`."""
    if token.startswith(PROVIDERS):
        return importlib.import_module(f"pulumi_{token.removeprefix(PROVIDERS)}").ProviderArgs
    package, module, name = token.split(":")
    return getattr(importlib.import_module(f"pulumi_{package}.{module.split('/')[0]}"), f"{name}Args")


def _decoded(value: Any) -> Any:
    """Settings of a provider travel as text: what was no text before is JSON."""
    try:
        return json.loads(value) if value != HIDDEN else value
    except ValueError:
        return value


def _object(arguments: type, inputs: Mapping[str, Any], path: str) -> Iterator[str]:
    types = _types.input_type_types(arguments)
    for name, value in inputs.items():
        if name in types:
            yield from _value(types[name], value, f"{path}.{name}")
        else:
            yield f"{path}.{name}: {arguments.__name__} has no such argument"
    wires = _types.input_type_py_to_pulumi_names(arguments)
    for name, parameter in inspect.signature(arguments).parameters.items():
        if parameter.default is inspect.Parameter.empty and wires[name] not in inputs:
            yield f"{path}.{wires[name]}: {arguments.__name__} requires it"


def _value(hint: Any, value: Any, path: str) -> Iterator[str]:
    """Faults of one value; `hint` may be wrapped in Optional and Input."""
    wanted = _types.unwrap_type(hint)
    if value == HIDDEN or wanted is Any:
        return
    origin = get_origin(wanted)
    if origin is Union:
        yield from _either(get_args(wanted), value, path)
    elif _types.is_input_type(wanted):
        yield from _object(wanted, value, path) if isinstance(value, Mapping) else _wrong(wanted, value, path)
    elif origin in (list, collections.abc.Sequence):
        yield from _list(wanted, value, path)
    elif origin in (dict, collections.abc.Mapping):
        yield from _map(wanted, value, path)
    elif type(value) not in _PLAIN[wanted]:
        yield from _wrong(wanted, value, path)


def _either(hints: tuple[Any, ...], value: Any, path: str) -> Iterator[str]:
    """Of several types a value has one; what it may be before it is known is no type of its own."""
    plain = [hint for hint in hints if get_origin(hint) in (None, list, dict)]
    found = [list(_value(hint, value, path)) for hint in plain]
    if all(found):
        yield from found[0]


def _list(wanted: Any, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield from _wrong(wanted, value, path)
        return
    (item,) = get_args(wanted)
    for index, part in enumerate(value):
        yield from _value(item, part, f"{path}[{index}]")


def _map(wanted: Any, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield from _wrong(wanted, value, path)
        return
    _, item = get_args(wanted)
    for key, part in value.items():
        yield from _value(item, part, f"{path}[{key}]")


def _wrong(wanted: Any, value: Any, path: str) -> Iterator[str]:
    name = wanted.__name__ if isinstance(wanted, type) else str(wanted)
    yield f"{path}: {value!r} is not of type {name}"


def has_path(arguments: type, path: str) -> bool:
    """Whether a dotted path, in the names of the wire, leads to an argument; list items have no step of their own."""
    wanted: Any = arguments
    for step in path.split("."):
        types = _types.input_type_types(wanted) if _types.is_input_type(wanted) else {}
        if step not in types:
            return False
        wanted = _types.unwrap_type(types[step])
        if get_origin(wanted) in (list, collections.abc.Sequence):
            wanted = _types.unwrap_type(get_args(wanted)[0])
    return True
