"""Tiers, tenants and models refer to each other."""

from __future__ import annotations

from collections.abc import Iterator

from stacks.config.access import MAX_TENANTS
from stacks.config.errors import Problem, choice
from stacks.config.rules.draft import Draft, problem

_BUDGETS = {
    "tokens": ("tokensPerMinute", "tokens_per_minute"),
    "requests": ("requestsPerMinute", "requests_per_minute"),
}


def budgets(draft: Draft) -> Iterator[Problem]:
    """Every tier has the budget that is counted."""
    access = draft.config.access
    if access is None:
        return
    yaml_key, field = _BUDGETS[access.limit_by]
    for name, tier in access.tiers.items():
        if getattr(tier, field) is None:
            yield problem(
                ("access", "tiers", name),
                f"limitBy is {access.limit_by}, but the tier has no {yaml_key}",
                "its tenants would have no limit, or none of their requests would pass",
                f"add {yaml_key}",
            )


def tenants(draft: Draft) -> Iterator[Problem]:
    """Tenants have a tier that exists and models that exist."""
    access = draft.config.access
    if access is None:
        return
    for name, tenant in access.tenants.items():
        if tenant.tier not in access.tiers and draft.knows("access", "tiers", tenant.tier):
            yield problem(
                ("access", "tenants", name, "tier"),
                f'there is no tier "{tenant.tier}"',
                "every request of the tenant would be refused",
                choice(tenant.tier, list(access.tiers)),
            )
        for index, model in enumerate(tenant.models or ()):
            yield from _model(draft, ("access", "tenants", name, "models", index), model)
    for model in access.multipliers:
        yield from _model(draft, ("access", "multipliers", model), model)


def _model(draft: Draft, place: tuple[str | int, ...], model: str) -> Iterator[Problem]:
    if model not in draft.config.models and draft.knows("models", model):
        known = list(draft.config.models)
        yield problem(
            place,
            f'there is no model "{model}"',
            "the entry would have no effect",
            choice(model, known) if known else "remove it, or add the model to llm-platform:models",
        )


def size(draft: Draft) -> Iterator[Problem]:
    """There is room for the tenants that are kept for `ops verify`."""
    access = draft.config.access
    if access is None:
        return
    total, kept = len(access.tenants) + len(access.reserved), len(access.reserved)
    if len(access.tenants) <= MAX_TENANTS < total:
        yield problem(
            ("access", "tenants"),
            f"{len(access.tenants)} tenants and {kept} that `python -m ops verify` asks as are more than {MAX_TENANTS}",
            "the gateway's tables would exceed what one Kubernetes object can hold",
            "spread the tenants over several stacks, or set access.verification to false",
        )


def revoked(draft: Draft) -> Iterator[Problem]:
    """Revoked ids are key ids, each once."""
    access = draft.config.access
    if access is None:
        return
    for index, key_id in enumerate(access.revoked):
        if key_id in access.revoked[:index]:
            yield problem(
                ("access", "revoked", index),
                f"{key_id} is listed twice",
                "one of the two may stand for another key",
                "remove one",
            )


RULES = (budgets, tenants, size, revoked)
