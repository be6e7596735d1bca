"""The provider of AWS's resources, and roles that services and pods act in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_random as random

from components.clusters.eks.args import EksGpuClusterArgs
from components.clusters.scope import Scope

MANAGED = "arn:aws:iam::aws:policy"
# Who may take a role: EKS itself, the machines of a node group, pods by EKS Pod Identity.
CLUSTERS, MACHINES, PODS = "eks.amazonaws.com", "ec2.amazonaws.com", "pods.eks.amazonaws.com"


def amazon_provider(name: str, args: EksGpuClusterArgs, opts: pulumi.ResourceOptions) -> aws.Provider:
    """The provider of one region. No resource names a region of its own: one that did would be replaced with it."""
    return aws.Provider(
        name,
        region=args.region,
        allowed_account_ids=[args.account] if args.account else None,
        default_tags={"tags": dict(args.tags)} if args.tags else None,
        opts=opts,
    )


def unique_name(scope: Scope) -> pulumi.Output[str]:
    """A name for the cluster, known before the cluster is: its log group is named after it."""
    own = pulumi.ResourceOptions(parent=scope.parent)
    generator = random.Provider(f"{scope.name}-random", opts=own)
    options = pulumi.ResourceOptions(parent=scope.parent, provider=generator)
    suffix = random.RandomId(f"{scope.name}-suffix", byte_length=4, opts=options)
    return pulumi.Output.concat(scope.name, "-", suffix.hex)


def role(scope: Scope, name: str, service: str, policies: Sequence[str]) -> Role:
    """A role for a service, with AWS's own `policies` by their paths below `arn:aws:iam::aws:policy/`."""
    made = aws.iam.Role(
        f"{scope.name}-{name}", assume_role_policy=json.dumps(trust(service)), opts=scope.options()
    )
    attached = tuple(
        aws.iam.RolePolicyAttachment(
            f"{scope.name}-{name}-{policy.rsplit('/', 1)[-1]}",
            role=made.name,
            policy_arn=f"{MANAGED}/{policy}",
            opts=scope.options(),
        )
        for policy in policies
    )
    return Role(made, attached)


class Role:
    """A role, and the `policies` that must be attached before it is of any use."""

    def __init__(self, made: aws.iam.Role, policies: tuple[pulumi.Resource, ...]):
        self.resource, self.arn, self.name, self.policies = made, made.arn, made.name, policies

    @property
    def ready(self) -> tuple[pulumi.Resource, ...]:
        """What must exist before somebody acts in the role."""
        return (self.resource, *self.policies)


def inline(scope: Scope, name: str, owner: Role, policy: pulumi.Input[dict[str, Any]]) -> aws.iam.RolePolicy:
    """A policy of the role's own."""
    text = pulumi.Output.from_input(policy).apply(json.dumps)
    return aws.iam.RolePolicy(f"{scope.name}-{name}", role=owner.name, policy=text, opts=scope.options())


def trust(service: str) -> dict[str, Any]:
    """Who may take a role. Pods bring their namespace and account as tags of the session."""
    actions = ["sts:AssumeRole", "sts:TagSession"] if service == PODS else "sts:AssumeRole"
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": actions}
    return {"Version": "2012-10-17", "Statement": [statement]}


def read_bucket(bucket: str) -> dict[str, Any]:
    """Reading of one bucket's objects, and the list of their names."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{bucket}"},
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"},
        ],
    }


def scale_groups(cluster: str) -> dict[str, Any]:
    """What the cluster autoscaler does: it looks at all groups, and changes those of its own cluster."""
    mine = {"StringEquals": {f"aws:ResourceTag/k8s.io/cluster-autoscaler/{cluster}": "owned"}}
    looks = [
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:DescribeAutoScalingInstances",
        "autoscaling:DescribeLaunchConfigurations",
        "autoscaling:DescribeScalingActivities",
        "autoscaling:DescribeTags",
        "ec2:DescribeImages",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:GetInstanceTypesFromInstanceRequirements",
        "eks:DescribeNodegroup",
    ]
    changes = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": looks, "Resource": "*"},
            {"Effect": "Allow", "Action": changes, "Resource": "*", "Condition": mine},
        ],
    }
