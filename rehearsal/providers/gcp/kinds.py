"""The table of resource types: what a row can say, and all rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rehearsal.providers.gcp import sdk
from rehearsal.providers.gcp.call import Call
from rehearsal.providers.values import UNKNOWN, Properties

Value = Callable[[Call], Any]
Check = Callable[[Call], None]


def nothing(_: Call) -> None:
    """No effect."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One resource type.

    `identity` makes the id. `named` is the field that holds the name; it is filled in when `autonamed`.
    `defaults` become inputs; `outputs` are values of fields that were not given, `filled` values inside of
    blocks that may be given in part. `force_new` are paths whose change replaces. `references` name other
    kinds by field: they must exist, and keep what they name from being deleted unless it is `part_of` it.
    `plan` are checks that the provider makes in a preview already, on what is known; `checks` are Google's
    own at creation and update, `removal` those before deletion. `made`, `changed` and `removed` are effects.
    `observed` adds what changed without us to what a refresh reads; `replaces` decides about a field whose
    change replaces only sometimes; `adopts` marks what may exist already.
    """

    token: str
    title: str
    identity: Value
    api: str
    named: str = "name"
    autonamed: bool = True
    max_name: int = 63
    defaults: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Value] = field(default_factory=dict)
    filled: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    force_new: frozenset[str] = frozenset()
    required: tuple[str, ...] = ()
    references: Mapping[str, str] = field(default_factory=dict)
    part_of: str = ""
    sensitive: tuple[str, ...] = ()
    plan: tuple[Check, ...] = ()
    checks: tuple[Check, ...] = ()
    removal: tuple[Check, ...] = ()
    adopts: bool = False
    made: Check = nothing
    changed: Check = nothing
    removed: Check = nothing
    observed: Callable[[Call, Properties], Properties] = lambda call, outputs: outputs
    replaces: Callable[[str, Properties, Properties], bool] | None = None

    @property
    def module(self) -> str:
        """Short name, for example `compute/network`."""
        return self.token.split(":")[1]

    @property
    def names(self) -> sdk.Names:
        """The SDK's names."""
        return sdk.names(self.token)

    def foreseen(self, inputs: Properties, call: Call) -> Properties:
        """The outputs of a creation as a preview knows them."""
        placed = {"project": call.defaults.project, "region": call.defaults.region}
        made = dict.fromkeys([*self.names.computed, *self.outputs], UNKNOWN)
        made |= {name: value for name, value in placed.items() if name in made and value}
        result = made | inputs
        for name, parts in self.filled.items():
            result[name] = _merged(inputs[name], parts, lambda _: UNKNOWN) if name in inputs else UNKNOWN
        return self.limited(result)

    def outcome(self, inputs: Properties, call: Call, before: Properties | None = None) -> Properties:
        """The outputs after an operation; what was not given keeps its value `before`, if it had one."""
        kept = {n: v for n, v in (before or {}).items() if n in self.outputs or n in self.names.computed}
        result = {name: value(call) for name, value in self.outputs.items() if name not in kept}
        result = result | kept | inputs
        for name, parts in self.filled.items():
            result[name] = _merged(inputs.get(name) or {}, parts, lambda value: value(call))
        return self.limited(result)

    def limited(self, properties: Properties) -> Properties:
        """Only what the SDK's class has."""
        return {name: value for name, value in properties.items() if name in self.names.outputs}


def _merged(given: Any, parts: Mapping[str, Value], value: Callable[[Value], Any]) -> Any:
    """A block with its computed leaves; `a.b` is the leaf b of the block a in it."""
    if not isinstance(given, dict):
        return given
    result = dict(given)
    for place, make in parts.items():
        *blocks, leaf = place.split(".")
        inner = result
        for block in blocks:
            inner[block] = dict(inner.get(block) or {})
            inner = inner[block]
        if inner.get(leaf) is None:
            inner[leaf] = value(make)
    return result


def table() -> dict[str, Kind]:
    """All types by token."""
    from rehearsal.providers.gcp import certificates, containers, identity, network, storage

    rows = (*network.KINDS, *identity.KINDS, *containers.KINDS, *storage.KINDS, *certificates.KINDS)
    return {row.token: row for row in rows}
