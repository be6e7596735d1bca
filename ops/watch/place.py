"""Where a stack's models are to run, from its stack file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stacks.config import StackConfig

# Of the operators, whichever of them the stack installs.
OPERATORS = ("cert-manager", "gpu-operator", "istio-system", "kserve", "lws-system")
CAPACITIES = ("on-demand", "spot", "flex-start", "reservation")


@dataclass(frozen=True, kw_only=True)
class PoolPlace:
    """One entry of `accelerators`: its key, its machines, how they are bought, and how many there may be."""

    key: str = ""
    machine: str = "machine"
    capacity: str = ""
    max_nodes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """What advice needs to know; fields are empty where the stack file cannot be read or does not say."""

    namespaces: tuple[str, ...] = OPERATORS
    models: frozenset[tuple[str, str]] = frozenset()
    pools: Mapping[str, PoolPlace] = field(default_factory=dict)
    project: str = ""
    zone: str = ""
    cloud: str = ""

    @classmethod
    def of(cls, config: StackConfig) -> Place:
        """From a valid configuration: `models` are (namespace, name) of those that shall run, `pools` is by model."""
        cluster, awake = config.cluster, config.power != "asleep"
        homes = {model.namespace for model in config.models.values()}
        return cls(
            namespaces=(*OPERATORS, config.gateway.namespace, *sorted(homes)),
            models=frozenset((m.namespace, n) for n, m in config.models.items() if awake and m.replicas),
            pools={
                n: _pool(m.accelerator, cluster.accelerators[m.accelerator]) for n, m in config.models.items()
            },
            project=getattr(cluster, "project", ""),
            zone=getattr(cluster, "zone", ""),
            cloud=cluster.kind,
        )


def _pool(key: str, pool: object) -> PoolPlace:
    return PoolPlace(
        key=key,
        machine=getattr(pool, "machine_type", None) or "machine",
        capacity=getattr(pool, "capacity", ""),
        max_nodes=getattr(pool, "max_nodes", None),
    )
