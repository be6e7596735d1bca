"""The nodes of a stack's cluster, with the labels, taints and room for pods of real ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from components.core.accelerators import ACCELERATORS, Accelerator
from rehearsal.cloud import aws_machines
from rehearsal.cloud.machines import CPU_SHARES, Machine, region_of, share
from rehearsal.node.nodes import SYSTEM, NodeShape
from stacks.config import EksCluster, ExistingCluster, GkeCluster, StackConfig
from stacks.config.machines import TPU_MACHINES

BASE = {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "200Gi", "pods": "110"}
TPU: Final = ACCELERATORS["tpu-v6e"]
_EFFECTS: Final = {
    "NO_SCHEDULE": "NoSchedule",
    "PREFER_NO_SCHEDULE": "PreferNoSchedule",
    "NO_EXECUTE": "NoExecute",
}
# What GKE keeps of memory for itself: (GiB up to this much, share).
_MEMORY_SHARES: Final = ((4, 0.25), (8, 0.20), (16, 0.10), (128, 0.06), (float("inf"), 0.02))
_EVICTION_MIB: Final = 100
# A running cluster of GKE has labels like these on every node (kubectl get nodes --show-labels).
_EVERY_NODE: Final = {
    "cloud.google.com/gke-container-runtime": "containerd",
    "cloud.google.com/gke-os-distribution": "cos",
    "cloud.google.com/gke-logging-variant": "DEFAULT",
    "cloud.google.com/gke-stack-type": "IPV4",
}
# By the node config's own words: what a kind of capacity adds.
_CAPACITY_LABELS: Final = {
    "spot": {"cloud.google.com/gke-spot": "true", "cloud.google.com/gke-provisioning": "spot"},
    "flexStart": {
        "cloud.google.com/gke-flex-start": "true",
        "cloud.google.com/gke-provisioning": "flex-start",
    },
}


def shapes(config: StackConfig) -> list[NodeShape]:
    """The nodes that are there before the stack is.

    None for a cluster that the stack makes itself in the simulated cloud; else a system node and, on
    an existing cluster, `maxNodes` nodes for each accelerator pool.
    """
    if isinstance(config.cluster, GkeCluster | EksCluster):
        return []
    if not isinstance(config.cluster, ExistingCluster):
        return [SYSTEM]
    pools = sorted(config.cluster.accelerators.items())
    return [
        SYSTEM,
        *(s for key, pool in pools for s in _pool(key, pool.type, pool.per_node, pool.max_nodes, pool)),
    ]


def _pool(key: str, kind: str, per_node: int, nodes: int, pool) -> Iterable[NodeShape]:
    accelerator = ACCELERATORS[kind]
    labels = {**accelerator.node_selector, **(pool.node_selector or {}), **_discovered(accelerator, per_node)}
    taint = {"key": accelerator.resource, "value": "present", "effect": "NoSchedule"}
    for index in range(nodes):
        yield NodeShape(f"{key}-{index}", {**BASE, accelerator.resource: str(per_node)}, labels, (taint,))


def _discovered(accelerator: Accelerator, per_node: int) -> dict[str, str]:
    """Labels that NVIDIA's feature discovery adds to a node."""
    if accelerator.vendor != "nvidia":
        return {}
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": str(per_node),
        "nvidia.com/gpu.memory": str(int(accelerator.memory_gib * 1024)),
    }


def gke_node(
    *,
    name: str,
    project: str,
    pool: str,
    zone: str,
    machine: Machine,
    config: Mapping[str, Any],
    topology: str = "",
    max_pods: int = 110,
    private: bool = False,
    extra: Mapping[str, str] | None = None,
) -> NodeShape:
    """A node of a GKE node pool; `config` is the pool's `nodeConfig` as its resource states it.

    `topology` is that of the whole slice where it has several hosts.
    """
    room = {
        "cpu": str(machine.vcpus),
        "memory": f"{int(machine.memory_gib * 1024)}Mi",
        "ephemeral-storage": f"{_disk_gib(config)}Gi",
        "pods": str(max_pods),
        **({TPU.resource: str(machine.chips)} if machine.chips else {}),
    }
    return NodeShape(
        name=name,
        capacity=room,
        labels={
            **(config.get("labels") or {}),
            **_gke_labels(pool, zone, machine, config, max_pods),
            **({"cloud.google.com/private-node": "true"} if private else {}),
            **(_tpu_labels(machine, topology) if machine.chips else {}),
            **(extra or {}),
        },
        taints=_gke_taints(config, machine),
        allocatable=room | _allocatable(machine),
        provider_id=f"gce://{project}/{zone}/{name}",
    )


def _disk_gib(config: Mapping[str, Any]) -> int:
    return int((config.get("bootDisk") or {}).get("sizeGb") or config.get("diskSizeGb") or 100)


def _gke_labels(
    pool: str, zone: str, machine: Machine, config: Mapping[str, Any], max_pods: int
) -> dict[str, str]:
    region = region_of(zone)
    disk = (config.get("bootDisk") or {}).get("diskType") or config.get("diskType") or "pd-balanced"
    labels = {
        **_EVERY_NODE,
        "cloud.google.com/gke-nodepool": pool,
        "cloud.google.com/gke-boot-disk": disk,
        "cloud.google.com/gke-cpu-scaling-level": str(machine.vcpus),
        "cloud.google.com/gke-memory-gb-scaling-level": str(int(machine.memory_gib)),
        "cloud.google.com/gke-max-pods-per-node": str(max_pods),
        "cloud.google.com/gke-provisioning": "standard",
        "cloud.google.com/machine-family": machine.family.lower(),
        "node.kubernetes.io/instance-type": machine.name,
        "beta.kubernetes.io/instance-type": machine.name,
        "topology.kubernetes.io/region": region,
        "topology.kubernetes.io/zone": zone,
        "topology.gke.io/zone": zone,
    }
    for word, added in _CAPACITY_LABELS.items():
        labels |= added if config.get(word) else {}
    if (config.get("workloadMetadataConfig") or {}).get("mode") == "GKE_METADATA":
        labels["iam.gke.io/gke-metadata-server-enabled"] = "true"
    return labels


def _tpu_labels(machine: Machine, topology: str) -> dict[str, str]:
    return {
        **TPU.node_selector,
        "cloud.google.com/gke-tpu-topology": topology or TPU_MACHINES[machine.name].single_host,
        "cloud.google.com/gke-accelerator-count": str(machine.chips),
    }


def _gke_taints(config: Mapping[str, Any], machine: Machine) -> tuple[Mapping[str, str], ...]:
    """The pool's own taints, and GKE's on every node with TPUs, which a pool may declare as well."""
    own = list(stated_taints(config))
    ours = {"key": TPU.resource, "value": "present", "effect": "NoSchedule"}
    return tuple([*own, ours] if machine.chips and ours not in own else own)


def _allocatable(machine: Machine) -> dict[str, str]:
    """CPU and memory less GKE's share (cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes)."""
    cpu = int((machine.vcpus - share(machine.vcpus, CPU_SHARES)) * 1000)
    memory = int((machine.memory_gib - share(machine.memory_gib, _MEMORY_SHARES)) * 1024) - _EVICTION_MIB
    return {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}


def eks_node(
    *,
    name: str,
    machine_id: str,
    group: str,
    zone: str,
    instance: aws_machines.Instance,
    inputs: Mapping[str, Any],
    disk_gib: int,
    store: bool = False,
    unready: str = "",
    extra: Mapping[str, str] | None = None,
) -> NodeShape:
    """A node of an EKS node group as it joins; `inputs` are the group's as its resource states them.

    It has no GPUs yet: NVIDIA's device plugin makes them known. `store` says that pods write to the machine's own
    disks, `unready` why it is not Ready.
    """
    template = inputs.get("launchTemplate") or {}
    storage = f"{instance.nvme_gb}G" if store and instance.nvme_gb else f"{disk_gib}Gi"
    room = {
        "cpu": str(instance.vcpus),
        "memory": f"{instance.memory_gib * 1024}Mi",
        "ephemeral-storage": storage,
        "pods": str(instance.pods),
    }
    return NodeShape(
        name=name,
        capacity=room,
        labels={
            **(inputs.get("labels") or {}),
            **ec2_labels(instance.name, zone),
            "eks.amazonaws.com/capacityType": inputs.get("capacityType") or "ON_DEMAND",
            "eks.amazonaws.com/nodegroup": group,
            **({"eks.amazonaws.com/sourceLaunchTemplateId": template["id"]} if "id" in template else {}),
            **(
                {"eks.amazonaws.com/sourceLaunchTemplateVersion": str(template["version"])}
                if "version" in template
                else {}
            ),
            **(extra or {}),
        },
        taints=stated_taints(inputs),
        allocatable=room | instance.allocatable,
        provider_id=f"aws:///{zone}/{machine_id}",
        unready=unready,
    )


def ec2_labels(instance: str, zone: str) -> dict[str, str]:
    """The labels that Amazon's cloud provider gives every node, and the autoscaler knows beforehand."""
    return {
        "node.kubernetes.io/instance-type": instance,
        "beta.kubernetes.io/instance-type": instance,
        "topology.kubernetes.io/region": aws_machines.region_of(zone),
        "topology.kubernetes.io/zone": zone,
    }


def stated_taints(inputs: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    """The taints that a group's resource states, in both clouds' spelling, as Kubernetes writes them."""
    return tuple(
        {"key": t["key"], "value": t.get("value", ""), "effect": _EFFECTS[t["effect"]]}
        for t in inputs.get("taints") or ()
    )
