"""Kubernetes quantities such as `500m`, `16Gi` or `4`."""

from __future__ import annotations

import re

_PATTERN = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_FACTORS = {"m": 1e-3, "": 1.0}
_FACTORS |= {unit: 1000.0 ** (power + 1) for power, unit in enumerate("kMGTP")}
_FACTORS |= {f"{unit}i": 1024.0 ** (power + 1) for power, unit in enumerate("KMGTP")}


def value(quantity: str) -> float:
    """The quantity in its base unit: cores or bytes. Raises ValueError for anything else."""
    found = _PATTERN.fullmatch(quantity)
    if found is None:
        raise ValueError(f'"{quantity}" is not a quantity such as 4, 500m or 16Gi')
    return float(found[1]) * _FACTORS[found[2] or ""]
