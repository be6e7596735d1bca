"""What an EKS cluster with GPUs is made of. Pure: no SDK, no Outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import Literal

from components.clusters.system import SystemPoolArgs

Capacity = Literal["on-demand", "spot", "reservation"]
Storage = Literal["instance-store", "ebs"]

# EKS's limit for names of clusters is 100 and of node groups 63; what Pulumi appends to make a name unique.
MAX_NODE_GROUP_NAME = 63
RANDOM_SUFFIX = 8
# Private subnets are eighths of the VPC, and the last eighth holds the public ones: room for six zones and more.
_EIGHTHS = 3


@dataclass(frozen=True, kw_only=True)
class GpuPoolArgs:
    """Nodes of one instance type in one zone.

    `gpus` are those of one machine and `nvme_gb` its instance store. `min_nodes` to `max_nodes` are the sizes that it
    may have, `needed` the nodes that the models fill. `used` says whether a model names the pool, awake or not: one that
    none names may be removed. `reservation` is the id of a capacity reservation, with capacity `reservation`. `keep`
    are the kinds of capacity that models have moved away from, or are about to: their node groups stay for now.
    """

    instance_type: str
    gpus: int
    nvme_gb: int
    zone: str
    max_nodes: int
    needed: int
    used: bool
    min_nodes: int = 0
    capacity: Capacity = "on-demand"
    keep: tuple[Capacity, ...] = ()
    reservation: str | None = None
    storage: Storage = "instance-store"
    disk_gib: int = 200


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A service account that may read the bucket of model weights."""

    namespace: str
    account: str


@dataclass(frozen=True, kw_only=True)
class EksGpuClusterArgs:
    """A cluster over several zones of a region.

    `account` is the only AWS account that the stack may run in, None for any. `public_cidrs` may reach the API server
    from outside the VPC; empty closes that endpoint. `admin_roles` and `viewer_roles` are ARNs of IAM roles.
    `bucket` is read by `readers`. Asleep (`awake` false), GPU pools keep no node that nobody needs.
    """

    region: str
    zones: tuple[str, ...]
    system: SystemPoolArgs
    vpc_cidr: str
    services_cidr: str
    account: str | None = None
    version: str | None = None
    nat_per_zone: bool = False
    public_cidrs: tuple[str, ...] = ()
    admin_roles: tuple[str, ...] = ()
    viewer_roles: tuple[str, ...] = ()
    bucket: str | None = None
    readers: tuple[Reader, ...] = ()
    deletion_protection: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    accelerators: Mapping[str, GpuPoolArgs] = field(default_factory=dict)
    awake: bool = True


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """IPv4 ranges of one zone."""

    private: str
    public: str


def ranges(vpc_cidr: str, zones: tuple[str, ...]) -> dict[str, Ranges]:
    """The subnets of each zone. Nodes and pods are in the private one, load balancers and NAT in the public one.

    The ranges of a zone depend on its place in the list only, so a zone that is appended moves no other.
    """
    eighths = list(IPv4Network(vpc_cidr).subnets(prefixlen_diff=_EIGHTHS))
    public = list(eighths[-1].subnets(prefixlen_diff=_EIGHTHS))
    return {
        zone: Ranges(private=str(eighths[index]), public=str(public[index]))
        for index, zone in enumerate(zones)
    }


def pool_name(key: str, capacity: Capacity) -> str:
    """The name of a GPU pool, which is also the value of its nodes' pool label.

    AWS replaces a node group whose capacity changes. With the capacity in the name the new group stands beside the
    old one until the models have moved.
    """
    return f"{key}-{capacity}"


def pools_of(key: str, pool: GpuPoolArgs) -> Mapping[str, GpuPoolArgs]:
    """The node groups that one entry becomes, by name; those that models move away from are unused and ask for no nodes."""
    left = replace(pool, keep=(), min_nodes=0, needed=0, used=False)
    former = [replace(left, capacity=kind) for kind in pool.keep]
    return {pool_name(key, one.capacity): one for one in (pool, *former)}


def longest_key(cluster: str, pool: GpuPoolArgs) -> int:
    """The most characters that a pool's key may have, in a cluster component of this name."""
    rest = max(len(name) for name in pools_of("", pool))
    return MAX_NODE_GROUP_NAME - RANDOM_SUFFIX - len(f"{cluster}-") - rest
