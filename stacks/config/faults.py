"""pydantic's findings in the words of this project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from stacks.config.describe import (
    describe,
    describe_annotation,
    keys_of,
    members,
    models_in,
    schema_of,
    tag_of,
    with_article,
)
from stacks.config.errors import PREFIX, REFUSED, Problem, choice, path_of
from stacks.config.secrets import shown

Parts = tuple[str | int, ...]

_UNUSABLE = "the value cannot be used"
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}

# Keys that people bring along from elsewhere, and where their purpose is met here.
_RESOURCE_HINT = (
    "accelerators are counted by tensorParallel, and a pod's requests and limits for them are always equal; "
    "write cpu, memory and ephemeralStorage only"
)
_FOREIGN_KEYS = {
    ("ModelResources", name): _RESOURCE_HINT
    for name in ("requests", "limits", "nvidia.com/gpu", "google.com/tpu", "gpu", "gpus", "tpu")
} | {
    (
        "PublicKey",
        "d",
    ): "give up the key pair, it is compromised: `d` is its private half",
    ("StackConfig", "hfToken"): "set it with: pulumi config set --secret llm-platform:hfToken",
}


@dataclass(frozen=True)
class Place:
    """Where a finding is: the keys as written, the model that owns the last one, and its annotation."""

    parts: Parts
    owner: type[BaseModel] | None
    annotation: Any
    is_key: bool = False


def locate(root: type[BaseModel], location: Sequence[str | int]) -> Place:
    """Follows pydantic's location, which names union tags that nobody wrote, through the models."""
    parts: list[str | int] = []
    owner: type[BaseModel] | None = None
    annotation: Any = root
    for step in location:
        models = models_in(annotation)
        if step == "[key]":
            return Place(tuple(parts), owner, annotation, is_key=True)
        if len(models) > 1:
            chosen = [model for model in models if tag_of(model) == step]
            annotation = chosen[0] if chosen else annotation
            continue
        parts.append(step)
        if models:
            owner = models[0]
            field = keys_of(owner).get(str(step))
            annotation = field.annotation if field else None
        else:
            annotation = _item(annotation)
    return Place(tuple(parts), owner, annotation)


def _item(annotation: Any) -> Any:
    for member in members(annotation):
        if get_origin(member) is dict:
            return get_args(member)[1]
        if get_origin(member) in (tuple, list):
            return get_args(member)[0]
    return None


Finding = tuple[Place, str, Problem]


def problems_of(root: type[BaseModel], error: ValidationError) -> list[Finding]:
    """Every finding with its place, pydantic's type and its sentence."""
    found = []
    for detail in error.errors(include_url=False):
        place = locate(root, detail["loc"])
        wrong, consequence, fix = _words(place, detail)
        found.append((place, detail["type"], Problem(path_of(*place.parts), wrong, consequence, fix)))
    return [finding for finding in found if not _follows(finding, found)]


def _follows(finding: Finding, others: Sequence[Finding]) -> bool:
    """A list that is too short only because its items are wrong is no finding of its own."""
    place, kind, _ = finding
    size = len(place.parts)
    return kind == "too_short" and any(
        len(other.parts) > size and other.parts[:size] == place.parts for other, _, _ in others
    )


def _words(place: Place, detail: Mapping[str, Any]) -> tuple[str, str, str]:
    phrase = _PHRASES.get(detail["type"], _other)
    return phrase(place, detail)


def _refused(place: Place, detail: Mapping[str, Any]) -> tuple[str, str, str]:
    context = detail["ctx"]
    return context["wrong"], context["consequence"], context["fix"]


def _unknown_key(place: Place, detail: Mapping[str, Any]) -> tuple[str, str, str]:
    name = str(place.parts[-1])
    known = list(keys_of(place.owner)) if place.owner else []
    hint = _FOREIGN_KEYS.get((place.owner.__name__ if place.owner else "", name))
    fix = hint or choice(name, known, prefix=PREFIX if len(place.parts) == 1 else "")
    return "there is no such key", "it would be ignored, and what it was meant to do would not happen", fix


def _missing(place: Place, detail: Mapping[str, Any]) -> tuple[str, str, str]:
    field = keys_of(place.owner)[str(place.parts[-1])] if place.owner else None
    meaning = f" ({field.description.rstrip('.')})" if field is not None and field.description else ""
    return (
        "is missing",
        "it has no safe default",
        f"add {place.parts[-1]}: {with_article(_wanted(place))}{meaning}",
    )


def _wrong_literal(place: Place, detail: Mapping[str, Any]) -> tuple[str, str, str]:
    known = [str(value) for member in members(place.annotation) for value in get_args(member)]
    return (
        f"{shown(detail['input'])} is not a value of this key",
        "it has no meaning here",
        choice(detail["input"], known),
    )


def _wrong_kind(place: Place, detail: Mapping[str, Any]) -> tuple[str, str, str]:
    known = [tag for model in models_in(place.annotation) if (tag := tag_of(model))]
    given = detail["input"].get("kind") if isinstance(detail["input"], Mapping) else None
    wrong = f"{shown(given)} is not a kind of cluster" if given is not None else "kind is missing"
    return (
        wrong,
        "the keys of the kinds differ, so nothing else here can be checked",
        f"kind: {choice(given, known)}",
    )


def _wrong_type(place: Place, detail: Mapping[str, Any]) -> tuple[str, str, str]:
    value = detail["input"]
    wanted = _wanted(place)
    fix = f"write {with_article(wanted)}"
    if isinstance(value, str) and detail["type"] in ("int_type", "float_type", "bool_type"):
        fix += " without quotes"
    elif isinstance(value, bool | int | float) and detail["type"] == "string_type":
        fix = f'quote it: "{str(value).lower() if isinstance(value, bool) else value}"'
    return f"{shown(value)} is {_kind_of(value)}, not {with_article(wanted)}", _UNUSABLE, fix


def _other(place: Place, detail: Mapping[str, Any]) -> tuple[str, str, str]:
    wanted = _wanted(place)
    what = f"the name {shown(place.parts[-1])}" if place.is_key else shown(detail["input"])
    context = detail.get("ctx", {})
    if pattern := context.get("pattern"):
        return f"{what} does not have the form {pattern}", _UNUSABLE, "write it in that form"
    if limits := [f"{_LIMITS[name]} {value}" for name, value in context.items() if name in _LIMITS]:
        return f"{what} is not {' and '.join(limits)}", _UNUSABLE, f"write {with_article(wanted)}"
    return f"{what}: {detail['msg'].removeprefix('Input ')}", _UNUSABLE, f"write {with_article(wanted)}"


def _wanted(place: Place) -> str:
    """What belongs at this place, in a few words."""
    if models_in(place.annotation):
        return "map of its keys"
    name = str(place.parts[-1])
    if place.owner is not None and name in keys_of(place.owner):
        return describe(schema_of(place.owner)["properties"][name])
    return describe_annotation(place.annotation)


def _kind_of(value: Any) -> str:
    names: dict[type, str] = {
        bool: "a switch",
        int: "a number",
        float: "a number",
        str: "text",
        dict: "a map",
    }
    return "empty" if value is None else names.get(type(value), "a list")


_PHRASES: dict[str, Callable[[Place, Mapping[str, Any]], tuple[str, str, str]]] = {
    REFUSED: _refused,
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "literal_error": _wrong_literal,
    "union_tag_invalid": _wrong_kind,
    "union_tag_not_found": _wrong_kind,
    **dict.fromkeys(
        (
            "int_type",
            "int_from_float",
            "float_type",
            "bool_type",
            "string_type",
            "dict_type",
            "tuple_type",
            "list_type",
            "model_type",
            "model_attributes_type",
        ),
        _wrong_type,
    ),
}
