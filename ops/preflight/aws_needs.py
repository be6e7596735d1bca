"""What a stack asks of AWS, from its configuration alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from components.clusters.eks.args import EksGpuClusterArgs, pools_of
from stacks.config import StackConfig
from stacks.eks import eks_cluster_args

_S3 = "s3://"


@dataclass(frozen=True)
class Quota:
    """A quota of Service Quotas, by its codes."""

    service: str
    code: str
    title: str


# https://docs.aws.amazon.com/general/latest/gr/ec2-service.html and …/vpc-service.html, read in November 2026.
GPU = Quota("ec2", "L-DB2E81BA", "vCPUs of running on-demand G and VT instances")
GPU_SPOT = Quota("ec2", "L-3819A6DF", "vCPUs of G and VT spot requests")
STANDARD = Quota("ec2", "L-1216C47A", "vCPUs of running on-demand standard instances")
ADDRESSES = Quota("ec2", "L-0263D0A3", "elastic addresses")
VPCS = Quota("vpc", "L-F678F1CE", "VPCs")
INTERNET_GATEWAYS = Quota("vpc", "L-A4707A72", "internet gateways")
NATS = Quota("vpc", "L-FE5A380F", "NAT gateways per zone")
QUOTAS = (GPU, GPU_SPOT, STANDARD, ADDRESSES, VPCS, INTERNET_GATEWAYS, NATS)
# Families by the letters that their types begin with; the others have quotas of their own.
STANDARD_FAMILIES = frozenset({"a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"})
GPU_FAMILIES = frozenset({"g", "gr", "vt"})


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A GPU pool at its largest. `reservation` is the id of the capacity that it stands in."""

    zone: str
    instance_type: str
    max_nodes: int
    capacity: str
    reservation: str | None


@dataclass(frozen=True, kw_only=True)
class AwsNeeds:
    """`account` is the only one that is allowed, None for any. `nats` are the zones with a NAT gateway.

    `system` is the system pool's type and most machines. `ranges` are networks by what they are for. `weights` are the
    beginnings of objects' names in the bucket, by model. `roles` get access to the cluster, by the field that says so.
    """

    region: str
    zones: tuple[str, ...]
    account: str | None
    version: str | None
    system: tuple[str, int]
    pools: Mapping[str, Pool]
    nats: tuple[str, ...]
    ranges: Mapping[str, str]
    public_cidrs: tuple[str, ...]
    roles: Mapping[str, tuple[str, ...]]
    bucket: str | None
    weights: Mapping[str, str]

    @property
    def machines(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """(zone, instance type) by pool."""
        pools = {f"pool {name}": ((pool.zone, pool.instance_type),) for name, pool in self.pools.items()}
        return {"the system pool": tuple((zone, self.system[0]) for zone in self.zones), **pools}

    @property
    def spot(self) -> bool:
        """Whether a pool buys spot capacity."""
        return any(pool.capacity == "spot" for pool in self.pools.values())


def aws_needs(config: StackConfig) -> AwsNeeds:
    """The needs of a stack whose cluster has kind eks."""
    args = eks_cluster_args(config)
    return AwsNeeds(
        region=args.region,
        zones=args.zones,
        account=args.account,
        version=args.version,
        system=(args.system.machine_type, args.system.max_nodes),
        pools=dict(_pools(args)),
        nats=args.zones if args.nat_per_zone else args.zones[:1],
        ranges={"the VPC": args.vpc_cidr, "services": args.services_cidr},
        public_cidrs=args.public_cidrs,
        roles={"adminRoles": args.admin_roles, "viewerRoles": args.viewer_roles},
        bucket=args.bucket,
        weights=_weights(config, args.bucket),
    )


def _pools(args: EksGpuClusterArgs) -> Iterator[tuple[str, Pool]]:
    for key, entry in sorted(args.accelerators.items()):
        for name, pool in pools_of(key, entry).items():
            yield (
                name,
                Pool(
                    zone=pool.zone,
                    instance_type=pool.instance_type,
                    max_nodes=pool.max_nodes,
                    capacity=pool.capacity,
                    reservation=pool.reservation if pool.capacity == "reservation" else None,
                ),
            )


def _weights(config: StackConfig, bucket: str | None) -> dict[str, str]:
    """None of them with a store of the stack's own, where every s3:// is."""
    if bucket is None or config.storage is not None:
        return {}
    mine = f"{_S3}{bucket}/"
    uris = {name: model.origin for name, model in sorted(config.models.items())}
    return {name: uri.removeprefix(mine) for name, uri in uris.items() if uri.startswith(mine)}


def quota_of(instance_type: str) -> Quota | None:
    """The quota that on-demand machines of a type count in; None for families with one of their own."""
    family = re.split(r"\d", instance_type, maxsplit=1)[0]
    return GPU if family in GPU_FAMILIES else STANDARD if family in STANDARD_FAMILIES else None
