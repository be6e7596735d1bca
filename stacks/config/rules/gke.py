"""What Google refuses, or accepts and then never runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stacks.config.errors import Problem
from stacks.config.gke import GkeCluster, GkePool
from stacks.config.machines import REGIONS_WITHOUT_N1, V6E_ZONES
from stacks.config.rules.draft import Draft, problem
from stacks.config.rules.networks import open_to_all, overlaps

Finding = tuple[str, str, str, str]  # key, wrong, consequence, fix

# The first GKE with InferencePool v1 among its own definitions (llm-d's page on GKE's gateway, read 2026-08).
INFERENCE_POOL = (1, 34, 0, 1626000)
NEWEST = 10**9


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
    if net.proxy_only or draft.config.gateway.kind == "gke":
        ranges["cluster", "network", "proxyOnly"] = net.proxies
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
    if net.shared_proxy_only_subnet and not net.proxy_only:
        yield problem(
            ("cluster", "network", "proxyOnly"),
            "is missing, but the proxy-only subnet is a shared one",
            "network policies would keep its proxies away from the models",
            f"add proxyOnly with the range of {net.shared_proxy_only_subnet}: gcloud compute networks subnets describe "
            f"{net.shared_proxy_only_subnet} --region={cluster.region} --format='value(ipCidrRange)'",
        )


def gateway_version(draft: Draft) -> Iterator[Problem]:
    """A version that is too old for Google's gateway to know pools."""
    cluster = _cluster(draft)
    if cluster is None or cluster.version is None or draft.config.gateway.kind != "gke":
        return
    if not draft.knows("cluster", "version") or _parts(cluster.version) >= INFERENCE_POOL:
        return
    yield problem(
        ("cluster", "version"),
        f"GKE {cluster.version} brings no InferencePool v1",
        "Google's gateway could not route to the models, and `up` would wait for the definition in vain",
        "use 1.34.0-gke.1626000 or newer, for example 1.34; or gateway.kind: istio",
    )


def _parts(version: str) -> tuple[int, ...]:
    """Numbers of a version; what is left out is Google's newest."""
    found = tuple(int(part) for part in version.replace("-gke", "").split("."))
    return (*found, *(NEWEST for _ in range(len(found), len(INFERENCE_POOL))))


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
    kinds = (pool.capacity, *pool.keep)
    if len(set(kinds)) < len(kinds):
        yield (
            "keep",
            f"{', '.join(pool.keep)} repeats a kind of capacity that the models use or that is kept already",
            "there is one pool of each kind",
            "keep only what the models move away from",
        )
    if "reservation" in kinds and pool.reservation is None:
        yield (
            "reservation",
            "capacity is reservation, but none is named",
            "GKE would not know which capacity to use",
            "add reservation: <name>",
        )
    if pool.reservation is not None and "reservation" not in kinds:
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
    if pool.max_run_hours is not None and "flex-start" not in kinds:
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


RULES = (offers, networks, gateway_version, pools)
