"""The provider of Google's resources, the APIs of the project, and the account of the nodes."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from components.clusters.gke.args import GkeTpuClusterArgs
from components.clusters.scope import Scope

# Resource Manager is asked when roles are given. Google's gateway needs the last two: without Network
# Services its pools are programmed but not routed to.
APIS = (
    "artifactregistry",
    "cloudresourcemanager",
    "compute",
    "container",
    "iam",
    "logging",
    "monitoring",
    "secretmanager",
)
GATEWAY_APIS = ("certificatemanager", "networkservices")
# Behind volumes that several nodes mount at once.
VOLUME_APIS = ("file",)
# The least that nodes work with: logs, metrics and autoscaling; images; streaming of images.
NODE_ROLES = (
    "artifactregistry.reader",
    "container.defaultNodeServiceAccount",
    "serviceusage.serviceUsageConsumer",
)


def google_provider(name: str, args: GkeTpuClusterArgs, opts: pulumi.ResourceOptions) -> gcp.Provider:
    """The provider of one project and zone.

    Project, region and zone are all given: the class fills gaps from the environment of the machine that runs
    Pulumi, and they would differ on the next machine.
    """
    return gcp.Provider(
        name,
        project=args.project,
        region=args.region,
        zone=args.zone,
        default_labels=dict(args.labels),
        # Its label would appear on resources that exist already, when the provider is upgraded.
        add_pulumi_attribution_label=False,
        opts=opts,
    )


def enable_apis(scope: Scope, args: GkeTpuClusterArgs) -> dict[str, pulumi.Resource]:
    """The APIs by their short names. They stay on at destroy: others in the project may use them."""
    names = (
        *APIS,
        *(GATEWAY_APIS if args.google_gateway else ()),
        *(VOLUME_APIS if args.shared_volumes else ()),
    )
    return {
        api: gcp.projects.Service(
            f"{scope.name}-api-{api}",
            project=args.project,
            service=f"{api}.googleapis.com",
            disable_on_destroy=False,
            opts=scope.options(),
        )
        for api in names
    }


def node_account(
    scope: Scope, project: str, apis: dict[str, pulumi.Resource]
) -> tuple[gcp.serviceaccount.Account, tuple[pulumi.Resource, ...]]:
    """An account for nodes, and its roles. Members are added one by one: a binding would take others' away."""
    account = gcp.serviceaccount.Account(
        f"{scope.name}-nodes",
        project=project,
        display_name="Nodes of a GKE cluster of llm-platform",
        opts=scope.options(after=[apis["iam"]]),
    )
    roles = tuple(
        gcp.projects.IAMMember(
            f"{scope.name}-nodes-{role}",
            project=project,
            role=f"roles/{role}",
            member=account.member,
            opts=scope.options(after=[apis["cloudresourcemanager"]]),
        )
        for role in NODE_ROLES
    )
    return account, roles
