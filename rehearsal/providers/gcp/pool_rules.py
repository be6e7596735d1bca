"""What Google and its provider refuse of node pools, and what pools do to the cluster's nodes.

Each rule has its source in the project's notes on GKE; the texts are Google's where they are known.
"""

from __future__ import annotations

from collections.abc import Iterator

from rehearsal.cloud import groups as node_groups
from rehearsal.cloud import machines, pools
from rehearsal.cloud.machines import Machine
from rehearsal.cloud.pools import Pool
from rehearsal.cloud.project import CLUSTER, POOL
from rehearsal.providers.gcp.call import Call, google
from rehearsal.providers.gcp.values import COMPUTE
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import UNKNOWN, Properties, has_unknown
from stacks.config.machines import hosts

_BAD = "badRequest"


def cluster_of(call: Call) -> str:
    """Id of the pool's cluster, also where only its name is given."""
    found = call.find(CLUSTER, call.inputs.get("cluster"))
    if found is None:
        raise google(404, f"Not found: {call.inputs.get('cluster')}.", "notFound")
    return found[0]


def pool_of(call: Call) -> Pool:
    """The pool as it would be with the inputs; its size is the present one."""
    cluster = call.state.of(CLUSTER)[cluster_of(call)]
    size = (call.record or {}).get("size", 0)
    return Pool.of(call.identity, {"inputs": call.inputs, "size": size}, cluster)


def zones(call: Call) -> list[str]:
    """Where the nodes are."""
    return list(pool_of(call).zones)


def groups(call: Call) -> list[str]:
    """Links to the managed instance groups; the provider does not look for them with ignored counts."""
    if call.inputs.get("ignoreNodeCountChanges"):
        return []
    pool = pool_of(call)
    return [
        f"{COMPUTE}projects/{pool.project}/zones/{z}/instanceGroupManagers/{pool.group}" for z in pool.zones
    ]


def count_per_zone(call: Call) -> int:
    """Nodes in each zone."""
    pool = pool_of(call)
    return (call.record["size"] if call.record else start_size(call)) // len(pool.zones)


def start_size(call: Call) -> int:
    """Nodes over all zones that the pool begins with."""
    pool, inputs = pool_of(call), call.inputs
    given = inputs.get("nodeCount") or inputs.get("initialNodeCount") or 0
    least = pool.limits[0] if pool.limits else 0
    return max(given * len(pool.zones), least)


# -- what the provider refuses, in a preview already -------------------------------------------------


def _scaling(call: Call) -> Properties:
    return call.inputs.get("autoscaling") or {}


def _one_count(call: Call) -> None:
    if call.inputs.get("initialNodeCount") and call.inputs.get("nodeCount"):
        raise Refusal(f"Cannot set both initial_node_count and node_count on node pool {call.name}")


def _one_kind_of_limits(call: Call) -> None:
    scaling = _scaling(call)
    per_zone = [n for n in ("minNodeCount", "maxNodeCount") if scaling.get(n) is not None]
    total = [n for n in ("totalMinNodeCount", "totalMaxNodeCount") if scaling.get(n) is not None]
    if per_zone and total:
        raise Refusal(f'"autoscaling.0.{per_zone[0]}": conflicts with autoscaling.0.{total[0]}')


def _taints(call: Call) -> None:
    for taint in (call.inputs.get("nodeConfig") or {}).get("taints") or ():
        effect = taint.get("effect")
        if effect is not UNKNOWN and effect not in ("NO_SCHEDULE", "PREFER_NO_SCHEDULE", "NO_EXECUTE"):
            raise Refusal(
                f'expected taint.0.effect to be one of ["NO_SCHEDULE" "PREFER_NO_SCHEDULE" "NO_EXECUTE"], got {effect}'
            )


PLAN = (_one_count, _one_kind_of_limits, _taints)


# -- what Google refuses -----------------------------------------------------------------------------


def _config(call: Call) -> Properties:
    return call.inputs.get("nodeConfig") or {}


def _machine(call: Call) -> Machine:
    name = _config(call).get("machineType") or "e2-medium"
    machine = machines.find(name)
    if machine is None:
        raise google(400, f"Machine type with name '{name}' does not exist.", _BAD)
    return machine


def _offered(call: Call) -> None:
    machine, pool = _machine(call), pool_of(call)
    for zone in pool.zones:
        if not call.settings.offered(machine.name, zone, machines.catalogued(machine, zone)):
            raise google(
                400, f"Machine type with name '{machine.name}' does not exist in zone '{zone}'.", _BAD
            )


def _zones_of_region(call: Call) -> None:
    region = machines.region_of(cluster_of(call).split("/")[3])
    for zone in call.inputs.get("nodeLocations") or ():
        if machines.region_of(zone) != region:
            raise google(400, f'Location "{zone}" is not a zone of the cluster\'s region "{region}".', _BAD)


def _topology(call: Call) -> None:
    """A topology is for slices of several hosts, which are compact, in one zone, and whole or not there."""
    policy = call.inputs.get("placementPolicy") or {}
    topology, machine = policy.get("tpuTopology"), _machine(call)
    if not topology:
        return
    if not machine.chips:
        raise google(400, f'TPU topology can\'t be specified with machine type "{machine.name}".', _BAD)
    try:
        count = hosts(machine.name, topology)
    except ValueError:
        raise google(
            400, f'TPU topology "{topology}" is invalid for machine type "{machine.name}".', _BAD
        ) from None
    if count == 1:
        raise google(400, "TPU topology can't be specified with single-host TPU slice pool.", _BAD)
    for message in _slice_faults(call, topology, count):
        raise google(400, message, _BAD)


def _slice_faults(call: Call, topology: str, count: int) -> Iterator[str]:
    scaling, where = _scaling(call), f"of TPU pod slice with topology {topology}"
    if call.inputs["placementPolicy"].get("type") != "COMPACT":
        yield f"A placement policy of type COMPACT is needed for a multi-host slice with topology {topology}."
    if len(pool_of(call).zones) > 1:
        yield "A multi-host TPU slice node pool must have exactly one zone."
    if scaling and (limit := scaling.get("maxNodeCount") or 0) != count:
        # Total limits leave the limit per zone at 0, which is what the message then names.
        yield f"Maximum node count {limit} is not a valid size {where}."
    if (least := scaling.get("minNodeCount") or 0) not in (0, count):
        yield f"Minimum node count {least} is not a valid size {where}."
    fixed = call.inputs.get("nodeCount") or call.inputs.get("initialNodeCount") or 0
    if fixed not in (0, count):
        yield f"Node count {fixed} is not a valid size {where}."
    if (call.inputs.get("upgradeSettings") or {}).get("strategy") == "BLUE_GREEN":
        yield "Blue-green upgrades are not supported with compact placement."


def _limits(call: Call) -> None:
    scaling = _scaling(call)
    if not scaling:
        return
    total = scaling.get("totalMaxNodeCount") is not None or scaling.get("totalMinNodeCount") is not None
    least, most = (
        scaling.get(name) or 0
        for name in (
            ("totalMinNodeCount", "totalMaxNodeCount") if total else ("minNodeCount", "maxNodeCount")
        )
    )
    if most < 1 and not call.record:
        raise google(
            400, f"Invalid node pool autoscaling: maximum node count must be at least 1, got {most}.", _BAD
        )
    if least > most > 0:
        raise google(
            400, f"Invalid node pool autoscaling: minimum {least} is greater than maximum {most}.", _BAD
        )


def _capacity(call: Call) -> None:
    """Kinds of capacity exclude each other; flex-start nodes come on demand only."""
    config = _config(call)
    affinity = (config.get("reservationAffinity") or {}).get("consumeReservationType")
    if config.get("spot") and config.get("flexStart"):
        raise google(400, "Spot VMs can't be used with flex start.", _BAD)
    if affinity == "SPECIFIC_RESERVATION" and (config.get("spot") or config.get("flexStart")):
        raise google(400, "A reservation can't be consumed by spot or flex start VMs.", _BAD)
    if affinity == "SPECIFIC_RESERVATION" and not config["reservationAffinity"].get("values"):
        raise google(400, "Reservation affinity of type SPECIFIC_RESERVATION needs a key and values.", _BAD)
    if config.get("flexStart"):
        for message in _flex_start_faults(call, affinity):
            raise google(400, message, _BAD)
    queued = (call.inputs.get("queuedProvisioning") or {}).get("enabled")
    if queued and _least(call):
        raise google(400, "Queued provisioning requires a minimum node count of 0.", _BAD)


def _flex_start_faults(call: Call, affinity: str | None) -> Iterator[str]:
    if not _scaling(call):
        yield "Flex start requires node pool autoscaling."
    if _least(call) or call.inputs.get("nodeCount"):
        yield "Flex start requires a minimum node count of 0 and no fixed node count."
    if (call.inputs.get("management") or {}).get("autoRepair", True):
        yield "Flex start requires auto repair to be disabled."
    if affinity != "NO_RESERVATION":
        yield "Flex start requires reservation affinity NO_RESERVATION."


def _least(call: Call) -> int:
    scaling = _scaling(call)
    return scaling.get("minNodeCount") or scaling.get("totalMinNodeCount") or 0


def _enough(call: Call) -> None:
    """Nodes that the pool has from the start, or is set to, must be there to be had."""
    size = start_size(call) if call.record is None else _target(call)
    try:
        pools.require(call.state, call.settings, pool_of(call), size)
    except node_groups.Short as short:
        raise Refusal(
            f"Error waiting for {'creating' if call.record is None else 'updating'} GKE NodePool: {short}"
        ) from None


CHECKS = (_zones_of_region, _offered, _topology, _limits, _capacity, _enough)


# -- effects -----------------------------------------------------------------------------------------


def _target(call: Call) -> int:
    """Nodes after an update: a count that is new, else as many as before; within the autoscaler's limits."""
    pool, given = pool_of(call), call.inputs.get("nodeCount")
    # A count is sent only where it differs from the last known one, even if the pool grew meanwhile.
    sent = given is not None and given != call.olds.get("nodeCount")
    size = given * len(pool.zones) if sent else (call.record or {}).get("size", 0)
    least, most = pool.limits or (0, 0)
    return max(least, min(size, most or size))


def grow_to_start(call: Call) -> None:
    """The first nodes."""
    record = call.state.of(POOL)[call.identity]
    call.record = None
    record["size"] = start_size(call)
    call.record = record
    show(call, call.identity)


def resize(call: Call) -> None:
    """Nodes as many and as they are to be after an update; a maximum of 0 is never sent to Google."""
    record = call.state.of(POOL)[call.identity]
    before = (call.record or {}).get("inputs", {}).get("autoscaling") or {}
    scaling = record["inputs"].get("autoscaling")
    if scaling and scaling.get("maxNodeCount") == 0 and before.get("maxNodeCount"):
        kept = {**scaling, "maxNodeCount": before["maxNodeCount"]}
        record["inputs"] = {**record["inputs"], "autoscaling": kept}
        record["outputs"] = {**record["outputs"], "autoscaling": kept}
        call.inputs = record["inputs"]
    record["size"] = _target(call)
    show(call, call.identity)


def show(call: Call, identity: str) -> None:
    """Give the cluster the nodes of a pool."""
    record = call.state.of(POOL)[identity]
    cluster = call.state.of(CLUSTER)[identity.rsplit("/nodePools/", 1)[0]]
    node_groups.ensure_nodes(call.embedded.kube, Pool.of(identity, record, cluster))


def hide(call: Call, identity: str) -> None:
    """Take the nodes of a pool away, and the pool."""
    record = call.state.of(POOL).get(identity) or call.record
    cluster = call.state.of(CLUSTER).get(identity.rsplit("/nodePools/", 1)[0])
    cluster = cluster or (call.record if call.kind.module == CLUSTER else None)
    if record is not None and cluster is not None:
        node_groups.remove_nodes(call.embedded.kube, Pool.of(identity, record, cluster))
    call.state.of(POOL).pop(identity, None)


def observed(call: Call, outputs: Properties) -> Properties:
    """What a refresh reads: the number of nodes, unless it was told not to look at it."""
    if call.inputs.get("ignoreNodeCountChanges") or has_unknown(outputs):
        return outputs
    return {**outputs, "nodeCount": count_per_zone(call)}
