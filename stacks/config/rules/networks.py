"""Address ranges that must not overlap, for both clouds."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from itertools import combinations

from stacks.config.errors import Problem
from stacks.config.rules.draft import Parts, problem


def overlaps(ranges: Mapping[Parts, str]) -> Iterator[Problem]:
    """Each pair of ranges that share addresses; the second of the pair is named as the place."""
    for (first, one), (second, other) in combinations(ranges.items(), 2):
        if ipaddress.IPv4Network(one).overlaps(ipaddress.IPv4Network(other)):
            yield problem(
                second,
                f"{other} overlaps {one} of {'.'.join(str(part) for part in first)}",
                "packets to the shared addresses would go astray, and the cloud refuses the subnet",
                "choose ranges without common addresses",
            )


def open_to_all(parts: Parts, network: str) -> Iterator[Problem]:
    """An API server that the whole internet may reach."""
    if ipaddress.IPv4Network(network).prefixlen == 0:
        yield problem(
            parts,
            "0.0.0.0/0 lets everybody reach the API server",
            "a leaked credential is enough to take the cluster over",
            "list the networks that need it, or leave the list empty",
        )
