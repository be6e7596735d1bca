"""The request program: requests.lua with the tables of one stack. Pure.

It travels as text in an EnvoyFilter, so what comes from configuration is written as data, never as code:
each string is checked against a narrow alphabet in which Lua's quoted strings need no escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from components.serving.manifests import token_limits, verification
from components.serving.manifests.access import ISSUER
from components.serving.manifests.gateway import (
    INFERENCE_PATHS,
    LONG,
    LONG_HEADER,
    MODEL_HEADER,
    PLAIN_PATHS,
    model_name,
    model_prefix,
)
from components.serving.manifests.token_limits import Measure

PROGRAM_FILE = Path(__file__).with_name("requests.lua")
MARKER = "local TABLES = {} -- @tables@\n"
# Prices are written as millionths, so that the program can multiply exactly.
MILLION = 1_000_000
# The highest price that one token may have; the largest charge is a thousand times a million tokens.
MAX_MULTIPLIER = 1000
# Printable, without spaces and without what ends or escapes a string in Lua, JSON or an Envoy format.
_SAFE = re.compile(r"[!#$&()*+,\-./0-9:;=?@A-Z^_a-z|~]{1,253}")

# What runs where the tables are missing, or where no route is: nothing passes. Every path of the gateway's own host
# has a route, so without one the host is another.
CLOSED = """\
local function refuse(h, status, text)
  h:respond({[":status"] = status, ["content-type"] = "text/plain"}, text)
end

function envoy_on_request(h)
  local known, route = pcall(function() return h:streamInfo():routeName() end)
  if known and route == "" then
    return refuse(h, "404", "this host is not served here")
  end
  refuse(h, "503", "the gateway's tables are missing")
end
"""


@dataclass(frozen=True, kw_only=True)
class LuaModel:
    """A model as the program knows it: `names` are those that its engine answers to, the served one first.

    `multiplier` is the price of a token relative to 1. `asleep` says that it shall have no replica.
    """

    key: str
    namespace: str
    names: tuple[str, ...]
    multiplier: float = 1.0
    asleep: bool = False

    @property
    def prefix(self) -> str:
        """Where the model lives on the gateway."""
        return model_prefix(self.namespace, self.key)

    @property
    def header(self) -> str:
        """The value of the model header that the model's route matches; also one of its names."""
        return model_name(self.namespace, self.names[0])


@dataclass(frozen=True, kw_only=True)
class LuaTenant:
    """A tenant: its tier, and the keys of the models that it may use, None for all."""

    tier: str
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class LuaAccess:
    """Who is let in, which keys are revoked (by id), and what budgets count.

    `verified` are the tiers for which `python -m ops verify` has a tenant; none, and it has no tenant at all.
    """

    tenants: Mapping[str, LuaTenant]
    revoked: tuple[str, ...] = ()
    measure: Measure = "tokens"
    verified: tuple[str, ...] = ()

    @property
    def everybody(self) -> dict[str, LuaTenant]:
        """The tenants, with the reserved ones."""
        reserved = verification.tenants(self.verified, token_limits.EXEMPT) if self.verified else {}
        extra = {
            name: LuaTenant(tier=t, models=verification.MODELS.get(name)) for name, t in reserved.items()
        }
        return {**self.tenants, **extra}


def requests_source(models: Sequence[LuaModel], access: LuaAccess | None) -> str:
    """The program with its tables; the same text for the same arguments in whatever order.

    Raises ValueError, naming the value, for text that Lua, JSON or a header could misread, a name that two
    models share, a price that is no positive number, and a tenant's model that does not exist.
    """
    _check_models(models)
    if access is not None:
        _check_access(access, {model.key for model in models})
    return _program().replace(MARKER, f"local TABLES = {_lua(_tables(models, access))}\n")


@cache
def _program() -> str:
    text = PROGRAM_FILE.read_text()
    if text.count(MARKER) != 1:
        raise ValueError(f"{PROGRAM_FILE.name} must hold the line {MARKER.strip()!r} exactly once")
    return text


def _check_models(models: Iterable[LuaModel]) -> None:
    owners: dict[str, str] = {}
    keys: set[str] = set()
    for model in models:
        if not 1 / MILLION <= model.multiplier <= MAX_MULTIPLIER:  # refuses NaN as well
            raise ValueError(
                f"model {model.key}: the multiplier {model.multiplier} is not between"
                f" {1 / MILLION:f} and {MAX_MULTIPLIER}; choose a price within"
            )
        if model.key in keys:
            raise ValueError(f"there are two models {model.key}; rename one")
        keys.add(model.key)
        if not model.names:
            raise ValueError(f"model {model.key}: without a name nobody can ask for it; give one")
        for part in (model.key, model.namespace):
            if "/" in _checked(part):
                raise ValueError(f"model {model.key}: {part!r} is one part of a path; remove the slash")
        for name in _names(model):
            other = owners.setdefault(name, model.key)
            if other != model.key:
                raise ValueError(f"models {other} and {model.key} share the name {name!r}; rename one")


def _check_access(access: LuaAccess, keys: set[str]) -> None:
    if access.measure not in ("tokens", "requests"):
        raise ValueError(f"budgets count tokens or requests, not {access.measure!r}")
    for name, tenant in access.tenants.items():
        if tenant.tier in (token_limits.EXEMPT, token_limits.UNKNOWN):
            raise ValueError(f"tenant {name}: the tier {tenant.tier!r} is reserved; rename it")
        if verification.is_reserved(name):
            raise ValueError(f"tenant {name}: names with {verification.PREFIX} are reserved; rename it")
        missing = sorted(set(tenant.models or ()) - keys)
        if missing:
            raise ValueError(
                f"tenant {name}: there is no model {missing[0]}; models are {', '.join(sorted(keys))}"
            )


def _names(model: LuaModel) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*model.names, model.header)))


def _tables(models: Sequence[LuaModel], access: LuaAccess | None) -> dict[str, object]:
    tables: dict[str, object] = {
        "exempt": token_limits.EXEMPT,
        "inference": list(INFERENCE_PATHS),
        "issuer": ISSUER,
        "long": {"header": LONG_HEADER, "value": LONG},
        "model_header": MODEL_HEADER,
        # In the order of the list that clients read.
        "models": [_model(model) for model in sorted(models, key=lambda m: (m.names[0], m.key))],
        "plain": list(PLAIN_PATHS),
        "sets": [],
    }
    if access is None:
        return tables
    tenants = access.everybody
    # Tenants share few lists of models; each list is written once.
    sets = sorted({tuple(sorted(set(t.models))) for t in tenants.values() if t.models is not None})
    number = {keys: position for position, keys in enumerate(sets, start=1)}
    return {
        **tables,
        "headers": {
            name: token_limits.header(access.measure, name) for name in ("limit", "remaining", "used")
        },
        "measure": access.measure,
        "revoked": dict.fromkeys(access.revoked, True),
        "sets": [dict.fromkeys(keys, True) for keys in sets],
        "tenants": {name: _tenant(tenant, number) for name, tenant in tenants.items()},
    }


def _model(model: LuaModel) -> dict[str, object]:
    return {
        "header": model.header,
        "key": model.key,
        "names": list(_names(model)),
        "prefix": model.prefix,
        "price": round(model.multiplier * MILLION),
        **({"asleep": True} if model.asleep else {}),
    }


def _tenant(tenant: LuaTenant, number: Mapping[tuple[str, ...], int]) -> dict[str, object]:
    models = {} if tenant.models is None else {"models": number[tuple(sorted(set(tenant.models)))]}
    return {"tier": tenant.tier, **models}


def _lua(value: object, depth: int = 0) -> str:
    """A Lua expression for data: tables, strings, whole numbers, true. Keys are sorted."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool | int):
        return str(value).lower()
    inner = (
        [f"[{_quoted(key)}] = {_lua(value[key], depth + 1)}" for key in sorted(value)]
        if isinstance(value, dict)
        else [_lua(item, depth + 1) for item in value]
    )
    # The outer levels a line each, so that a preview shows which tenant or key a change is about.
    if depth < 2 and inner:
        pad = "  " * (depth + 1)
        return "{\n" + "".join(f"{pad}{entry},\n" for entry in inner) + "  " * depth + "}"
    return "{" + ", ".join(inner) + "}"


def _quoted(text: str) -> str:
    return f'"{_checked(text)}"'


def _checked(text: str) -> str:
    if not isinstance(text, str) or not _SAFE.fullmatch(text):
        raise ValueError(
            f"{text!r} cannot go into the gateway's tables: use printable ASCII without spaces,"
            " quotes, brackets, braces, %, <, > and backslashes, 253 characters at most"
        )
    return text
