"""How the replicas of each model are replaced, by the room that its pool has. Pure."""

from __future__ import annotations

from components.serving.manifests.rollout import Rollout
from stacks.config.model import Model
from stacks.config.pools import PoolShape
from stacks.config.root import StackConfig
from stacks.config.rules.pools import replica_chips


def rollout(config: StackConfig, name: str) -> Rollout:
    """How one model's replicas are replaced while the stack is awake."""
    model = config.models[name]
    shape = config.cluster.accelerators[model.accelerator].shape()
    return _rollout(model, shape, spare=_spare(config, model.accelerator, shape))


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
