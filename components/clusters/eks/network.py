"""The network of a cluster: private nodes, a way out for them, and short ways to AWS's own services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pulumi
import pulumi_aws as aws

from components.clusters.eks.args import EksGpuClusterArgs, Ranges, ranges
from components.clusters.scope import Scope

ANYWHERE = "0.0.0.0/0"
HTTPS = 443
# Load balancers and their network interfaces go some minutes after their Service, and until then AWS refuses to
# delete what they stand in.
DELETE_MINUTES = "20m"
# By these tags the controllers of load balancers find subnets.
PUBLIC_TAGS: Mapping[str, str] = MappingProxyType({"kubernetes.io/role/elb": "1"})
PRIVATE_TAGS: Mapping[str, str] = MappingProxyType({"kubernetes.io/role/internal-elb": "1"})
# Images come this way, and not through NAT, which bills by the gigabyte; the layers themselves are in S3.
INTERFACES = ("ecr.api", "ecr.dkr")


@dataclass(frozen=True, kw_only=True)
class Network:
    """What the cluster is put in: subnets by zone, and what is `needed` before nodes can start."""

    private: Mapping[str, pulumi.Output[str]]
    public: Mapping[str, pulumi.Output[str]]
    needed: tuple[pulumi.Resource, ...]


def build_network(scope: Scope, args: EksGpuClusterArgs) -> Network:
    """A VPC of the cluster's own over the zones."""
    vpc = aws.ec2.Vpc(
        f"{scope.name}-network",
        cidr_block=args.vpc_cidr,
        # Both are needed for the private endpoint of the API server and of services.
        enable_dns_hostnames=True,
        enable_dns_support=True,
        tags=named(scope, "network"),
        opts=scope.options(delete=DELETE_MINUTES),
    )
    # Everything in the VPC without a security group of its own is in this one; it lets nothing through.
    aws.ec2.DefaultSecurityGroup(f"{scope.name}-default-group", vpc_id=vpc.id, opts=scope.options())
    zones = ranges(args.vpc_cidr, args.zones)
    public = _public(scope, vpc, zones)
    private, ways = _private(scope, args, vpc, zones, public)
    endpoints = _endpoints(scope, args, vpc, private, ways)
    return Network(
        private={zone: subnet.id for zone, subnet in private.items()},
        public={zone: subnet.id for zone, subnet in public.subnets.items()},
        needed=(*public.needed, *(part for way in ways.values() for part in way.needed), *endpoints),
    )


def named(scope: Scope, role: str, tags: Mapping[str, str] | None = None) -> dict[str, str]:
    """Tags with the name that AWS's console shows."""
    return {"Name": f"{scope.name}-{role}", **(tags or {})}


@dataclass(frozen=True, kw_only=True)
class _Public:
    subnets: Mapping[str, aws.ec2.Subnet]
    needed: tuple[pulumi.Resource, ...]


@dataclass(frozen=True, kw_only=True)
class _Way:
    """The routes of the private subnet of a zone."""

    table: aws.ec2.RouteTable
    needed: tuple[pulumi.Resource, ...]


def _public(scope: Scope, vpc: aws.ec2.Vpc, zones: Mapping[str, Ranges]) -> _Public:
    """Subnets of load balancers and NAT; what is put there has a public address only if it asks for one."""
    gateway = aws.ec2.InternetGateway(
        f"{scope.name}-internet",
        vpc_id=vpc.id,
        tags=named(scope, "internet"),
        opts=scope.options(delete=DELETE_MINUTES),
    )
    table = _table(scope, vpc, "public")
    route = aws.ec2.Route(
        f"{scope.name}-public-way-out",
        route_table_id=table.id,
        destination_cidr_block=ANYWHERE,
        gateway_id=gateway.id,
        opts=scope.options(),
    )
    subnets = {
        zone: _subnet(scope, vpc, zone, "public", block.public, PUBLIC_TAGS) for zone, block in zones.items()
    }
    joined = [_join(scope, f"public-{zone}", subnet.id, table.id) for zone, subnet in subnets.items()]
    return _Public(subnets=subnets, needed=(route, *joined))


def _private(
    scope: Scope,
    args: EksGpuClusterArgs,
    vpc: aws.ec2.Vpc,
    zones: Mapping[str, Ranges],
    public: _Public,
) -> tuple[dict[str, aws.ec2.Subnet], dict[str, _Way]]:
    """Subnets of nodes and pods, each with its routes. One NAT serves all zones, or each zone its own."""
    homes = args.zones if args.nat_per_zone else args.zones[:1]
    gateways = {zone: _nat(scope, zone, public) for zone in homes}
    subnets = {
        zone: _subnet(scope, vpc, zone, "private", block.private, PRIVATE_TAGS)
        for zone, block in zones.items()
    }
    ways = {
        zone: _way(scope, vpc, zone, subnet, gateways.get(zone, gateways[homes[0]]))
        for zone, subnet in subnets.items()
    }
    return subnets, ways


def _nat(scope: Scope, zone: str, public: _Public) -> aws.ec2.NatGateway:
    address = aws.ec2.Eip(
        f"{scope.name}-nat-address-{zone}",
        domain="vpc",
        tags=named(scope, f"nat-{zone}"),
        opts=scope.options(),
    )
    return aws.ec2.NatGateway(
        f"{scope.name}-nat-{zone}",
        allocation_id=address.id,
        subnet_id=public.subnets[zone].id,
        tags=named(scope, f"nat-{zone}"),
        # Without the way out of its subnet it fails, and never recovers.
        opts=scope.options(after=public.needed),
    )


def _way(scope: Scope, vpc: aws.ec2.Vpc, zone: str, subnet: aws.ec2.Subnet, nat: aws.ec2.NatGateway) -> _Way:
    table = _table(scope, vpc, f"private-{zone}")
    route = aws.ec2.Route(
        f"{scope.name}-private-way-out-{zone}",
        route_table_id=table.id,
        destination_cidr_block=ANYWHERE,
        nat_gateway_id=nat.id,
        opts=scope.options(),
    )
    return _Way(table=table, needed=(route, _join(scope, f"private-{zone}", subnet.id, table.id)))


def _table(scope: Scope, vpc: aws.ec2.Vpc, name: str) -> aws.ec2.RouteTable:
    return aws.ec2.RouteTable(
        f"{scope.name}-routes-{name}", vpc_id=vpc.id, tags=named(scope, name), opts=scope.options()
    )


def _join(
    scope: Scope, name: str, subnet: pulumi.Output[str], table: pulumi.Output[str]
) -> aws.ec2.RouteTableAssociation:
    return aws.ec2.RouteTableAssociation(
        f"{scope.name}-routes-of-{name}", subnet_id=subnet, route_table_id=table, opts=scope.options()
    )


def _subnet(
    scope: Scope, vpc: aws.ec2.Vpc, zone: str, kind: str, block: str, tags: Mapping[str, str]
) -> aws.ec2.Subnet:
    return aws.ec2.Subnet(
        f"{scope.name}-{kind}-{zone}",
        vpc_id=vpc.id,
        availability_zone=zone,
        cidr_block=block,
        map_public_ip_on_launch=False,
        tags=named(scope, f"{kind}-{zone}", tags),
        opts=scope.options(delete=DELETE_MINUTES),
    )


def _endpoints(
    scope: Scope,
    args: EksGpuClusterArgs,
    vpc: aws.ec2.Vpc,
    subnets: Mapping[str, aws.ec2.Subnet],
    ways: Mapping[str, _Way],
) -> tuple[pulumi.Resource, ...]:
    """Ways to S3 and the registry inside of AWS. That to S3 is free of charge."""
    storage = aws.ec2.VpcEndpoint(
        f"{scope.name}-endpoint-s3",
        vpc_id=vpc.id,
        service_name=f"com.amazonaws.{args.region}.s3",
        vpc_endpoint_type="Gateway",
        route_table_ids=[way.table.id for way in ways.values()],
        tags=named(scope, "s3"),
        opts=scope.options(),
    )
    group = aws.ec2.SecurityGroup(
        f"{scope.name}-endpoints",
        vpc_id=vpc.id,
        description="HTTPS from the VPC to endpoints of AWS services",
        tags=named(scope, "endpoints"),
        opts=scope.options(delete=DELETE_MINUTES),
    )
    door = aws.vpc.SecurityGroupIngressRule(
        f"{scope.name}-endpoints-https",
        security_group_id=group.id,
        ip_protocol="tcp",
        from_port=HTTPS,
        to_port=HTTPS,
        cidr_ipv4=args.vpc_cidr,
        opts=scope.options(),
    )
    interfaces = tuple(
        aws.ec2.VpcEndpoint(
            f"{scope.name}-endpoint-{service.replace('.', '-')}",
            vpc_id=vpc.id,
            service_name=f"com.amazonaws.{args.region}.{service}",
            vpc_endpoint_type="Interface",
            private_dns_enabled=True,
            subnet_ids=[subnet.id for subnet in subnets.values()],
            security_group_ids=[group.id],
            tags=named(scope, service),
            opts=scope.options(after=[door]),
        )
        for service in INTERFACES
    )
    return (storage, *interfaces)
