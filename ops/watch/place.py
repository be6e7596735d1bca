"""Where a stack's models are to run, from its stack file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from stacks.config import Cluster, StackConfig

# Of the operators, whichever of them the stack installs.
OPERATORS = ("cert-manager", "cluster-autoscaler", "gpu-operator", "istio-system", "kserve", "lws-system")
CAPACITIES = ("on-demand", "spot", "flex-start", "reservation")
# What a kind of cluster has no such machines by.
LACKS: Mapping[str, frozenset[str]] = MappingProxyType({"eks": frozenset({"flex-start"})})


@dataclass(frozen=True, kw_only=True)
class PoolPlace:
    """One entry of `accelerators`: its key, its machines and their zone, how they are bought, how many there may be."""

    key: str = ""
    machine: str = "machine"
    zone: str = ""
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
            pools={n: _pool(m.accelerator, cluster) for n, m in config.models.items()},
            project=getattr(cluster, "project", ""),
            zone=getattr(cluster, "zone", ""),
            cloud=cluster.kind,
        )


def _pool(key: str, cluster: Cluster) -> PoolPlace:
    pool: object = cluster.accelerators[key]
    named = getattr(pool, "machine_type", None) or getattr(pool, "instance_type", None)
    first = next(iter(getattr(cluster, "zones", ())), "")
    return PoolPlace(
        key=key,
        machine=named or "machine",
        zone=getattr(pool, "zone", None) or first,
        capacity=getattr(pool, "capacity", ""),
        max_nodes=getattr(pool, "max_nodes", None),
    )
