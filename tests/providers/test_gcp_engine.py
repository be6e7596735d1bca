"""The gcp plugin under the real Pulumi engine: a network, a cluster and its pools, from preview to nothing."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp
import pulumi_kubernetes as k8s
import pytest
import yaml

from ops.kube import Manifest
from rehearsal.cloud.project import Project
from rehearsal.cloud.settings import Settings
from rehearsal.providers.gcp.embedded import Embedded
from rehearsal.stand_ins.autoscaler import Autoscaler
from tests.provider_contract.conftest import Contract, contract  # noqa: F401 - a fixture
from tests.support.cloud_stories import Story, install, tell
from tests.support.simulated_google import Google

pytestmark = [
    pytest.mark.rehearsed,
    pytest.mark.long,
    # The SDK warns about deprecated classes of its own whenever the package they are in is loaded.
    pytest.mark.filterwarnings("ignore:gcp[.]:DeprecationWarning"),
]
ZONE = "europe-west4-a"
APIS = ("compute.googleapis.com", "container.googleapis.com", "iam.googleapis.com")


@dataclass
class Program:
    """A small stack of Google's, which a test changes between runs."""

    capacity: str = "on-demand"
    system_nodes: int = 1

    def __call__(self) -> None:
        provider = gcp.Provider("google", project="my-project", region="europe-west4", zone=ZONE)
        opts = pulumi.ResourceOptions(provider=provider)
        apis = [
            gcp.projects.Service(api.split(".")[0], service=api, disable_on_destroy=False, opts=opts)
            for api in APIS
        ]
        after = pulumi.ResourceOptions(provider=provider, depends_on=apis)
        network = gcp.compute.Network("net", auto_create_subnetworks=False, opts=after)
        ranges = {"pods": "10.4.0.0/14", "services": "10.8.0.0/20"}
        subnet = gcp.compute.Subnetwork(
            "nodes",
            network=network.id,
            ip_cidr_range="10.0.0.0/20",
            secondary_ip_ranges=[{"range_name": n, "ip_cidr_range": r} for n, r in ranges.items()],
            opts=opts,
        )
        account = gcp.serviceaccount.Account("node", account_id="node-account", opts=after)
        cluster = gcp.container.Cluster(
            "c",
            name="c",
            location=ZONE,
            network=network.id,
            subnetwork=subnet.id,
            deletion_protection=False,
            ip_allocation_policy={
                "cluster_secondary_range_name": "pods",
                "services_secondary_range_name": "services",
            },
            opts=after,
        )
        gcp.container.NodePool(
            "system",
            cluster=cluster.id,
            node_count=self.system_nodes,
            node_config={"machine_type": "n1-standard-4", "service_account": account.email},
            opts=opts,
        )
        gcp.container.NodePool(
            "v6e",
            name="v6e",
            cluster=cluster.id,
            autoscaling={"min_node_count": 1, "max_node_count": 3},
            ignore_node_count_changes=True,
            node_config={"machine_type": "ct6e-standard-4t", "spot": self.capacity == "spot"},
            opts=opts,
        )
        config = pulumi.Output.all(cluster.endpoint, cluster.master_auth).apply(kubeconfig)
        kubernetes = k8s.Provider("kubernetes", kubeconfig=config, cluster_identifier="c")
        k8s.core.v1.Namespace(
            "made-through-google",
            metadata={"name": "made-through-google"},
            opts=pulumi.ResourceOptions(provider=kubernetes),
        )


def kubeconfig(known: list) -> str:
    """As gcloud writes it, with the exec plugin."""
    endpoint, auth = known
    cluster = {
        "server": f"https://{endpoint}",
        "certificate-authority-data": auth["cluster_ca_certificate"],
    }
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "gke-gcloud-auth-plugin",
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "c", "user": {"exec": plugin}}],
        }
    )


@pytest.fixture(scope="module")
def story(contract: Contract) -> Story:  # noqa: F811
    install(contract.paths, "gcp", {"gke-gcloud-auth-plugin": "cloud.auth_plugin"})
    program = Program()

    def change() -> None:
        program.capacity, program.system_nodes = "spot", 2

    return tell(contract, program, "made-through-google", change)


def test_a_preview_of_nothing_yet_succeeds_without_any_value_of_googles(story):
    assert story.foreseen.ok, story.foreseen.output


def test_up_makes_the_cluster_and_its_nodes(story):
    assert story.first.ok, story.first.output
    types = sorted(n["metadata"]["labels"]["node.kubernetes.io/instance-type"] for n in story.nodes)
    assert types == ["ct6e-standard-4t", "n1-standard-4"]


def test_the_kubeconfig_with_googles_exec_plugin_reaches_the_cluster(story):
    assert story.namespace is not None


def test_nothing_differs_afterwards_not_even_after_a_refresh(story):
    assert story.unchanged.ok and story.unchanged.changed == {}, story.unchanged.output
    assert story.refreshed.ok and story.refreshed.changed == {}, story.refreshed.output


def test_another_kind_of_capacity_replaces_the_pool_and_a_resize_does_not(story):
    assert story.changed.ok, story.changed.output
    assert story.changed.changed["system"] == ["update"]
    # The name is the user's, so the old pool has to go before the new one comes.
    steps = story.changed.changed["v6e"]
    assert steps.index("delete-replaced") < steps.index("create-replacement"), steps
    labels = [n["metadata"]["labels"] for n in story.nodes_after]
    assert sum("cloud.google.com/gke-spot" in found for found in labels) == 1
    assert sum(found["node.kubernetes.io/instance-type"] == "n1-standard-4" for found in labels) == 2


def test_destroy_leaves_the_project_empty(story):
    assert story.destroyed.ok, story.destroyed.output
    assert story.left.empty
    assert story.nodes_left == []


def pod(name: str, chips: int) -> Manifest:
    """A pod that wants chips of a TPU node."""
    container = {
        "name": "main",
        "image": "x:1",
        "resources": {"limits": {"google.com/tpu": str(chips)}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "containers": [container],
            "nodeSelector": {"cloud.google.com/gke-tpu-topology": "2x2"},
            "tolerations": [{"key": "google.com/tpu", "operator": "Exists"}],
        },
    }


def test_the_scheduler_puts_a_waiting_pod_on_the_node_that_the_autoscaler_adds(contract, story):  # noqa: F811
    root, kube = contract.paths.root, contract.kube
    google = Google(root, embedded=Embedded.of(root), autoscaler={"idleSeconds": 0})
    cluster = google.make_cluster()
    google.make_pool(cluster)
    kube.create(pod("waits", 4))
    scaler, stop = Autoscaler(kube, Project.of(root), Settings.of(root)), threading.Event()
    thread = threading.Thread(target=scaler.run, args=(stop,))
    thread.start()
    try:
        place = lambda: kube.get("v1", "Pod", "waits", "default")["spec"].get("nodeName")
        node = kube.wait(place, 60, "the pod on a node")
        assert node.startswith("gke-c-v6e-")
        reasons = {event["reason"] for event in kube.list("v1", "Event", "default")}
        assert "TriggeredScaleUp" in reasons
        # No kubelet lets this pod go, so it goes at once; then nobody is on the node.
        kube.request("DELETE", "/api/v1/namespaces/default/pods/waits", None, {"gracePeriodSeconds": 0})
        kube.wait(lambda: not kube.list("v1", "Node"), 60, "no node")
    finally:
        stop.set()
        thread.join()
    google.delete(cluster)
