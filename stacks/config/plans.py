"""How the replicas of each model are replaced, by the room that its pool has. Pure."""

from __future__ import annotations

from dataclasses import replace

from components.serving.manifests.rollout import Rollout
from stacks.config.model import Model
from stacks.config.pools import PoolShape
from stacks.config.root import StackConfig
from stacks.config.rules.pools import replica_chips


def rollout(config: StackConfig, name: str) -> Rollout:
    """How one model's replicas are replaced while the stack is awake."""
    model = config.models[name]
    shape = config.cluster.accelerators[model.accelerator].shape()
    one_node = _one_node(config, model)
    # Of no use is room on a node to which the volume does not come before the old replica has ended.
    spare = not one_node and _spare(config, model.accelerator, shape)
    return replace(_rollout(model, shape, spare), one_node=one_node)


def needs_room(config: StackConfig, name: str) -> bool:
    """Whether nobody but a program of ours can make room for a change of the model (docs/adr/0010)."""
    return config.models[name].runtime is None and rollout(config, name).in_place


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


def _one_node(config: StackConfig, model: Model) -> bool:
    """Whether one node at a time mounts a volume that the model's pods need, as far as this is known.

    How a claim of somebody else's is mounted is not known. It counts as shared, as those are that several replicas
    read: else every change of such a model would interrupt it. Where it is not, `maxNodes` without a spare node does.
    """
    owner = config.claim_owner(model)
    volumes = (model.cache, owner.claim if owner else None)
    return any(volume is not None and not volume.shared for volume in volumes)
