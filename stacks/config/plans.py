"""How the replicas of each model are replaced, by the room that its pool has. Pure."""

from __future__ import annotations

from dataclasses import replace

from components.serving.manifests import claim as claims
from components.serving.manifests.rollout import Rollout
from stacks.config.model import Model
from stacks.config.pools import PoolShape
from stacks.config.root import StackConfig
from stacks.config.rules.pools import replica_chips
from stacks.config.storage import ModelClaim


def rollout(config: StackConfig, name: str) -> Rollout:
    """How one model's replicas are replaced while the stack is awake."""
    model = config.models[name]
    shape = config.cluster.accelerators[model.accelerator].shape()
    one_node = _one_node(config, model)
    # Of no use is room on a node to which the volume does not come before the old replica has ended.
    spare = not one_node and _spare(config, model.accelerator, shape)
    return replace(_rollout(model, shape, spare), one_node=one_node)


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
    volumes = (model.cache, _claim(config, model))
    return any(volume is not None and not volume.shared for volume in volumes)


def _claim(config: StackConfig, model: Model) -> ModelClaim | None:
    """What describes the claim that a model's weights are in, in its own entry or another's; None where none does."""
    if not model.uri.startswith(claims.SCHEME):
        return None
    key = (model.namespace, claims.parts(model.uri)[0])
    described = (each for each in config.models.values() if each.claim)
    return next(
        (each.claim for each in described if (each.namespace, claims.parts(each.uri)[0]) == key),
        None,
    )
