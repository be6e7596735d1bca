"""What each random resource generates, as pulumi-random 4.21 does; pure but for the generator that is passed in.

Not generated: the bcrypt hash of a password, which the standard library cannot make.
"""

from __future__ import annotations

import base64
import random
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from rehearsal.providers.values import Properties, Secret, words

SPECIAL = "!@#$%&*()-_=+[]{}<>:?"
_ADVERBS = words(
    "barely boldly briefly calmly deeply evenly fairly gladly kindly nearly openly partly rarely surely vastly"
)
_ADJECTIVES = words(
    "able brave bright calm clever eager fair fresh grand honest keen lively merry proud quick solid warm wise"
)
_NAMES = words(
    "badger bison crane dingo egret falcon gecko heron ibex jackal koala lemur marmot newt otter quail raven seal"
)

_CLASSES = {
    "lower": string.ascii_lowercase, "upper": string.ascii_uppercase, "numeric": string.digits, "special": SPECIAL,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One resource type: `check` gives (property, reason) of bad inputs, `make` (id, outputs)."""

    required: tuple[str, ...]
    computed: tuple[str, ...]
    defaults: Properties
    check: Callable[[Properties], list[tuple[str, str]]]
    make: Callable[[Properties, random.Random], tuple[str, Properties]]


def _fine(_: Properties) -> list[tuple[str, str]]:
    return []


def _check_string(inputs: Properties) -> list[tuple[str, str]]:
    least = sum(inputs[f"min{name.title()}"] for name in _CLASSES)
    if inputs["length"] < max(1, least):
        return [
            (
                "length",
                f"length must be at least {max(1, least)}, the sum of the minimums, but is {inputs['length']}",
            )
        ]
    if not _alphabet(inputs):
        return [("special", "at least one of special, upper, lower and numeric must be true")]
    return []


def _sets(inputs: Properties) -> dict[str, str]:
    numeric = inputs["numeric"] and inputs["number"]
    chosen = {**inputs, "numeric": numeric}
    sets = {name: letters for name, letters in _CLASSES.items() if chosen[name]}
    return sets | (
        {"special": inputs["overrideSpecial"]} if inputs.get("overrideSpecial") and "special" in sets else {}
    )


def _alphabet(inputs: Properties) -> str:
    return "".join(_sets(inputs).values())


def _string(inputs: Properties, rng: random.Random) -> str:
    sets = _CLASSES | _sets(inputs)
    letters = [rng.choice(sets[name]) for name in _CLASSES for _ in range(inputs[f"min{name.title()}"])]
    letters += [rng.choice(_alphabet(inputs)) for _ in range(inputs["length"] - len(letters))]
    rng.shuffle(letters)
    return "".join(letters)


def _make_string(inputs: Properties, rng: random.Random) -> tuple[str, Properties]:
    result = _string(inputs, rng)
    return result, {"result": result}


def _make_password(inputs: Properties, rng: random.Random) -> tuple[str, Properties]:
    return "none", {"result": Secret(_string(inputs, rng))}


def _make_id(inputs: Properties, rng: random.Random) -> tuple[str, Properties]:
    data, prefix = rng.randbytes(inputs["byteLength"]), inputs.get("prefix") or ""
    url = base64.urlsafe_b64encode(data).decode().rstrip("=")
    forms = {
        "b64Url": url,
        "b64Std": base64.b64encode(data).decode(),
        "hex": data.hex(),
        "dec": str(int.from_bytes(data)),
    }
    return url, {name: prefix + form for name, form in forms.items()}


def _make_pet(inputs: Properties, rng: random.Random) -> tuple[str, Properties]:
    length = inputs["length"]
    words = [rng.choice(_ADVERBS) for _ in range(length - 2)]
    words += [rng.choice(_ADJECTIVES)] if length > 1 else []
    parts = [inputs["prefix"]] if inputs.get("prefix") else []
    return inputs["separator"].join([*parts, *words, rng.choice(_NAMES)]), {}


def _check_integer(inputs: Properties) -> list[tuple[str, str]]:
    if inputs["min"] > inputs["max"]:
        return [("min", "the minimum (min) value needs to be smaller than or equal to maximum (max) value")]
    return []


def _make_integer(inputs: Properties, rng: random.Random) -> tuple[str, Properties]:
    rng = random.Random(inputs["seed"]) if inputs.get("seed") else rng
    result = rng.randint(inputs["min"], inputs["max"])
    return str(result), {"result": result}


def _make_uuid(_: Properties, rng: random.Random) -> tuple[str, Properties]:
    result = str(uuid.UUID(bytes=rng.randbytes(16), version=4))
    return result, {"result": result}


_LETTERS: Properties = dict.fromkeys(("lower", "upper", "numeric", "number", "special"), True) | {
    f"min{name.title()}": 0 for name in _CLASSES
}
KINDS: dict[str, Kind] = {
    "random:index/randomString:RandomString": Kind(
        ("length",), ("result",), _LETTERS, _check_string, _make_string
    ),
    "random:index/randomPassword:RandomPassword": Kind(
        ("length",), ("result",), _LETTERS, _check_string, _make_password
    ),
    "random:index/randomId:RandomId": Kind(
        ("byteLength",), ("b64Std", "b64Url", "dec", "hex"), {}, _fine, _make_id
    ),
    "random:index/randomPet:RandomPet": Kind((), (), {"length": 2, "separator": "-"}, _fine, _make_pet),
    "random:index/randomInteger:RandomInteger": Kind(
        ("min", "max"), ("result",), {}, _check_integer, _make_integer
    ),
    "random:index/randomUuid:RandomUuid": Kind((), ("result",), {}, _fine, _make_uuid),
}
