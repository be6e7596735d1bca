"""Node pools: one test per thing that Google refuses, replaces or silently drops."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest

from components.clusters.gke.args import Capacity, TpuPoolArgs, pool_name, pools_of
from components.clusters.gke.pools import CAPACITIES, accelerator_pool, system_pool, tpu_pool, tpu_sizes
from components.clusters.system import SystemPoolArgs
from components.core import labels
from stacks.config.machines import TPU_MACHINES, TPU_TOPOLOGIES, hosts

ZONE = "europe-west4-a"
ACCOUNT = "nodes@my-project.iam.gserviceaccount.com"
KINDS = get_args(Capacity)
SINGLE = TpuPoolArgs(
    machine_type="ct6e-standard-4t", topology="2x2", hosts=1, chips=4, max_nodes=3, zones=(ZONE,), used=True
)
MULTI = dataclasses.replace(SINGLE, topology="4x4", hosts=4, max_nodes=8)
SYSTEM = SystemPoolArgs(machine_type="n1-standard-4", nodes=2, max_nodes=4)
# What Google changes on a pool that exists; any other difference replaces it.
IN_PLACE = {"autoscaling"}


def slices() -> list[tuple[str, str, int]]:
    """Every machine type with every topology that it forms, and the machines of one slice."""
    found = []
    for machine in TPU_MACHINES:
        for topology in TPU_TOPOLOGIES:
            try:
                found.append((machine, topology, hosts(machine, topology)))
            except ValueError:
                continue
    return found


def inputs(pool: TpuPoolArgs = SINGLE, awake: bool = True, **changes: Any) -> dict[str, Any]:
    """The inputs of a changed pool."""
    return tpu_pool("v6e", dataclasses.replace(pool, **changes), ACCOUNT, {"team": "search"}, awake)


def of_kind(kind: str) -> dict[str, Any]:
    """The inputs of a pool of a kind of capacity."""
    return inputs(capacity=kind, reservation="ours" if kind == "reservation" else None)


def system() -> dict[str, Any]:
    """The inputs of the system pool."""
    return system_pool(SYSTEM, ACCOUNT, {})


def test_every_slice_of_several_machines_is_compact_and_no_other_has_a_topology() -> None:
    found = slices()
    assert {(machine, topology) for machine, topology, count in found if count == 1} == {
        ("ct6e-standard-1t", "1x1"),
        ("ct6e-standard-4t", "2x2"),
        ("ct6e-standard-8t", "2x4"),
    }
    for machine, topology, count in found:
        pool = inputs(machine_type=machine, topology=topology, hosts=count, max_nodes=count)
        compact = {"type": "COMPACT", "tpu_topology": topology}
        assert pool.get("placement_policy") == (compact if count > 1 else None), (machine, topology)


def test_the_same_topology_is_placed_by_the_machines_that_form_it() -> None:
    on_two = inputs(topology="2x4", hosts=2, max_nodes=2)
    on_one = inputs(machine_type="ct6e-standard-8t", topology="2x4", max_nodes=2)
    assert "placement_policy" in on_two and "placement_policy" not in on_one


def test_each_slice_of_several_machines_is_a_pool_that_is_there_whole_or_not_at_all() -> None:
    pools = pools_of("wide", MULTI)
    assert set(pools) == {"wide-on-demand-1", "wide-on-demand-2"}
    for pool in pools.values():
        assert tpu_sizes(pool, awake=True) == {
            "min_node_count": 0,
            "max_node_count": 4,
            "location_policy": "ANY",
        }


def test_a_further_slice_leaves_those_before_it_alone() -> None:
    more = pools_of("wide", dataclasses.replace(MULTI, max_nodes=12))
    assert pools_of("wide", MULTI).items() < more.items()


def test_machines_that_are_slices_share_a_pool() -> None:
    assert pools_of("v6e", SINGLE) == {"v6e-on-demand": SINGLE}


def test_a_slice_of_several_machines_is_in_one_zone_and_never_limited_over_zones() -> None:
    pool = inputs(next(iter(pools_of("wide", MULTI).values())))
    assert pool["node_locations"] == [ZONE]
    assert not [name for name in pool["autoscaling"] if name.startswith("total_")]


def test_limits_of_a_pool_over_zones_hold_for_all_zones_together() -> None:
    sizes = tpu_sizes(dataclasses.replace(SINGLE, zones=(ZONE, "europe-west4-b"), min_nodes=1), awake=True)
    assert sizes == {"total_min_node_count": 1, "total_max_node_count": 3, "location_policy": "ANY"}


def test_no_pool_sets_the_count_whose_change_replaces_it() -> None:
    assert not [p for p in (system(), *(of_kind(kind) for kind in KINDS)) if "initial_node_count" in p]


def test_the_autoscaler_owns_the_size_of_tpu_pools_alone_and_what_it_does_is_no_drift() -> None:
    for kind in KINDS:
        pool = of_kind(kind)
        assert "node_count" not in pool and pool["ignore_node_count_changes"] is True, kind


def test_system_nodes_are_there_from_the_start_and_what_the_autoscaler_adds_is_no_drift() -> None:
    pool = system()
    assert pool["node_count"] == 2 and pool["ignore_node_count_changes"] is True
    assert (pool["autoscaling"]["min_node_count"], pool["autoscaling"]["max_node_count"]) == (2, 4)


def test_asleep_nothing_of_a_pool_without_a_floor_differs() -> None:
    for pool in (SINGLE, *pools_of("wide", MULTI).values()):
        assert inputs(pool, awake=False) == inputs(pool, awake=True)


def test_asleep_only_the_floor_goes_and_the_ceiling_is_never_zero() -> None:
    awake, asleep = inputs(min_nodes=2), inputs(min_nodes=2, awake=False)
    assert {key for key in awake if awake[key] != asleep[key]} == IN_PLACE
    assert asleep["autoscaling"] == {"min_node_count": 0, "max_node_count": 3, "location_policy": "ANY"}


def test_sizes_change_in_place() -> None:
    before, after = inputs(), inputs(min_nodes=1, max_nodes=5)
    assert {key for key in before if before[key] != after[key]} == IN_PLACE


@pytest.mark.parametrize(
    ("kind", "added"),
    [
        ("on-demand", {}),
        ("spot", {"spot": True, "reservation_affinity": {"consume_reservation_type": "NO_RESERVATION"}}),
        (
            "flex-start",
            {
                "flex_start": True,
                "max_run_duration": "604800s",
                "reservation_affinity": {"consume_reservation_type": "NO_RESERVATION"},
            },
        ),
        (
            "reservation",
            {
                "reservation_affinity": {
                    "consume_reservation_type": "SPECIFIC_RESERVATION",
                    "key": "compute.googleapis.com/reservation-name",
                    "values": ["ours"],
                }
            },
        ),
    ],
)
def test_each_kind_of_capacity_adds_its_own_and_nothing_of_another(kind: str, added: dict[str, Any]) -> None:
    bought = {"spot", "flex_start", "max_run_duration", "reservation_affinity", "preemptible"}
    node = of_kind(kind)["node_config"]
    assert {name: node[name] for name in bought & node.keys()} == added


def test_every_kind_of_capacity_is_known() -> None:
    assert set(CAPACITIES) == set(KINDS)


def test_another_kind_of_capacity_is_another_pool_beside_the_old_one() -> None:
    names = {name for kind in KINDS for name in pools_of("v6e", dataclasses.replace(SINGLE, capacity=kind))}
    nodes = {of_kind(kind)["node_config"]["labels"][labels.POOL] for kind in KINDS}
    assert len(names) == len(nodes) == len(KINDS)


def test_flex_start_nodes_are_not_repaired_have_a_limited_life_and_come_on_demand_only() -> None:
    pool = inputs(capacity="flex-start", max_run_hours=24)
    assert pool["management"] == {"auto_repair": False, "auto_upgrade": True}
    assert pool["node_config"]["max_run_duration"] == "86400s"
    assert pool["autoscaling"]["min_node_count"] == 0
    assert all(of_kind(kind)["management"]["auto_repair"] for kind in set(KINDS) - {"flex-start"})


def test_an_upgrade_needs_no_spare_tpu_machine() -> None:
    for pool in (inputs(), inputs(MULTI)):
        assert pool["upgrade_settings"] == {"strategy": "SURGE", "max_surge": 0, "max_unavailable": 1}


def test_nodes_carry_the_taint_that_models_tolerate() -> None:
    (taint,) = inputs()["node_config"]["taints"]
    (toleration,) = accelerator_pool("v6e", SINGLE).tolerations
    assert taint == {"key": "google.com/tpu", "value": "present", "effect": "NO_SCHEDULE"}
    assert (toleration["key"], toleration["value"]) == (taint["key"], taint["value"])
    assert "taints" not in system()["node_config"]


@pytest.mark.parametrize("pool", [SINGLE, MULTI], ids=["one machine", "several machines"])
def test_models_select_the_label_of_their_pool_and_the_two_that_gke_sets(pool: TpuPoolArgs) -> None:
    ours = {labels.POOL: pool_name("v6e", pool.capacity)}
    for slice_ in pools_of("v6e", pool).values():
        # Declaring a label of GKE's would be a difference in every preview.
        assert inputs(slice_)["node_config"]["labels"] == ours
    handle = accelerator_pool("v6e", pool)
    assert handle.node_selector == {
        **ours,
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": pool.topology,
    }
    assert (handle.max_nodes, handle.nodes_per_replica) == (pool.max_nodes, pool.hosts)


def test_tpu_machines_boot_from_hyperdisk_said_in_one_place() -> None:
    node = inputs(disk_gib=300)["node_config"]
    assert node["boot_disk"] == {"disk_type": "hyperdisk-balanced", "size_gb": 300}
    assert not {"disk_size_gb", "disk_type"} & node.keys()


def test_a_block_that_differs_when_set_in_part_is_left_to_the_cluster_s_defaults() -> None:
    assert not [
        pool for pool in (inputs(), inputs(MULTI), system()) if "kubelet_config" in pool["node_config"]
    ]


def test_settings_that_would_replace_a_pool_without_need_are_left_out() -> None:
    for pool in (system(), *(of_kind(kind) for kind in KINDS)):
        assert not {"max_pods_per_node", "queued_provisioning"} & pool.keys()


def test_all_nodes_are_private_verified_and_act_as_an_account_of_their_own() -> None:
    for pool in (inputs(), inputs(MULTI), system()):
        node = pool["node_config"]
        assert pool["network_config"] == {"enable_private_nodes": True}
        assert node["service_account"] == ACCOUNT
        assert node["shielded_instance_config"] == {
            "enable_secure_boot": True,
            "enable_integrity_monitoring": True,
        }
        assert node["workload_metadata_config"] == {"mode": "GKE_METADATA"}
        # Google refuses metadata without this key.
        assert node["metadata"]["disable-legacy-endpoints"] == "true"


def test_labels_for_cost_reports_are_on_the_machines() -> None:
    assert inputs()["node_config"]["resource_labels"] == {"team": "search"}
