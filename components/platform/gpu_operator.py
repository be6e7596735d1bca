"""NVIDIA's GPU operator: device plugin and node labels, on nodes that bring driver and container toolkit."""

from __future__ import annotations

from components.platform.release import ReleaseSpec

NAME = "gpu-operator"


def releases() -> tuple[ReleaseSpec, ...]:
    """One release, without what the node images have already (EKS AL2023 NVIDIA, facts of 2026-08)."""
    values = {
        "driver": {"enabled": False},
        "toolkit": {"enabled": False},
        # Its CRD belongs to an operator that may not be there.
        "dcgmExporter": {"serviceMonitor": {"enabled": False}},
    }
    keeps = ("nfd.k8s-sigs.io", "nvidia.com")
    return (
        ReleaseSpec(name=NAME, namespace="gpu-operator", values=values, timeout_seconds=900, keeps=keeps),
    )
