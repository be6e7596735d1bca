"""The simulated AWS in this process: the plugin's servicer, called as the engine calls it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.cloud.node_groups import GROUP_LABEL
from rehearsal.providers.aws.provider import Aws
from rehearsal.providers.cloud.embedded import Embedded
from rehearsal.providers.server import Engine, PartialFailure
from rehearsal.providers.values import Properties, from_struct
from tests.support.simulated_cloud import Cloud, FakeKube, Made

REGION, ZONES = "us-east-1", ("us-east-1a", "us-east-1b")
ANYWHERE, MANAGED = "0.0.0.0/0", "arn:aws:iam::aws:policy/"
TYPES = {
    "vpc": "aws:ec2/vpc:Vpc",
    "wall": "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
    "internet": "aws:ec2/internetGateway:InternetGateway",
    "table": "aws:ec2/routeTable:RouteTable",
    "route": "aws:ec2/route:Route",
    "join": "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "subnet": "aws:ec2/subnet:Subnet",
    "address": "aws:ec2/eip:Eip",
    "nat": "aws:ec2/natGateway:NatGateway",
    "endpoint": "aws:ec2/vpcEndpoint:VpcEndpoint",
    "group": "aws:ec2/securityGroup:SecurityGroup",
    "door": "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    "key": "aws:kms/key:Key",
    "role": "aws:iam/role:Role",
    "attachment": "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    "policy": "aws:iam/rolePolicy:RolePolicy",
    "logs": "aws:cloudwatch/logGroup:LogGroup",
    "cluster": "aws:eks/cluster:Cluster",
    "entry": "aws:eks/accessEntry:AccessEntry",
    "allowed": "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
    "addon": "aws:eks/addon:Addon",
    "identity": "aws:eks/podIdentityAssociation:PodIdentityAssociation",
    "template": "aws:ec2/launchTemplate:LaunchTemplate",
    "nodes": "aws:eks/nodeGroup:NodeGroup",
    "tag": "aws:autoscaling/tag:Tag",
    "bucket": "aws:s3/bucket:Bucket",
}
GPU_LABELS = {"llmp.dev/pool": "l4", "k8s.amazonaws.com/accelerator": "nvidia-l4"}
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}


@dataclass(frozen=True)
class FakeEmbedded:
    """An API server that is nowhere."""

    kube: FakeKube
    address: str = "127.0.0.1:6443"
    authority: str = "Q0E="


class Amazon(Cloud):
    """A simulated account in `root`."""

    types, config_namespace = TYPES, "aws"

    def __init__(
        self,
        root: Path,
        config: Mapping[str, str] | None = None,
        embedded: Embedded | None = None,
        **settings: Any,
    ):
        self.now = 1_000_000.0
        kube = FakeKube(GROUP_LABEL)
        server: Any = embedded or FakeEmbedded(kube)
        super().__init__(root, Aws(Engine(""), root, server, lambda: self.now), kube, settings)
        self.configure(**(config or {"region": REGION}))

    # -- a small stack -----------------------------------------------------------------------------

    def make_network(self, zones: tuple[str, ...] = ZONES, **tags: str) -> tuple[Made, list[Made]]:
        """A network with a private subnet per zone and one way out; the subnets have these tags."""
        vpc = self.create("vpc", "net", cidrBlock="10.0.0.0/16", enableDnsHostnames=True)
        internet = self.create("internet", "i", vpcId=vpc.identity)
        public = self._subnet(vpc, "public", zones[0], "10.0.255.0/24")
        out = self._table(vpc, "public", public)
        self._route("public", out, gatewayId=internet.identity)
        address = self.create("address", "a", domain="vpc")
        nat = self.create("nat", "n", allocationId=address.identity, subnetId=public.identity)
        subnets = []
        for index, zone in enumerate(zones):
            subnet = self._subnet(vpc, zone, zone, f"10.0.{32 * index}.0/19", **tags)
            self._route(zone, self._table(vpc, zone, subnet), natGatewayId=nat.identity)
            subnets.append(subnet)
        return vpc, subnets

    def _subnet(self, vpc: Made, name: str, zone: str, block: str, **tags: str) -> Made:
        given = {"tags": tags} if tags else {}
        return self.create(
            "subnet", name, vpcId=vpc.identity, availabilityZone=zone, cidrBlock=block, **given
        )

    def _table(self, vpc: Made, name: str, subnet: Made) -> Made:
        table = self.create("table", name, vpcId=vpc.identity)
        self.create("join", name, subnetId=subnet.identity, routeTableId=table.identity)
        return table

    def _route(self, name: str, table: Made, **target: str) -> Made:
        return self.create(
            "route", name, routeTableId=table.identity, destinationCidrBlock=ANYWHERE, **target
        )

    def make_role(self, name: str, service: str, *policies: str) -> Made:
        """A role that a service may take, with AWS's own policies by name."""
        role = self.create("role", name, name=name, assumeRolePolicy=trust(service))
        for policy in policies:
            self.create("attachment", f"{name}-{policy}", role=name, policyArn=MANAGED + policy)
        return role

    def make_cluster(self, subnets: list[Made] | None = None, network: bool = True, **more: Any) -> Made:
        """A cluster with its role and, if so asked, the add-on that gives nodes their network."""
        subnets = self.make_network()[1] if subnets is None else subnets
        role = self.make_role("control-plane", "eks.amazonaws.com", "AmazonEKSClusterPolicy")
        cluster = self.create("cluster", "c", **cluster_inputs(role, subnets, **more))
        if network:
            self.create("addon", "vpc-cni", clusterName="c", addonName="vpc-cni")
        return cluster

    def make_nodes(self, name: str = "l4", template: Properties | None = None, **more: Any) -> Made:
        """A GPU node group of the cluster in the first zone, with its role and launch template."""
        return self.create("nodes", name, **self.node_inputs(name, template, **more))

    def node_inputs(self, name: str = "l4", template: Properties | None = None, **more: Any) -> Properties:
        """As a careful program gives them."""
        state = self.plugin.project.read()
        if "nodes" not in state.of("iam/role"):
            self.make_role(
                "nodes",
                "ec2.amazonaws.com",
                "AmazonEKSWorkerNodePolicy",
                "AmazonEC2ContainerRegistryPullOnly",
            )
        known = state.of("ec2/launchTemplate")
        lt = next((i for i, r in known.items() if r["outputs"]["name"] == name), None)
        if lt is None:
            disk = [{"deviceName": "/dev/xvda", "ebs": {"volumeSize": 200, "volumeType": "gp3"}}]
            lt = self.create(
                "template", name, **{"name": name, "blockDeviceMappings": disk, **(template or {})}
            ).identity
        cluster = state.of("eks/cluster")["c"]
        return {
            "nodeGroupName": name,
            "clusterName": "c",
            "nodeRoleArn": "arn:aws:iam::000000000000:role/nodes",
            "subnetIds": cluster["inputs"]["vpcConfig"]["subnetIds"][:1],
            "amiType": "AL2023_x86_64_NVIDIA",
            "instanceTypes": ["g6.4xlarge"],
            "labels": GPU_LABELS,
            "taints": [GPU_TAINT],
            "scalingConfig": {"minSize": 0, "desiredSize": 1, "maxSize": 2},
            "launchTemplate": {"id": lt, "version": "1"},
            **more,
        }

    def make_system(self, count: int = 2, **more: Any) -> Made:
        """Nodes that everything may run on."""
        return self.make_nodes("system", **{**system_inputs(count), **more})

    def made(self, kind: str, identities: Iterable[str]) -> list[Made]:
        """Resources that are there, as the engine would remember them."""
        records = self.plugin.project.read().of(TYPES[kind].split(":")[1])
        return [Made(self.urn(kind, i), i, records[i]["inputs"], records[i]["outputs"]) for i in identities]

    def adopt(self, kind: str, name: str, failure: PartialFailure, inputs: Properties) -> Made:
        """A resource that exists though its creation failed."""
        known = from_struct(failure.detail.properties)
        return Made(self.urn(kind, name), failure.detail.id, inputs, known)

    def delete_all(self, *modules: str) -> None:
        """Take away what somebody else deleted."""
        with self.plugin.project.change() as state:
            for module in modules:
                state.resources.pop(module, None)

    def group(self, made: Made) -> dict[str, Any]:
        """What the account knows of a node group."""
        return self.plugin.project.read().of("eks/nodeGroup")[made.identity]


def system_inputs(count: int = 2) -> Properties:
    """What differs in a node group without GPUs."""
    return {
        "amiType": "AL2023_x86_64_STANDARD",
        "instanceTypes": ["m6i.large"],
        "labels": {"llmp.dev/pool": "system"},
        "taints": None,
        "scalingConfig": {"minSize": count, "desiredSize": count, "maxSize": 2 * count},
    }


def cluster_inputs(role: Made, subnets: list[Made], **more: Any) -> Properties:
    """As a careful program gives them."""
    return {
        "name": "c",
        "roleArn": role.outputs["arn"],
        "bootstrapSelfManagedAddons": False,
        "accessConfig": {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": True},
        **more,
        "vpcConfig": {
            "subnetIds": [subnet.identity for subnet in subnets],
            "endpointPrivateAccess": True,
            **more.get("vpcConfig", {}),
        },
    }


def trust(service: str) -> str:
    """Who may take a role, as a document."""
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
