"""The network of a cluster: private nodes, a way out for them, and a way in for the API server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_gcp as gcp

from components.clusters.gke.args import GkeTpuClusterArgs
from components.clusters.gke.control_plane import PODS, SERVICES
from components.clusters.scope import Scope

# Endpoint groups and firewall rules of load balancers go some minutes after their Service or Gateway, and
# until then Google refuses to delete what they stand in.
DELETE_MINUTES = "20m"


@dataclass(frozen=True, kw_only=True)
class Network:
    """What the cluster is put in, and what is `needed` before pods can start or be reached."""

    id: pulumi.Output[str]
    subnet: pulumi.Output[str]
    needed: tuple[pulumi.Resource, ...]


def build_network(
    scope: Scope, args: GkeTpuClusterArgs, compute: pulumi.Resource, account: pulumi.Output[str]
) -> Network:
    """A network of its own; `compute` is the API, `account` the nodes' e-mail address."""
    vpc = gcp.compute.Network(
        f"{scope.name}-network",
        project=args.project,
        auto_create_subnetworks=False,
        routing_mode="REGIONAL",
        opts=scope.options(after=[compute], delete=DELETE_MINUTES),
    )
    subnet = _subnet(scope, args, vpc, "subnet", _nodes(args))
    needed = [subnet, _nat(scope, args, vpc)]
    if args.webhook_ports:
        needed.append(_webhooks(scope, args, vpc, account))
    if args.network.proxy_only:
        proxies = {
            "ip_cidr_range": args.network.proxy_only,
            "purpose": "REGIONAL_MANAGED_PROXY",
            "role": "ACTIVE",
        }
        needed.append(_subnet(scope, args, vpc, "proxies", proxies))
    return Network(id=vpc.id, subnet=subnet.id, needed=tuple(needed))


def _nodes(args: GkeTpuClusterArgs) -> dict[str, Any]:
    return {
        "ip_cidr_range": args.network.nodes,
        "private_ip_google_access": True,
        "secondary_ip_ranges": [
            {"range_name": PODS, "ip_cidr_range": args.network.pods},
            {"range_name": SERVICES, "ip_cidr_range": args.network.services},
        ],
        "log_config": {
            "aggregation_interval": "INTERVAL_10_MIN",
            "flow_sampling": 0.1,
            "metadata": "INCLUDE_ALL_METADATA",
        },
    }


def _subnet(
    scope: Scope, args: GkeTpuClusterArgs, vpc: gcp.compute.Network, name: str, inputs: dict[str, Any]
) -> gcp.compute.Subnetwork:
    return gcp.compute.Subnetwork(
        f"{scope.name}-{name}",
        project=args.project,
        region=args.region,
        network=vpc.id,
        **inputs,
        opts=scope.options(delete=DELETE_MINUTES),
    )


def _nat(scope: Scope, args: GkeTpuClusterArgs, vpc: gcp.compute.Network) -> gcp.compute.RouterNat:
    """The way out: images, models and charts come from registries outside of Google."""
    router = gcp.compute.Router(
        f"{scope.name}-router", project=args.project, region=args.region, network=vpc.id, opts=scope.options()
    )
    return gcp.compute.RouterNat(
        f"{scope.name}-nat",
        project=args.project,
        region=args.region,
        router=router.name,
        nat_ip_allocate_option="AUTO_ONLY",
        source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
        log_config={"enable": True, "filter": "ERRORS_ONLY"},
        opts=scope.options(),
    )


def _webhooks(
    scope: Scope, args: GkeTpuClusterArgs, vpc: gcp.compute.Network, account: pulumi.Output[str]
) -> gcp.compute.Firewall:
    """The API server asks webhooks at the ports of their pods, and GKE itself opens no more than 443 and 10250 to it.

    The private endpoint has an address of the nodes' subnet, hence the range: one of its own (a `/28` block)
    is what clusters had whose network was a peer of Google's. Where a closed port stands in between, a webhook
    times out, and with it every object that it checks; where GKE tunnels, the rule changes nothing.
    """
    ports = sorted(set(args.webhook_ports))
    return gcp.compute.Firewall(
        f"{scope.name}-webhooks",
        project=args.project,
        network=vpc.id,
        description="The API server to the admission webhooks of the installed operators",
        direction="INGRESS",
        allows=[{"protocol": "tcp", "ports": [str(port) for port in ports]}],
        source_ranges=[args.network.nodes],
        target_service_accounts=[account],
        opts=scope.options(delete=DELETE_MINUTES),
    )
