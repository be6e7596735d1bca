"""What a GKE cluster with TPUs is made of. Pure: no SDK, no Outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from components.clusters.system import SystemPoolArgs

Capacity = Literal["on-demand", "spot", "flex-start", "reservation"]

# GKE's own limit for the names of clusters and node pools, and what Pulumi appends to make a name unique.
MAX_NAME = 40
RANDOM_SUFFIX = 8


@dataclass(frozen=True, kw_only=True)
class TpuPoolArgs:
    """TPU v6e slices of one shape.

    `hosts` are the machines of one slice, `chips` those of one machine. `min_nodes` and `max_nodes` count
    nodes over all `zones`; with several hosts, `max_nodes` is a multiple of them. `used` says whether a model names the
    pool, awake or not: one that none names may be removed. `reservation` names one with capacity `reservation`;
    `max_run_hours` is the life of a flex-start node. `keep` are the kinds of capacity that models have moved away
    from, or are about to: their pools stay for now.
    """

    machine_type: str
    topology: str
    hosts: int
    chips: int
    max_nodes: int
    zones: tuple[str, ...]
    used: bool
    min_nodes: int = 0
    capacity: Capacity = "on-demand"
    keep: tuple[Capacity, ...] = ()
    reservation: str | None = None
    max_run_hours: int = 168
    disk_gib: int = 200


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """IPv4 ranges in CIDR notation. `proxy_only` is None where no such subnet is to be made."""

    nodes: str
    pods: str
    services: str
    proxy_only: str | None = None


@dataclass(frozen=True, kw_only=True)
class MaintenanceArgs:
    """When Google may upgrade: `days` as Mon to Sun, `start` as HH:MM in UTC, `hours` from then on."""

    days: tuple[str, ...]
    start: str
    hours: int


@dataclass(frozen=True, kw_only=True)
class GkeTpuClusterArgs:
    """A cluster in one zone.

    `google_gateway` turns on Google's Gateway API, whose definitions are then Google's. `webhook_ports`
    are the ports of the pods that the API server asks. `authorized_networks` may reach the API server by
    address; empty closes that endpoint. `shared_volumes` brings the driver of network file systems. Asleep
    (`awake` false), TPU pools keep no node that nobody needs.
    """

    project: str
    zone: str
    region: str
    system: SystemPoolArgs
    network: NetworkArgs
    maintenance: MaintenanceArgs
    accelerators: Mapping[str, TpuPoolArgs] = field(default_factory=dict)
    release_channel: str = "regular"
    version: str | None = None
    dns_endpoint: bool = True
    authorized_networks: Mapping[str, str] = field(default_factory=dict)
    secrets_key: str | None = None
    deletion_protection: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    google_gateway: bool = False
    shared_volumes: bool = False
    webhook_ports: tuple[int, ...] = ()
    awake: bool = True


def pool_name(key: str, capacity: Capacity) -> str:
    """The name of a TPU pool, which is also the value of its nodes' pool label.

    Google replaces a pool whose capacity changes. With the capacity in the name the new pool
    stands beside the old one until the models have moved.
    """
    return f"{key}-{capacity}"


def pools_of(key: str, pool: TpuPoolArgs) -> Mapping[str, TpuPoolArgs]:
    """The node pools that one entry becomes, by name; those that models move away from are unused and ask for no nodes."""
    left = replace(pool, keep=(), min_nodes=0, used=False)
    former = [replace(left, capacity=capacity) for capacity in pool.keep]
    return {name: one for entry in (pool, *former) for name, one in _slices(key, entry).items()}


def _slices(key: str, pool: TpuPoolArgs) -> Mapping[str, TpuPoolArgs]:
    """The node pools of one kind of capacity.

    Google makes a pool of several machines per slice one slice, so each slice is a pool: they differ in their number
    only, and models see one pool by its label. Machines that are slices themselves share a pool.
    """
    name = pool_name(key, pool.capacity)
    if pool.hosts == 1:
        return {name: pool}
    one = replace(pool, max_nodes=pool.hosts)
    return {f"{name}-{number}": one for number in range(1, pool.max_nodes // pool.hosts + 1)}


def longest_key(cluster: str, pool: TpuPoolArgs) -> int:
    """The most characters that a pool's key may have, in a cluster component of this name."""
    rest = max(len(name) for name in pools_of("", pool))
    return MAX_NAME - RANDOM_SUFFIX - len(f"{cluster}-") - rest
