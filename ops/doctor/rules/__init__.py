"""One case of trouble each, as data: the sign in the facts, what it means, what to do, and the runbook."""

from __future__ import annotations

from ops.doctor.chain import Rule
from ops.doctor.rules import answers, gateway, nodes, picker, pods, policies, routing, shared

MODEL_RULES: tuple[Rule, ...] = (
    *nodes.RULES,
    *pods.RULES,
    *picker.RULES,
    *routing.RULES,
    *policies.RULES,
    *answers.RULES,
)
"""Looked at for each model; within a link the first that sees a subject explains it."""
STACK_RULES: tuple[Rule, ...] = (*shared.OPERATORS, *gateway.RULES, *shared.RULES)
"""Looked at once."""
