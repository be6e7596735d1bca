"""What the pods of a namespace may ask for together, and what containers get that do not ask. Pure.

Under a quota on CPU or memory Kubernetes refuses every pod that leaves its request out, so a LimitRange fills the gap:
KServe's storage initializer and whatever an operator starts here have requests of their own, pods of people
often have none. The engine's never come from there: the stack file states them, or is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.core import labels
from components.core.manifest import Manifest, manifest

NAME = "ai-workload-quota"
LIMITS = "ai-workload-limits"
# The names that a ResourceQuota has for what is counted; chips come with the accelerator's resource.
CPU, MEMORY, MEMORY_LIMITS = "requests.cpu", "requests.memory", "limits.memory"
PODS, CLAIMS, STORAGE = "pods", "persistentvolumeclaims", "requests.storage"
# For containers without a memory limit, where limits are counted.
DEFAULT_MEMORY_LIMIT = "2Gi"


@dataclass(frozen=True, kw_only=True)
class Container:
    """What a container asks for, as quantities: its requests, and its limits where it has any."""

    cpu: str
    memory: str
    cpu_limit: str | None = None
    memory_limit: str | None = None


# KServe 0.20, config-llm-scheduler.yaml: the endpoint picker. Its other container, which cuts prompts into tokens, is
# taken out where no scorer needs it, and ours need it not.
PICKER = Container(cpu="1", memory="2Gi", cpu_limit="6", memory_limit="16Gi")
# KServe 0.20, its config map and `pkg/webhook/admission/pod`: the container that serves the files of an image (oci://).
MODELCAR = Container(cpu="10m", memory="15Mi", memory_limit="15Mi")
# The program of rollout.py, which makes room in full pools.
ROOM = Container(cpu="10m", memory="32Mi", memory_limit="64Mi")


@dataclass(frozen=True, kw_only=True)
class QuotaSpec:
    """`hard` are quantities by the names of a ResourceQuota."""

    namespace: str
    hard: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class LimitsSpec:
    """`requests` and `limits` are for containers without; none may have a limit above `largest`. All by resource."""

    namespace: str
    requests: Mapping[str, str]
    limits: Mapping[str, str] = field(default_factory=dict)
    largest: Mapping[str, str] = field(default_factory=dict)


def chips(resource: str) -> str:
    """The quota's name of an accelerator's resource, for example `requests.nvidia.com/gpu`."""
    return f"requests.{resource}"


def resource_quota(spec: QuotaSpec) -> Manifest:
    """The quota. The provider waits until Kubernetes has begun to count."""
    return manifest(
        "v1",
        "ResourceQuota",
        NAME,
        spec.namespace,
        labels=labels.common("models"),
        annotations={labels.TAKE_BACK: "true"},
        spec={"hard": dict(sorted(spec.hard.items()))},
    )


def limit_range(spec: LimitsSpec) -> Manifest:
    """The defaults and maxima of containers. What has a maximum and no default gets the maximum from Kubernetes."""
    item: dict[str, Any] = {
        "type": "Container",
        "defaultRequest": dict(spec.requests),
        "default": dict(spec.limits) or None,
        "max": dict(spec.largest) or None,
    }
    return manifest(
        "v1",
        "LimitRange",
        LIMITS,
        spec.namespace,
        labels=labels.common("models"),
        annotations={labels.TAKE_BACK: "true"},
        spec={"limits": [item]},
    )
