"""How secrets of Secrets Manager are asked for: by name, or by ARN, in which Amazon adds six characters to the name."""

from __future__ import annotations

import re

_ARN = re.compile(r"arn:[^:]+:secretsmanager:(?P<region>[^:]+):(?P<account>[0-9]+):secret:(?P<name>.+)")
_SUFFIX = re.compile(r"-[A-Za-z0-9]{6}$")


def name_of(asked: str) -> str:
    """The secret's own name, by which the settings have it."""
    found = _ARN.fullmatch(asked)
    return _SUFFIX.sub("", found["name"]) if found else asked


def is_elsewhere(asked: str, region: str) -> bool:
    """Whether it is an ARN of another region, in which this one finds nothing."""
    found = _ARN.fullmatch(asked)
    return found is not None and found["region"] != region
