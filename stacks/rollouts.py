"""What a change of each model takes, by the room that its pool has. Pure."""

from __future__ import annotations

from dataclasses import replace

from components.serving.manifests.rollout import Rollout
from stacks.config import Model, StackConfig
from stacks.config.pools import PoolShape
from stacks.config.rules.pools import replica_chips


def rollout(config: StackConfig, name: str) -> Rollout:
    """How one model's replicas are replaced while the stack is awake."""
    model = config.models[name]
    shape = config.cluster.accelerators[model.accelerator].shape()
    return _rollout(model, shape, spare=_spare(config, model.accelerator, shape))


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


def _rollout(model: Model, shape: PoolShape, spare: bool) -> Rollout:
    return Rollout(
        replicas=model.replicas,
        spare=spare,
        hosts=shape.nodes_per_replica,
        budget_seconds=model.load_budget_seconds,
    )


def _spare(config: StackConfig, accelerator: str, shape: PoolShape) -> bool:
    """Whether a pool has room for what starts beside the old replicas when all its models change at once."""
    there = [model for model in config.models.values() if model.accelerator == accelerator]
    plans = [(model, _rollout(model, shape, spare=True)) for model in there]
    wanted = sum((plan.replicas + plan.surge) * replica_chips(model, shape) for model, plan in plans)
    return wanted <= shape.max_nodes * shape.chips_per_node
