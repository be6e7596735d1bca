"""The system pool of a new cluster, from its configuration."""

from __future__ import annotations

from components.clusters.system import SystemPoolArgs
from stacks.config import EksCluster, GkeCluster


def system_pool(cluster: GkeCluster | EksCluster) -> SystemPoolArgs:
    """The pool's arguments, with its greatest size filled in."""
    system = cluster.system
    return SystemPoolArgs(
        machine_type=system.machine_type,
        nodes=system.nodes,
        max_nodes=cluster.most_system_nodes,
    )
