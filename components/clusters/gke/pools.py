"""Inputs of node pools, and what models need to know of them. Pure.

What Google refuses, replaces or silently ignores decides almost every line. Sources: the argument
documentation of pulumi-gcp 10.2, `resource_container_node_pool.go` and `node_config.go` of the
provider beneath it, and Google's cluster-toolkit and xpk for TPU v6e.

`initial_node_count` is never set: changing it replaces the pool. `node_config`'s kubelet settings
are left to the cluster's defaults: a block that is set in part differs in every preview.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from components.clusters.gke.args import TpuPoolArgs, pool_name
from components.clusters.handle import AcceleratorPool
from components.clusters.system import SystemPoolArgs
from components.core import labels
from components.core.accelerators import ACCELERATORS

TPU = ACCELERATORS["tpu-v6e"]
TOPOLOGY_LABEL = "cloud.google.com/gke-tpu-topology"
SYSTEM = "system"
SYSTEM_DISK_GIB = 100
SECONDS_PER_HOUR = 3600
# TPU v6e machines take no persistent disks of the older kinds.
TPU_DISK = "hyperdisk-balanced"
# GKE adds labels of its own to both maps. On the wire, and in these paths, names are in camelCase: a path in
# snake_case would ignore nothing and say nothing.
GOOGLES_OWN = ("nodeConfig.labels", "nodeConfig.resourceLabels")
# Accelerators are scarce: the default would ask for a spare machine first, and wait for it.
_NO_SPARE_NODE = {"strategy": "SURGE", "max_surge": 0, "max_unavailable": 1}
_ANY_RESERVATION_BUT_NONE = {"consume_reservation_type": "NO_RESERVATION"}

Fragment = dict[str, Any]


def _reserved(pool: TpuPoolArgs) -> Fragment:
    affinity = {
        "consume_reservation_type": "SPECIFIC_RESERVATION",
        "key": "compute.googleapis.com/reservation-name",
        "values": [pool.reservation],
    }
    return {"reservation_affinity": affinity}


def _flex_start(pool: TpuPoolArgs) -> Fragment:
    return {
        "flex_start": True,
        "max_run_duration": f"{pool.max_run_hours * SECONDS_PER_HOUR}s",
        "reservation_affinity": _ANY_RESERVATION_BUT_NONE,
    }


# What each kind of capacity adds to the nodes. The kinds exclude each other.
CAPACITIES: Mapping[str, Callable[[TpuPoolArgs], Fragment]] = MappingProxyType(
    {
        "on-demand": lambda pool: {},
        "spot": lambda pool: {"spot": True, "reservation_affinity": _ANY_RESERVATION_BUT_NONE},
        "flex-start": _flex_start,
        "reservation": _reserved,
    }
)


def accelerator_pool(key: str, pool: TpuPoolArgs) -> AcceleratorPool:
    """What models need to know of a pool. Pods select it by our label; GKE wants its own two beside it."""
    return AcceleratorPool(
        accelerator=TPU,
        node_selector={
            **TPU.node_selector,
            TOPOLOGY_LABEL: pool.topology,
            labels.POOL: pool_name(key, pool.capacity),
        },
        tolerations=TPU.tolerations,
        chips_per_node=pool.chips,
        max_nodes=pool.max_nodes,
        nodes_per_replica=pool.hosts,
    )


def tpu_pool(
    key: str, pool: TpuPoolArgs, account: Any, resource_labels: Mapping[str, str], awake: bool
) -> Fragment:
    """A TPU pool's inputs but for its cluster; `account` is the e-mail address of its nodes' account."""
    node = {
        **_node(pool.machine_type, account, resource_labels),
        "boot_disk": {"disk_type": TPU_DISK, "size_gb": pool.disk_gib},
        "gvnic": {"enabled": True},
        # Only our own: the labels of TPUs are GKE's to set.
        "labels": {labels.POOL: pool_name(key, pool.capacity)},
        "taints": [_taint(toleration) for toleration in TPU.tolerations],
        **CAPACITIES[pool.capacity](pool),
    }
    inputs = {
        "node_locations": list(pool.zones),
        "autoscaling": tpu_sizes(pool, awake),
        "ignore_node_count_changes": True,
        # A repair would start a flex-start node's life anew, which Google refuses.
        "management": {"auto_repair": pool.capacity != "flex-start", "auto_upgrade": True},
        "upgrade_settings": _NO_SPARE_NODE,
        "network_config": {"enable_private_nodes": True},
        "node_config": node,
    }
    return {**inputs, **_placement(pool)}


def tpu_sizes(pool: TpuPoolArgs, awake: bool) -> Fragment:
    """Limits within which GKE itself sizes a pool.

    Asleep, only the floor goes: without pods the autoscaler removes the nodes. A ceiling of zero would be dropped
    by the provider; a `node_count` of zero would change nothing where the last known count is zero already.
    The plain limits count nodes per zone; over several zones the total does, which Google refuses for
    slices of several hosts.
    """
    floor = pool.min_nodes if awake else 0
    prefix = "total_" if len(pool.zones) > 1 else ""
    return {
        f"{prefix}min_node_count": floor,
        f"{prefix}max_node_count": pool.max_nodes,
        "location_policy": "ANY",
    }


def _placement(pool: TpuPoolArgs) -> Fragment:
    """A slice of several machines needs them side by side; for one machine Google refuses a topology."""
    if pool.hosts == 1:
        return {}
    return {"placement_policy": {"type": "COMPACT", "tpu_topology": pool.topology}}


def system_pool(pool: SystemPoolArgs, account: Any, resource_labels: Mapping[str, str]) -> Fragment:
    """The system pool's inputs but for its cluster.

    `node_count` gives it nodes from the start. Beside an autoscaler that is safe only with
    `ignore_node_count_changes`: what the autoscaler adds is then never read back as drift.
    """
    node = {
        **_node(pool.machine_type, account, resource_labels),
        "boot_disk": {"size_gb": SYSTEM_DISK_GIB},
        "labels": {labels.POOL: SYSTEM},
    }
    return {
        "node_count": pool.nodes,
        "autoscaling": {
            "min_node_count": pool.nodes,
            "max_node_count": pool.max_nodes,
            "location_policy": "BALANCED",
        },
        "ignore_node_count_changes": True,
        "management": {"auto_repair": True, "auto_upgrade": True},
        "upgrade_settings": {"strategy": "SURGE", "max_surge": 1, "max_unavailable": 0},
        "network_config": {"enable_private_nodes": True},
        "node_config": node,
    }


def _node(machine_type: str, account: Any, resource_labels: Mapping[str, str]) -> Fragment:
    """What all nodes have: an account of their own, no old metadata server, verified boot, streamed images."""
    return {
        "machine_type": machine_type,
        "service_account": account,
        # What the account may do is decided by its roles alone.
        "oauth_scopes": ["https://www.googleapis.com/auth/cloud-platform"],
        "metadata": {"disable-legacy-endpoints": "true"},
        "workload_metadata_config": {"mode": "GKE_METADATA"},
        "shielded_instance_config": {"enable_secure_boot": True, "enable_integrity_monitoring": True},
        "gcfs_config": {"enabled": True},
        "resource_labels": dict(resource_labels),
    }


# Google's API spells effects in its own way.
_EFFECTS = {"NoSchedule": "NO_SCHEDULE", "NoExecute": "NO_EXECUTE", "PreferNoSchedule": "PREFER_NO_SCHEDULE"}


def _taint(toleration: Mapping[str, Any]) -> Fragment:
    """The taint that a toleration is for."""
    return {
        "key": toleration["key"],
        "value": toleration["value"],
        "effect": _EFFECTS[toleration["effect"]],
    }
