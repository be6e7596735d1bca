"""What a caller may have to do in the account, per resource type of this program. Pure data.

Two policies follow from it: `deploy` runs `up` and `destroy`, `preview` only reads. Access to the state's bucket and to
the key of its secrets is given on these themselves (docs/bootstrap-aws.md), so it is in neither.

Sources: AWS's service authorization reference, with the actions that it says others depend on; which operations the
provider calls per resource (terraform-provider-aws, internal/service); read in November 2026.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ops.preflight.site import Site
from stacks.eks import NAME

PASS, ATTACH, LINK = "iam:PassRole", "iam:AttachRolePolicy", "iam:CreateServiceLinkedRole"


def _of(service: str, *operations: str) -> tuple[str, ...]:
    return tuple(f"{service}:{operation}" for operation in operations)


_TAGS = _of("ec2", "CreateTags", "DeleteTags")
_RULES = _of("ec2", "DescribeSecurityGroups", "DescribeSecurityGroupRules")
_EKS_TAGS = _of("eks", "TagResource", "UntagResource", "ListTagsForResource")
# EKS looks at roles that it is given, and whoever gives it one must be allowed to.
_GIVES_ROLE = (PASS, *_of("iam", "GetRole", "ListAttachedRolePolicies"))

# By the type of a resource that `up` registers; a test compares the types with those of the stacks.
BY_TYPE: Mapping[str, tuple[str, ...]] = {
    "aws:ec2/vpc:Vpc": (
        *_of("ec2", "CreateVpc", "DeleteVpc", "DescribeVpcs", "DescribeVpcAttribute", "ModifyVpcAttribute"),
        # What comes with a VPC is read with it.
        *_of("ec2", "DescribeNetworkAcls", "DescribeRouteTables", "DescribeSecurityGroups"),
        *_TAGS,
    ),
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": (
        *_RULES, *_of("ec2", "RevokeSecurityGroupIngress", "RevokeSecurityGroupEgress"), *_TAGS,
    ),
    "aws:ec2/internetGateway:InternetGateway": (
        *_of("ec2", "CreateInternetGateway", "DeleteInternetGateway", "DescribeInternetGateways"),
        *_of("ec2", "AttachInternetGateway", "DetachInternetGateway"),
        *_TAGS,
    ),
    "aws:ec2/routeTable:RouteTable": (
        *_of("ec2", "CreateRouteTable", "DeleteRouteTable", "DescribeRouteTables"), *_TAGS,
    ),
    "aws:ec2/route:Route": _of("ec2", "CreateRoute", "DeleteRoute", "ReplaceRoute", "DescribeRouteTables"),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _of(
        "ec2", "AssociateRouteTable", "DisassociateRouteTable", "ReplaceRouteTableAssociation", "DescribeRouteTables"
    ),
    "aws:ec2/subnet:Subnet": (
        *_of("ec2", "CreateSubnet", "DeleteSubnet", "DescribeSubnets", "ModifySubnetAttribute"),
        # Whatever still stands in a subnet is looked for before it goes.
        "ec2:DescribeNetworkInterfaces",
        *_TAGS,
    ),
    "aws:ec2/eip:Eip": (
        *_of("ec2", "AllocateAddress", "ReleaseAddress", "DisassociateAddress"),
        *_of("ec2", "DescribeAddresses", "DescribeAddressesAttribute"),
        *_TAGS,
    ),
    "aws:ec2/natGateway:NatGateway": (
        *_of("ec2", "CreateNatGateway", "DeleteNatGateway", "DescribeNatGateways"), *_TAGS,
    ),
    "aws:ec2/vpcEndpoint:VpcEndpoint": (
        *_of("ec2", "CreateVpcEndpoint", "DeleteVpcEndpoints", "ModifyVpcEndpoint", "DescribeVpcEndpoints"),
        "ec2:DescribePrefixLists",
        # For the private name of an interface endpoint.
        "route53:AssociateVPCWithHostedZone",
        *_TAGS,
    ),
    "aws:ec2/securityGroup:SecurityGroup": (
        *_of("ec2", "CreateSecurityGroup", "DeleteSecurityGroup", "RevokeSecurityGroupEgress"),
        *_RULES,
        "ec2:DescribeNetworkInterfaces",
        *_TAGS,
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": (
        *_of("ec2", "AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress", "ModifySecurityGroupRules"),
        *_RULES,
        *_TAGS,
    ),
    "aws:ec2/launchTemplate:LaunchTemplate": (
        *_of("ec2", "CreateLaunchTemplate", "CreateLaunchTemplateVersion", "ModifyLaunchTemplate"),
        *_of("ec2", "DeleteLaunchTemplate", "DescribeLaunchTemplates", "DescribeLaunchTemplateVersions"),
        *_TAGS,
    ),
    "aws:eks/cluster:Cluster": (
        *_of("eks", "CreateCluster", "DeleteCluster", "DescribeCluster", "DescribeUpdate"),
        *_of("eks", "UpdateClusterConfig", "UpdateClusterVersion", "AssociateEncryptionConfig"),
        # EKS gives itself the use of the key on behalf of whoever names it.
        *_of("kms", "CreateGrant", "DescribeKey"),
        *_EKS_TAGS,
        *_GIVES_ROLE,
        LINK,
    ),
    "aws:eks/nodeGroup:NodeGroup": (
        *_of("eks", "CreateNodegroup", "DeleteNodegroup", "DescribeNodegroup", "DescribeUpdate"),
        *_of("eks", "UpdateNodegroupConfig", "UpdateNodegroupVersion"),
        # EKS tries the launch template out as the caller.
        "ec2:RunInstances",
        *_of("ec2", "DescribeLaunchTemplateVersions", "DescribeSubnets"),
        *_EKS_TAGS,
        *_GIVES_ROLE,
        LINK,
    ),
    "aws:eks/addon:Addon": (
        *_of("eks", "CreateAddon", "DeleteAddon", "DescribeAddon", "UpdateAddon", "DescribeUpdate"),
        *_of("eks", "CreatePodIdentityAssociation", "DeletePodIdentityAssociation", "DescribePodIdentityAssociation"),
        *_EKS_TAGS,
        *_GIVES_ROLE,
    ),
    "aws:eks/accessEntry:AccessEntry": (
        *_of("eks", "CreateAccessEntry", "DeleteAccessEntry", "DescribeAccessEntry", "UpdateAccessEntry"), *_EKS_TAGS,
    ),
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": _of(
        "eks", "AssociateAccessPolicy", "DisassociateAccessPolicy", "ListAssociatedAccessPolicies"
    ),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": (
        *_of("eks", "CreatePodIdentityAssociation", "DeletePodIdentityAssociation"),
        *_of("eks", "DescribePodIdentityAssociation", "UpdatePodIdentityAssociation"),
        *_EKS_TAGS,
        *_GIVES_ROLE,
    ),
    "aws:iam/role:Role": (
        *_of("iam", "CreateRole", "DeleteRole", "GetRole", "UpdateRole", "UpdateAssumeRolePolicy"),
        *_of("iam", "TagRole", "UntagRole", "ListRoleTags"),
        # What is attached to a role is looked for before it goes.
        *_of("iam", "ListRolePolicies", "ListAttachedRolePolicies", "ListInstanceProfilesForRole"),
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": (
        ATTACH, *_of("iam", "DetachRolePolicy", "ListAttachedRolePolicies"),
    ),
    "aws:iam/rolePolicy:RolePolicy": _of("iam", "PutRolePolicy", "DeleteRolePolicy", "GetRolePolicy"),
    "aws:kms/key:Key": (
        *_of("kms", "CreateKey", "DescribeKey", "ScheduleKeyDeletion", "UpdateKeyDescription"),
        *_of("kms", "EnableKeyRotation", "DisableKeyRotation", "GetKeyRotationStatus", "GetKeyPolicy", "PutKeyPolicy"),
        *_of("kms", "TagResource", "UntagResource", "ListResourceTags"),
    ),
    "aws:cloudwatch/logGroup:LogGroup": (
        *_of("logs", "CreateLogGroup", "DeleteLogGroup", "DescribeLogGroups", "PutRetentionPolicy"),
        *_of("logs", "TagResource", "UntagResource", "ListTagsForResource"),
    ),
    "aws:autoscaling/tag:Tag": _of("autoscaling", "CreateOrUpdateTags", "DeleteTags", "DescribeTags"),
}  # fmt: skip
# What is read of AWS by a function, and by `up` only.
BY_FUNCTION: Mapping[str, tuple[str, ...]] = {
    "aws:secretsmanager/getSecretVersion:getSecretVersion": _of(
        "secretsmanager", "DescribeSecret", "GetSecretValue"
    ),
}
# What preflight itself asks, beyond the above; a test compares it with the questions.
ASKED = (
    *_of("ec2", "DescribeAvailabilityZones", "DescribeCapacityReservations", "DescribeInstances"),
    *_of("ec2", "DescribeInstanceTypeOfferings", "DescribeInstanceTypes", "DescribeRegions"),
    "eks:DescribeClusterVersions",
    *_of("iam", "GetRole", "SimulatePrincipalPolicy"),
    *_of("s3", "GetBucketLocation", "GetBucketPublicAccessBlock", "GetBucketVersioning", "ListBucket"),
    "secretsmanager:DescribeSecret",
    *_of("servicequotas", "GetAWSDefaultServiceQuota", "GetServiceQuota"),
)
# Of these EKS, and machines by the autoscaler, make use; AWS makes them at the first use of a service.
SERVICE_ROLES: Mapping[str, str] = {
    "AWSServiceRoleForAmazonEKS": "eks.amazonaws.com",
    "AWSServiceRoleForAmazonEKSNodegroup": "eks-nodegroup.amazonaws.com",
    "AWSServiceRoleForAutoScaling": "autoscaling.amazonaws.com",
}
SPOT_ROLE, SPOT = "AWSServiceRoleForEC2Spot", "spot.amazonaws.com"
READING = ("Describe", "Get", "List", "Simulate")
# Reading that a preview does not do.
SECRET = frozenset({"secretsmanager:GetSecretValue"})
# Roles that the program makes begin with its component's name, and have only these of AWS's policies.
ROLES_PREFIX = f"{NAME}-"
POLICIES = (
    "AmazonEC2ContainerRegistryPullOnly",
    "AmazonEKSClusterPolicy",
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "service-role/AmazonEBSCSIDriverPolicy",
)
# And only these services take them. Tests compare both with the component, which cannot be read without AWS's SDK.
SERVICES = ("ec2.amazonaws.com", "eks.amazonaws.com", "pods.eks.amazonaws.com")
MANAGED = "arn:aws:iam::aws:policy"
_VERSION = "2012-10-17"
# AWS's limit for a policy that can be attached, in characters without white space.
MAX_POLICY = 6144


@dataclass(frozen=True)
class Statement:
    """Some actions: on which resources, and under which condition. `sample` is one such resource, for trying it out."""

    name: str
    actions: tuple[str, ...]
    resource: str
    sample: str
    condition: Mapping[str, tuple[str, ...]]

    def document(self) -> dict[str, Any]:
        """As a policy has it."""
        conditions = {"StringEquals": {key: list(values) for key, values in self.condition.items()}}
        return {
            "Sid": self.name,
            "Effect": "Allow",
            "Action": list(self.actions),
            "Resource": self.resource,
            **({"Condition": conditions} if self.condition else {}),
        }


def statements(name: str, account: str, region: str) -> tuple[Statement, ...]:
    """The policy `deploy` or `preview` for an account and a region, in which alone it holds."""
    actions = sorted({action for row in (*BY_TYPE.values(), *BY_FUNCTION.values(), ASKED) for action in row})
    reading = tuple(a for a in actions if a.partition(":")[2].startswith(READING) and a not in SECRET)
    # Regions, roles and buckets are of no region, and Simulate asks about all.
    everywhere = tuple(a for a in reading if a.startswith(("iam:", "s3:")) or a == "ec2:DescribeRegions")
    here = tuple(a for a in reading if a not in everywhere)
    read = (
        Statement("Read", everywhere, "*", "*", {}),
        Statement("ReadRegion", here, "*", "*", {"aws:RequestedRegion": (region,)}),
    )
    return read if name == "preview" else (*read, *_changing(set(actions) - set(reading), account, region))


def _changing(actions: set[str], account: str, region: str) -> tuple[Statement, ...]:
    roles = f"arn:aws:iam::{account}:role/{ROLES_PREFIX}"
    linked = f"arn:aws:iam::{account}:role/aws-service-role/"
    known = {PASS, ATTACH, LINK}
    own = tuple(sorted(a for a in actions - known if a.startswith("iam:")))
    rest = tuple(sorted(a for a in actions - known if not a.startswith("iam:")))
    services = (*SERVICE_ROLES.values(), SPOT)
    return (
        Statement("Change", rest, "*", "*", {"aws:RequestedRegion": (region,)}),
        Statement("OwnRoles", own, f"{roles}*", f"{roles}preflight", {}),
        Statement(
            "GiveOwnRoles", (PASS,), f"{roles}*", f"{roles}preflight",
            {"iam:PassedToService": SERVICES},
        ),
        Statement(
            "AttachToOwnRoles", (ATTACH,), f"{roles}*", f"{roles}preflight",
            {"iam:PolicyARN": tuple(f"{MANAGED}/{policy}" for policy in POLICIES)},
        ),
        Statement(
            "ServicesOwnRoles", (LINK,), f"{linked}*", f"{linked}{services[0]}/{next(iter(SERVICE_ROLES))}",
            {"iam:AWSServiceName": services},
        ),
    )  # fmt: skip


def wanted(name: str, account: str, region: str) -> tuple[str, ...]:
    """All actions of a policy."""
    return tuple(sorted({action for s in statements(name, account, region) for action in s.actions}))


def role(name: str, site: Site) -> str:
    """The policy of a stack in the account that it is allowed in, or else in the caller's."""
    cluster = site.config.cluster
    account = getattr(cluster, "account_id", None) or site.aws.identity.account
    return document(name, account, site.aws.region)


def document(name: str, account: str, region: str) -> str:
    """A policy as `aws iam create-policy --policy-document` takes it."""
    content = {"Version": _VERSION, "Statement": [s.document() for s in statements(name, account, region)]}
    return json.dumps(content, indent=1) + "\n"


def lacking(decisions: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The actions that a simulation does not allow, and AWS's word for why."""
    return {d["EvalActionName"]: d["EvalDecision"] for d in decisions if d["EvalDecision"] != "allowed"}
