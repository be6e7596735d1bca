"""A new GKE cluster with TPU v6e."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, WithJsonSchema, model_validator

from stacks.config.base import Strict, entry
from stacks.config.errors import refusal
from stacks.config.machines import TPU_MACHINES, hosts, topologies_of
from stacks.config.pools import MaxNodes, PoolShape, SystemPool, form, one_of
from stacks.config.types import Cidr, DnsLabel, Text, TpuTopology, sequence

TpuMachineType = Annotated[
    str,
    AfterValidator(one_of(tuple(TPU_MACHINES), "a machine with TPU v6e chips", "GKE refuses the node pool")),
    WithJsonSchema({"enum": sorted(TPU_MACHINES)}),
]
GcpProject = form(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "project id")
GcpZone = form(r"[a-z]+-[a-z]+[0-9]+-[a-z0-9]+", "Google Cloud zone")
GkeVersion = form(r"1\.[0-9]+(\.[0-9]+(-gke\.[0-9]+)?)?", "GKE version")
Clock = form(r"([01][0-9]|2[0-3]):[0-5][0-9]", "time in quotes")


class GkePool(Strict):
    """TPU v6e slices of one shape."""

    machine_type: TpuMachineType = entry(
        "Machine type; with the topology it decides how many machines one slice has."
    )
    topology: TpuTopology = entry("Chips of one slice per dimension.")
    hosts: int | None = entry(
        "Machines of one slice, as a check: 2x4 is one ct6e-standard-8t or two ct6e-standard-4t.",
        None,
        ge=1,
        derived="the machine type and the topology",
    )
    min_nodes: int = entry("Nodes that stay while no model needs them.", 0, ge=0, unit="nodes")
    max_nodes: MaxNodes = entry(
        "Largest number of nodes; a multiple of the slice's machines. Quota is counted in chips.",
        unit="nodes",
    )
    capacity: Literal["on-demand", "spot", "flex-start", "reservation"] = entry(
        "How the machines are bought. Another kind is another pool: Google replaces it.", "on-demand"
    )
    keep: sequence(Literal["on-demand", "spot", "flex-start", "reservation"]) = entry(
        "Kinds of capacity that the models move away from: their pools stay until this is removed again.", ()
    )
    reservation: Text | None = entry("Name of the reservation, with capacity reservation.", None)
    max_run_hours: int | None = entry(
        "Life of a flex-start node.", None, ge=1, le=168, unit="hours", derived="168 with flex-start"
    )
    zones: sequence(GcpZone) | None = entry(
        "Zones of the nodes; multi-host slices have one.", None, derived="the zone"
    )
    disk_gib: int = entry(
        "Boot disk of a node; holds images and what a model downloads.", 200, ge=50, unit="GiB"
    )

    @model_validator(mode="after")
    def _slice_exists(self) -> GkePool:
        try:
            count = hosts(self.machine_type, self.topology)
        except ValueError as fault:
            raise refusal(
                str(fault),
                "GKE refuses the node pool",
                f"with {self.machine_type} use topology {', '.join(topologies_of(self.machine_type))}",
            ) from None
        if self.hosts not in (None, count):
            raise refusal(
                f"hosts is {self.hosts}, but a {self.topology} slice of {self.machine_type} has {count}",
                "GKE would form another slice than the one you planned",
                f"remove hosts, or choose another machine type for {self.topology}",
            )
        return self

    def shape(self) -> PoolShape:
        """The pool as the rules see it."""
        machine = TPU_MACHINES[self.machine_type]
        return PoolShape(
            "tpu-v6e",
            machine.chips,
            hosts(self.machine_type, self.topology),
            self.max_nodes,
            machine.memory_gib,
            machine.vcpus,
        )


PROXY_ONLY = "192.168.100.0/23"


class GkeNetwork(Strict):
    """Address ranges of the cluster's own network."""

    nodes: Cidr = entry("Nodes and internal load balancers.", "10.0.0.0/20")
    pods: Cidr = entry("Pods; 256 addresses per node.", "10.4.0.0/14")
    services: Cidr = entry("Cluster IPs of Services.", "10.8.0.0/20")
    proxy_only: Cidr | None = entry(
        "Proxies of Google's gateway (kind gke); a region has one active subnet per network. Of a shared subnet it is "
        "the range that it has.",
        None,
        derived=f"{PROXY_ONLY} with gateway kind gke",
    )
    shared_proxy_only_subnet: Text | None = entry(
        "Existing proxy-only subnet to use instead of an own one; needs its range in proxyOnly.", None
    )

    @property
    def proxies(self) -> str:
        """The range of the proxies of Google's gateway."""
        return self.proxy_only or PROXY_ONLY


class GkeControlPlane(Strict):
    """How the API server is reached; nodes are always private."""

    dns_endpoint: bool = entry("Reachable by DNS name, guarded by IAM; needs no address list.", True)
    authorized_networks: dict[Text, Cidr] = entry(
        "Networks that may reach the API server by address; empty closes that endpoint.", factory=dict
    )


class Maintenance(Strict):
    """When Google may upgrade."""

    days: sequence(Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]) = entry("Days.", ("Sat", "Sun"))
    start: Clock = entry("Start, in UTC.", "02:00")
    hours: int = entry("Length of the window; Google wants at least four.", 6, ge=4, le=24, unit="hours")


class GkeCluster(Strict):
    """A new GKE cluster with TPU v6e node pools."""

    kind: Literal["gke"] = entry("Kind of cluster.")
    project: GcpProject = entry("Google Cloud project id.")
    project_number: int | None = entry(
        "Number of the project; needed where an identity is named by it.", None, ge=1, derived="not needed"
    )
    zone: GcpZone = entry("Zone of the control plane and the nodes. TPU capacity is bound to one zone.")
    check_offers: bool = entry(
        "Refuse machine types that the zone is not known to offer. Turn off when Google has added them.", True
    )
    release_channel: Literal["rapid", "regular", "stable", "extended"] = entry(
        "Release channel of GKE.", "regular"
    )
    version: GkeVersion | None = entry(
        "Oldest version of the control plane.", None, derived="the release channel's default"
    )
    system: SystemPool = entry(
        "System node pool.", SystemPool.model_construct(machine_type="e2-standard-4", nodes=2)
    )
    network: GkeNetwork = entry("Address ranges.", factory=GkeNetwork)
    control_plane: GkeControlPlane = entry("Access to the API server.", factory=GkeControlPlane)
    maintenance: Maintenance = entry("Maintenance window.", factory=Maintenance)
    secrets_key: Text | None = entry(
        "Cloud KMS key that encrypts Secrets in etcd.", None, derived="Google's own key"
    )
    deletion_protection: bool = entry(
        "Refuse to delete the cluster, and pools that models use. Set it to false and run `pulumi up` before "
        "`pulumi destroy`.",
        True,
    )
    labels: dict[Text, str] = entry("Labels of every Google resource, for cost reports.", factory=dict)
    accelerators: dict[DnsLabel, GkePool] = entry(
        "TPU pools by a name of your choice; models refer to it.", factory=dict
    )

    @property
    def region(self) -> str:
        """The region that the zone is in."""
        return self.zone.rsplit("-", 1)[0]

    @property
    def most_system_nodes(self) -> int:
        """The greatest size of the system pool, as written or by default."""
        return self.system.max_nodes or 2 * self.system.nodes
