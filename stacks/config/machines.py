"""Machine types with accelerators, and where the clouds offer them.

Sources, read in November 2026: GKE's and Google's TPU v6e pages, cluster-toolkit's list of
topologies and the SkyPilot catalogue for zones; Karpenter's instance table and AWS's page
for g6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType


@dataclass(frozen=True)
class TpuMachine:
    """A GKE machine type with TPU v6e chips; `single_host` is the slice that is one such machine."""

    chips: int
    vcpus: int
    memory_gib: int
    single_host: str


@dataclass(frozen=True)
class GpuMachine:
    """An EC2 instance type of the g6 family (NVIDIA L4); `nvme_gb` is its instance store."""

    gpus: int
    vcpus: int
    memory_gib: int
    nvme_gb: int


TPU_MACHINES: Mapping[str, TpuMachine] = MappingProxyType(
    {
        "ct6e-standard-1t": TpuMachine(chips=1, vcpus=44, memory_gib=176, single_host="1x1"),
        "ct6e-standard-4t": TpuMachine(chips=4, vcpus=180, memory_gib=720, single_host="2x2"),
        "ct6e-standard-8t": TpuMachine(chips=8, vcpus=180, memory_gib=1440, single_host="2x4"),
    }
)

# Slices of more than one machine are built of this type only.
MULTI_HOST_MACHINE = "ct6e-standard-4t"

# v6e is a two-dimensional torus of at most 256 chips.
TPU_TOPOLOGIES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")

GPU_MACHINES: Mapping[str, GpuMachine] = MappingProxyType(
    {
        "g6.xlarge": GpuMachine(gpus=1, vcpus=4, memory_gib=16, nvme_gb=250),
        "g6.2xlarge": GpuMachine(gpus=1, vcpus=8, memory_gib=32, nvme_gb=450),
        "g6.4xlarge": GpuMachine(gpus=1, vcpus=16, memory_gib=64, nvme_gb=600),
        "g6.8xlarge": GpuMachine(gpus=1, vcpus=32, memory_gib=128, nvme_gb=900),
        "g6.12xlarge": GpuMachine(gpus=4, vcpus=48, memory_gib=192, nvme_gb=3760),
        "g6.16xlarge": GpuMachine(gpus=1, vcpus=64, memory_gib=256, nvme_gb=1880),
        "g6.24xlarge": GpuMachine(gpus=4, vcpus=96, memory_gib=384, nvme_gb=3760),
        "g6.48xlarge": GpuMachine(gpus=8, vcpus=192, memory_gib=768, nvme_gb=7520),
    }
)

V6E_ZONES = (
    "asia-northeast1-b",
    "asia-south1-b",
    "asia-south1-c",
    "asia-southeast1-b",
    "europe-west4-a",
    "southamerica-west1-a",
    "us-central1-a",
    "us-central1-b",
    "us-central1-c",
    "us-east1-d",
    "us-east4-a",
    "us-east5-a",
    "us-east5-b",
    "us-east5-c",
    "us-south1-a",
    "us-south1-b",
    "us-south1-c",
    "us-west1-c",
)

# Regions with v6e whose catalogue has no machine of the n1 family.
REGIONS_WITHOUT_N1 = ("southamerica-west1", "us-east5", "us-south1")


def chips(topology: str) -> int:
    """The number of chips of a slice: `2x4` has 8."""
    return prod(int(side) for side in topology.split("x"))


def hosts(machine_type: str, topology: str) -> int:
    """The machines that make one slice.

    Raises `ValueError` with a sentence for the user when there is no such slice.
    """
    machine = TPU_MACHINES[machine_type]
    if topology.count("x") > 1:
        raise ValueError(f"{topology} has three dimensions, but TPU v6e is a two-dimensional torus")
    if topology not in TPU_TOPOLOGIES:
        raise ValueError(f"TPU v6e has no slice of shape {topology}")
    if topology == machine.single_host:
        return 1
    if machine_type != MULTI_HOST_MACHINE or chips(topology) <= machine.chips:
        raise ValueError(
            f"{machine_type} has {machine.chips} chips and only forms the slice {machine.single_host}"
        )
    return chips(topology) // machine.chips


def topologies_of(machine_type: str) -> tuple[str, ...]:
    """Every slice that machines of this type can form."""
    machine = TPU_MACHINES[machine_type]
    if machine_type != MULTI_HOST_MACHINE:
        return (machine.single_host,)
    return tuple(shape for shape in TPU_TOPOLOGIES if chips(shape) >= machine.chips)
