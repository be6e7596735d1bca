"""Inputs of node groups and their launch templates, and what models need to know of them. Pure.

Sources: the argument documentation of pulumi-aws 7.51, `amazon-eks-ami` (nodeadm's API), EKS's best practices
guide for accelerated machines, and cluster-autoscaler's notes on AWS for scaling from zero.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from components.clusters.eks.args import GpuPoolArgs, pool_name
from components.clusters.handle import AcceleratorPool
from components.clusters.system import SystemPoolArgs
from components.core import labels
from components.core.accelerators import ACCELERATORS

L4 = ACCELERATORS["nvidia-l4"]
SYSTEM = "system"
SYSTEM_DISK_GIB = 100
GPU_AMI, SYSTEM_AMI = "AL2023_x86_64_NVIDIA", "AL2023_x86_64_STANDARD"
ROOT_DEVICE = "/dev/xvda"
# Marks for the autoscaler that a node without GPUs has not advertised them yet: else it adds one after the other.
ACCELERATOR_LABEL = "k8s.amazonaws.com/accelerator"
TEMPLATE = "k8s.io/cluster-autoscaler/node-template"
CAPACITY_TYPES: Mapping[str, str] = {
    "on-demand": "ON_DEMAND",
    "spot": "SPOT",
    # A reservation of ours is of on-demand machines.
    "reservation": "ON_DEMAND",
}
# EKS's API spells effects in its own way.
_EFFECTS = {"NoSchedule": "NO_SCHEDULE", "NoExecute": "NO_EXECUTE", "PreferNoSchedule": "PREFER_NO_SCHEDULE"}
# What nodeadm is told beside what EKS itself tells it: the machine's disks as one, for images and what pods write.
_BOUNDARY = "llm-platform"
_NODE_CONFIG = """apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  instance:
    localStorage:
      strategy: RAID0
"""

Fragment = dict[str, Any]


def accelerator_pool(key: str, pool: GpuPoolArgs) -> AcceleratorPool:
    """What models need to know of a pool. Pods select it by our label, which is there before the first node is."""
    return AcceleratorPool(
        accelerator=L4,
        node_selector={**L4.node_selector, labels.POOL: pool_name(key, pool.capacity)},
        tolerations=L4.tolerations,
        chips_per_node=pool.gpus,
        max_nodes=pool.max_nodes,
    )


def gpu_labels(key: str, pool: GpuPoolArgs) -> dict[str, str]:
    """Labels of a GPU pool's nodes.

    GPU feature discovery gives a running node the product's label. Standing on the group, too, the autoscaler knows
    it before there is a node, and a pod that selects it can start from zero.
    """
    return {
        labels.POOL: pool_name(key, pool.capacity),
        ACCELERATOR_LABEL: "nvidia-l4",
        **L4.node_selector,
    }


def gpu_group(key: str, pool: GpuPoolArgs, awake: bool) -> Fragment:
    """A GPU node group's inputs but for cluster, role, subnet and launch template."""
    return {
        "ami_type": GPU_AMI,
        "instance_types": [pool.instance_type],
        "capacity_type": CAPACITY_TYPES[pool.capacity],
        "scaling_config": sizes(pool, awake),
        "labels": gpu_labels(key, pool),
        "taints": [_taint(toleration) for toleration in L4.tolerations],
        # An upgrade takes a node out before it adds one: a spare GPU is rarely to be had.
        "update_config": {"max_unavailable": 1, "update_strategy": "MINIMAL"},
        "node_repair_config": {"enabled": True},
    }


def autoscaled(pool: GpuPoolArgs, awake: bool) -> bool:
    """Whether the autoscaler alone decides on the size: it may go to zero, so no floor can contradict it."""
    return pool.min_nodes == 0 or not awake


def sizes(pool: GpuPoolArgs, awake: bool) -> Fragment:
    """Floor, size and ceiling of a GPU pool.

    EKS refuses a size outside of its bounds, and a ceiling below one. A pool that may be empty starts at what its
    models need and is the autoscaler's from then on (its size is then ignored here). A pool with a floor cannot be left
    to it, since the floor could not be raised above a size that is ignored; it has the size that its models need.
    Asleep, only the floor goes: models leave, and the autoscaler takes the nodes. A size of zero would take the nodes
    from under the models, which go later in the same run, and the autoscaler would start others for their pods.
    """
    floor = pool.min_nodes if awake else 0
    size = min(max(floor, pool.needed), pool.max_nodes) if awake else 0
    return {"min_size": floor, "desired_size": size, "max_size": max(1, pool.max_nodes)}


def system_group(pool: SystemPoolArgs) -> Fragment:
    """The system node group's inputs but for cluster, role, subnets and launch template."""
    return {
        "ami_type": SYSTEM_AMI,
        "instance_types": [pool.machine_type],
        "capacity_type": "ON_DEMAND",
        "scaling_config": {"min_size": pool.nodes, "desired_size": pool.nodes, "max_size": pool.max_nodes},
        "labels": {labels.POOL: SYSTEM},
        "update_config": {"max_unavailable": 1},
        "node_repair_config": {"enabled": True},
    }


def gpu_template(pool: GpuPoolArgs, tags: Mapping[str, str]) -> Fragment:
    """The launch template of a GPU pool."""
    fast = pool.storage == "instance-store"
    reserved = {
        "capacity_reservation_specification": {
            "capacity_reservation_target": {"capacity_reservation_id": pool.reservation}
        }
    }
    return {
        **_template(pool.disk_gib, tags),
        **({"user_data": user_data()} if fast else {}),
        # A group that is kept beside the reservation's is of other machines.
        **(reserved if pool.capacity == "reservation" else {}),
    }


def system_template(tags: Mapping[str, str]) -> Fragment:
    """The launch template of the system pool."""
    return _template(SYSTEM_DISK_GIB, tags)


def _template(disk_gib: int, tags: Mapping[str, str]) -> Fragment:
    """What all machines have. An image or an instance profile of ours would be refused by the node group."""
    disk = {
        "volume_size": disk_gib,
        "volume_type": "gp3",
        # Truth values are text in this API.
        "encrypted": "true",
        "delete_on_termination": "true",
    }
    return {
        # Pods do not reach the machine's own credentials: theirs come from Pod Identity.
        "metadata_options": {
            "http_endpoint": "enabled",
            "http_tokens": "required",
            "http_put_response_hop_limit": 1,
        },
        "block_device_mappings": [{"device_name": ROOT_DEVICE, "ebs": disk}],
        # The provider's tags do not reach what an autoscaling group starts.
        "tag_specifications": [
            {"resource_type": kind, "tags": dict(tags)} for kind in ("instance", "volume") if tags
        ],
        "update_default_version": True,
    }


def user_data() -> str:
    """Settings of the node's bootstrap, which EKS merges with its own: base64 of a MIME document."""
    document = (
        f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{_BOUNDARY}"\n\n'
        f"--{_BOUNDARY}\nContent-Type: application/node.eks.aws\n\n---\n{_NODE_CONFIG}\n--{_BOUNDARY}--\n"
    )
    return base64.b64encode(document.encode()).decode()


def group_tags(key: str, pool: GpuPoolArgs) -> dict[str, str]:
    """Tags of the autoscaling group, by which the autoscaler knows a node that does not exist yet.

    A node group's own labels and taints do not reach its autoscaling group.
    """
    storage = pool.nvme_gb if pool.storage == "instance-store" else pool.disk_gib
    return {
        **{f"{TEMPLATE}/label/{name}": value for name, value in gpu_labels(key, pool).items()},
        **{
            f"{TEMPLATE}/taint/{toleration['key']}": f"{toleration.get('value', 'present')}:{toleration['effect']}"
            for toleration in L4.tolerations
        },
        f"{TEMPLATE}/resources/{L4.resource}": str(pool.gpus),
        f"{TEMPLATE}/resources/ephemeral-storage": f"{storage}{'G' if pool.storage == 'instance-store' else 'Gi'}",
    }


def _taint(toleration: Mapping[str, Any]) -> Fragment:
    """The taint that a toleration is for."""
    return {
        "key": toleration["key"],
        "value": toleration.get("value", "present"),
        "effect": _EFFECTS[toleration["effect"]],
    }
