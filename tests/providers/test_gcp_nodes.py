"""Node pools are nodes of the cluster: as many, as large and with the labels and taints that GKE gives them."""

from __future__ import annotations

import pytest

from rehearsal.providers.server import Refusal
from tests.support.simulated_google import PROJECT, ZONE, Google, cluster_inputs, pool_inputs


@pytest.fixture
def google(tmp_path):
    return Google(tmp_path)


@pytest.fixture
def cluster(google):
    return google.make_cluster()


def fixed(google, cluster, name="v6e", count=1, **more):
    return google.make_pool(cluster, name, autoscaling=None, nodeCount=count, **more)


def test_a_pool_makes_its_nodes_and_takes_them_along(google, cluster):
    pool = fixed(google, cluster, count=3)
    assert len(google.kube.nodes("v6e")) == 3
    google.delete(pool)
    assert google.kube.nodes() == []


def test_an_autoscaled_pool_begins_with_its_minimum(google, cluster):
    google.make_pool(cluster)
    assert google.kube.nodes() == []
    google.make_pool(cluster, "two", autoscaling={"minNodeCount": 2, "maxNodeCount": 3})
    assert len(google.kube.nodes("two")) == 2


def test_counts_are_per_zone_and_totals_are_not(google, cluster):
    zones = [ZONE, "europe-west4-b"]
    config = {"machineType": "e2-standard-4"}
    per_zone = google.make_pool(
        cluster, "a", config=config, nodeLocations=zones, autoscaling={"minNodeCount": 2, "maxNodeCount": 3}
    )
    assert len(google.kube.nodes("a")) == 4 and per_zone.outputs["nodeCount"] == 2
    total = {"totalMinNodeCount": 2, "totalMaxNodeCount": 3}
    google.make_pool(cluster, "b", config=config, nodeLocations=zones, autoscaling=total)
    placed = sorted(n["metadata"]["labels"]["topology.kubernetes.io/zone"] for n in google.kube.nodes("b"))
    assert placed == zones


def test_a_tpu_node_is_as_gke_makes_it(google, cluster):
    fixed(
        google,
        cluster,
        config={"labels": {"llmp.dev/pool": "v6e"}},
        networkConfig={"enablePrivateNodes": True},
    )
    (node,) = google.kube.nodes()
    wanted = {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "2x2",
        "cloud.google.com/gke-accelerator-count": "4",
        "cloud.google.com/gke-nodepool": "v6e",
        "cloud.google.com/gke-provisioning": "standard",
        "cloud.google.com/private-node": "true",
        "node.kubernetes.io/instance-type": "ct6e-standard-4t",
        "topology.kubernetes.io/region": "europe-west4",
        "topology.kubernetes.io/zone": ZONE,
        "llmp.dev/pool": "v6e",
    }
    assert wanted.items() <= node["metadata"]["labels"].items()
    assert "cloud.google.com/gke-spot" not in node["metadata"]["labels"]
    assert node["spec"]["taints"] == [{"key": "google.com/tpu", "value": "present", "effect": "NoSchedule"}]
    assert node["spec"]["providerID"] == f"gce://{PROJECT}/{ZONE}/{node['metadata']['name']}"
    capacity, allocatable = node["status"]["capacity"], node["status"]["allocatable"]
    assert capacity["google.com/tpu"] == allocatable["google.com/tpu"] == "4"
    assert capacity["cpu"] == "180" and allocatable["cpu"] == "179480m"


def test_a_declared_taint_of_gkes_is_there_once_and_others_beside_it(google, cluster):
    taints = [
        {"key": "google.com/tpu", "value": "present", "effect": "NO_SCHEDULE"},
        {"key": "own", "value": "x", "effect": "NO_EXECUTE"},
    ]
    fixed(google, cluster, config={"taints": taints})
    found = {(t["key"], t["effect"]) for t in google.kube.nodes()[0]["spec"]["taints"]}
    assert found == {("google.com/tpu", "NoSchedule"), ("own", "NoExecute")}
    assert len(google.kube.nodes()[0]["spec"]["taints"]) == 2


@pytest.mark.parametrize(
    ("config", "label"),
    [({"spot": True}, "cloud.google.com/gke-spot"), ({"flexStart": True}, "cloud.google.com/gke-flex-start")],
)
def test_the_kind_of_capacity_is_a_label(google, cluster, config, label):
    affinity = {"reservationAffinity": {"consumeReservationType": "NO_RESERVATION"}}
    pool = google.make_pool(cluster, config=config | affinity, management={"autoRepair": False})
    with google.plugin.project.change() as state:
        state.of("container/nodePool")[pool.identity]["size"] = 1
    google.update(pool, **strip(pool.inputs))
    assert google.kube.nodes()[0]["metadata"]["labels"][label] == "true"


def strip(inputs):
    return {k: v for k, v in inputs.items() if not k.startswith("__")}


def test_a_multi_host_slice_has_one_topology_on_all_its_hosts(google, cluster):
    google.make_pool(
        cluster,
        placementPolicy={"type": "COMPACT", "tpuTopology": "4x4"},
        autoscaling={"minNodeCount": 4, "maxNodeCount": 4},
        maxPodsPerNode=15,
    )
    nodes = google.kube.nodes()
    assert len({n["metadata"]["name"] for n in nodes}) == 4
    assert {n["metadata"]["labels"]["cloud.google.com/gke-tpu-topology"] for n in nodes} == {"4x4"}
    assert {n["status"]["capacity"]["pods"] for n in nodes} == {"15"}


def test_a_system_node_has_no_taint_and_less_room_than_its_machine(google, cluster):
    fixed(google, cluster, "system", config={"machineType": "n1-standard-4"})
    (node,) = google.kube.nodes()
    assert "taints" not in node["spec"]
    # Google's example of a machine with 4 vCPUs and 15 GB: 3920m CPU.
    assert node["status"]["capacity"]["cpu"] == "4" and node["status"]["allocatable"]["cpu"] == "3920m"
    assert node["status"]["capacity"]["memory"] == "15360Mi"
    assert "google.com/tpu" not in node["status"]["capacity"]


def test_a_resize_changes_the_nodes_and_the_pods_of_a_lost_node_go(google, cluster):
    pool = fixed(google, cluster, count=2)
    names = [n["metadata"]["name"] for n in google.kube.nodes()]
    for index, name in enumerate(names):
        meta = {"name": f"p{index}", "namespace": "default"}
        google.kube.create({"kind": "Pod", "metadata": meta, "spec": {"nodeName": name}})
    smaller = google.update(pool, **pool_inputs(cluster, autoscaling=None, nodeCount=1))
    (left,) = google.kube.nodes()
    assert [p["spec"]["nodeName"] for p in google.kube.list("v1", "Pod")] == [left["metadata"]["name"]]
    google.update(smaller, **pool_inputs(cluster, autoscaling=None, nodeCount=3))
    assert len(google.kube.nodes()) == 3 and left in google.kube.nodes()


def test_labels_and_taints_change_on_the_nodes_that_are_there(google, cluster):
    pool = fixed(google, cluster)
    before = google.kube.nodes()[0]["metadata"]["name"]
    google.update(pool, **pool_inputs(cluster, config={"labels": {"a": "b"}}, autoscaling=None, nodeCount=1))
    (node,) = google.kube.nodes()
    assert node["metadata"]["name"] == before and node["metadata"]["labels"]["a"] == "b"


def test_deleting_the_cluster_takes_all_nodes_and_pools(google, cluster):
    fixed(google, cluster, count=2)
    google.delete(cluster)
    assert google.kube.nodes() == []
    assert google.plugin.project.read().of("container/nodePool") == {}


def test_a_default_pool_exists_unless_it_is_removed_or_not_asked_for(google):
    with_pool = google.make_cluster(initialNodeCount=2)
    assert len(google.kube.nodes("default-pool")) == 2
    google.delete(with_pool)
    inputs = strip(with_pool.inputs)
    google.create("cluster", "c", **{**inputs, "removeDefaultNodePool": True})
    assert google.kube.nodes() == []


def grow(google, pool, size):
    """What the autoscaler does."""
    with google.plugin.project.change() as state:
        state.of("container/nodePool")[pool.identity]["size"] = size


def test_a_refresh_sees_growth_only_where_counts_are_not_ignored(google, cluster):
    ignored = google.make_pool(cluster)
    seen = google.make_pool(cluster, "seen", ignoreNodeCountChanges=False)
    for pool in (ignored, seen):
        grow(google, pool, 2)
    assert google.read(ignored).outputs["nodeCount"] == 0
    assert google.read(seen).outputs["nodeCount"] == 2
    assert ignored.outputs["managedInstanceGroupUrls"] == [] != seen.outputs["managedInstanceGroupUrls"]


def test_a_count_of_zero_does_nothing_to_a_pool_that_was_made_empty_and_grew(google, cluster):
    """The trap of hard-off: the provider compares with the last known count, which is 0 already."""
    pool = google.make_pool(cluster)
    grow(google, pool, 2)
    off = pool_inputs(cluster, nodeCount=0)
    del off["autoscaling"]
    google.update(pool, **off)
    assert google.plugin.project.read().of("container/nodePool")[pool.identity]["size"] == 2
    google.update(google.read(seen_again(google, pool)), **{**off, "ignoreNodeCountChanges": False})
    assert google.plugin.project.read().of("container/nodePool")[pool.identity]["size"] == 0


def seen_again(google, pool):
    """The pool as an engine knows it after an update that stopped ignoring counts."""
    inputs = {**strip(pool.inputs), "ignoreNodeCountChanges": False}
    return google.update(pool, **inputs)


def test_a_maximum_of_zero_is_never_sent_so_it_shows_again_in_the_next_preview(google, cluster):
    pool = google.make_pool(cluster)
    zero = pool_inputs(cluster, autoscaling={"minNodeCount": 0, "maxNodeCount": 0})
    updated = google.update(pool, **zero)
    assert updated.outputs["autoscaling"]["maxNodeCount"] == 3
    assert google.diff(updated, **zero).changed == {"autoscaling.maxNodeCount"}


def test_autoscaling_that_is_taken_away_and_given_back_keeps_the_nodes(google, cluster):
    pool = google.make_pool(cluster, ignoreNodeCountChanges=False)
    grow(google, pool, 2)
    off = pool_inputs(cluster, ignoreNodeCountChanges=False)
    del off["autoscaling"]
    without = google.update(pool, **off)
    assert "autoscaling" not in without.outputs
    assert len(google.kube.nodes()) == 2
    google.update(without, **pool_inputs(cluster, ignoreNodeCountChanges=False))
    assert len(google.kube.nodes()) == 2


def test_a_new_count_beside_an_autoscaler_is_sent_and_kept_within_its_limits(google, cluster):
    system = {
        "config": {"machineType": "e2-standard-4"},
        "autoscaling": {"minNodeCount": 1, "maxNodeCount": 3},
    }
    pool = google.make_pool(cluster, "system", nodeCount=1, **system)
    google.update(pool, **pool_inputs(cluster, "system", nodeCount=2, **system))
    assert len(google.kube.nodes("system")) == 2


def test_a_load_balancer_that_outlives_its_cluster_keeps_the_network(google):
    network, subnet = google.make_network()
    cluster = google.create("cluster", "c", **cluster_inputs(network, subnet))
    service = {"metadata": {"name": "gw", "namespace": "ns"}, "spec": {"type": "LoadBalancer"}}
    google.kube.create({"kind": "Service", **service})
    google.delete(cluster)
    google.delete(subnet)
    with pytest.raises(
        Refusal, match="already being used by 'projects/my-project/global/firewalls/k8s-fw-ns-gw'"
    ):
        google.delete(network)


def test_without_load_balancers_nothing_outlives_the_cluster(google):
    network, subnet = google.make_network()
    google.kube.create({"kind": "Service", "metadata": {"name": "s"}, "spec": {"type": "ClusterIP"}})
    for made in (google.create("cluster", "c", **cluster_inputs(network, subnet)), subnet, network):
        google.delete(made)
    assert google.plugin.project.read().empty
