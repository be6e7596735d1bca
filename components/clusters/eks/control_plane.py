"""Inputs of the cluster itself, and of what may reach it. Pure.

Sources: the argument documentation of pulumi-aws 7.51, EKS's best practices guide, and terraform-aws-eks 21 for
the choices.
"""

from __future__ import annotations

from typing import Any

from components.clusters.eks.args import EksGpuClusterArgs

LOGS = ("api", "audit", "authenticator", "controllerManager", "scheduler")
LOG_RETENTION_DAYS = 30
# Days in which a deleted key can still be had back.
KEY_DELETION_DAYS = 30
ADMIN_POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
VIEW_POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"


def cluster_inputs(args: EksGpuClusterArgs, role: Any, subnets: list[Any], key: Any) -> dict[str, Any]:
    """The cluster's inputs but for its name; `role` and `key` are ARNs."""
    return {
        "role_arn": role,
        "version": args.version,
        "vpc_config": {
            "subnet_ids": subnets,
            # Nodes reach the API server inside of the VPC, whoever else may from outside.
            "endpoint_private_access": True,
            "endpoint_public_access": bool(args.public_cidrs),
            **({"public_access_cidrs": list(args.public_cidrs)} if args.public_cidrs else {}),
        },
        # Access entries alone; the old config map would be a second list. Whoever creates the cluster is its first
        # administrator: the same identity installs everything in it, and without an entry it could not.
        "access_config": {"authentication_mode": "API", "bootstrap_cluster_creator_admin_permissions": True},
        # The add-ons are ours, in versions and an order that we know. Another value replaces the cluster.
        "bootstrap_self_managed_addons": False,
        "encryption_config": {"provider": {"key_arn": key}, "resources": ["secrets"]},
        "enabled_cluster_log_types": list(LOGS),
        "kubernetes_network_config": {"service_ipv4_cidr": args.services_cidr, "ip_family": "ipv4"},
        # At the end of standard support AWS upgrades; the alternative costs six times as much by the hour.
        "upgrade_policy": {"support_type": "STANDARD"},
        "deletion_protection": args.deletion_protection,
    }
