"""Tenants that nobody has: what `python -m ops verify` asks as. Pure.

They are in the tables of every gateway that asks for keys, so that tiers, limits and refusals can be tried without a
customer's budget. Only who holds the signing key can make a key for them, and he can make one for
every tenant, so they open nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

PREFIX = "llmp-verify-"
"""No tenant of a user's may begin with it."""
NONE = f"{PREFIX}none"
"""May use no model."""
LOAD = f"{PREFIX}load"
"""Has no budget: throughput is measured as this one."""
UNKNOWN = f"{PREFIX}unknown"
"""Is in no table."""
MODELS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType({NONE: ()})
"""The reserved tenants that may not use all models."""


def of_tier(tier: str) -> str:
    """The tenant that has the budget of a tier."""
    return f"{PREFIX}tier-{tier}"


def tenants(tiers: Iterable[str], exempt: str) -> dict[str, str]:
    """Every reserved tenant with its tier, `exempt` being the one that nothing limits."""
    return {**{of_tier(tier): tier for tier in tiers}, NONE: exempt, LOAD: exempt}


def is_reserved(tenant: str) -> bool:
    """Whether a tenant's name is one that a user may not give."""
    return tenant.startswith(PREFIX)
