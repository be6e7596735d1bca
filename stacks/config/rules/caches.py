"""What a model's cache volume can hold and who can mount it."""

from __future__ import annotations

from collections.abc import Iterator

from components.core.models import GIB
from components.serving.manifests.cache import KEPT
from stacks.config.errors import Problem
from stacks.config.rules.draft import Draft, problem
from stacks.config.rules.memory import stored_gib
from stacks.config.types import quantity_value


def several_replicas(draft: Draft) -> Iterator[Problem]:
    """A volume of one node serves one replica."""
    for name, model, pool in draft.placed():
        pods = model.replicas * pool.nodes_per_replica
        if model.cache is None or model.cache.shared or pods <= 1:
            continue
        yield problem(
            ("models", name, "cache", "shared"),
            f"{pods} pods on {pods} nodes cannot mount a volume that one node mounts",
            "all but one would stay in ContainerCreating",
            "use a StorageClass of a network file system and shared: true, or one replica on one node",
        )


def room_for_weights(draft: Draft) -> Iterator[Problem]:
    """The volume holds the weights, as the hub has them."""
    for name, model in draft.config.models.items():
        weights = stored_gib(model)
        if model.cache is None or weights is None or not model.uri.startswith(KEPT):
            continue
        if quantity_value(model.cache.size) >= weights * GIB:
            continue
        yield problem(
            ("models", name, "cache", "size"),
            f"{model.cache.size} is less than the weights, which have {weights:.1f} GiB",
            "the download fails when the volume is full",
            f"use {round(weights * 1.5 + 10)}Gi or more",
        )


RULES = (several_replicas, room_for_weights)
