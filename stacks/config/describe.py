"""Words for types: what a key takes, for the reference page and for error messages."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

Schema = Mapping[str, Any]


class Schemas(GenerateJsonSchema):
    """JSON Schema whose only titles are those that we gave."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """A key's name turned into a title says nothing new."""
        return False


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a model; maps with named patterns take no other name."""
    schema = model.model_json_schema(by_alias=True, schema_generator=Schemas)
    _close(schema)
    return schema


def _close(node: Any) -> None:
    if isinstance(node, dict):
        if "patternProperties" in node:
            node.setdefault("additionalProperties", False)
        # OpenAPI's keyword; `oneOf` says the same.
        node.pop("discriminator", None)
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        _close(child)


_WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}


def describe(schema: Schema) -> str:
    """What a JSON Schema fragment takes, in a few words: `whole number, 1 or more`."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if options:
        return " or ".join(dict.fromkeys(describe(option) for option in options))
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[1]
    if "oneOf" in schema:
        return " or ".join(describe(option) for option in schema["oneOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {describe(schema['items'])}"
    if kind == "object":
        return f"map of name to {_values(schema)}"
    if "title" in schema and kind != "object":
        return schema["title"]
    return _WORDS.get(str(kind), "value") + _bounds(schema)


def with_article(words: str) -> str:
    """The words of :func:`describe` inside a sentence."""
    if words.startswith(("one of", "`", "text", "true or false", "another")):
        return words
    return f"{'an' if words[0] in 'aeioAEIO' else 'a'} {words}"


def _values(schema: Schema) -> str:
    values = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
    return describe(values) if isinstance(values, Mapping) else "text"


def _bounds(schema: Schema) -> str:
    low, high, above = (schema.get(name) for name in ("minimum", "maximum", "exclusiveMinimum"))
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if above is not None:
        return f" above {above}" + (f", {high} or less" if high is not None else "")
    if low is not None:
        return f", {low} or more"
    return f", {high} or less" if high is not None else ""


def describe_annotation(annotation: Any) -> str:
    """What a Python annotation takes, in the same words."""
    return describe(TypeAdapter(annotation).json_schema(schema_generator=Schemas))


def members(annotation: Any) -> list[Any]:
    """The alternatives of an annotation, without `Annotated` and None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return [one for arg in get_args(annotation) if arg is not type(None) for one in members(arg)]
    return [annotation]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The configuration models among the alternatives of an annotation."""
    return [one for one in members(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]


def tag_of(model: type[BaseModel], discriminator: str = "kind") -> str | None:
    """The value of `kind` that selects this model, or None for a model without one."""
    field = model.model_fields.get(discriminator)
    values = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
    return values[0] if len(values) == 1 else None


def keys_of(model: type[BaseModel]) -> dict[str, Any]:
    """YAML key to field, in the order of the model."""
    return {field.alias or name: field for name, field in model.model_fields.items()}
