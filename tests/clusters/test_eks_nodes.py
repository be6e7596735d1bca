"""Node groups: what AWS refuses, what it never starts, and what the autoscaler must know of a node that is not there."""

from __future__ import annotations

import base64
from ipaddress import IPv4Network

import pytest
import yaml

from components.clusters.eks import nodes
from components.clusters.eks.args import GpuPoolArgs, pools_of, ranges
from components.clusters.system import SystemPoolArgs
from components.core import labels
from components.platform import gpu_operator
from stacks.config import load_config
from stacks.eks import eks_problems
from tests.clusters.eks import EVERYTHING, args, everything
from tests.support.stacks import raw_stack

POOL = GpuPoolArgs(
    instance_type="g6.4xlarge", gpus=1, nvme_gb=600, zone="us-east-1a", max_nodes=3, needed=2, used=True
)


def changed(**fields: object) -> GpuPoolArgs:
    return GpuPoolArgs(**{**POOL.__dict__, **fields})


@pytest.mark.parametrize("awake", [True, False])
@pytest.mark.parametrize("floor", [0, 1, 3])
@pytest.mark.parametrize("needed", [0, 2, 9])
def test_eks_never_sees_a_size_outside_of_its_bounds(awake: bool, floor: int, needed: int) -> None:
    sizes = nodes.sizes(changed(min_nodes=floor, needed=needed), awake)
    assert 0 <= sizes["min_size"] <= sizes["desired_size"] <= sizes["max_size"]
    assert sizes["max_size"] >= 1


def test_made_asleep_no_pool_has_a_node() -> None:
    for floor in (0, 2):
        sizes = nodes.sizes(changed(min_nodes=floor), awake=False)
        assert (sizes["min_size"], sizes["desired_size"]) == (0, 0)


def test_the_size_is_left_to_the_autoscaler_only_where_no_floor_can_contradict_it() -> None:
    assert nodes.autoscaled(changed(min_nodes=0), awake=True)
    assert not nodes.autoscaled(changed(min_nodes=1), awake=True)


def test_going_to_sleep_takes_the_floor_and_no_node_from_under_a_model() -> None:
    """Nodes that went first would be started again for the pods that lost them, since their models go after."""
    pool = changed(min_nodes=1)
    assert nodes.autoscaled(pool, awake=False)
    awake, asleep = nodes.sizes(pool, True), nodes.sizes(pool, False)
    # EKS is sent sizes only where one differs, and waking must raise the size with the floor.
    assert (awake["min_size"], asleep["min_size"]) == (1, 0)
    assert awake["desired_size"] >= awake["min_size"]


def test_a_pod_that_selects_the_product_can_start_from_zero() -> None:
    """GPU feature discovery labels running nodes; before there is one, only the group's tags can say it."""
    tags = nodes.group_tags("l4", POOL)
    selector = nodes.accelerator_pool("l4", POOL).node_selector
    assert selector["nvidia.com/gpu.product"] == "NVIDIA-L4"
    for name, value in selector.items():
        assert tags[f"{nodes.TEMPLATE}/label/{name}"] == value
    assert tags[f"{nodes.TEMPLATE}/resources/nvidia.com/gpu"] == "1"
    assert tags[f"{nodes.TEMPLATE}/taint/nvidia.com/gpu"] == "present:NoSchedule"


def test_the_autoscaler_knows_that_gpus_are_advertised_late() -> None:
    assert nodes.gpu_labels("l4", POOL)["k8s.amazonaws.com/accelerator"] == "nvidia-l4"


def test_the_capacity_is_in_the_name_so_that_old_and_new_group_stand_side_by_side() -> None:
    names = {nodes.gpu_labels("l4", changed(capacity=kind))[labels.POOL] for kind in nodes.CAPACITY_TYPES}
    assert len(names) == len(nodes.CAPACITY_TYPES)


def test_the_machine_s_own_disks_hold_images_and_downloads() -> None:
    document = base64.b64decode(nodes.gpu_template(POOL, {})["user_data"]).decode()
    head, _, rest = document.partition("\n\n")
    boundary = head.rpartition('boundary="')[2].rstrip('"')
    (part,) = [p for p in rest.split(f"--{boundary}") if "Content-Type" in p]
    kind, _, body = part.strip().partition("\n\n")
    assert kind == "Content-Type: application/node.eks.aws"
    assert yaml.safe_load(body)["spec"] == {"instance": {"localStorage": {"strategy": "RAID0"}}}


def test_on_ebs_nothing_is_done_to_the_machine_s_disks() -> None:
    assert "user_data" not in nodes.gpu_template(changed(storage="ebs"), {})


def test_ephemeral_storage_is_that_of_the_disk_in_use() -> None:
    key = f"{nodes.TEMPLATE}/resources/ephemeral-storage"
    assert nodes.group_tags("l4", POOL)[key] == "600G"
    assert nodes.group_tags("l4", changed(storage="ebs", disk_gib=300))[key] == "300Gi"


def test_root_disks_are_encrypted_and_large_enough_for_an_image() -> None:
    (disk,) = nodes.gpu_template(POOL, {})["block_device_mappings"]
    assert disk["ebs"]["encrypted"] == "true" and disk["ebs"]["volume_size"] >= 200


def test_the_group_brings_image_and_profile_itself() -> None:
    for template in (nodes.gpu_template(POOL, {}), nodes.system_template({})):
        assert not template.keys() & {"image_id", "iam_instance_profile", "instance_type"}


def test_tags_reach_machines_and_volumes() -> None:
    marks = nodes.gpu_template(POOL, {"team": "search"})["tag_specifications"]
    assert {m["resource_type"]: m["tags"] for m in marks} == {
        "instance": {"team": "search"},
        "volume": {"team": "search"},
    }


def test_a_reservation_is_aimed_at_by_its_id() -> None:
    pool = changed(capacity="reservation", reservation="cr-1")
    target = nodes.gpu_template(pool, {})["capacity_reservation_specification"]
    assert target == {"capacity_reservation_target": {"capacity_reservation_id": "cr-1"}}


def test_what_models_leave_stands_beside_what_they_move_to_and_asks_for_no_node() -> None:
    pool = changed(capacity="spot", keep=("reservation", "on-demand"), reservation="cr-1", min_nodes=1)
    groups = pools_of("l4", pool)
    assert set(groups) == {"l4-spot", "l4-reservation", "l4-on-demand"}
    assert [name for name, group in groups.items() if group.used] == ["l4-spot"]
    sizes = {name: nodes.sizes(group, awake=True) for name, group in groups.items()}
    assert sizes["l4-spot"] == {"min_size": 1, "desired_size": 2, "max_size": 3}
    for name in ("l4-reservation", "l4-on-demand"):
        assert sizes[name] == {"min_size": 0, "desired_size": 0, "max_size": 3}
        # Nodes that it still has are the autoscaler's, and stay while a pod is on them.
        assert nodes.autoscaled(groups[name], awake=True)


def test_only_the_reservation_s_own_group_takes_its_machines() -> None:
    pool = changed(capacity="spot", keep=("reservation",), reservation="cr-1")
    aimed = {
        name
        for name, group in pools_of("l4", pool).items()
        if "capacity_reservation_specification" in nodes.gpu_template(group, {})
    }
    assert aimed == {"l4-reservation"}


def test_the_launch_template_alone_says_what_a_machine_is() -> None:
    """EKS refuses a disk, keys for SSH (CKV_AWS_100) and an image beside it; security groups would lose the cluster's."""
    system = nodes.system_group(SystemPoolArgs(machine_type="m6i.large", nodes=2, max_nodes=2))
    for group in (nodes.gpu_group("l4", POOL, True), system):
        assert not group.keys() & {"disk_size", "remote_access", "release_version", "version"}
    for template in (nodes.gpu_template(POOL, {}), nodes.system_template({})):
        assert not template.keys() & {"vpc_security_group_ids", "network_interfaces", "key_name"}


def test_driver_and_toolkit_come_with_the_image_and_the_rest_with_the_operator() -> None:
    assert nodes.gpu_group("l4", POOL, True)["ami_type"] == "AL2023_x86_64_NVIDIA"
    (release,) = gpu_operator.releases()
    brought = {part: release.values.get(part, {}).get("enabled", True) for part in ("driver", "toolkit")}
    assert brought == {"driver": False, "toolkit": False}
    assert release.values.get("devicePlugin", {}).get("enabled", True)


def test_every_group_is_repaired_and_bought_as_eks_spells_it() -> None:
    bought = {kind: nodes.gpu_group("l4", changed(capacity=kind), True) for kind in nodes.CAPACITY_TYPES}
    assert {kind: group["capacity_type"] for kind, group in bought.items()} == {
        "on-demand": "ON_DEMAND",
        "spot": "SPOT",
        "reservation": "ON_DEMAND",
    }
    assert all(group["node_repair_config"] == {"enabled": True} for group in bought.values())
    assert all(group["taints"][0]["effect"] == "NO_SCHEDULE" for group in bought.values())


def test_an_upgrade_asks_for_no_spare_gpu() -> None:
    assert nodes.gpu_group("l4", POOL, True)["update_config"]["update_strategy"] == "MINIMAL"


def test_pools_are_in_the_zone_of_their_volumes() -> None:
    pools = args(everything).accelerators
    assert (pools["l4"].zone, pools["l4x4"].zone) == ("us-east-1a", "us-east-1b")


@pytest.mark.parametrize("block", ["10.0.0.0/16", "10.0.0.0/20"])
def test_subnets_do_not_overlap_and_are_in_the_vpc(block: str) -> None:
    zones = ("a", "b", "c")
    found = [IPv4Network(n) for r in ranges(block, zones).values() for n in (r.private, r.public)]
    assert all(network.subnet_of(IPv4Network(block)) for network in found)
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[i + 1 :])
    # AWS's smallest subnet.
    assert all(network.prefixlen <= 28 for network in found)


def test_a_zone_that_is_added_moves_no_other() -> None:
    few, more = ranges("10.0.0.0/16", ("a", "b")), ranges("10.0.0.0/16", ("a", "b", "c"))
    assert few.items() <= more.items()


def test_a_name_that_eks_would_refuse_is_refused_with_the_length_that_fits() -> None:
    raw = raw_stack("gpu")
    raw["cluster"]["accelerators"] = {"p" * 63: EVERYTHING["accelerators"]["l4"]}
    raw["models"] = {}
    (problem,) = eks_problems(load_config(raw))
    assert "63 characters" in problem.wrong and "characters at most" in problem.fix
