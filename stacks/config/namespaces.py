"""What a namespace of models may use, what its containers get, and who may look into it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from components.serving.manifests.quota import DEFAULT_MEMORY_LIMIT
from stacks.config.base import Strict, entry
from stacks.config.errors import refusal
from stacks.config.types import Quantity, sequence

_OPEN = "no limit"


def _of_people(value: str) -> str:
    if value.startswith("system:"):
        raise refusal(
            f'"{value}" is a group of Kubernetes itself',
            "everybody with any account, every pod or a whole cluster's controllers could be in it",
            "name a group that your cloud or identity provider sends",
        )
    return value


Group = Annotated[
    str, StringConstraints(min_length=1, max_length=253), AfterValidator(_of_people), Field(title="group")
]


class NamespaceQuota(Strict):
    """What all pods and claims of a namespace may ask for together, rollouts included.

    What is left out is not limited. Kubernetes refuses the pod that would exceed it, so less than
    the stack's own models need is refused here, with the arithmetic.
    """

    cpu: Quantity | None = entry("CPU requests.", None, unit="cores", derived=_OPEN)
    memory: Quantity | None = entry("Memory requests.", None, unit="bytes", derived=_OPEN)
    memory_limits: Quantity | None = entry("Memory limits.", None, unit="bytes", derived=_OPEN)
    chips: int | None = entry(
        "GPUs or TPU chips, of each kind that the models use.", None, ge=1, unit="chips", derived=_OPEN
    )
    pods: int | None = entry("Pods that have not ended.", None, ge=1, unit="pods", derived=_OPEN)
    claims: int | None = entry("Volume claims.", None, ge=0, unit="claims", derived=_OPEN)
    storage: Quantity | None = entry("Sizes of all volume claims.", None, unit="bytes", derived=_OPEN)

    @model_validator(mode="after")
    def _says_something(self) -> NamespaceQuota:
        if not any(value is not None for value in self.model_dump().values()):
            raise refusal("it limits nothing", "no quota would be made", "name a resource, or remove it")
        return self


class NamespaceLimits(Strict):
    """What containers get that do not ask, and what none may exceed."""

    cpu_request: Quantity = entry("CPU request of containers without one.", "100m", unit="cores")
    memory_request: Quantity = entry("Memory request of containers without one.", "128Mi", unit="bytes")
    memory_limit: Quantity | None = entry(
        "Memory limit of containers without one.",
        None,
        unit="bytes",
        derived="maxMemory, else 2Gi with quota.memoryLimits, else none",
    )
    max_cpu: Quantity | None = entry(
        "Largest CPU limit. Containers without one get this one.", None, unit="cores", derived=_OPEN
    )
    max_memory: Quantity | None = entry(
        "Largest memory limit of a container.", None, unit="bytes", derived=_OPEN
    )


class NamespaceTeam(Strict):
    """People who see the namespace's pods, logs, events and model services, and no Secret."""

    groups: Annotated[sequence(Group), Field(min_length=1)] = entry(
        "Groups as the API server knows them: of EKS access entries, of Google Groups for RBAC, of OIDC."
    )
    role: Literal["view", "edit"] = entry(
        "view reads; edit also deletes pods, so that a replica starts anew. Neither enters a pod or forwards a port, "
        "which would pass by the gateway's keys and limits.",
        "view",
    )


class ModelNamespace(Strict):
    """Settings of one namespace of models."""

    quota: NamespaceQuota | None = entry("Quota of the namespace.", None, derived="none")
    limits: NamespaceLimits | None = entry(
        "Defaults and maxima of containers.", None, derived="the defaults below with a quota, none without"
    )
    team: NamespaceTeam | None = entry("Who may look into it.", None, derived="cluster administrators")


def default_memory_limit(settings: ModelNamespace) -> str | None:
    """The memory limit of containers without one; None where they have none."""
    limits, counted = settings.limits, settings.quota is not None and settings.quota.memory_limits is not None
    if limits is not None and (limits.memory_limit or limits.max_memory):
        return limits.memory_limit or limits.max_memory
    return DEFAULT_MEMORY_LIMIT if counted else None
