"""The nodes that an existing cluster of a stack would have, with the labels and taints of real ones."""

from __future__ import annotations

from collections.abc import Iterable

from components.core.accelerators import ACCELERATORS, Accelerator
from rehearsal.node.nodes import SYSTEM, NodeShape
from stacks.config import ExistingCluster, StackConfig

BASE = {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "200Gi", "pods": "110"}


def shapes(config: StackConfig) -> list[NodeShape]:
    """A system node, and `maxNodes` nodes for each accelerator pool of an existing cluster."""
    if not isinstance(config.cluster, ExistingCluster):
        return [SYSTEM]
    pools = sorted(config.cluster.accelerators.items())
    return [
        SYSTEM,
        *(s for key, pool in pools for s in _pool(key, pool.type, pool.per_node, pool.max_nodes, pool)),
    ]


def _pool(key: str, kind: str, per_node: int, nodes: int, pool) -> Iterable[NodeShape]:
    accelerator = ACCELERATORS[kind]
    labels = {**accelerator.node_selector, **(pool.node_selector or {}), **_discovered(accelerator, per_node)}
    taint = {"key": accelerator.resource, "value": "present", "effect": "NoSchedule"}
    for index in range(nodes):
        yield NodeShape(f"{key}-{index}", {**BASE, accelerator.resource: str(per_node)}, labels, (taint,))


def _discovered(accelerator: Accelerator, per_node: int) -> dict[str, str]:
    """Labels that NVIDIA's feature discovery adds to a node."""
    if accelerator.vendor != "nvidia":
        return {}
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": str(per_node),
        "nvidia.com/gpu.memory": str(int(accelerator.memory_gib * 1024)),
    }
