"""Configuration to a GKE cluster's arguments, and what is refused of it. Pure, but for a look for the SDK."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import util
from types import MappingProxyType

from components.clusters.gke.args import (
    GkeTpuClusterArgs,
    MaintenanceArgs,
    NetworkArgs,
    TpuPoolArgs,
    longest_key,
)
from stacks.config import Problem, StackConfig
from stacks.config.errors import path_of
from stacks.config.gke import GkeCluster, GkePool
from stacks.system_pool import system_pool
from stacks.translate import operators

# Pulumi's name of the component, and with it the beginning of its parts' names.
NAME = "cluster"
# The port at which the API server asks an operator's pods, as its pinned charts have it; a test renders them.
WEBHOOK_PORTS: Mapping[str, int] = MappingProxyType(
    {"cert-manager": 10250, "istio": 15017, "kserve": 9443, "leader-worker-set": 9443}
)
FLEX_START_HOURS = 168
# GKE wants 48 hours of maintenance in any 32 days, and counts windows from four hours on: four weeks of them.
WEEKLY_MAINTENANCE_HOURS = 12


def gke_cluster_args(config: StackConfig) -> GkeTpuClusterArgs:
    """The arguments of the cluster of a stack whose cluster has kind gke."""
    cluster = _gke(config)
    return GkeTpuClusterArgs(
        project=cluster.project,
        zone=cluster.zone,
        region=cluster.region,
        system=system_pool(cluster),
        network=_network(config, cluster),
        maintenance=MaintenanceArgs(
            days=cluster.maintenance.days,
            start=cluster.maintenance.start,
            hours=cluster.maintenance.hours,
        ),
        accelerators={key: _pool(config, key) for key in sorted(cluster.accelerators)},
        release_channel=cluster.release_channel,
        version=cluster.version,
        dns_endpoint=cluster.control_plane.dns_endpoint,
        authorized_networks=dict(cluster.control_plane.authorized_networks),
        secrets_key=cluster.secrets_key,
        deletion_protection=cluster.deletion_protection,
        labels=dict(cluster.labels),
        google_gateway=config.gateway.kind == "gke",
        shared_volumes=any(model.cache and model.cache.shared for model in config.models.values()),
        webhook_ports=webhook_ports(config),
        awake=config.power != "asleep",
    )


def webhook_ports(config: StackConfig) -> tuple[int, ...]:
    """Ports that the API server must reach on nodes, for the operators that this stack installs."""
    managed, _ = operators(config)
    return tuple(sorted({port for name, port in WEBHOOK_PORTS.items() if name in managed}))


def _gke(config: StackConfig) -> GkeCluster:
    if not isinstance(config.cluster, GkeCluster):
        raise TypeError(f"the cluster is of kind {config.cluster.kind}, not gke")
    return config.cluster


def _network(config: StackConfig, cluster: GkeCluster) -> NetworkArgs:
    network = cluster.network
    wanted = config.gateway.kind == "gke" and not network.shared_proxy_only_subnet
    return NetworkArgs(
        nodes=network.nodes,
        pods=network.pods,
        services=network.services,
        proxy_only=network.proxies if wanted else None,
    )


def _pool(config: StackConfig, key: str) -> TpuPoolArgs:
    cluster = _gke(config)
    pool = cluster.accelerators[key]
    shape = pool.shape()
    return TpuPoolArgs(
        machine_type=pool.machine_type,
        topology=pool.topology,
        hosts=shape.nodes_per_replica,
        chips=shape.chips_per_node,
        min_nodes=pool.min_nodes,
        max_nodes=pool.max_nodes,
        zones=pool.zones or (cluster.zone,),
        used=any(model.accelerator == key for model in config.models.values()),
        capacity=pool.capacity,
        keep=pool.keep,
        reservation=pool.reservation,
        max_run_hours=pool.max_run_hours or FLEX_START_HOURS,
        disk_gib=pool.disk_gib,
    )


def gke_problems(config: StackConfig) -> list[Problem]:
    """What Google would refuse, or take for something else, of a valid configuration; none for other kinds."""
    if not isinstance(config.cluster, GkeCluster):
        return []
    return [*_missing_sdk(), *_long_names(config), *_short_maintenance(config.cluster)]


def _missing_sdk() -> Iterator[Problem]:
    """Asks whether it is installed; importing it is the component's business."""
    if util.find_spec("pulumi_gcp") is None:
        yield Problem(
            path_of("cluster", "kind"),
            "Google's SDK for Pulumi is not installed",
            "no cluster would be created",
            "run: pip install -r requirements-gcp.txt",
        )


def _long_names(config: StackConfig) -> Iterator[Problem]:
    pools: dict[str, GkePool] = dict(_gke(config).accelerators)
    for key in sorted(pools):
        longest = longest_key(NAME, _pool(config, key))
        if len(key) > longest:
            yield Problem(
                path_of("cluster", "accelerators", key),
                f"the name has {len(key)} characters",
                "GKE refuses node pools with names of more than 40, and ours end in the kind of capacity",
                f"use {longest} characters at most",
            )


def _short_maintenance(cluster: GkeCluster) -> Iterator[Problem]:
    window = cluster.maintenance
    hours = len(set(window.days)) * window.hours
    if hours < WEEKLY_MAINTENANCE_HOURS:
        yield Problem(
            path_of("cluster", "maintenance"),
            f"{len(set(window.days))} days of {window.hours} hours are {hours} hours a week",
            "GKE refuses the window: it wants 48 hours in any 32 days",
            f"add days or hours until they make {WEEKLY_MAINTENANCE_HOURS} a week",
        )
