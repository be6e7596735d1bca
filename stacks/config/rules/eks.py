"""What AWS refuses, or accepts and then never runs."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterator

from stacks.config import buckets
from stacks.config.eks import EksCluster, EksPool
from stacks.config.errors import Problem
from stacks.config.rules.draft import Draft, problem
from stacks.config.rules.networks import open_to_all, overlaps

Finding = tuple[str, str, str, str]  # key, wrong, consequence, fix
# What the system nodes must hold, in CPUs that are asked for. By the pods of the pinned charts: istiod 0.5,
# LeaderWorkerSet 1, KServe 0.3, a gateway 0.1, the autoscaler 0.1; for each routed model its endpoint picker. Estimated,
# since they could not be read here: the GPU operator with its feature discovery 0.3; of EKS's add-ons coredns,
# metrics-server and the EBS controllers 0.5, and on each node network, proxy and volumes.
_OPERATORS, _EACH_NODE, _EACH_PICKER = 2.8, 0.2, 1.0
# What a machine keeps for itself is little; an instance's size says how many CPUs it has, from `large` on in all families.
_SHARE = 0.97
_SIZES = {"large": 2, "xlarge": 4}


def _cluster(draft: Draft) -> EksCluster | None:
    cluster = draft.config.cluster
    return cluster if isinstance(cluster, EksCluster) and draft.knows("cluster", "kind") else None


def zones(draft: Draft) -> Iterator[Problem]:
    """Two zones, all of the region, none twice."""
    cluster = _cluster(draft)
    if cluster is None:
        return
    if len(set(cluster.zones)) < 2:
        yield problem(
            ("cluster", "zones"),
            f"{len(set(cluster.zones))} zone is not enough",
            "EKS refuses a cluster with subnets in fewer than two zones",
            f"name two zones, for example [{cluster.region}a, {cluster.region}b]",
        )
    for index, zone in enumerate(cluster.zones):
        if not zone.startswith(cluster.region):
            yield problem(
                ("cluster", "zones", index),
                f"{zone} is not in {cluster.region}",
                "AWS refuses the subnet",
                f"use zones of {cluster.region}",
            )
        if zone in cluster.zones[:index]:
            yield problem(
                ("cluster", "zones", index), f"{zone} is named twice", "it counts once", "name another zone"
            )


def networks(draft: Draft) -> Iterator[Problem]:
    """Overlapping ranges, a VPC that AWS refuses, an open API server."""
    cluster = _cluster(draft)
    if cluster is None:
        return
    yield from overlaps({("cluster", "vpcCidr"): cluster.vpc_cidr, ("cluster", "services"): cluster.services})
    if not 16 <= ipaddress.IPv4Network(cluster.vpc_cidr).prefixlen <= 20:
        yield problem(
            ("cluster", "vpcCidr"),
            f"{cluster.vpc_cidr} is not between /16 and /20",
            "AWS refuses larger VPCs, and smaller ones run out of pod addresses",
            "use a /16 to /20 network",
        )
    if not 12 <= ipaddress.IPv4Network(cluster.services).prefixlen <= 24:
        yield problem(
            ("cluster", "services"),
            f"{cluster.services} is not between /12 and /24",
            "EKS refuses the cluster",
            "use a /12 to /24 network",
        )
    for index, network in enumerate(cluster.endpoint.public_cidrs):
        yield from open_to_all(("cluster", "endpoint", "publicCidrs", index), network)


def system(draft: Draft) -> Iterator[Problem]:
    """Two system nodes, and names that AWS takes."""
    cluster = _cluster(draft)
    if cluster is None:
        return
    if cluster.system.nodes < 2:
        yield problem(
            ("cluster", "system", "nodes"),
            "one system node cannot hold both copies of cluster DNS",
            "a node upgrade would stop name resolution, and its disruption budget blocks the drain",
            "use 2 or more",
        )
    if cluster.bucket is not None and (fault := buckets.bucket_fault(cluster.bucket)):
        yield problem(
            ("cluster", "bucket"),
            f'S3 has no bucket "{cluster.bucket}": {fault}',
            "the model pods could not read from it",
            buckets.FIX,
        )


def room(draft: Draft) -> Iterator[Problem]:
    """The system nodes hold the operators and an endpoint picker for each model, which no other node takes."""
    cluster = _cluster(draft)
    if cluster is None or not (cpus := _cpus(cluster.system.machine_type)):
        return
    pickers = sum(model.pickers for model in draft.config.models.values() if model.routing != "none")
    nodes = cluster.most_system_nodes
    have, asked = nodes * (cpus * _SHARE - _EACH_NODE), _OPERATORS + pickers * _EACH_PICKER
    if have < asked:
        yield problem(
            ("cluster", "system"),
            f"{nodes} x {cluster.system.machine_type} has {have:.1f} CPUs for pods, and asked for are {asked:.1f}: "
            f"{_OPERATORS} by operators, {pickers * _EACH_PICKER:.1f} by the models' endpoint pickers",
            "a picker would stay Pending, its model would never be Ready, and `up` would fail when its time is over",
            f"use {math.ceil(asked / (cpus * _SHARE - _EACH_NODE))} nodes, or a larger machineType",
        )


def _cpus(machine: str) -> int:
    """The CPUs of an instance type by its size, 0 where that does not say it."""
    size = machine.rpartition(".")[2]
    times = size.removesuffix("xlarge")
    return 4 * int(times) if times.isdigit() else _SIZES.get(size, 0)


def _pool(pool: EksPool, cluster: EksCluster) -> Iterator[Finding]:
    if pool.min_nodes > pool.max_nodes:
        yield (
            "minNodes",
            f"{pool.min_nodes} is more than maxNodes ({pool.max_nodes})",
            "EKS refuses the node group",
            f"use {pool.max_nodes} or less",
        )
    if pool.zone is not None and pool.zone not in cluster.zones:
        yield (
            "zone",
            f"{pool.zone} is not one of the cluster's zones",
            "there is no subnet for its nodes",
            f"use {' or '.join(cluster.zones)}, or add it to cluster.zones",
        )


def _kept(pool: EksPool, _: EksCluster) -> Iterator[Finding]:
    kinds = (pool.capacity, *pool.keep)
    if len(set(kinds)) < len(kinds):
        yield (
            "keep",
            f"{', '.join(pool.keep)} repeats a kind of capacity that the models use or that is kept already",
            "there is one node group of each kind",
            "keep only what the models move away from",
        )


def _reservation(pool: EksPool, cluster: EksCluster) -> Iterator[Finding]:
    kinds = (pool.capacity, *pool.keep)
    if "reservation" in kinds and pool.reservation is None:
        yield (
            "reservation",
            "capacity is bought or kept by reservation, but none is named",
            "EC2 would not know which capacity to use",
            "add reservation: {id: cr-…, zone: …}",
        )
    if pool.reservation is None:
        return
    if "reservation" not in kinds:
        yield (
            "reservation",
            f"a reservation is named, but capacity is {pool.capacity}",
            "on-demand, spot and reservation exclude each other; the reservation would be paid and unused",
            "set capacity: reservation, or remove it",
        )
    zone = pool.zone or next(iter(cluster.zones), None)
    if pool.reservation.zone != zone:
        yield (
            "reservation",
            f"it is in {pool.reservation.zone}, but the nodes are in {zone}",
            "capacity cannot be used in another zone; the nodes would never start",
            f"set zone: {pool.reservation.zone} (and add it to cluster.zones)",
        )


def pools(draft: Draft) -> Iterator[Problem]:
    """Sizes, zones and capacity of each pool."""
    cluster = _cluster(draft)
    if cluster is None:
        return
    for name, pool in cluster.accelerators.items():
        for check in (_pool, _kept, _reservation):
            for field, *words in check(pool, cluster):
                yield problem(("cluster", "accelerators", name, field), *words)


RULES = (zones, networks, system, room, pools)
