"""The whole configuration of a stack."""

from __future__ import annotations

from components.core.accelerators import ACCELERATORS
from stacks.config.access import Access
from stacks.config.base import Strict, entry
from stacks.config.cluster import Cluster
from stacks.config.gateway import Gateway
from stacks.config.model import ClaimKey, Model, ModelName
from stacks.config.namespaces import ModelNamespace
from stacks.config.platform import Ownership, Platform
from stacks.config.power import PowerState, Schedule
from stacks.config.secret_sources import SecretSources
from stacks.config.storage import Storage
from stacks.config.types import DnsLabel


class StackConfig(Strict):
    """Everything that a stack file says. `load_config` builds it and applies the rules between keys."""

    cluster: Cluster = entry("The cluster, by kind: gke, eks or existing.")
    gateway: Gateway = entry("The gateway.", factory=Gateway)
    models: dict[ModelName, Model] = entry("Models by name; the name is part of their address.", factory=dict)
    namespaces: dict[DnsLabel, ModelNamespace] = entry(
        "Quota, limits and team of the models' namespaces, by name.", factory=dict
    )
    secrets: SecretSources = entry("References to secrets that are kept elsewhere.", factory=SecretSources)
    storage: Storage | None = entry(
        "Stores of weights.", None, derived="s3:// is AWS's own, read from the cluster's `bucket`"
    )
    access: Access | None = entry("Keys, tiers and limits.", None, derived="no key is asked for")
    power: PowerState = entry(
        "awake runs the accelerators, asleep takes them and the models to zero, schedule follows it.",
        "awake",
    )
    schedule: Schedule | None = entry("Working hours, with power schedule.", None)
    platform: Platform = entry("Operators and their sources.", factory=Platform)

    @property
    def has_nvidia(self) -> bool:
        """Whether any accelerator of the cluster is made by NVIDIA."""
        shapes = (pool.shape() for pool in self.cluster.accelerators.values())
        return any(ACCELERATORS[shape.accelerator].vendor == "nvidia" for shape in shapes)

    @property
    def gpu_operator(self) -> Ownership:
        """Who owns NVIDIA's GPU operator: as written, else this stack on a new cluster with NVIDIA nodes."""
        if self.platform.gpu_operator is not None:
            return self.platform.gpu_operator
        return "managed" if self.has_nvidia and self.cluster.kind != "existing" else "provided"

    def tensor_parallel(self, model: Model) -> int:
        """Chips that share one replica; the whole node, or slice of nodes, unless the model says otherwise."""
        return model.tensor_parallel or self.cluster.accelerators[model.accelerator].shape().chips_per_replica

    @property
    def claim_owners(self) -> dict[ClaimKey, str]:
        """The model whose entry describes each claim that this stack makes."""
        found = {model.reads: name for name, model in sorted(self.models.items()) if model.claim}
        return {key: name for key, name in found.items() if key is not None}

    def claim_owner(self, model: Model) -> Model | None:
        """The model whose entry describes the claim that this one reads, perhaps itself; None where none does."""
        owner = self.claim_owners.get(model.reads) if model.reads else None
        return self.models[owner] if owner else None
