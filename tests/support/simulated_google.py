"""The simulated Google Cloud in this process: the plugin's servicer, called as the engine calls it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.providers.gcp.embedded import Embedded
from rehearsal.providers.gcp.provider import Gcp
from rehearsal.providers.server import Engine
from rehearsal.providers.values import Properties
from tests.support.simulated_cloud import Cloud, Failed, FakeKube, Made, Manifest, outputs

__all__ = [
    "APIS",
    "PROJECT",
    "REGION",
    "TYPES",
    "ZONE",
    "Failed",
    "Google",
    "cluster_inputs",
    "outputs",
    "pool_inputs",
]

PROJECT, ZONE, REGION = "my-project", "europe-west4-a", "europe-west4"
APIS = tuple(
    f"{name}.googleapis.com"
    for name in (
        "compute", "container", "iam", "cloudresourcemanager", "storage", "secretmanager", "certificatemanager",
    )
)  # fmt: skip
TYPES = {
    "service": "gcp:projects/service:Service",
    "network": "gcp:compute/network:Network",
    "subnetwork": "gcp:compute/subnetwork:Subnetwork",
    "router": "gcp:compute/router:Router",
    "nat": "gcp:compute/routerNat:RouterNat",
    "firewall": "gcp:compute/firewall:Firewall",
    "address": "gcp:compute/address:Address",
    "account": "gcp:serviceaccount/account:Account",
    "member": "gcp:projects/iAMMember:IAMMember",
    "cluster": "gcp:container/cluster:Cluster",
    "pool": "gcp:container/nodePool:NodePool",
    "bucket": "gcp:storage/bucket:Bucket",
    "secret": "gcp:secretmanager/secret:Secret",
    "version": "gcp:secretmanager/secretVersion:SecretVersion",
}


@dataclass(frozen=True)
class FakeEmbedded:
    """An API server that is nowhere."""

    kube: FakeKube
    address: str = "127.0.0.1:6443"
    authority: str = "Q0E="

    def definitions(self, minor: str) -> dict[str, list[Manifest]]:
        """One definition for each source."""
        named = {"gateway-api": "gateways", "networking": "healthcheckpolicies", "inference-pool": "pools"}
        kind = "CustomResourceDefinition"
        return {
            source: [{"kind": kind, "metadata": {"name": f"{name}.{minor}", "labels": {}}}]
            for source, name in named.items()
        }


class Google(Cloud):
    """A simulated project in `root`, all APIs enabled unless `services` says otherwise."""

    types, config_namespace = TYPES, "gcp"

    def __init__(
        self,
        root: Path,
        config: Mapping[str, str] | None = None,
        embedded: Embedded | None = None,
        **settings: Any,
    ):
        self.now = 1_000_000.0
        kube = FakeKube("cloud.google.com/gke-nodepool")
        server: Any = embedded or FakeEmbedded(kube)
        plugin = Gcp(Engine(""), root, server, lambda: self.now)
        super().__init__(root, plugin, kube, {"services": list(APIS), **settings})
        self.configure(**(config or {"project": PROJECT, "region": REGION, "zone": ZONE}))

    # -- a small stack -----------------------------------------------------------------------------

    def make_network(self, **subnet: Any) -> tuple[Made, Made]:
        """A network with a subnet for a cluster."""
        network = self.create("network", "net", name="net", autoCreateSubnetworks=False)
        ranges = [
            {"rangeName": "pods", "ipCidrRange": "10.4.0.0/14"},
            {"rangeName": "services", "ipCidrRange": "10.8.0.0/20"},
        ]
        wanted = {"name": "nodes", "network": network.identity, "ipCidrRange": "10.0.0.0/20"}
        return network, self.create(
            "subnetwork", "nodes", **{**wanted, "secondaryIpRanges": ranges, **subnet}
        )

    def make_cluster(self, **more: Any) -> Made:
        """A cluster in a network of its own, without a default pool."""
        network, subnet = self.make_network()
        return self.create("cluster", "c", **cluster_inputs(network, subnet, **more))

    def make_pool(self, cluster: Made, name: str = "v6e", **more: Any) -> Made:
        """A single-host TPU pool, empty unless told otherwise."""
        return self.create("pool", name, **pool_inputs(cluster, name, **more))


def cluster_inputs(network: Made, subnet: Made, **more: Any) -> Properties:
    """As a careful program gives them."""
    return {
        "name": "c",
        "location": ZONE,
        "network": network.identity,
        "subnetwork": subnet.identity,
        "deletionProtection": False,
        "ipAllocationPolicy": {
            "clusterSecondaryRangeName": "pods",
            "servicesSecondaryRangeName": "services",
        },
        **more,
    }


def pool_inputs(
    cluster: Made, name: str = "v6e", config: Properties | None = None, **more: Any
) -> Properties:
    """A pool of TPU machines that may have no machine."""
    return {
        "name": name,
        "cluster": cluster.identity,
        "autoscaling": {"minNodeCount": 0, "maxNodeCount": 3},
        "ignoreNodeCountChanges": True,
        "nodeConfig": {"machineType": "ct6e-standard-4t", **(config or {})},
        **more,
    }
