"""What a stack costs by the hour, estimated from list prices. Pure: it reads no bill and no cloud."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from components.core.prices import CURRENCY, HOURS_PER_MONTH, price
from stacks.config import EksCluster, GkeCluster, StackConfig
from stacks.config.machines import TPU_MACHINES
from stacks.config.pools import PoolShape
from stacks.config.rules.pools import replica_chips
from stacks.system_pool import system_pool

# Google's NAT is billed for so many machines at most.
NAT_MACHINES = 32
NOT_COUNTED = "traffic, disks, logs, metrics, addresses, KMS keys, taxes, discounts and free tiers"
NOTE = "estimate from list prices, no bill"


@dataclass(frozen=True, kw_only=True)
class Item:
    """So many units of a sku: `now` as configured, `most` when every pool is at its greatest size.

    `asleep` is what stays while the stack sleeps. `upper` says that the price is an upper bound.
    """

    what: str
    sku: str
    region: str
    now: float
    most: float
    asleep: float
    capacity: str = "on-demand"
    upper: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """An item in US dollars per hour."""

    what: str
    now: float
    most: float
    asleep: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """US dollars per hour over all `lines`; `not_priced` are items that the table has no price for."""

    lines: tuple[Line, ...]
    not_priced: tuple[str, ...]
    upper: tuple[str, ...]
    prices_read: str

    def hourly(self, state: str) -> float:
        """The sum for `now`, `most` or `asleep`."""
        return sum(getattr(line, state) for line in self.lines)


def estimate(config: StackConfig) -> Estimate | None:
    """What the cluster of this stack costs; None where the cluster is somebody else's."""
    items = _ITEMS.get(config.cluster.kind)
    return None if items is None else _priced(list(items(config)))


def summary(config: StackConfig) -> dict[str, Any]:
    """The estimate as a stack output, in figures that nobody takes for exact."""
    found = estimate(config)
    if found is None:
        return {"note": "not estimated: the cluster is not this stack's, and its price is unknown here"}
    hourly = found.hourly("now")
    return {
        "note": NOTE,
        "currency": CURRENCY,
        "hourly": round(hourly, 2),
        "monthly": round(hourly * HOURS_PER_MONTH),
        "hourly_at_most": round(found.hourly("most"), 2),
        "hourly_asleep": round(found.hourly("asleep"), 2),
        "by_part": {line.what: round(line.now, 4) for line in found.lines},
        "prices_read": found.prices_read,
        "not_counted": NOT_COUNTED,
        **({"not_priced": list(found.not_priced)} if found.not_priced else {}),
        **({"upper_bounds": list(found.upper)} if found.upper else {}),
    }


def _priced(items: list[Item]) -> Estimate:
    found = [(item, price(item.sku, item.region, item.capacity)) for item in items]
    known = [(item, each) for item, each in found if each is not None]
    return Estimate(
        lines=tuple(
            Line(
                what=item.what,
                now=item.now * each.hourly,
                most=item.most * each.hourly,
                asleep=item.asleep * each.hourly,
            )
            for item, each in known
        ),
        not_priced=tuple(
            f"{item.what} ({item.sku} in {item.region})" for item, each in found if each is None
        ),
        upper=tuple(item.what for item, _ in known if item.upper),
        prices_read=min((each.read for _, each in known)).isoformat(),
    )


def needed_nodes(config: StackConfig, accelerator: str) -> int:
    """Nodes that the models of a pool fill when all of their replicas run."""
    shape = config.cluster.accelerators[accelerator].shape()
    mine = [model for model in config.models.values() if model.accelerator == accelerator]
    chips = sum(model.replicas * replica_chips(model, shape) for model in mine)
    return math.ceil(chips / shape.chips_per_node)


def _sizes(config: StackConfig, accelerator: str, floor: int, reserved: bool) -> tuple[int, int, int]:
    """Nodes of a pool now, at most, and asleep. What is reserved is billed whether it runs or not."""
    shape: PoolShape = config.cluster.accelerators[accelerator].shape()
    if reserved:
        return shape.max_nodes, shape.max_nodes, shape.max_nodes
    now = 0 if config.power == "asleep" else max(floor, needed_nodes(config, accelerator))
    return now, shape.max_nodes, 0


def _gke(config: StackConfig) -> Iterator[Item]:
    cluster = config.cluster
    if not isinstance(cluster, GkeCluster):
        raise TypeError(f"the cluster is of kind {cluster.kind}, not gke")
    region, system = cluster.region, system_pool(cluster)
    most = system.max_nodes
    yield Item(what="control plane", sku="gke-control-plane", region=region, now=1, most=1, asleep=1)
    family, _, vcpus = system.machine_type.rpartition("-")
    size = int(vcpus) if vcpus.isdigit() else 1
    yield Item(
        what="system pool",
        sku=family if vcpus.isdigit() else system.machine_type,
        region=region,
        now=system.nodes * size,
        most=most * size,
        asleep=system.nodes * size,
    )
    machines = [system.nodes, most, system.nodes]
    for name, pool in sorted(cluster.accelerators.items()):
        chips = TPU_MACHINES[pool.machine_type].chips
        sizes = _sizes(config, name, pool.min_nodes, pool.capacity == "reservation")
        machines = [total + nodes for total, nodes in zip(machines, sizes, strict=True)]
        now, at_most, asleep = (nodes * chips for nodes in sizes)
        yield Item(
            what=f"pool {name}",
            sku="tpu-v6e",
            region=region,
            now=now,
            most=at_most,
            asleep=asleep,
            capacity="spot" if pool.capacity == "spot" else "on-demand",
            # What is bought this way costs less than on demand; how much less is not published per chip.
            upper=pool.capacity == "flex-start",
        )
    yield Item(what="load balancer", sku="gcp-load-balancer", region=region, now=1, most=1, asleep=1)
    now, at_most, asleep = (min(count, NAT_MACHINES) for count in machines)
    yield Item(what="NAT", sku="gcp-nat", region=region, now=now, most=at_most, asleep=asleep)


def _eks(config: StackConfig) -> Iterator[Item]:
    cluster = config.cluster
    if not isinstance(cluster, EksCluster):
        raise TypeError(f"the cluster is of kind {cluster.kind}, not eks")
    region, system = cluster.region, system_pool(cluster)
    gateways = 1 if cluster.nat == "single" else len(cluster.zones)
    yield Item(what="control plane", sku="eks-control-plane", region=region, now=1, most=1, asleep=1)
    yield Item(
        what="system node group",
        sku=system.machine_type,
        region=region,
        now=system.nodes,
        most=system.max_nodes,
        asleep=system.nodes,
    )
    for name, pool in sorted(cluster.accelerators.items()):
        now, most, asleep = _sizes(config, name, pool.min_nodes, pool.capacity == "reservation")
        yield Item(
            what=f"node group {name}",
            sku=pool.instance_type,
            region=region,
            now=now,
            most=most,
            asleep=asleep,
            capacity="spot" if pool.capacity == "spot" else "on-demand",
        )
    yield Item(what="NAT", sku="aws-nat", region=region, now=gateways, most=gateways, asleep=gateways)
    yield Item(what="load balancer", sku="aws-load-balancer", region=region, now=1, most=1, asleep=1)


_ITEMS: Mapping[str, Callable[[StackConfig], Iterator[Item]]] = MappingProxyType({"gke": _gke, "eks": _eks})
