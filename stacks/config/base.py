"""What every configuration model has in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticUndefined


class Strict(BaseModel):
    """A frozen model that takes nothing but its own camelCase keys, and no value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


def entry(
    description: str,
    default: Any = PydanticUndefined,
    *,
    factory: Any = None,
    unit: str | None = None,
    derived: str | None = None,
    **constraints: Any,
) -> Any:
    """One key of the configuration, described for the editor and for the reference page.

    `unit` is shown beside the type. `derived` says where the value comes from when a key
    whose default is null is left out; `constraints` are pydantic's (`ge`, `le`, ...).
    """
    extra = {name: text for name, text in (("unit", unit), ("derived", derived)) if text}
    if extra:
        constraints["json_schema_extra"] = extra
    if factory is not None:
        constraints["default_factory"] = factory
    else:
        constraints["default"] = default
    return Field(description=description, **constraints)
