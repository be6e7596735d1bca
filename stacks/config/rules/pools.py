"""Whether the accelerators that the models ask for are there, and enough."""

from __future__ import annotations

from collections.abc import Iterator

from components.core.accelerators import ACCELERATORS
from stacks.config.errors import Problem, choice
from stacks.config.model import Model
from stacks.config.pools import PoolShape
from stacks.config.rules.draft import Draft, problem
from stacks.config.types import quantity_value

GIB = 2**30


def replica_chips(model: Model, pool: PoolShape) -> int:
    """Chips of one replica, over all nodes that serve it."""
    return model.tensor_parallel or pool.chips_per_replica


def accelerator_exists(draft: Draft) -> Iterator[Problem]:
    """A model names an accelerator of the cluster."""
    known = list(draft.config.cluster.accelerators)
    for name, model in draft.config.models.items():
        if model.accelerator in known or not draft.knows("cluster", "accelerators", model.accelerator):
            continue
        yield problem(
            ("models", name, "accelerator"),
            f'the cluster has no accelerator "{model.accelerator}"',
            "its pods would stay Pending",
            choice(model.accelerator, known) if known else "add it to llm-platform:cluster.accelerators",
        )


def tensor_parallel(draft: Draft) -> Iterator[Problem]:
    """The chips of a replica fit and fill its nodes."""
    for name, model, pool in draft.placed():
        size = model.tensor_parallel
        place = ("models", name, "tensorParallel")
        if size is None or size == pool.chips_per_replica:
            continue
        if pool.nodes_per_replica > 1:
            yield problem(place, *_part_of_slice(size, model, pool))
            continue
        whole = f"remove it, or use {pool.chips_per_node}, the chips of one node of {model.accelerator}"
        if ACCELERATORS[pool.accelerator].vendor == "google":
            yield problem(
                place,
                f"{size} is not the {pool.chips_per_node} chips of a node",
                "a TPU pod gets all chips of its node or does not start",
                whole,
            )
        elif size > pool.chips_per_node or pool.chips_per_node % size:
            divisors = [n for n in range(1, pool.chips_per_node + 1) if pool.chips_per_node % n == 0]
            yield problem(
                place,
                f"{size} does not divide the {pool.chips_per_node} chips of a node of {model.accelerator}",
                "the pods stay Pending, or chips stay idle",
                f"use {' or '.join(str(n) for n in divisors)}",
            )


def _part_of_slice(size: int, model: Model, pool: PoolShape) -> tuple[str, str, str]:
    slice_chips = pool.chips_per_replica
    nodes = f"{pool.nodes_per_replica} nodes of {pool.chips_per_node}"
    return (
        f"{size} is not the {slice_chips} chips of a slice of {model.accelerator} ({nodes})",
        "each layer is split over a whole slice, and a slice serves one replica; the engine would not start",
        f"remove it, or use {slice_chips}; for fewer chips choose a smaller topology",
    )


def demand(draft: Draft) -> Iterator[Problem]:
    """All replicas of all models on a pool fit into its largest size."""
    for name, pool in draft.pools().items():
        asked = {
            model_name: model.replicas * replica_chips(model, pool)
            for model_name, model, _ in draft.placed()
            if model.accelerator == name
        }
        capacity = pool.max_nodes * pool.chips_per_node
        if sum(asked.values()) <= capacity:
            continue
        needed = -(-sum(asked.values()) // pool.chips_per_node)
        parts = " + ".join(f"{_sum(draft, model_name, pool)} ({model_name})" for model_name in asked)
        over = next(reversed(asked)) if len(asked) == 1 else None
        place = ("models", over, "replicas") if over else ("cluster", "accelerators", name, "maxNodes")
        yield problem(
            place,
            f"{parts} = {sum(asked.values())} chips, but {name} has {capacity} "
            f"({pool.max_nodes} nodes of {pool.chips_per_node})",
            "the last replicas stay Pending and `up` fails",
            f"set cluster.accelerators.{name}.maxNodes to {needed}, or use fewer replicas",
        )


def _sum(draft: Draft, name: str, pool: PoolShape) -> str:
    model = draft.config.models[name]
    per_node = replica_chips(model, pool) // pool.nodes_per_replica
    machines = f" x {pool.nodes_per_replica} nodes" if pool.nodes_per_replica > 1 else ""
    replicas = "replica" if model.replicas == 1 else "replicas"
    return f"{model.replicas} {replicas}{machines} x {per_node} chips"


def resources_fit(draft: Draft) -> Iterator[Problem]:
    """CPU and memory requests fit a node, where its size is known."""
    for name, model, pool in draft.placed():
        wanted = model.resources
        if wanted is None:
            continue
        limits = (("cpu", wanted.cpu, pool.vcpus, 1), ("memory", wanted.memory, pool.memory_gib, GIB))
        for field, asked, available, unit in limits:
            if asked is None or available is None or quantity_value(asked) < available * unit:
                continue
            size = f"{available:g} GiB" if unit == GIB else f"{available} vCPUs"
            yield problem(
                ("models", name, "resources", field),
                f"{asked} does not fit a node of {model.accelerator}, which has {size}, less its own share",
                "its pods would stay Pending",
                "ask for less, or use a larger machine type",
            )


RULES = (accelerator_exists, tensor_parallel, demand, resources_fit)
