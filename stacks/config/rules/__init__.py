"""Rules between keys. Each is a function from a draft to the problems that it sees."""

from __future__ import annotations

from stacks.config.errors import Problem
from stacks.config.rules import (
    access,
    caches,
    eks,
    gateway,
    gke,
    memory,
    models,
    namespaces,
    pools,
    power,
    runtimes,
    secret_sources,
    storage,
)
from stacks.config.rules.draft import Draft

RULES = (
    *gke.RULES,
    *eks.RULES,
    *pools.RULES,
    *models.RULES,
    *memory.RULES,
    *caches.RULES,
    *runtimes.RULES,
    *namespaces.RULES,
    *secret_sources.RULES,
    *storage.RULES,
    *gateway.RULES,
    *access.RULES,
    *power.RULES,
)


def check(draft: Draft) -> list[Problem]:
    """Everything that the rules find."""
    return [problem for rule in RULES for problem in rule(draft)]
