"""Which node groups the autoscaler in an EKS cluster looks after, and what it can know of them.

It acts where its chart was installed for the cluster, in the cluster's region, and its account has a role that may
change groups. Without `eks:DescribeNodegroup` it knows labels and taints of an empty group by its tags alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rehearsal import skipped
from rehearsal.cloud import aws_roles, node_groups
from rehearsal.cloud.groups import Group
from rehearsal.cloud.node_groups import CLUSTER
from rehearsal.cloud.project import State
from rehearsal.skipped import AUTOSCALER, Installed
from rehearsal.stand_ins.autoscaler import Source

# What the chart says where nobody does.
_REGION, _ACCOUNT = "us-east-1", "cluster-autoscaler-aws-cluster-autoscaler"
_NEEDED = (
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:SetDesiredCapacity",
    "autoscaling:TerminateInstanceInAutoScalingGroup",
)
_DESCRIBE = "eks:DescribeNodegroup"


def source(rehearsal: Path) -> Source:
    """The groups of the rehearsal's account."""

    def groups(state: State) -> Iterable[Group]:
        release = skipped.installed(rehearsal, AUTOSCALER)
        role = _role(state, release) if release else ""
        cluster = release.values["autoDiscovery"]["clusterName"] if release and role else ""
        found = node_groups.all_groups(
            state, cluster, bool(role) and aws_roles.allows(state, role, _DESCRIBE)
        )
        return (replace(group, home=release.namespace if release else "") for group in found)

    return groups


def _role(state: State, release: Installed) -> str:
    """The role of an autoscaler that can work, "" of one that cannot."""
    values = release.values
    name = (values.get("autoDiscovery") or {}).get("clusterName") or ""
    cluster = state.of(CLUSTER).get(name)
    if cluster is None or cluster["outputs"]["region"] != values.get("awsRegion", _REGION):
        return ""
    account = ((values.get("rbac") or {}).get("serviceAccount") or {}).get("name") or _ACCOUNT
    role = aws_roles.pod_role(state, name, release.namespace, account)
    return role if role and all(aws_roles.allows(state, role, action) for action in _NEEDED) else ""
