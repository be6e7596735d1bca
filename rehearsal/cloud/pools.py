"""Node pools of the simulated project: their sizes, what they may use, and the Node objects they stand for."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from rehearsal.cloud import machines
from rehearsal.cloud.groups import CLUSTER_LABEL, Group, Short
from rehearsal.cloud.project import CLUSTER, POOL, Record, State
from rehearsal.cloud.settings import Settings
from rehearsal.node import shapes
from rehearsal.node.nodes import NodeShape
from stacks.config.machines import chips as chips_of

CHIPS = "TPUS_PER_TPU_FAMILY"
PREEMPTIBLE_CHIPS = "PREEMPTIBLE_TPU_V6E"
POOL_LABEL = "cloud.google.com/gke-nodepool"
_STRIDE = 7919


@dataclass(frozen=True)
class Pool(Group):
    """One node pool, as its record says."""

    record: ClassVar[str] = POOL

    identity: str
    project: str
    cluster: str
    name: str
    zones: tuple[str, ...]
    config: dict[str, Any]
    machine: machines.Machine
    topology: str
    size: int
    limits: tuple[int, int] | None
    max_pods: int
    private: bool

    @classmethod
    def of(cls, identity: str, record: Record, cluster: Record) -> Pool:
        """Decode a record; `identity` is projects/P/locations/L/clusters/C/nodePools/N."""
        inputs = record["inputs"]
        _, project, _, location, _, cluster_name, _, name = identity.split("/")
        zones = tuple(inputs.get("nodeLocations") or cluster["outputs"].get("nodeLocations") or ())
        zones = zones or ((location,) if machines.is_zone(location) else (f"{location}-a",))
        config = inputs.get("nodeConfig") or {}
        machine = machines.find(config.get("machineType") or "e2-medium")
        if machine is None:
            raise ValueError(f"{identity} has the machine type {config['machineType']}, which nobody offers")
        network = inputs.get("networkConfig") or {}
        return cls(
            identity=identity,
            project=project,
            cluster=cluster_name,
            name=name,
            zones=zones,
            config=config,
            machine=machine,
            topology=(inputs.get("placementPolicy") or {}).get("tpuTopology") or "",
            size=record.get("size", 0),
            limits=limits(inputs, len(zones)),
            max_pods=inputs.get("maxPodsPerNode") or 110,
            private=bool(
                network.get("enablePrivateNodes")
                or (cluster["inputs"].get("privateClusterConfig") or {}).get("enablePrivateNodes")
            ),
        )

    @property
    def selector(self) -> dict[str, str]:
        """The labels by which its nodes are found."""
        return {POOL_LABEL: self.name}

    @property
    def step(self) -> int:
        """Nodes that come and go together: a multi-host slice exists whole or not at all."""
        return chips_of(self.topology) // self.machine.chips if self.topology and self.machine.chips else 1

    @property
    def region(self) -> str:
        """Where its quota counts."""
        return machines.region_of(self.zones[0])

    @property
    def capacity(self) -> str:
        """How its machines are bought, in the configuration's words."""
        affinity = (self.config.get("reservationAffinity") or {}).get("consumeReservationType")
        if self.config.get("spot"):
            return "spot"
        if self.config.get("flexStart"):
            return "flex-start"
        return "reservation" if affinity == "SPECIFIC_RESERVATION" else "on-demand"

    @property
    def group(self) -> str:
        """Name of the managed instance group."""
        return f"gke-{self.cluster[:20]}-{self.name[:20]}-{_hash(self.identity, 8)}-grp"

    def node_names(self, size: int | None = None) -> list[str]:
        """Names of the first `size` nodes, the same every time."""
        prefix, first = self.group.removesuffix("-grp"), int(_hash(self.identity, 12), 16)
        count = self.size if size is None else size
        return [f"{prefix}-{_suffix(first + i * _STRIDE)}" for i in range(count)]

    def require(self, state: State, settings: Settings, size: int) -> None:
        """As the function below."""
        require(state, settings, self, size)

    def growth(self, size: int, wanted: int) -> str:
        """The instance group's URL, the sizes and the maximum."""
        place = f"https://www.googleapis.com/compute/v1/projects/{self.project}/zones/{self.zones[0]}"
        return f"{{{place}/instanceGroups/{self.group} {size}->{wanted} (max: {self.most})}}"

    def failure(self, short: Short) -> str:
        """GKE's cause, and what it means for the pod."""
        return (
            f"Node scale up in zones {', '.join(self.zones)} associated with this pod failed: {short.cause}. "
            "Pod is at risk of not being scheduled."
        )

    def shape(self, index: int = 0) -> NodeShape:
        """The node that is number `index`; zones take turns."""
        zone = self.zones[index % len(self.zones)]
        return shapes.gke_node(
            name=self.node_names(index + 1)[index],
            project=self.project,
            pool=self.name,
            zone=zone,
            machine=self.machine,
            config=self.config,
            topology=self.topology,
            max_pods=self.max_pods,
            private=self.private,
            extra={CLUSTER_LABEL: self.cluster},
        )


def _suffix(number: int) -> str:
    """Four letters or digits; consecutive strides never meet, as the stride has no factor of 36."""
    digits = [number // 36**place % 36 for place in range(4)]
    return "".join(string.ascii_lowercase[d] if d < 26 else str(d - 26) for d in digits)


def _hash(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def limits(inputs: dict[str, Any], zones: int) -> tuple[int, int] | None:
    """(least, most) nodes over all zones that the autoscaler keeps to; None without autoscaling.

    `minNodeCount` and `maxNodeCount` are per zone, the `total…` ones are not.
    """
    scaling = inputs.get("autoscaling")
    if not scaling:
        return None
    if scaling.get("totalMaxNodeCount"):
        return scaling.get("totalMinNodeCount") or 0, scaling["totalMaxNodeCount"]
    return (scaling.get("minNodeCount") or 0) * zones, (scaling.get("maxNodeCount") or 0) * zones


def all_pools(state: State) -> Iterator[Pool]:
    """Every pool of the project's clusters."""
    for identity, record in state.of(POOL).items():
        cluster = state.of(CLUSTER).get(identity.rsplit("/nodePools/", 1)[0])
        if cluster is not None:
            yield Pool.of(identity, record, cluster)


def require(state: State, settings: Settings, pool: Pool, size: int) -> None:
    """Raise Short unless the pool may grow to `size` nodes: quota of its family and region, and stock."""
    if size <= pool.size:
        return
    for zone in pool.zones:
        if settings.stocked_out(pool.machine.name, zone, pool.capacity):
            raise Short(
                "GCE out of resources",
                f"Google Compute Engine: The zone 'projects/{pool.project}/zones/{zone}' does not have enough "
                f"resources available to fulfill the request. '(resource type:compute)'. "
                f"(ZONE_RESOURCE_POOL_EXHAUSTED, {pool.machine.name})",
            )
    if pool.machine.chips:
        _require_chips(state, settings, pool, size)


def _require_chips(state: State, settings: Settings, pool: Pool, size: int) -> None:
    """Spot and flex-start spend the preemptible quota first and fall back to the family's."""
    others = [p for p in all_pools(state) if p.identity != pool.identity and p.region == pool.region]
    alike = [(p, p.size) for p in others if p.machine.family == pool.machine.family] + [(pool, size)]
    cheap = sum(p.machine.chips * n for p, n in alike if p.capacity in ("spot", "flex-start"))
    dear = sum(p.machine.chips * n for p, n in alike if p.capacity not in ("spot", "flex-start"))
    limit = settings.quota(CHIPS, pool.region)
    asked = dear + max(0, cheap - settings.quota(PREEMPTIBLE_CHIPS, pool.region))
    if asked > limit:
        raise Short(
            "GCE quota exceeded",
            f"Google Compute Engine: Quota '{CHIPS}' exceeded. Limit: {limit}.0 in region {pool.region} "
            f"(dimensions: tpu_family={pool.machine.family}; {asked} chips would be in use).",
        )
