"""What it means that no node comes for a pod, and what to do about it. Pure.

The words are those of the cluster autoscaler's events, its own and GKE's (kubernetes/autoscaler, `core/scaleup`,
`clusterstate` and `cloudprovider/aws`; GKE's page on autoscaler events, read 2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Final

from ops.watch.place import CAPACITIES, LACKS, Place, PoolPlace
from stacks.config.machines import V6E_ZONES

QUOTAS: Final = "https://console.cloud.google.com/iam-admin/quotas"
BACKOFF: Final = "pause"
_GROUP = re.compile(r"\bgroup (\S+)")
# How many zones are named.
ZONES: Final = 3


@dataclass(frozen=True)
class Cause:
    """Why there is no node: found by any of `marks` in a message; `advice` has places for what is known."""

    name: str
    marks: tuple[str, ...]
    advice: str


# The first that is found counts: of several pools' reasons, the one that a person can do something about.
CAUSES: Final = (
    Cause(
        # Amazon's autoscaler sees that no machine came, and keeps the reason to its log.
        "no machine from AWS",
        ("placeholder-cannot-be-fulfilled", "cannot provision any more instances"),
        "{where} has no {machine} free{as_capacity} right now, or the account's quota of vCPUs is used up. Which of them, "
        "`aws autoscaling describe-scaling-activities --region {region} --auto-scaling-group-name {group} --max-items 1` "
        "says. It is tried again without your doing. Instead of waiting, buy them otherwise ({pool}.capacity: {others})",
    ),
    Cause(
        "stock-out",
        ("out of resources", "stockout", "resource_pool_exhausted", "does not have enough resources"),
        "{where} has no {machine} free{as_capacity} right now. It is tried again without your doing. Instead of "
        "waiting, buy them otherwise ({pool}.capacity: {others}), or build the cluster in another zone{zones}",
    ),
    Cause(
        "quota exceeded",
        ("quota",),
        "the project may not use more{of_region}: ask for more at {quotas}, or run fewer replicas; spot and "
        "flex-start count against a quota of their own. It is tried again without your doing",
    ),
    Cause(
        "pool at its maximum",
        ("max node group size reached", "max cluster", "max total nodes", "max limit reached"),
        "{pool}.maxNodes is {most}: raise it and run `up`, or run fewer replicas",
    ),
    Cause(
        BACKOFF,
        ("in backoff",),
        "the pool is left alone for a while after a failed scale-up, then tried again",
    ),
    Cause(
        "no pool fits",
        ("didn't match", "untolerated taint", "insufficient", "too many pods"),
        "no machine of any pool could ever run this pod: compare its node selector, tolerations and requests with the "
        "pools (`python -m ops doctor` does)",
    ),
)
UNKNOWN: Final = Cause(
    "no node", (), "the cloud's reason stands before this; `python -m ops doctor` looks further"
)


def cause(message: str) -> Cause:
    """The cause that a message names."""
    said = message.lower()
    return next((c for c in CAUSES if any(mark in said for mark in c.marks)), UNKNOWN)


def advice(found: Cause, place: Place, model: str, message: str = "") -> str:
    """What to do, in the terms of the stack file where it is known; `message` may name the group of machines."""
    named = _GROUP.search(message)
    words = _words(place, place.pools.get(model, PoolPlace()))
    return found.advice.format_map({**words, "group": named[1] if named else "<group>"})


def _words(place: Place, pool: PoolPlace) -> Mapping[str, str]:
    others = [c for c in CAPACITIES if c != pool.capacity and c not in LACKS.get(place.cloud, ())]
    zone = pool.zone or place.zone
    region = zone.rstrip(ascii_lowercase) if place.cloud == "eks" else zone.rpartition("-")[0]
    return {
        "where": zone or "the zone",
        "region": region or "<region>",
        "machine": pool.machine,
        "as_capacity": f" as {pool.capacity}" if pool.capacity else "",
        "pool": f"accelerators.{pool.key or '<pool>'}",
        "others": " or ".join(others),
        "zones": _zones(place),
        "of_region": f" chips in {region}" if region else "",
        "quotas": f"{QUOTAS}?project={place.project}" if place.project else "your cloud's quota page",
        "most": str(pool.max_nodes) if pool.max_nodes is not None else "reached",
    }


def _zones(place: Place) -> str:
    """Some other zones with the same accelerators, those of the same part of the world first."""
    if place.cloud != "gke":
        return ""
    here = place.zone.partition("-")[0]
    others = sorted(set(V6E_ZONES) - {place.zone}, key=lambda zone: (zone.partition("-")[0] != here, zone))
    more = f" and {len(others) - ZONES} more" if len(others) > ZONES else ""
    return f" ({', '.join(others[:ZONES])}{more} have them)"
