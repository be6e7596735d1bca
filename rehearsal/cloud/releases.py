"""GKE's releases, and which definitions of the Gateway API come with them.

Versions of the bundle: docs.cloud.google.com/kubernetes-engine/docs/how-to/gatewayclass-capabilities, as read in
2026-08. InferencePool v1 comes from 1.34.0-gke.1626000 on (llm-d's guide for GKE). Google does not say which edition
of that definition; here it is the one that the platform's lock file pins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# The patch of each minor here: the first that has the bundle of rehearsal/toolchain/modules/gke-<minor>.
RELEASES: Final[Mapping[str, str]] = MappingProxyType(
    {"1.33": "1.33.2-gke.1335000", "1.34": "1.34.1-gke.1822000", "1.35": "1.35.2-gke.1842000"}
)
_OTHER_PATCH: Final = "0-gke.1000000"
_FIRST_WITH_POOLS: Final = (1, 34, 0, 1626000)


def minor_of(version: str) -> str:
    """`1.34` of `1.34.1-gke.1822000`."""
    return ".".join(version.split(".")[:2])


def full(minor: str) -> str:
    """The one patch of a minor that is offered here."""
    return RELEASES.get(minor, f"{minor}.{_OTHER_PATCH}")


def has_pools(version: str) -> bool:
    """Whether a full version comes with InferencePool v1."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", version))
    return numbers >= _FIRST_WITH_POOLS
