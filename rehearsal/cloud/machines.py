"""Machine types of the simulated Google project: sizes, chips, and the zones that have them.

TPU machines and zones are the configuration's own tables (stacks/config/machines.py); a general
machine type says its number of vCPUs in its name and has a fixed memory for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stacks.config.machines import REGIONS_WITHOUT_N1, TPU_MACHINES, V6E_ZONES

# GiB per vCPU, as Google's machine family pages state.
_GIB_PER_VCPU: Final = {
    "n1-standard": 3.75, "n1-highmem": 6.5, "n1-highcpu": 0.9,
    "e2-standard": 4.0, "e2-highmem": 8.0, "e2-highcpu": 1.0,
    "n2-standard": 4.0, "n2-highmem": 8.0, "n2-highcpu": 1.0,
    "n2d-standard": 4.0, "n2d-highmem": 8.0, "n2d-highcpu": 1.0,
    "n4-standard": 4.0, "c3-standard": 4.0, "c4-standard": 3.75, "t2d-standard": 4.0,
}  # fmt: skip
# Shared-core types: vCPUs, GiB.
_SMALL: Final = {"e2-small": (2, 2.0), "e2-medium": (2, 4.0)}
# What nodes of every cloud keep of their cores for themselves: (up to this much, share).
CPU_SHARES: Final = ((1, 0.06), (2, 0.01), (4, 0.005), (float("inf"), 0.0025))
_ZONE: Final = re.compile(r"[a-z]+-[a-z]+[0-9]+-[a-z0-9]+")


@dataclass(frozen=True)
class Machine:
    """A machine type; `chips` is 0 without TPUs."""

    name: str
    vcpus: int
    memory_gib: float
    chips: int = 0

    @property
    def family(self) -> str:
        """As quotas spell it, for example CT6E."""
        return self.name.split("-")[0].upper()


def find(name: str) -> Machine | None:
    """The machine type of that name, or None where Google has none."""
    if tpu := TPU_MACHINES.get(name):
        return Machine(name, tpu.vcpus, tpu.memory_gib, tpu.chips)
    if name in _SMALL:
        return Machine(name, *_SMALL[name])
    series, _, count = name.rpartition("-")
    if series not in _GIB_PER_VCPU or not count.isdecimal() or not int(count):
        return None
    return Machine(name, int(count), int(count) * _GIB_PER_VCPU[series])


def region_of(location: str) -> str:
    """The region of a zone; a region is its own."""
    return location.rsplit("-", 1)[0] if _ZONE.fullmatch(location) else location


def is_zone(location: str) -> bool:
    """Whether a location is a zone and no region."""
    return bool(_ZONE.fullmatch(location))


def catalogued(machine: Machine, zone: str) -> bool:
    """Whether the catalogue lists the machine type in the zone."""
    if machine.chips:
        return zone in V6E_ZONES
    return machine.family != "N1" or region_of(zone) not in REGIONS_WITHOUT_N1


def share(amount: float, shares: Iterable[tuple[float, float]]) -> float:
    """What is kept of `amount`, by shares of its parts."""
    kept, below = 0.0, 0.0
    for limit, part in shares:
        kept += max(0.0, min(amount, limit) - below) * part
        below = limit
    return kept
