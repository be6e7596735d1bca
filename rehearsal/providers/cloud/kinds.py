"""What a row of a cloud's table of resource types can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rehearsal.providers.cloud import sdk
from rehearsal.providers.cloud.call import Call
from rehearsal.providers.values import UNKNOWN, Properties

# Each cloud's functions take its own kind of call.
Value = Callable[[Any], Any]
Check = Callable[[Any], None]


def nothing(_: Call) -> None:
    """No effect."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One resource type.

    `identity` makes the id. `named` is the field that holds the name; it is filled in when `autonamed`.
    `defaults` become inputs; `outputs` are values of fields that were not given, `filled` values inside of
    blocks that may be given in part. `force_new` are paths whose change replaces. `references` name other
    kinds by field: they must exist, and keep what they name from being deleted unless it is `part_of` it.
    `plan` are checks that the provider makes in a preview already, on what is known; `checks` are the cloud's
    own at creation and update, `removal` those before deletion. `made`, `changed` and `removed` are effects.
    `unfinished` says what is wrong with a resource that exists after an operation, "" where nothing is.
    `observed` adds what changed without us to what a refresh reads; `replaces` decides about a field whose
    change replaces only sometimes; `adopts` marks what may exist already. `anew` are outputs that every update
    makes anew.
    """

    token: str
    title: str
    identity: Value
    named: str = "name"
    autonamed: bool = True
    lower: bool = True
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
    anew: frozenset[str] = frozenset()
    made: Check = nothing
    changed: Check = nothing
    removed: Check = nothing
    unfinished: Callable[[Any], str] = lambda _: ""
    observed: Callable[[Any, Properties], Properties] = lambda call, outputs: outputs
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
        made = dict.fromkeys([*self.names.computed, *self.outputs], UNKNOWN)
        made |= {name: value for name, value in call.foreseen().items() if name in made}
        result = made | inputs
        for name, parts in self.filled.items():
            result[name] = _merged(inputs[name], parts, lambda _: UNKNOWN) if name in inputs else UNKNOWN
        return self.limited(result)

    def changed_to(self, inputs: Properties, call: Call, before: Properties) -> Properties:
        """The outputs of an update as a preview knows them."""
        names = self.names.computed | self.outputs.keys() | self.filled.keys()
        kept = {name: value for name, value in before.items() if name in names}
        made = dict.fromkeys(self.anew, UNKNOWN)
        made |= {name: value for name, value in call.foreseen().items() if name in made}
        return kept | made | inputs

    def outcome(self, inputs: Properties, call: Call, before: Properties | None = None) -> Properties:
        """The outputs after an operation; what was not given keeps its value `before`, if it had one."""
        kept = {
            n: v
            for n, v in (before or {}).items()
            if (n in self.outputs or n in self.names.computed) and n not in self.anew
        }
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
