"""EKS add-ons, in the order that works, and the identities of pods."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from components.clusters.eks import amazon
from components.clusters.eks.args import EksGpuClusterArgs
from components.clusters.scope import Scope

# Its release, its namespace and its account have this name (components/platform/cluster_autoscaler.py).
AUTOSCALER = "cluster-autoscaler"


@dataclass(frozen=True, kw_only=True)
class AddonSpec:
    """An add-on: its settings, and the service account that acts in a role with AWS's policy."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    account: str | None = None
    policy: str | None = None


# Nodes without a network are not Ready, and a node group whose nodes are not is a failure.
BEFORE_NODES = (
    AddonSpec(name="eks-pod-identity-agent"),
    AddonSpec(
        name="vpc-cni",
        # Off by default, and then policies are stored and nothing more.
        settings={"enableNetworkPolicy": "true"},
        account="aws-node",
        policy="AmazonEKS_CNI_Policy",
    ),
    AddonSpec(name="kube-proxy"),
)
# They run on nodes, and are not done before they do.
AFTER_NODES = (
    AddonSpec(name="coredns"),
    AddonSpec(
        name="aws-ebs-csi-driver",
        # The class that claims get which name none.
        settings={"defaultStorageClass": {"enabled": True}},
        account="ebs-csi-controller-sa",
        policy="service-role/AmazonEBSCSIDriverPolicy",
    ),
    AddonSpec(name="metrics-server"),
)


def addons(
    scope: Scope,
    cluster: aws.eks.Cluster,
    specs: Sequence[AddonSpec],
    after: Sequence[pulumi.Resource],
) -> tuple[pulumi.Resource, ...]:
    """The add-ons of one phase, in the versions that are the default of the cluster's."""
    return tuple(_addon(scope, cluster, spec, after) for spec in specs)


def _addon(
    scope: Scope, cluster: aws.eks.Cluster, spec: AddonSpec, after: Sequence[pulumi.Resource]
) -> aws.eks.Addon:
    identity = amazon.role(scope, spec.name, amazon.PODS, [spec.policy]) if spec.policy else None
    associations = [{"role_arn": identity.arn, "service_account": spec.account}] if identity else None
    return aws.eks.Addon(
        f"{scope.name}-{spec.name}",
        cluster_name=cluster.name,
        addon_name=spec.name,
        configuration_values=json.dumps(dict(spec.settings)) if spec.settings else None,
        pod_identity_associations=associations,
        resolve_conflicts_on_create="OVERWRITE",
        resolve_conflicts_on_update="OVERWRITE",
        opts=scope.options(after=[*after, *(identity.ready if identity else ())], create="20m", update="20m"),
    )


def pod_identities(
    scope: Scope, args: EksGpuClusterArgs, cluster: aws.eks.Cluster
) -> tuple[pulumi.Resource, ...]:
    """Roles for pods that are no add-ons: the autoscaler, and the readers of the bucket."""
    autoscaler = amazon.role(scope, AUTOSCALER, amazon.PODS, [])
    allowed = amazon.inline(
        scope, f"{AUTOSCALER}-groups", autoscaler, cluster.name.apply(amazon.scale_groups)
    )
    made = [_associate(scope, cluster, AUTOSCALER, AUTOSCALER, AUTOSCALER, autoscaler, [allowed])]
    if args.bucket and args.readers:
        reader = amazon.role(scope, "models", amazon.PODS, [])
        allowed = amazon.inline(scope, "models-bucket", reader, amazon.read_bucket(args.bucket))
        made += [
            _associate(
                scope,
                cluster,
                f"{item.namespace}-{item.account}",
                item.namespace,
                item.account,
                reader,
                [allowed],
            )
            for item in args.readers
        ]
    return tuple(made)


def _associate(
    scope: Scope,
    cluster: aws.eks.Cluster,
    name: str,
    namespace: str,
    account: str,
    role: amazon.Role,
    after: Sequence[pulumi.Resource],
) -> aws.eks.PodIdentityAssociation:
    return aws.eks.PodIdentityAssociation(
        f"{scope.name}-identity-{name}",
        cluster_name=cluster.name,
        namespace=namespace,
        service_account=account,
        role_arn=role.arn,
        opts=scope.options(after=[*role.ready, *after]),
    )
