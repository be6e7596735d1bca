"""EC2 instance types of the simulated account: sizes, GPUs, pods, and the quota that they count in.

Those with GPUs are the configuration's own table (stacks/config/machines.py). Sources, read in November 2026:
Karpenter's instance table for pods and what a node keeps for itself, AWS's service quotas for the codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rehearsal.cloud.machines import CPU_SHARES, share
from stacks.config.machines import GPU_MACHINES

# GiB per vCPU by family.
_GIB_PER_VCPU: Final = {
    **dict.fromkeys(("m5", "m5a", "m6i", "m6a", "m7i", "m7a"), 4),
    **dict.fromkeys(("c5", "c6i", "c6a", "c7i", "c7a"), 2),
    **dict.fromkeys(("r5", "r6i", "r6a", "r7i", "r7a"), 8),
    **dict.fromkeys(("t3", "t3a"), 4),
}  # fmt: skip
_VCPUS: Final = {
    "large": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16, "8xlarge": 32, "12xlarge": 48, "16xlarge": 64,
    "24xlarge": 96, "48xlarge": 192,
}  # fmt: skip
# Pods by size: what network interfaces and their addresses allow.
_PODS: Final = {"large": 29, "xlarge": 58, "2xlarge": 58, "4xlarge": 234, "8xlarge": 234, "12xlarge": 234}
_MOST_PODS: Final = 737
# Quotas of running vCPUs: (on demand, spot).
_GPU_QUOTAS: Final = ("L-DB2E81BA", "L-3819A6DF")
_STANDARD_QUOTAS: Final = ("L-1216C47A", "L-34B43A08")
# What a node keeps of memory: the share that the hypervisor takes, then MiB.
_HYPERVISOR_SHARE: Final = 0.075
_MIB_PER_POD, _MIB_BESIDE, _EVICTION_MIB = 11, 255, 100


@dataclass(frozen=True)
class Instance:
    """An instance type; `gpus` is 0 without. `nvme_gb` is its instance store."""

    name: str
    vcpus: int
    memory_gib: int
    gpus: int = 0
    nvme_gb: int = 0

    @property
    def pods(self) -> int:
        """How many pods a node of this type takes."""
        return _PODS.get(self.name.partition(".")[2], _MOST_PODS)

    def quota(self, capacity: str) -> str:
        """The code of the quota that its vCPUs count in, by kind of capacity."""
        return (_GPU_QUOTAS if self.gpus else _STANDARD_QUOTAS)[capacity == "spot"]

    @property
    def allocatable(self) -> dict[str, str]:
        """CPU and memory for pods."""
        cpu = round((self.vcpus - share(self.vcpus, CPU_SHARES)) * 1000)
        memory = int(self.memory_gib * 1024 * (1 - _HYPERVISOR_SHARE))
        memory -= self.pods * _MIB_PER_POD + _MIB_BESIDE + _EVICTION_MIB
        return {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}


def find(name: str) -> Instance | None:
    """The instance type of that name, or None where it is not in the catalogue."""
    if gpu := GPU_MACHINES.get(name):
        return Instance(name, gpu.vcpus, gpu.memory_gib, gpu.gpus, gpu.nvme_gb)
    family, _, size = name.partition(".")
    if family not in _GIB_PER_VCPU or size not in _VCPUS:
        return None
    return Instance(name, _VCPUS[size], _VCPUS[size] * _GIB_PER_VCPU[family])


def region_of(zone: str) -> str:
    """`us-east-1` of `us-east-1a`."""
    return zone.rstrip("abcdefghijklmnopqrstuvwxyz")
