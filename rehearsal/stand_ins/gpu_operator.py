"""Stands in for NVIDIA's GPU operator on EKS nodes: device plugin and feature discovery.

A node with GPUs gets their number and labels some time after it has joined, once the operator's chart is installed.
The driver must be there: in the machine image, or from the operator itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ops.kube import Kube, Manifest
from rehearsal import skipped
from rehearsal.cloud.node_groups import GPU, GROUP_LABEL, NodeGroup, all_groups
from rehearsal.cloud.project import Project
from rehearsal.cloud.settings import BadSettings, Settings
from rehearsal.skipped import GPU_OPERATOR
from rehearsal.stand_ins.mirror import Mirror

MANAGER = "rehearsal-gpu-operator"
# NVIDIA L4, the GPU of every machine here: product, memory in MiB (Karpenter's instance table), compute capability.
_PRODUCT, _MEMORY_MIB, _COMPUTE = "NVIDIA-L4", 22888, ("8", "9")
WATCHED = (("v1", "Node"),)


class GpuOperator:
    """Makes the GPUs of nodes known."""

    def __init__(
        self, kube: Kube, rehearsal: Path, settings: Settings, clock: Callable[[], float] = time.time
    ):
        self._kube, self._rehearsal, self._settings, self._clock = kube, rehearsal, settings, clock
        self._project = Project.of(rehearsal)
        self._objects = Mirror(kube, WATCHED)
        self._since: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Act until told to stop."""
        self._objects.run(stop, self._act)

    def _act(self) -> None:
        try:
            self.reconcile(self._objects.of("Node"))
        except BadSettings as error:
            # A settings file that is being written must not end us.
            print(f"gpu operator: {error}", flush=True)

    def reconcile(self, nodes: list[Manifest]) -> None:
        """One round over the nodes."""
        release = skipped.installed(self._rehearsal, GPU_OPERATOR)
        if release is None:
            self._since = None
            return
        self._since = self._since or self._clock()
        brings_driver = (release.values.get("driver") or {}).get("enabled", True)
        groups = {g.name: g for g in all_groups(self._project.read()) if g.instance.gpus}
        for node in nodes:
            group = groups.get(node["metadata"].get("labels", {}).get(GROUP_LABEL, ""))
            if group and (brings_driver or has_driver(group)) and self._due(node):
                self._announce(node, group)

    def _due(self, node: Manifest) -> bool:
        """Whether a node without known GPUs has been there, together with the operator, for long enough."""
        if GPU in ((node.get("status") or {}).get("capacity") or {}):
            return False
        stamp = node["metadata"].get("creationTimestamp")
        joined = datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
        return self._clock() - max(joined, self._since or 0.0) >= self._settings.gpu_seconds

    def _announce(self, node: Manifest, group: NodeGroup) -> None:
        name, count = node["metadata"]["name"], str(group.instance.gpus)
        labels = {"metadata": {"name": name, "labels": feature_labels(group)}}
        self._kube.apply({"apiVersion": "v1", "kind": "Node", **labels}, MANAGER, force=True)
        status = {"capacity": {GPU: count}, "allocatable": {GPU: count}}
        self._kube.patch("v1", "Node", name, None, {"status": status}, subresource="status")


def has_driver(group: NodeGroup) -> bool:
    """Whether the machine image of a group brings NVIDIA's driver."""
    return "NVIDIA" in (group.inputs.get("amiType") or "")


def feature_labels(group: NodeGroup) -> dict[str, str]:
    """What feature discovery finds."""
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": _PRODUCT,
        "nvidia.com/gpu.count": str(group.instance.gpus),
        "nvidia.com/gpu.memory": str(_MEMORY_MIB),
        "nvidia.com/gpu.family": "ada-lovelace",
        "nvidia.com/gpu.compute.major": _COMPUTE[0],
        "nvidia.com/gpu.compute.minor": _COMPUTE[1],
        "nvidia.com/gpu.sharing-strategy": "none",
    }
