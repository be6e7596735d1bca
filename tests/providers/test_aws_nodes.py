"""Node groups are nodes of the cluster: as many, as large and with the labels and taints that EKS gives them."""

from __future__ import annotations

import base64

import pytest

from rehearsal.cloud.groups import Short
from rehearsal.cloud.node_groups import group_of
from rehearsal.providers.server import PartialFailure, Refusal
from tests.support.simulated_aws import GPU_LABELS, TYPES, Amazon
from tests.support.simulated_cloud import strip

RAID = base64.b64encode(b"spec:\n  instance:\n    localStorage:\n      strategy: RAID0\n").decode()


@pytest.fixture
def amazon(tmp_path):
    return Amazon(tmp_path)


@pytest.fixture
def cluster(amazon):
    return amazon.make_cluster()


def sized(least, size, most):
    return {"scalingConfig": {"minSize": least, "desiredSize": size, "maxSize": most}}


def names(amazon, group="l4"):
    return sorted(node["metadata"]["name"] for node in amazon.kube.nodes(group))


def test_a_group_makes_its_nodes_and_takes_them_along(amazon, cluster):
    group = amazon.make_nodes(**sized(0, 2, 2))
    assert len(names(amazon)) == 2
    amazon.delete(group)
    assert amazon.kube.nodes() == []


def test_a_gpu_node_joins_as_eks_makes_it_and_knows_no_gpu_yet(amazon, cluster):
    group = amazon.make_nodes()
    (node,) = amazon.kube.nodes("l4")
    wanted = {
        **GPU_LABELS,
        "eks.amazonaws.com/nodegroup": "l4",
        "eks.amazonaws.com/capacityType": "ON_DEMAND",
        "eks.amazonaws.com/sourceLaunchTemplateVersion": "1",
        "node.kubernetes.io/instance-type": "g6.4xlarge",
        "topology.kubernetes.io/region": "us-east-1",
        "topology.kubernetes.io/zone": "us-east-1a",
    }
    assert wanted.items() <= node["metadata"]["labels"].items()
    assert not [name for name in node["metadata"]["labels"] if name.startswith("nvidia.com/")]
    assert node["spec"]["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    assert node["spec"]["providerID"].startswith("aws:///us-east-1a/i-")
    assert node["metadata"]["name"].startswith("ip-10-0-") and node["metadata"]["name"].endswith(
        ".ec2.internal"
    )
    # Karpenter's table of instance types.
    assert node["status"]["allocatable"]["cpu"] == "15890m"
    assert node["status"]["allocatable"]["memory"] == "57691Mi"
    assert "nvidia.com/gpu" not in node["status"]["capacity"]
    (resources,) = group.outputs["resources"]
    assert resources["autoscalingGroups"][0]["name"].startswith("eks-l4-")


def test_pods_write_to_the_root_volume_or_to_the_machines_own_disks(amazon, cluster):
    amazon.make_nodes("ebs")
    amazon.make_nodes("nvme", template={"userData": RAID})
    disk = {g: amazon.kube.nodes(g)[0]["status"]["capacity"]["ephemeral-storage"] for g in ("ebs", "nvme")}
    assert disk == {"ebs": "200Gi", "nvme": "600G"}


def test_without_a_launch_template_the_disk_is_too_small_for_any_image_of_an_engine(amazon, cluster):
    amazon.create("nodes", "x", **{**amazon.node_inputs(), "launchTemplate": None})
    assert amazon.kube.nodes()[0]["status"]["capacity"]["ephemeral-storage"] == "20Gi"


def test_zones_take_turns_and_names_never_meet(amazon, cluster):
    subnets = amazon.plugin.project.read().of("eks/cluster")["c"]["inputs"]["vpcConfig"]["subnetIds"]
    for name in ("a", "b", "c"):
        amazon.make_nodes(name, subnetIds=subnets, **sized(0, 4, 4))
    nodes = amazon.kube.nodes()
    zones = [n["metadata"]["labels"]["topology.kubernetes.io/zone"] for n in nodes]
    assert zones.count("us-east-1a") == zones.count("us-east-1b") == 6
    assert len({n["metadata"]["name"] for n in nodes}) == 12


def test_a_new_size_is_sent_and_the_nodes_that_stay_are_the_same(amazon, cluster):
    group = amazon.make_nodes()
    before = names(amazon)
    larger = amazon.update(group, **{**amazon.node_inputs(), **sized(0, 3, 3)})
    assert len(names(amazon)) == 3 and set(before) <= set(names(amazon))
    amazon.update(larger, **{**amazon.node_inputs(), **sized(0, 0, 3)})
    assert names(amazon) == []


def test_a_new_image_renews_every_node(amazon, cluster):
    group = amazon.make_nodes(**sized(0, 2, 2))
    before = names(amazon)
    amazon.update(group, **{**amazon.node_inputs(), **sized(0, 2, 2), "releaseVersion": "1.34.1-20261201"})
    assert len(names(amazon)) == 2 and not set(before) & set(names(amazon))


def test_labels_and_taints_change_on_the_nodes_that_are_there(amazon, cluster):
    group = amazon.make_nodes()
    before = names(amazon)
    amazon.update(group, **{**amazon.node_inputs(), "labels": {"a": "b"}, "taints": None})
    (node,) = amazon.kube.nodes("l4")
    assert names(amazon) == before and node["metadata"]["labels"]["a"] == "b"
    assert "taints" not in node["spec"]


def grow(amazon, group, size):
    """What the autoscaler does."""
    with amazon.plugin.project.change() as state:
        state.of("eks/nodeGroup")[group.identity]["size"] = size


def test_a_refresh_sees_what_the_autoscaler_left(amazon, cluster):
    group = amazon.make_nodes()
    grow(amazon, group, 2)
    assert amazon.read(group).outputs["scalingConfig"]["desiredSize"] == 2


def test_an_update_of_something_else_leaves_the_autoscalers_size_alone(amazon, cluster):
    group = amazon.make_nodes()
    grow(amazon, group, 2)
    amazon.update(group, **{**amazon.node_inputs(), "labels": {"a": "b"}})
    assert amazon.group(group)["size"] == 2


def test_a_new_ceiling_sends_the_stale_size_along(amazon, cluster):
    """The trap of ignored sizes: the provider sends all three together, from a state that was not refreshed."""
    group = amazon.make_nodes()
    grow(amazon, group, 2)
    amazon.update(group, **{**amazon.node_inputs(), **sized(0, 1, 5)})
    assert amazon.group(group)["size"] == 1
    seen = amazon.make_nodes("seen")
    grow(amazon, seen, 2)
    amazon.update(amazon.read(seen), **{**amazon.node_inputs("seen"), **sized(0, 2, 5)})
    assert amazon.group(seen)["size"] == 2


def test_a_size_that_cannot_be_reached_keeps_the_nodes_that_there_are(amazon, cluster):
    group = amazon.make_nodes()
    amazon.set(stockOuts=[{"machine": "g6.4xlarge"}])
    with pytest.raises(PartialFailure, match="InsufficientInstanceCapacity"):
        amazon.update(group, **{**amazon.node_inputs(), **sized(0, 2, 2)})
    assert len(names(amazon)) == 1


def test_tags_of_the_autoscaling_group_are_eks_own_and_those_that_are_added(amazon, cluster):
    group = amazon.make_nodes()
    scaling = group.outputs["resources"][0]["autoscalingGroups"][0]["name"]
    tag = {
        "key": "k8s.io/cluster-autoscaler/node-template/resources/x",
        "value": "1",
        "propagateAtLaunch": False,
    }
    amazon.create("tag", "t", autoscalingGroupName=scaling, tag=tag)
    state = amazon.plugin.project.read()
    assert group_of(state, group.identity, amazon.group(group)).tags == {
        "k8s.io/cluster-autoscaler/enabled": "true",
        "k8s.io/cluster-autoscaler/c": "owned",
        tag["key"]: "1",
    }


def test_spot_stock_is_another_than_that_of_machines_on_demand(amazon, cluster):
    group = amazon.make_nodes(capacityType="SPOT")
    amazon.set(stockOuts=[{"machine": "g6.4xlarge", "capacity": "spot"}])
    state = amazon.plugin.project.read()
    with pytest.raises(Short, match="UnfulfillableCapacity"):
        group_of(state, group.identity, amazon.group(group)).require(state, amazon.plugin.settings, 2)


def test_the_add_on_of_volumes_brings_its_class_and_takes_it_away(amazon, cluster):
    amazon.make_system()
    settings = '{"defaultStorageClass": {"enabled": true}}'
    given = {"clusterName": "c", "addonName": "aws-ebs-csi-driver", "configurationValues": settings}
    addon = amazon.create("addon", "ebs", **given)
    (kind,) = amazon.kube.list("storage.k8s.io/v1", "StorageClass")
    assert kind["parameters"] == {"type": "gp3"} and kind["volumeBindingMode"] == "WaitForFirstConsumer"
    amazon.delete(addon)
    assert amazon.kube.list("storage.k8s.io/v1", "StorageClass") == []


def test_destroying_in_the_programs_order_leaves_an_empty_account(amazon):
    vpc, subnets = amazon.make_network()
    cluster = amazon.make_cluster(subnets)
    amazon.delete(amazon.make_nodes())
    amazon.delete(cluster)
    for kind in ("nat", "route", "join", "internet", "table", "subnet", "address", "template"):
        module = kind_of(kind)
        for made in amazon.made(kind, list(amazon.plugin.project.read().of(module))):
            amazon.delete(made)
    amazon.delete(vpc)
    for kind in ("attachment", "role"):
        for made in amazon.made(kind, list(amazon.plugin.project.read().of(kind_of(kind)))):
            amazon.delete(made)
    assert amazon.plugin.project.read().empty


def kind_of(kind):
    """The short name of records of a type."""
    return TYPES[kind].split(":")[1]


def test_a_second_cluster_has_no_api_server(amazon, cluster):
    inputs = {**strip(cluster.inputs), "name": "d"}
    with pytest.raises(Refusal, match="a rehearsal has one API server and so one cluster, and c is there"):
        amazon.create("cluster", "d", **inputs)
