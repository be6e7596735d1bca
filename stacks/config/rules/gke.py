"""What Google refuses, or accepts and then never runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stacks.config.errors import Problem
from stacks.config.gke import GkeCluster, GkePool
from stacks.config.machines import REGIONS_WITHOUT_N1, V6E_ZONES
from stacks.config.rules.draft import Draft, problem
from stacks.config.rules.networks import open_to_all, overlaps

Finding = tuple[str, str, str, str]  # key, wrong, consequence, fix

PROXY_ONLY = "192.168.100.0/23"


def _cluster(draft: Draft) -> GkeCluster | None:
    cluster = draft.config.cluster
    return cluster if isinstance(cluster, GkeCluster) and draft.knows("cluster", "kind") else None


def offers(draft: Draft) -> Iterator[Problem]:
    """Machine types that the zone does not have."""
    cluster = _cluster(draft)
    if cluster is None or not cluster.check_offers:
        return
    elsewhere = "choose another zone, or set cluster.checkOffers to false if Google has added it"
    if cluster.accelerators and cluster.zone not in V6E_ZONES:
        near = [zone for zone in V6E_ZONES if zone.startswith(cluster.region.split("-")[0])] or list(
            V6E_ZONES
        )
        yield problem(
            ("cluster", "zone"),
            f"{cluster.zone} is not known to have TPU v6e",
            "the node pool stays empty and the models Pending",
            f"{elsewhere}; near are {', '.join(near)}",
        )
    if cluster.system.machine_type.startswith("n1-") and cluster.region in REGIONS_WITHOUT_N1:
        yield problem(
            ("cluster", "system", "machineType"),
            f"{cluster.region} has no machines of the n1 family",
            "GKE refuses the system pool",
            f"use e2-standard-4 or n2-standard-4; or {elsewhere}",
        )


def networks(draft: Draft) -> Iterator[Problem]:
    """Overlapping ranges, an open API server, an unreachable one, two proxy-only subnets."""
    cluster = _cluster(draft)
    if cluster is None:
        return
    net = cluster.network
    ranges = {("cluster", "network", name): getattr(net, name) for name in ("nodes", "pods", "services")}
    if net.proxy_only or (draft.config.gateway.kind == "gke" and not net.shared_proxy_only_subnet):
        ranges["cluster", "network", "proxyOnly"] = net.proxy_only or PROXY_ONLY
    yield from overlaps(ranges)
    for name, network in cluster.control_plane.authorized_networks.items():
        yield from open_to_all(("cluster", "controlPlane", "authorizedNetworks", name), network)
    if not cluster.control_plane.dns_endpoint and not cluster.control_plane.authorized_networks:
        yield problem(
            ("cluster", "controlPlane"),
            "dnsEndpoint is off and no network is authorized",
            "nobody could reach the API server, not even this program",
            "turn dnsEndpoint on, or add authorizedNetworks",
        )
    if net.proxy_only and net.shared_proxy_only_subnet:
        yield problem(
            ("cluster", "network", "proxyOnly"),
            "an own and a shared proxy-only subnet are both set",
            "a region has one active proxy-only subnet per network",
            "remove proxyOnly or sharedProxyOnlySubnet",
        )


def _sizes(pool: GkePool, _: GkeCluster) -> Iterator[Finding]:
    slice_hosts = pool.shape().nodes_per_replica
    if pool.min_nodes > pool.max_nodes:
        yield (
            "minNodes",
            f"{pool.min_nodes} is more than maxNodes ({pool.max_nodes})",
            "GKE refuses the pool",
            f"use {pool.max_nodes} or less",
        )
    if slice_hosts == 1:
        return
    if pool.max_nodes % slice_hosts:
        yield (
            "maxNodes",
            f"{pool.max_nodes} is no multiple of {slice_hosts}, the machines of one {pool.topology} slice",
            "a slice exists whole or not at all, so the rest would never run",
            f"use {slice_hosts} per slice, for example {-(-pool.max_nodes // slice_hosts) * slice_hosts}",
        )
    if pool.min_nodes:
        yield (
            "minNodes",
            "a multi-host slice cannot keep a part of its machines",
            "GKE scales the slice between 0 and all",
            "remove it",
        )


def _zones(pool: GkePool, cluster: GkeCluster) -> Iterator[Finding]:
    zones = pool.zones or (cluster.zone,)
    if pool.shape().nodes_per_replica > 1 and len(zones) > 1:
        yield (
            "zones",
            f"a multi-host slice cannot span {len(zones)} zones",
            "GKE refuses compact placement over zones",
            "name one zone",
        )
    outside = [zone for zone in zones if zone.rsplit("-", 1)[0] != cluster.region]
    if outside:
        yield (
            "zones",
            f"{', '.join(outside)} is outside {cluster.region}",
            "a cluster's nodes are in its region",
            f"use zones of {cluster.region}",
        )
    unlisted = [zone for zone in zones if zone not in V6E_ZONES and zone not in outside]
    if pool.zones and unlisted and cluster.check_offers:
        yield (
            "zones",
            f"{', '.join(unlisted)} is not known to have TPU v6e",
            "the models on it stay Pending",
            "choose another zone, or set cluster.checkOffers to false if Google has added it",
        )


def _capacity(pool: GkePool, _: GkeCluster) -> Iterator[Finding]:
    if pool.capacity == "reservation" and pool.reservation is None:
        yield (
            "reservation",
            "capacity is reservation, but none is named",
            "GKE would not know which capacity to use",
            "add reservation: <name>",
        )
    if pool.reservation is not None and pool.capacity != "reservation":
        yield (
            "reservation",
            f"a reservation is named, but capacity is {pool.capacity}",
            "kinds of capacity exclude each other; the reservation would be paid and unused",
            "set capacity: reservation, or remove the name",
        )
    if pool.capacity == "flex-start" and pool.min_nodes:
        yield (
            "minNodes",
            "flex-start nodes come on demand only",
            "GKE refuses a fixed number of them",
            "remove it",
        )
    if pool.max_run_hours is not None and pool.capacity != "flex-start":
        yield (
            "maxRunHours",
            f"capacity is {pool.capacity}, not flex-start",
            "nodes of that kind have no limited life",
            "remove it, or set capacity: flex-start",
        )


POOL_CHECKS: tuple[Callable[[GkePool, GkeCluster], Iterator[Finding]], ...] = (_sizes, _zones, _capacity)


def pools(draft: Draft) -> Iterator[Problem]:
    """Sizes, zones and capacity of each pool."""
    cluster = _cluster(draft)
    if cluster is None:
        return
    for name, pool in cluster.accelerators.items():
        for check in POOL_CHECKS:
            for field, *words in check(pool, cluster):
                yield problem(("cluster", "accelerators", name, field), *words)


RULES = (offers, networks, pools)
