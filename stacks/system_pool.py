"""The system pool of a new cluster, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from components.clusters.system import SystemPoolArgs
from stacks.config import EksCluster, GkeCluster

# How many times its first size the pool may have unless the configuration says so. GKE adds and removes machines by
# itself; on EKS the autoscaler runs on these nodes, and only GPU node groups carry its tags.
GROWTH: Mapping[str, int] = MappingProxyType({"gke": 2, "eks": 1})


def system_pool(cluster: GkeCluster | EksCluster) -> SystemPoolArgs:
    """The pool's arguments, with its greatest size filled in."""
    system = cluster.system
    return SystemPoolArgs(
        machine_type=system.machine_type,
        nodes=system.nodes,
        max_nodes=system.max_nodes or GROWTH[cluster.kind] * system.nodes,
    )
