"""What a change of each model takes, by the room that its pool has. Pure."""

from __future__ import annotations

from dataclasses import replace

from components.serving.manifests.rollout import Rollout
from stacks.config import StackConfig
from stacks.config.plans import rollout


def rollouts(config: StackConfig) -> dict[str, Rollout]:
    """How each model's replicas are replaced as the stack is now, by the model's name."""
    awake = {name: rollout(config, name) for name in sorted(config.models)}
    if config.power != "asleep":
        return awake
    return {name: replace(plan, replicas=0) for name, plan in awake.items()}


def announcement(config: StackConfig) -> str:
    """What a change of each model takes, for people; models of which the same is true share a line."""
    alike: dict[str, list[str]] = {}
    for name, plan in rollouts(config).items():
        alike.setdefault(str(plan), []).append(name)
    return "\n".join(f"a change of {', '.join(names)} {says}" for says, names in alike.items())
