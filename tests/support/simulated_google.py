"""The simulated Google Cloud in this process: the plugin's servicer, called as the engine calls it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pulumi.runtime.proto import provider_pb2

from rehearsal.providers.gcp.embedded import Embedded
from rehearsal.providers.gcp.provider import Gcp
from rehearsal.providers.server import Engine
from rehearsal.providers.values import Properties, from_struct, plain, to_struct

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
Manifest = dict[str, Any]


class FakeKube:
    """As much of an API server as nodes, pods and events need."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Manifest] = {}
        self._numbers = itertools.count()

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = "", fields: str = ""
    ) -> list[Manifest]:
        """Objects of a kind by label equality and by the node that pods are on."""
        wanted = dict(pair.split("=") for pair in selector.split(",") if pair)
        node = fields.removeprefix("spec.nodeName=")
        return [
            item
            for (found, _, _), item in self.objects.items()
            if found == kind
            and wanted.items() <= item["metadata"].get("labels", {}).items()
            and (not node or item["spec"].get("nodeName") == node)
        ]

    def apply(self, manifest: Manifest, manager: str, force: bool = False) -> None:
        """Write the object, keeping its status."""
        old = self.objects.get(self._key(manifest), {})
        self.objects[self._key(manifest)] = {"status": old.get("status", {}), **manifest}

    def create(self, manifest: Manifest) -> None:
        self.objects[self._key(manifest)] = manifest

    def patch(self, api_version, kind, name, namespace, body, subresource="") -> None:
        self.objects[kind, namespace or "", name]["status"] = body["status"]

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        self.objects.pop((kind, namespace or "", name), None)

    def nodes(self, pool: str = "") -> list[Manifest]:
        """The nodes, or those of one pool."""
        return self.list("v1", "Node", selector=f"cloud.google.com/gke-nodepool={pool}" if pool else "")

    def events(self) -> list[tuple[str, str]]:
        """(reason, message) of every event."""
        return [(e["reason"], e["message"]) for e in self.list("v1", "Event")]

    @staticmethod
    def _key(manifest: Manifest) -> tuple[str, str, str]:
        meta = manifest["metadata"]
        return manifest["kind"], meta.get("namespace", ""), meta["name"]


@dataclass(frozen=True)
class FakeEmbedded:
    """An API server that is nowhere."""

    kube: FakeKube = field(default_factory=FakeKube)
    address: str = "127.0.0.1:6443"
    authority: str = "Q0E="


@dataclass(frozen=True)
class Made:
    """A resource as the engine remembers it."""

    urn: str
    identity: str
    inputs: Properties
    outputs: Properties


@dataclass(frozen=True)
class Difference:
    """What a diff says."""

    changed: set[str]
    replaces: set[str]
    old_first: bool


class Failed(Exception):
    """The inputs were refused in the check, which a preview makes as well."""


class Google:
    """A simulated project in `root`, all APIs enabled unless `services` says otherwise."""

    def __init__(
        self,
        root: Path,
        config: Mapping[str, str] | None = None,
        embedded: Embedded | None = None,
        **settings: Any,
    ):
        self.root, self.now = root, 1_000_000.0
        self.kube = FakeKube()
        server: Any = embedded or FakeEmbedded(self.kube)
        self.plugin = Gcp(Engine(""), root, server, lambda: self.now)
        self.settings = {"services": list(APIS)}
        self.set(**settings)
        self.configure(**(config or {"project": PROJECT, "region": REGION, "zone": ZONE}))

    def set(self, **settings: Any) -> None:
        """Change the settings file."""
        self.settings |= settings
        (self.root / "cloud").mkdir(exist_ok=True)
        (self.root / "cloud" / "settings.yaml").write_text(yaml.safe_dump(self.settings))

    def configure(self, **variables: str) -> None:
        """The provider's configuration."""
        given = {f"gcp:config:{name}": value for name, value in variables.items()}
        self.plugin.Configure(provider_pb2.ConfigureRequest(variables=given), None)

    def check(self, kind: str, name: str, inputs: Properties, olds: Properties | None = None) -> Properties:
        """The inputs with defaults and name; Failed with all reasons."""
        request = provider_pb2.CheckRequest(
            urn=urn(kind, name), olds=to_struct(olds or {}), news=to_struct(inputs), randomSeed=b"seed"
        )
        answer = self.plugin.Check(request, None)
        if answer.failures:
            raise Failed("; ".join(f"{f.property}: {f.reason}" for f in answer.failures))
        return from_struct(answer.inputs)

    def foresee(self, kind: str, name: str, inputs: Properties) -> Properties:
        """The outputs of a preview."""
        checked = self.check(kind, name, inputs)
        request = provider_pb2.CreateRequest(urn=urn(kind, name), properties=to_struct(checked), preview=True)
        return from_struct(self.plugin.Create(request, None).properties)

    def create(self, kind: str, resource: str, /, timeout: float = 0, **inputs: Any) -> Made:
        """Check and create."""
        checked = self.check(kind, resource, inputs)
        request = provider_pb2.CreateRequest(
            urn=urn(kind, resource), properties=to_struct(checked), timeout=timeout
        )
        answer = self.plugin.Create(request, None)
        return Made(urn(kind, resource), answer.id, checked, from_struct(answer.properties))

    def diff(self, made: Made, ignore: tuple[str, ...] = (), **inputs: Any) -> Difference:
        """What the engine would be told about new inputs."""
        _, kind, name = made.urn.rsplit("::", 2)
        news = self.check(_short(kind), name, inputs, made.inputs)
        request = provider_pb2.DiffRequest(
            urn=made.urn,
            id=made.identity,
            olds=to_struct(made.outputs),
            old_inputs=to_struct(made.inputs),
            news=to_struct(news),
            ignoreChanges=ignore,
        )
        answer = self.plugin.Diff(request, None)
        assert set(answer.detailedDiff) == set(answer.diffs)
        return Difference(set(answer.diffs), set(answer.replaces), answer.deleteBeforeReplace)

    def update(self, made: Made, **inputs: Any) -> Made:
        """Check and update in place."""
        _, kind, name = made.urn.rsplit("::", 2)
        news = self.check(_short(kind), name, inputs, made.inputs)
        request = provider_pb2.UpdateRequest(
            urn=made.urn,
            id=made.identity,
            olds=to_struct(made.outputs),
            old_inputs=to_struct(made.inputs),
            news=to_struct(news),
        )
        answer = self.plugin.Update(request, None)
        return Made(made.urn, made.identity, news, from_struct(answer.properties))

    def read(self, made: Made) -> Made | None:
        """A refresh; None where the resource is gone."""
        request = provider_pb2.ReadRequest(
            urn=made.urn,
            id=made.identity,
            properties=to_struct(made.outputs),
            inputs=to_struct(made.inputs),
        )
        answer = self.plugin.Read(request, None)
        if not answer.id:
            return None
        return Made(made.urn, answer.id, from_struct(answer.inputs), from_struct(answer.properties))

    def delete(self, made: Made) -> None:
        """Delete."""
        request = provider_pb2.DeleteRequest(
            urn=made.urn, id=made.identity, properties=to_struct(made.outputs)
        )
        self.plugin.Delete(request, None)

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
    """As the seed's pool, done right."""
    return {
        "name": name,
        "cluster": cluster.identity,
        "autoscaling": {"minNodeCount": 0, "maxNodeCount": 3},
        "ignoreNodeCountChanges": True,
        "nodeConfig": {"machineType": "ct6e-standard-4t", **(config or {})},
        **more,
    }


def urn(kind: str, name: str) -> str:
    """The URN of a resource."""
    return f"urn:pulumi:test::test::{TYPES[kind]}::{name}"


def _short(token: str) -> str:
    return next(short for short, type_ in TYPES.items() if type_ == token)


def outputs(made: Made) -> Properties:
    """Plain outputs."""
    return plain(made.outputs)
