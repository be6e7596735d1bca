"""A new EKS cluster with NVIDIA L4."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, WithJsonSchema

from stacks.config.base import Strict, entry
from stacks.config.machines import GPU_MACHINES
from stacks.config.pools import MaxNodes, PoolShape, SystemPool, form, one_of
from stacks.config.types import Cidr, DnsLabel, Text, sequence

GpuMachineType = Annotated[
    str,
    AfterValidator(
        one_of(tuple(GPU_MACHINES), "an instance type with NVIDIA L4 GPUs", "its nodes would offer no GPU")
    ),
    WithJsonSchema({"enum": sorted(GPU_MACHINES)}),
]
AwsAccount = form(r"[0-9]{12}", "12 digits in quotes")
AwsRegion = form(r"[a-z]{2}(-[a-z]+)+-[0-9]", "AWS region")
AwsZone = form(r"[a-z]{2}(-[a-z]+)+-[0-9][a-z]", "AWS zone")
KubernetesVersion = form(r"1\.[0-9]+", "version in quotes")
ReservationId = form(r"cr-[0-9a-f]{8,17}", "reservation id")
RoleArn = form(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/.+", "role ARN")


class CapacityReservation(Strict):
    """An on-demand capacity reservation; it is billed while the pool sleeps, too."""

    id: ReservationId = entry("Id of the reservation.")
    zone: AwsZone = entry("Zone that the capacity is reserved in.")


class EksPool(Strict):
    """GPU nodes of one instance type."""

    instance_type: GpuMachineType = entry("Instance type of the g6 family.")
    min_nodes: int = entry("Nodes that stay while no model needs them.", 0, ge=0, unit="nodes")
    max_nodes: MaxNodes = entry("Largest number of nodes. Quota is counted in vCPUs.", unit="nodes")
    zone: AwsZone | None = entry(
        "Zone of the nodes; volumes are bound to it.", None, derived="the first of the zones"
    )
    capacity: Literal["on-demand", "spot", "reservation"] = entry(
        "How the machines are bought. Another kind is another node group: AWS replaces it.", "on-demand"
    )
    keep: sequence(Literal["on-demand", "spot", "reservation"]) = entry(
        "Kinds of capacity that the models move away from: their node groups stay until this is removed again.",
        (),
    )
    reservation: CapacityReservation | None = entry("The reservation, with capacity reservation.", None)
    storage: Literal["instance-store", "ebs"] = entry(
        "Disk of images and downloads: the machine's own NVMe as RAID 0, or an encrypted gp3 volume.",
        "instance-store",
    )
    disk_gib: int = entry("Root volume; with ebs it must hold images and weights.", 200, ge=50, unit="GiB")

    def shape(self) -> PoolShape:
        """The pool as the rules see it."""
        machine = GPU_MACHINES[self.instance_type]
        disk = self.disk_gib if self.storage == "ebs" else machine.nvme_gb * 1e9 / 2**30
        return PoolShape(
            "nvidia-l4", machine.gpus, 1, self.max_nodes, machine.memory_gib, machine.vcpus, disk
        )


class EksEndpoint(Strict):
    """How the API server is reached; the private endpoint is always on."""

    public_cidrs: sequence(Cidr) = entry("Networks that may reach the public endpoint; empty closes it.", ())


class EksCluster(Strict):
    """A new EKS cluster with NVIDIA GPU node groups."""

    kind: Literal["eks"] = entry("Kind of cluster.")
    region: AwsRegion = entry("AWS region.")
    zones: sequence(AwsZone) = entry("Availability zones; EKS needs two.")
    account_id: AwsAccount | None = entry(
        "AWS account that is allowed; a run with other credentials stops.", None, derived="any account"
    )
    version: KubernetesVersion | None = entry("Kubernetes version.", None, derived="AWS's default")
    vpc_cidr: Cidr = entry("Addresses of the VPC.", "10.0.0.0/16")
    services: Cidr = entry("Cluster IPs of Services.", "172.20.0.0/16")
    nat: Literal["single", "per-zone"] = entry(
        "NAT gateways: one, or one per zone that survives a zone's loss.", "single"
    )
    endpoint: EksEndpoint = entry("Access to the API server.", factory=EksEndpoint)
    admin_roles: sequence(RoleArn) = entry(
        "IAM roles with full access, for example that of the pipeline.", ()
    )
    viewer_roles: sequence(RoleArn) = entry("IAM roles that may read, for example that of pull requests.", ())
    system: SystemPool = entry(
        "System node group.", SystemPool.model_construct(machine_type="m6i.xlarge", nodes=2)
    )
    bucket: Text | None = entry("Existing S3 bucket with model weights that the model pods may read.", None)
    deletion_protection: bool = entry(
        "Refuse to delete the cluster, and node groups that models use. Set it to false and run `pulumi up` before "
        "`pulumi destroy`.",
        True,
    )
    tags: dict[Text, str] = entry("Tags of every AWS resource, for cost reports.", factory=dict)
    accelerators: dict[DnsLabel, EksPool] = entry(
        "GPU pools by a name of your choice; models refer to it.", factory=dict
    )

    @property
    def most_system_nodes(self) -> int:
        """The greatest size of the system pool, as written or by default."""
        return self.system.max_nodes or self.system.nodes
