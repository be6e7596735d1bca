"""Node groups of the simulated AWS account: their sizes, what they may use, and the Node objects they stand for."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Any, ClassVar

from rehearsal.cloud import aws_machines
from rehearsal.cloud.aws_machines import Instance
from rehearsal.cloud.groups import CLUSTER_LABEL, Group, Short
from rehearsal.cloud.project import Record, State
from rehearsal.cloud.settings import Settings
from rehearsal.node import shapes
from rehearsal.node.nodes import NodeShape

CLUSTER, GROUP, ADDON = "eks/cluster", "eks/nodeGroup", "eks/addon"
SUBNET, TEMPLATE, TAG = "ec2/subnet", "ec2/launchTemplate", "autoscaling/tag"
GROUP_LABEL = "eks.amazonaws.com/nodegroup"
GPU = "nvidia.com/gpu"
# By this label the autoscaler knows that a node without GPUs is only not ready yet.
ACCELERATOR_LABEL = "k8s.amazonaws.com/accelerator"
DISCOVERY, NODE_TEMPLATE = "k8s.io/cluster-autoscaler", "k8s.io/cluster-autoscaler/node-template"
CAPACITIES: Mapping[str, str] = {"ON_DEMAND": "on-demand", "SPOT": "spot"}
NO_NETWORK = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized"
)
# Every group has a sixteenth of its subnet's addresses, so that names of nodes never meet.
_SLOTS = 16
_RESERVED = 4
# What EKS gives a node where nothing is said.
DEFAULT_DISK_GIB, DEFAULT_TYPE = 20, "t3.medium"
_RAID = "strategy: RAID0"
_SPOT_QUOTA = ("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded.")
_QUOTA = (
    "VcpuLimitExceeded",
    "You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket "
    + "that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to "
    + "request an adjustment to this limit.",
)


@dataclass(frozen=True)
class NodeGroup(Group):
    """One managed node group, as its record and those of its subnets and template say.

    `networks` are the ranges of its subnets by zone. `tags` are those of its autoscaling group. `described` says
    whether the autoscaler may ask EKS for labels and taints of the group, `home` is the autoscaler's namespace.
    """

    record: ClassVar[str] = GROUP

    identity: str
    cluster: str
    name: str
    zones: tuple[str, ...]
    size: int
    limits: tuple[int, int] | None
    bounds: tuple[int, int]
    inputs: dict[str, Any]
    instance: Instance
    capacity: str
    networks: Mapping[str, str]
    disk_gib: int
    store: bool
    slot: int
    round: int
    networked: bool
    tags: Mapping[str, str]
    described: bool
    home: str = ""

    @property
    def region(self) -> str:
        """Where its quota counts."""
        return aws_machines.region_of(self.zones[0])

    @property
    def scaling(self) -> str:
        """Name of its autoscaling group."""
        return scaling_name(self.identity)

    @property
    def selector(self) -> dict[str, str]:
        """The labels by which its nodes are found."""
        return {GROUP_LABEL: self.name}

    def node_names(self, size: int | None = None) -> list[str]:
        """Names of the first `size` nodes; other ones after each renewal of all."""
        return [self._name(index) for index in range(self.size if size is None else size)]

    def _name(self, index: int) -> str:
        network = IPv4Network(self.networks[self._zone(index)])
        share = max(1, (network.num_addresses - _RESERVED) // _SLOTS)
        place = (self.round * 7 + index) % share
        address = str(network[_RESERVED + self.slot * share + place]).replace(".", "-")
        domain = "ec2.internal" if self.region == "us-east-1" else f"{self.region}.compute.internal"
        return f"ip-{address}.{domain}"

    def _zone(self, index: int) -> str:
        return self.zones[index % len(self.zones)]

    def shape(self, index: int = 0) -> NodeShape:
        """The node that is number `index`, as it joins; zones take turns."""
        name = self._name(index)
        return shapes.eks_node(
            name=name,
            machine_id=f"i-{_hash(f'{self.identity} {name}', 17)}",
            group=self.name,
            zone=self._zone(index),
            instance=self.instance,
            inputs=self.inputs,
            disk_gib=self.disk_gib,
            store=self.store,
            unready="" if self.networked else NO_NETWORK,
            extra={CLUSTER_LABEL: self.cluster},
        )

    def template(self) -> NodeShape:
        """A node as the autoscaler imagines it: after one that there is, else by the instance type and by tags.

        Of the disk it knows nothing without a tag; a node group's own labels and taints it has to ask EKS for.
        """
        shape = self.shape()
        gpus = {GPU: str(self.instance.gpus)} if self.instance.gpus else {}
        if self.size:
            return replace(
                shape, capacity={**shape.capacity, **gpus}, allocatable={**shape.allocatable, **gpus}
            )
        known = {name: shape.capacity[name] for name in ("cpu", "memory", "pods")} | gpus
        asked = self.inputs if self.described else {}
        return replace(
            shape,
            capacity=known | dict(self._tagged("resources")),
            allocatable={},
            labels={
                **shapes.ec2_labels(self.instance.name, self._zone(0)),
                **(asked.get("labels") or {}),
                **dict(self._tagged("label")),
            },
            taints=(*shapes.stated_taints(asked), *self._tagged_taints(asked)),
        )

    def _tagged(self, what: str) -> Iterator[tuple[str, str]]:
        prefix = f"{NODE_TEMPLATE}/{what}/"
        for name, value in self.tags.items():
            if name.startswith(prefix):
                yield name.removeprefix(prefix), value

    def _tagged_taints(self, asked: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
        known = {taint["key"] for taint in asked.get("taints") or ()}
        for key, text in self._tagged("taint"):
            value, _, effect = text.rpartition(":")
            if key not in known:
                yield {"key": key, "value": value, "effect": effect}

    def awaited(self, node: dict[str, Any]) -> bool:
        """Whether a node has the label of an accelerator and none of those to give yet."""
        labels = node["metadata"].get("labels") or {}
        there = (node.get("status") or {}).get("allocatable") or {}
        mine = (labels.get(CLUSTER_LABEL), labels.get(GROUP_LABEL)) == (self.cluster, self.name)
        return bool(mine and self.instance.gpus and ACCELERATOR_LABEL in labels and GPU not in there)

    def require(self, state: State, settings: Settings, size: int) -> None:
        """Raise Short unless the group may grow to `size` nodes: quota of its kind of machines, and stock."""
        if size <= self.size:
            return
        self._require_stock(settings)
        code, capacity = self.instance.quota(self.capacity), self.capacity
        others = [g for g in all_groups(state) if g.identity != self.identity and g.region == self.region]
        used = sum(g.size * g.instance.vcpus for g in others if g.instance.quota(g.capacity) == code)
        limit = settings.quota(code, self.region)
        if used + size * self.instance.vcpus > limit:
            raise self._short(
                *(_SPOT_QUOTA if capacity == "spot" else (_QUOTA[0], _QUOTA[1].format(limit=limit)))
            )

    def _require_stock(self, settings: Settings) -> None:
        for zone in self.zones:
            if not settings.offered(self.instance.name, zone, True):
                raise self._short(
                    "InvalidParameterCombination" if self.capacity == "spot" else "Unsupported",
                    f"Your requested instance type ({self.instance.name}) is not supported in your requested "
                    f"Availability Zone ({zone}). Please retry your request by not specifying an Availability Zone "
                    "or choosing another one.",
                )
        short = [z for z in self.zones if settings.stocked_out(self.instance.name, z, self.capacity)]
        if len(short) < len(self.zones):
            return
        raise self._short(
            "UnfulfillableCapacity" if self.capacity == "spot" else "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {self.instance.name} capacity in the Availability Zone you "
            f"requested ({short[0]}). Our system will be working on provisioning additional capacity.",
        )

    def _short(self, word: str, sentence: str) -> Short:
        kind = "Spot" if self.capacity == "spot" else "On-Demand"
        return Short(
            word, f"AsgInstanceLaunchFailures: Could not launch {kind} Instances. {word} - {sentence} "
            "Launching EC2 instance failed.",
        )  # fmt: skip

    def noted(self, missing: int) -> tuple[str, str] | None:
        """It learns from the group's failed activities that no machine comes, but takes no cause from them.

        Sources: cluster-autoscaler's `clusterstate.go` and `cloudprovider/aws` (`placeholder-cannot-be-fulfilled`).
        """
        return self.home, (
            f"Failed adding {missing} nodes to group {self.scaling} due to OutOfResource.placeholder-cannot-be-fulfilled; "
            "source errors: AWS cannot provision any more instances for this node group"
        )

    def growth(self, size: int, wanted: int) -> str:
        """The autoscaling group, the sizes and the maximum."""
        return f"{{{self.scaling} {size}->{wanted} (max: {self.most})}}"


def all_groups(state: State, scaled: str = "", described: bool = False) -> Iterator[NodeGroup]:
    """Every node group of the account; those of the cluster `scaled` have limits for its autoscaler."""
    for identity, record in state.of(GROUP).items():
        cluster = record["inputs"]["clusterName"]
        if cluster in state.of(CLUSTER):
            group = group_of(state, identity, record, described)
            yield replace(group, limits=group.bounds) if cluster == scaled else group


def group_of(state: State, identity: str, record: Record, described: bool = False) -> NodeGroup:
    """Decode a record; ValueError where nobody offers such machines."""
    inputs = record["inputs"]
    name = (inputs.get("instanceTypes") or [DEFAULT_TYPE])[0]
    instance = aws_machines.find(name)
    if instance is None:
        raise ValueError(f"{identity} has the instance type {name}, which is not in the catalogue")
    subnets = [state.of(SUBNET)[i]["outputs"] for i in inputs["subnetIds"] if i in state.of(SUBNET)]
    networks = {s["availabilityZone"]: s["cidrBlock"] for s in subnets}
    disk, store = _disk(state, inputs)
    scaling = inputs.get("scalingConfig") or {}
    reservation = _template(state, inputs).get("capacityReservationSpecification")
    capacity = CAPACITIES[inputs.get("capacityType") or "ON_DEMAND"]
    group = NodeGroup(
        identity=identity,
        cluster=inputs["clusterName"],
        name=identity.partition(":")[2],
        zones=tuple(sorted(networks)),
        size=record.get("size", 0),
        limits=None,
        bounds=(scaling.get("minSize", 0), scaling.get("maxSize", 1)),
        inputs=inputs,
        instance=instance,
        capacity="reservation" if reservation else capacity,
        networks=networks,
        disk_gib=disk,
        store=store,
        slot=record.get("slot", 0),
        round=record.get("round", 0),
        networked=has_network(state, inputs["clusterName"]),
        tags={},
        described=described,
    )
    return replace(group, tags=dict(_tags(state, group)))


def scaling_name(identity: str) -> str:
    """Name of the autoscaling group of a node group."""
    return f"eks-{identity.partition(':')[2]}-{_hash(identity, 12)}"


def has_network(state: State, cluster: str) -> bool:
    """Whether nodes of a cluster get a network: by the add-on, or by what EKS installs by itself."""
    record = state.of(CLUSTER).get(cluster, {"inputs": {}})
    return f"{cluster}:vpc-cni" in state.of(ADDON) or record["inputs"].get("bootstrapSelfManagedAddons", True)


def free_slot(state: State) -> int:
    """A share of addresses that no group has; Short where there are more groups than shares."""
    taken = {record.get("slot") for record in state.of(GROUP).values()}
    found = next((slot for slot in range(_SLOTS) if slot not in taken), None)
    if found is None:
        raise Short("", f"a rehearsal has at most {_SLOTS} node groups at once")
    return found


def _tags(state: State, group: NodeGroup) -> Iterator[tuple[str, str]]:
    """Tags of the autoscaling group: EKS's own for the autoscaler, and those that others put there."""
    yield f"{DISCOVERY}/enabled", "true"
    yield f"{DISCOVERY}/{group.cluster}", "owned"
    for record in state.of(TAG).values():
        if record["inputs"]["autoscalingGroupName"] == group.scaling:
            yield record["inputs"]["tag"]["key"], record["inputs"]["tag"]["value"]


def _template(state: State, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the launch template's version that the group uses; empty without one."""
    reference = inputs.get("launchTemplate") or {}
    for identity, record in state.of(TEMPLATE).items():
        if reference.get("id") == identity or reference.get("name") == record["outputs"].get("name"):
            return record.get("versions", {}).get(str(reference.get("version")), record["inputs"])
    return {}


def _disk(state: State, inputs: Mapping[str, Any]) -> tuple[int, bool]:
    """Size of the root volume, and whether the machine's own disks hold what pods write."""
    template = _template(state, inputs)
    sizes = [
        (mapping.get("ebs") or {}).get("volumeSize") for mapping in template.get("blockDeviceMappings") or ()
    ]
    given = next((size for size in sizes if size), None) or inputs.get("diskSize")
    settings = base64.b64decode(template.get("userData") or "").decode(errors="replace")
    return int(given or DEFAULT_DISK_GIB), _RAID in settings


def _hash(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
