"""Property values on the wire: plain Python data plus three wrappers.

The engine sends protobuf structs in which signatures mark secrets, assets and
unknowns (values that a preview cannot know yet). Here they are
:class:`Secret`, :class:`Asset` and :data:`UNKNOWN` inside ordinary dicts and lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from google.protobuf import struct_pb2

Properties = dict[str, Any]

_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"
_ASSET: Final = "c44067f5952c0a294b673a41bacd8c17"
# One sentinel per type in the protocol; the string one stands for all when we send.
_UNKNOWN_STRING: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_UNKNOWNS: Final = {
    _UNKNOWN_STRING,
    "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
    "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
    "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
    "030794c1-ac77-496b-92df-f27374a8bd58",
    "e48ece36-62e2-4504-bad9-02848725956a",
    "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
}


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()


@dataclass(frozen=True)
class Secret:
    """A value that the engine encrypts in state and never shows."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True)
class Asset:
    """A file given as a property, in the protocol's own fields: `text`, `path` or `uri`."""

    fields: tuple[tuple[str, Any], ...]

    def read(self) -> str:
        """The asset's text; only texts and local files, a rehearsal downloads nothing."""
        fields = dict(self.fields)
        if fields.get("text"):
            return fields["text"]
        location = fields.get("path") or ""
        if not location and urlsplit(fields.get("uri", "")).scheme == "file":
            location = unquote(urlsplit(fields["uri"]).path)
        if not location:
            raise ValueError(f"the asset {fields.get('uri') or '(empty)'} is remote; give its text or a path")
        return Path(location).read_text(encoding="utf-8")


def from_struct(struct: struct_pb2.Struct) -> Properties:
    """Decode the engine's struct."""
    return {key: _decode(value) for key, value in struct.fields.items()}


def _decode(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value in _UNKNOWNS else value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [_decode(item) for item in value.list_value.values]
    if kind == "struct_value":
        return _unwrap(from_struct(value.struct_value))
    return None


def _unwrap(fields: Properties) -> Any:
    signature = fields.get(_SIGNATURE)
    if signature == _SECRET:
        return Secret(fields.get("value"))
    if signature == _ASSET:
        return Asset(tuple(item for item in fields.items() if item[0] != _SIGNATURE))
    if signature:
        raise ValueError(f"a property has the signature {signature}, which these plugins do not know")
    return fields


def to_struct(properties: Properties) -> struct_pb2.Struct:
    """Encode for the engine."""
    return struct_pb2.Struct(fields={key: _encode(value) for key, value in properties.items()})


def _encode(value: Any) -> struct_pb2.Value:
    if value is UNKNOWN:
        return struct_pb2.Value(string_value=_UNKNOWN_STRING)
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    if isinstance(value, Secret):
        return _encode({_SIGNATURE: _SECRET, "value": value.value})
    if isinstance(value, Asset):
        return _encode({_SIGNATURE: _ASSET, **dict(value.fields)})
    if isinstance(value, dict):
        return struct_pb2.Value(struct_value=to_struct(value))
    return struct_pb2.Value(list_value=struct_pb2.ListValue(values=[_encode(item) for item in value]))


def plain(value: Any) -> Any:
    """A copy without secret marks; unknowns and assets stay."""
    if isinstance(value, Secret):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def has_unknown(value: Any) -> bool:
    """Whether any part is not known yet."""
    return value is UNKNOWN or any(has_unknown(part) for part in _parts(value))


def has_secret(value: Any) -> bool:
    """Whether any part is a secret."""
    return isinstance(value, Secret) or any(has_secret(part) for part in _parts(value))


def _parts(value: Any) -> Any:
    if isinstance(value, Secret):
        return (value.value,)
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def words(text: str) -> tuple[str, ...]:
    """The words of a text: keeps tables of names readable."""
    return tuple(text.split())
