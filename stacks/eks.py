"""Configuration to an EKS cluster's arguments, and what is refused of it. Pure, but for a look for the SDK."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util

from components.clusters.eks.args import EksGpuClusterArgs, GpuPoolArgs, longest_key
from stacks.config import EksCluster, Problem, StackConfig
from stacks.config.eks import EksPool
from stacks.config.errors import path_of
from stacks.config.machines import GPU_MACHINES
from stacks.cost import needed_nodes
from stacks.storage import readers
from stacks.system_pool import system_pool

# Pulumi's name of the component, and with it the beginning of its parts' names.
NAME = "cluster"


def eks_cluster_args(config: StackConfig) -> EksGpuClusterArgs:
    """The arguments of the cluster of a stack whose cluster has kind eks."""
    cluster = _eks(config)
    return EksGpuClusterArgs(
        region=cluster.region,
        zones=cluster.zones,
        account=cluster.account_id,
        version=cluster.version,
        system=system_pool(cluster),
        vpc_cidr=cluster.vpc_cidr,
        services_cidr=cluster.services,
        nat_per_zone=cluster.nat == "per-zone",
        public_cidrs=cluster.endpoint.public_cidrs,
        admin_roles=cluster.admin_roles,
        viewer_roles=cluster.viewer_roles,
        bucket=cluster.bucket,
        readers=readers(config),
        deletion_protection=cluster.deletion_protection,
        tags=dict(cluster.tags),
        accelerators={key: _pool(config, key) for key in sorted(cluster.accelerators)},
        awake=config.power != "asleep",
    )


def _eks(config: StackConfig) -> EksCluster:
    if not isinstance(config.cluster, EksCluster):
        raise TypeError(f"the cluster is of kind {config.cluster.kind}, not eks")
    return config.cluster


def _pool(config: StackConfig, key: str) -> GpuPoolArgs:
    cluster = _eks(config)
    pool = cluster.accelerators[key]
    machine = GPU_MACHINES[pool.instance_type]
    return GpuPoolArgs(
        instance_type=pool.instance_type,
        gpus=machine.gpus,
        nvme_gb=machine.nvme_gb,
        zone=pool.zone or cluster.zones[0],
        min_nodes=pool.min_nodes,
        max_nodes=pool.max_nodes,
        needed=needed_nodes(config, key),
        used=any(model.accelerator == key for model in config.models.values()),
        capacity=pool.capacity,
        keep=pool.keep,
        reservation=pool.reservation.id if pool.reservation else None,
        storage=pool.storage,
        disk_gib=pool.disk_gib,
    )


def eks_problems(config: StackConfig) -> list[Problem]:
    """What AWS would refuse of a valid configuration; none for other kinds."""
    if not isinstance(config.cluster, EksCluster):
        return []
    return [*_missing_sdk(), *_long_names(config)]


def _missing_sdk() -> Iterator[Problem]:
    """Asks whether it is installed; importing it is the component's business."""
    if util.find_spec("pulumi_aws") is None:
        yield Problem(
            path_of("cluster", "kind"),
            "Amazon's SDK for Pulumi is not installed",
            "no cluster would be created",
            "run: pip install -r requirements-aws.txt",
        )


def _long_names(config: StackConfig) -> Iterator[Problem]:
    pools: dict[str, EksPool] = dict(_eks(config).accelerators)
    for key in sorted(pools):
        longest = longest_key(NAME, _pool(config, key))
        if len(key) > longest:
            yield Problem(
                path_of("cluster", "accelerators", key),
                f"the name has {len(key)} characters",
                "EKS refuses node groups with names of more than 63, and ours end in the kind of capacity",
                f"use {longest} characters at most",
            )
