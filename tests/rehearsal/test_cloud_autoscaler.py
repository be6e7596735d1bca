"""The simulated cluster autoscaler: which pods make which pools grow, what is told, and when nodes go."""

from __future__ import annotations

import itertools

import pytest

from rehearsal.cloud.project import POOL, Project
from rehearsal.cloud.settings import Settings
from rehearsal.node.nodes import NodeShape
from rehearsal.stand_ins.autoscaler import Autoscaler, misfit, requests, tolerates
from tests.support.simulated_google import Google

TPU_TAINT = {"key": "google.com/tpu", "value": "present", "effect": "NoSchedule"}
TOLERATION = {"key": "google.com/tpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
numbers = itertools.count()


class Scene:
    """A cluster with pools, pods that come and go, and an autoscaler whose clock we turn."""

    def __init__(self, google: Google):
        self.google, self.kube, self.now = google, google.kube, 0.0
        self.cluster = google.make_cluster()
        self.scaler = Autoscaler(
            google.kube, Project.of(google.root), Settings.of(google.root), lambda: self.now
        )

    def pod(self, chips=4, **spec):
        """A pod that the scheduler could not place."""
        name = f"p{next(numbers)}"
        container = {"name": "main", "resources": {"requests": {"google.com/tpu": str(chips), "cpu": "1"}}}
        made = {
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "uid": name},
            "spec": {"containers": [container], "tolerations": [TOLERATION], **spec},
            "status": {"phase": "Pending", "conditions": [UNSCHEDULABLE]},
        }
        self.kube.create(made)
        return made

    def round(self, seconds=0.0):
        """Let time pass and the autoscaler look once."""
        self.now += seconds
        self.scaler.reconcile(self.kube.list("v1", "Pod"), self.kube.nodes())

    def bind(self, pod, node=None):
        """What the scheduler does."""
        pod["spec"]["nodeName"] = (node or self.kube.nodes("v6e")[-1])["metadata"]["name"]
        pod["status"] = {"phase": "Running"}

    def sizes(self):
        records = self.google.plugin.project.read().of(POOL)
        return {identity.rsplit("/", 1)[-1]: record["size"] for identity, record in records.items()}


@pytest.fixture
def scene(tmp_path):
    return Scene(Google(tmp_path, autoscaler={"idleSeconds": 10, "nodeSeconds": 0, "backoffSeconds": 5}))


@pytest.fixture
def pool(scene):
    return scene.google.make_pool(scene.cluster)


def test_a_waiting_pod_that_fits_gets_a_node_and_is_told(scene, pool):
    scene.pod()
    scene.round()
    assert len(scene.kube.nodes("v6e")) == 1
    ((reason, message),) = scene.kube.events()
    assert reason == "TriggeredScaleUp"
    assert message.startswith(
        "pod triggered scale-up: [{https://www.googleapis.com/compute/v1/projects/my-project/"
    )
    assert message.endswith("-grp 0->1 (max: 3)}]")


def test_it_does_not_grow_again_while_the_scheduler_has_not_looked(scene, pool):
    scene.pod()
    for _ in range(3):
        scene.round()
    assert scene.sizes() == {"v6e": 1}


def test_it_grows_by_what_the_pods_need_together(scene, pool):
    scene.pod(chips=4)
    scene.pod(chips=4)
    scene.round()
    assert scene.sizes() == {"v6e": 2}


def test_pods_share_a_node_where_they_fit(scene):
    scene.google.make_pool(scene.cluster, "big", config={"machineType": "ct6e-standard-8t"})
    scene.pod(chips=4)
    scene.pod(chips=4)
    scene.round()
    assert scene.sizes() == {"big": 1}


def test_at_the_maximum_the_pod_is_told_why(scene, pool):
    for _ in range(4):
        scene.pod()
    scene.round()
    for waiting, node in zip(scene.kube.list("v1", "Pod"), scene.kube.nodes(), strict=False):
        scene.bind(waiting, node)
    scene.round()
    assert scene.sizes() == {"v6e": 3}
    assert scene.kube.events()[-1] == (
        "NotTriggerScaleUp",
        "pod didn't trigger scale-up: 1 max node group size reached",
    )


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"tolerations": []}, "1 node(s) had untolerated taint {google.com/tpu: present}"),
        (
            {"nodeSelector": {"cloud.google.com/gke-tpu-topology": "4x4"}},
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        ({"nodeSelector": {"llmp.dev/pool": "other"}}, "1 node(s) didn't match Pod's node affinity/selector"),
    ],
)
def test_a_pod_that_would_not_run_there_makes_nothing_grow(scene, pool, spec, why):
    scene.pod(**spec)
    scene.round()
    assert scene.sizes() == {"v6e": 0}
    assert scene.kube.events() == [("NotTriggerScaleUp", f"pod didn't trigger scale-up: {why}")]


def test_a_pod_that_is_too_large_is_told_of_what_there_is_too_little(scene, pool):
    scene.pod(chips=8)
    scene.round()
    assert scene.kube.events()[0][1] == "pod didn't trigger scale-up: 1 Insufficient google.com/tpu"


def test_the_pool_that_a_pod_selects_grows_and_no_other(scene, pool):
    scene.google.make_pool(scene.cluster, "mine", config={"labels": {"llmp.dev/pool": "mine"}})
    scene.pod(nodeSelector={"llmp.dev/pool": "mine"})
    scene.round()
    assert scene.sizes() == {"v6e": 0, "mine": 1}


def test_a_multi_host_slice_comes_and_goes_whole(scene):
    scene.google.make_pool(
        scene.cluster,
        placementPolicy={"type": "COMPACT", "tpuTopology": "4x4"},
        autoscaling={"minNodeCount": 0, "maxNodeCount": 4},
    )
    first = scene.pod()
    scene.round()
    assert scene.sizes() == {"v6e": 4}
    scene.bind(first, scene.kube.nodes()[1])
    scene.round(20)
    scene.round(20)
    assert scene.sizes() == {"v6e": 4}
    scene.kube.delete("v1", "Pod", first["metadata"]["name"], "ns")
    scene.round()
    scene.round(11)
    assert scene.sizes() == {"v6e": 0}


def test_an_idle_node_goes_after_a_while_and_not_before(scene, pool):
    pod = scene.pod()
    scene.round()
    scene.bind(pod)
    scene.round(60)
    assert scene.sizes() == {"v6e": 1}
    scene.kube.delete("v1", "Pod", pod["metadata"]["name"], "ns")
    scene.round()
    scene.round(9)
    assert scene.sizes() == {"v6e": 1}
    scene.round(2)
    assert scene.sizes() == {"v6e": 0} and scene.kube.nodes() == []
    assert scene.kube.events()[-1] == ("ScaleDown", "node removed by cluster autoscaler")


def test_the_minimum_stays(scene):
    scene.google.make_pool(scene.cluster, autoscaling={"minNodeCount": 1, "maxNodeCount": 3})
    scene.round()
    scene.round(60)
    assert scene.sizes() == {"v6e": 1}


def test_a_pod_of_a_daemon_set_neither_keeps_a_node_nor_calls_for_one(scene, pool):
    pod = scene.pod()
    scene.round()
    pod["metadata"]["ownerReferences"] = [{"kind": "DaemonSet", "name": "d"}]
    scene.bind(pod)
    scene.round()
    scene.round(11)
    assert scene.sizes() == {"v6e": 0}
    waiting = scene.pod()
    waiting["metadata"]["ownerReferences"] = [{"kind": "DaemonSet", "name": "d"}]
    scene.round()
    assert scene.sizes() == {"v6e": 0}


def test_finished_pods_keep_no_node(scene, pool):
    pod = scene.pod()
    scene.round()
    scene.bind(pod)
    pod["status"] = {"phase": "Succeeded"}
    scene.round()
    scene.round(11)
    assert scene.sizes() == {"v6e": 0}


def test_pools_without_autoscaling_are_left_alone(scene):
    scene.google.make_pool(scene.cluster, "fixed", autoscaling=None, nodeCount=1)
    scene.pod()
    scene.pod()
    scene.round()
    scene.round(60)
    assert scene.sizes() == {"fixed": 1} and scene.kube.events() == []


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"quotas": [{"metric": "TPUS_PER_TPU_FAMILY", "limit": 0}]}, "GCE quota exceeded"),
        ({"stockOuts": [{"machine": "ct6e-*"}]}, "GCE out of resources"),
    ],
)
def test_what_google_does_not_have_is_a_failed_scale_up_and_then_a_pause(scene, pool, settings, cause):
    scene.google.set(**settings)
    scene.pod()
    scene.round()
    ((reason, message),) = scene.kube.events()
    assert reason == "FailedScaleUp"
    assert message == (
        f"Node scale up in zones europe-west4-a associated with this pod failed: {cause}. "
        "Pod is at risk of not being scheduled."
    )
    scene.round(1)
    assert scene.kube.events()[-1] == (
        "NotTriggerScaleUp",
        "pod didn't trigger scale-up: 1 in backoff after failed scale-up",
    )
    assert scene.sizes() == {"v6e": 0}
    scene.google.set(quotas=[], stockOuts=[])
    scene.round(5)
    assert scene.sizes() == {"v6e": 1}


def test_another_pool_that_fits_is_tried_after_one_that_failed(scene, pool):
    scene.google.make_pool(scene.cluster, "w-spot", config={"spot": True})
    scene.google.set(stockOuts=[{"machine": "ct6e-*", "capacity": "on-demand"}])
    scene.pod()
    scene.round()
    scene.round(1)
    assert scene.sizes() == {"v6e": 0, "w-spot": 1}


def test_a_node_takes_as_long_as_a_test_says(scene, pool):
    scene.google.set(autoscaler={"nodeSeconds": 30})
    scene.pod()
    scene.round()
    scene.round(29)
    assert scene.kube.nodes() == []
    scene.round(1)
    assert scene.sizes() == {"v6e": 1} and len(scene.kube.events()) == 1


def test_a_pool_that_was_deleted_meanwhile_does_not_come_back(scene, pool):
    scene.google.set(autoscaler={"nodeSeconds": 30})
    scene.pod()
    scene.round()
    scene.google.delete(pool)
    scene.google.make_pool(scene.cluster, "other", autoscaling={"minNodeCount": 0, "maxNodeCount": 1})
    scene.round(60)
    assert "v6e" not in scene.sizes() and scene.kube.nodes("v6e") == []


def test_init_containers_count_where_they_ask_for_more():
    def asks(cpu):
        return {"resources": {"requests": {"cpu": cpu}}}

    pod = {"spec": {"containers": [asks("1"), asks("500m")], "initContainers": [asks("4"), asks("1")]}}
    assert requests(pod) == {"pods": 1.0, "cpu": 4.0}


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "google.com/tpu", "operator": "Exists"}, True),
        ({"key": "google.com/tpu", "value": "present"}, True),
        ({"key": "google.com/tpu", "value": "absent"}, False),
        ({"key": "google.com/tpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "nvidia.com/gpu", "operator": "Exists"}, False),
    ],
)
def test_tolerations_are_read_as_kubernetes_reads_them(toleration, expected):
    assert tolerates({"spec": {"tolerations": [toleration]}}, TPU_TAINT) is expected


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["a", "b"], True),
        ("In", ["b"], False),
        ("NotIn", ["b"], True),
        ("Exists", None, True),
        ("DoesNotExist", None, False),
    ],
)
def test_required_node_affinity_is_read_as_kubernetes_reads_it(operator, values, fits):
    expression = {"key": "k", "operator": operator, "values": values}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    pod = {"spec": {"containers": [], "affinity": affinity}}
    assert (misfit(pod, NodeShape("n", {"pods": "1"}, {"k": "a"})) == "") is fits
