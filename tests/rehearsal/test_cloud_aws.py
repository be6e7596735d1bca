"""What acts in a simulated EKS cluster: its autoscaler, NVIDIA's operator, and Amazon's load balancers."""

from __future__ import annotations

import itertools
import json

import pytest

from rehearsal import skipped
from rehearsal.cloud.project import BALANCER, Project
from rehearsal.cloud.settings import Settings
from rehearsal.providers.server import Refusal
from rehearsal.stand_ins import aws_groups
from rehearsal.stand_ins.autoscaler import Autoscaler
from rehearsal.stand_ins.aws_balancers import FINALIZER, AmazonBalancers
from rehearsal.stand_ins.gateway import GATEWAY_API, GatewayController, Verdict
from rehearsal.stand_ins.gpu_operator import GpuOperator
from tests.rehearsal.test_stand_ins import item
from tests.support.simulated_aws import Amazon

SELECTOR = {"nvidia.com/gpu.product": "NVIDIA-L4"}
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists"}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
TEMPLATE = "k8s.io/cluster-autoscaler/node-template"
TAGS = {
    f"{TEMPLATE}/label/nvidia.com/gpu.product": "NVIDIA-L4",
    f"{TEMPLATE}/label/k8s.amazonaws.com/accelerator": "nvidia-l4",
    f"{TEMPLATE}/taint/nvidia.com/gpu": "present:NoSchedule",
    f"{TEMPLATE}/resources/ephemeral-storage": "200Gi",
}
CHANGES = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
LOOKS = ["autoscaling:DescribeAutoScalingGroups"]
numbers = itertools.count()


class Scene:
    """A cluster with pods that come and go, and stand-ins whose clock we turn."""

    def __init__(self, root):
        self.amazon = Amazon(
            root, autoscaler={"idleSeconds": 10, "backoffSeconds": 5}, aws={"gpuSeconds": 30}
        )
        self.kube, self.now = self.amazon.kube, 1_000_000.0
        self.vpc, subnets = self.amazon.make_network(**{"kubernetes.io/role/internal-elb": "1"})
        self.cluster = self.amazon.make_cluster(subnets)
        project, settings = Project.of(root), Settings.of(root)
        clock = lambda: self.now
        self.scaler = Autoscaler(self.kube, project, settings, clock, [aws_groups.source(root)])
        self.operator = GpuOperator(self.kube, root, settings, clock)
        self.balancers = AmazonBalancers(self.kube, project, settings, clock)

    def install(self, actions=(), **values):
        """The autoscaler with its identity."""
        root = self.amazon.root
        given = {
            "autoDiscovery": {"clusterName": "c"},
            "awsRegion": "us-east-1",
            "rbac": {"serviceAccount": {"name": "cluster-autoscaler"}},
        }
        skipped.note(root, "cluster-autoscaler", "cluster-autoscaler", {**given, **values})
        role = self.amazon.make_role("scaler", "pods.eks.amazonaws.com")
        statement = {"Effect": "Allow", "Action": [*LOOKS, *CHANGES, *actions], "Resource": "*"}
        self.amazon.create("policy", "p", role="scaler", policy=json.dumps({"Statement": [statement]}))
        self.amazon.create("addon", "agent", clusterName="c", addonName="eks-pod-identity-agent")
        given = {
            "clusterName": "c",
            "namespace": "cluster-autoscaler",
            "serviceAccount": "cluster-autoscaler",
        }
        self.amazon.create("identity", "i", **given, roleArn=role.outputs["arn"])

    def group(self, tags=TAGS, size=0, **more):
        """An empty GPU group; its autoscaling group has these tags."""
        scaling = {"minSize": 0, "desiredSize": size, "maxSize": 2}
        made = self.amazon.make_nodes(scalingConfig=scaling, **more)
        name = made.outputs["resources"][0]["autoscalingGroups"][0]["name"]
        for key, value in tags.items():
            tag = {"key": key, "value": value, "propagateAtLaunch": False}
            self.amazon.create("tag", key, autoscalingGroupName=name, tag=tag)
        return made

    def pod(self, gpus=1, selector=SELECTOR, **requests):
        """A pod that the scheduler could not place."""
        name = f"p{next(numbers)}"
        resources = {"requests": {"nvidia.com/gpu": str(gpus), "cpu": "6", "memory": "16Gi", **requests}}
        made = {
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "uid": name},
            "spec": {
                "containers": [{"name": "main", "resources": resources}],
                "nodeSelector": selector,
                "tolerations": [TOLERATION],
            },
            "status": {"phase": "Pending", "conditions": [UNSCHEDULABLE]},
        }
        self.kube.create(made)
        return made

    def round(self, seconds=0.0):
        """Let time pass and the autoscaler look once."""
        self.now += seconds
        self.scaler.reconcile(self.kube.list("v1", "Pod"), self.kube.nodes())

    def size(self, made):
        return self.amazon.group(made)["size"]


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


# -- the autoscaler ----------------------------------------------------------------------------------


def test_a_pod_with_nvidias_own_label_starts_a_group_from_zero_by_its_tags(scene):
    scene.install()
    group = scene.group()
    scene.pod()
    scene.round()
    assert scene.size(group) == 1
    ((reason, message),) = scene.kube.events()
    assert reason == "TriggeredScaleUp" and "{eks-l4-" in message and message.endswith("0->1 (max: 2)}]")


@pytest.mark.parametrize(
    ("left_out", "requests", "why"),
    [
        ("label/nvidia.com/gpu.product", {}, "didn't match Pod's node affinity/selector"),
        ("resources/ephemeral-storage", {"ephemeral-storage": "30Gi"}, "Insufficient ephemeral-storage"),
    ],
)
def test_what_the_tags_of_an_empty_group_do_not_say_it_does_not_know(scene, left_out, requests, why):
    scene.install()
    group = scene.group({name: value for name, value in TAGS.items() if not name.endswith(left_out)})
    scene.pod(**requests)
    scene.round()
    assert scene.size(group) == 0
    assert why in scene.kube.events()[0][1]


def test_labels_of_the_group_are_known_where_it_may_ask_eks(scene):
    scene.install(actions=["eks:DescribeNodegroup"])
    group = scene.group({}, labels=SELECTOR)
    scene.pod()
    scene.round()
    assert scene.size(group) == 1


@pytest.mark.parametrize("label", [True, False])
def test_only_the_accelerators_label_keeps_it_from_adding_nodes_until_the_gpus_are_known(scene, label):
    scene.install()
    group = scene.group(labels={**SELECTOR, **({"k8s.amazonaws.com/accelerator": "x"} if label else {})})
    scene.pod()
    for _ in range(3):
        scene.round(1)
    assert scene.size(group) == (1 if label else 2)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda scene: skipped.forget(scene.amazon.root, "cluster-autoscaler"),
        lambda scene: scene.amazon.delete_all("iam/rolePolicy"),
        lambda scene: scene.amazon.delete_all("eks/podIdentityAssociation"),
        lambda scene: scene.amazon.delete_all("eks/addon"),
    ],
    ids=["no chart", "no policy", "no identity", "no agent"],
)
def test_it_does_nothing_without_its_chart_its_identity_or_its_rights(scene, break_it):
    scene.install()
    group = scene.group()
    break_it(scene)
    scene.pod()
    scene.round()
    assert scene.size(group) == 0 and scene.kube.events() == []


@pytest.mark.parametrize(
    "values", [{"awsRegion": "eu-west-1"}, {"autoDiscovery": {"clusterName": "other"}}, {"rbac": {}}]
)
def test_it_does_nothing_for_another_cluster_region_or_account(scene, values):
    scene.install(**values)
    group = scene.group()
    scene.pod()
    scene.round()
    assert scene.size(group) == 0


def test_out_of_stock_it_waits_and_the_pod_only_hears_of_the_backoff(scene):
    scene.install()
    group = scene.group()
    scene.amazon.set(stockOuts=[{"machine": "g6.*"}])
    scene.pod()
    scene.round()
    scene.round(1)
    assert scene.size(group) == 0
    # Its own status has an event in between, which names the group and not the cause.
    reasons = [reason for reason, _ in scene.kube.events()]
    assert reasons == ["TriggeredScaleUp", "ScaleUpFailed", "NotTriggerScaleUp"]
    noted = next(e for e in scene.kube.list("v1", "Event") if e["reason"] == "ScaleUpFailed")
    about = {"kind": "ConfigMap", "name": "cluster-autoscaler-status", "namespace": "cluster-autoscaler"}
    assert about.items() <= noted["involvedObject"].items()
    assert noted["metadata"]["namespace"] == "cluster-autoscaler"
    assert "to group eks-l4-" in noted["message"] and "placeholder-cannot-be-fulfilled" in noted["message"]
    assert "in backoff after failed scale-up" in scene.kube.events()[-1][1]
    scene.amazon.set(stockOuts=[])
    scene.round(10)
    assert scene.size(group) == 1


def test_a_pod_grows_nothing_for_a_claim_that_is_not_there_or_a_volume_of_another_zone(scene):
    scene.install()
    group = scene.group()
    pod = scene.pod()
    pod["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    scene.round()
    assert 'persistentvolumeclaim "c" not found' in scene.kube.events()[-1][1]
    scene.scaler.objects.put(item("v1", "PersistentVolumeClaim", "c", "ns", {"volumeName": "d"}))
    expression = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["us-east-1b"]}
    place = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    scene.scaler.objects.put(item("v1", "PersistentVolume", "d", spec={"nodeAffinity": place}))
    scene.round()
    assert "node(s) had volume node affinity conflict" in scene.kube.events()[-1][1]
    expression["values"] = ["us-east-1a"]
    scene.round()
    assert scene.size(group) == 1


def test_idle_nodes_go_down_to_the_floor(scene):
    scene.install()
    group = scene.group(size=1)
    system = scene.amazon.make_system(2)
    scene.round()
    scene.round(11)
    assert scene.size(group) == 0
    assert scene.size(system) == 2


def test_after_a_restart_there_are_the_nodes_that_the_records_say(scene):
    scene.group(size=2)
    scene.kube.delete("v1", "Node", scene.kube.nodes("l4")[0]["metadata"]["name"])
    scene.scaler.restore()
    assert len(scene.kube.nodes("l4")) == 2


# -- NVIDIA's operator -------------------------------------------------------------------------------


def known(scene):
    return [n["status"]["capacity"].get("nvidia.com/gpu") for n in scene.kube.nodes("l4")]


def test_gpus_are_known_only_some_time_after_the_operator_came(scene):
    scene.group(size=1)
    scene.operator.reconcile(scene.kube.nodes())
    assert known(scene) == [None]
    skipped.note(scene.amazon.root, "gpu-operator", "gpu-operator", {"driver": {"enabled": False}})
    scene.operator.reconcile(scene.kube.nodes())
    scene.now += 29
    scene.operator.reconcile(scene.kube.nodes())
    assert known(scene) == [None]
    scene.now += 1
    scene.operator.reconcile(scene.kube.nodes())
    assert known(scene) == ["1"]
    assert scene.kube.nodes("l4")[0]["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-L4"


def test_without_a_driver_in_the_image_or_from_the_operator_there_are_no_gpus(scene):
    scene.group(size=1, amiType="AL2023_x86_64_STANDARD")
    skipped.note(scene.amazon.root, "gpu-operator", "gpu-operator", {"driver": {"enabled": False}})
    for _ in range(2):
        scene.operator.reconcile(scene.kube.nodes())
        scene.now += 100
    assert known(scene) == [None]


def test_of_a_skipped_charts_values_only_those_that_its_stand_in_reads_are_kept(tmp_path):
    skipped.note(tmp_path, "gpu-operator", "ns", {"driver": {"enabled": False}, "password": "hunter2"})
    skipped.note(tmp_path, "another", "ns", {"password": "hunter2"})
    assert skipped.installed(tmp_path, "gpu-operator").values == {"driver": {"enabled": False}}
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and "hunter2" in f.read_text()]
    skipped.forget(tmp_path, "gpu-operator")
    assert skipped.installed(tmp_path, "gpu-operator") is None


# -- load balancers ----------------------------------------------------------------------------------


def service(scene, **marks):
    annotations = {f"service.beta.kubernetes.io/aws-load-balancer-{n}": v for n, v in marks.items()}
    made = {
        "kind": "Service",
        "metadata": {"name": "gw", "namespace": "ns", "uid": "u-1", "annotations": annotations},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 443}]},
    }
    scene.kube.create(made)
    scene.balancers.reconcile([made])
    return made


def going(made):
    """The Service as somebody has deleted it."""
    made["metadata"]["deletionTimestamp"] = "now"
    return made


def balancers(scene):
    return list(scene.amazon.plugin.project.read().of(BALANCER).values())


def test_a_service_gets_a_load_balancer_in_the_subnets_with_its_tag(scene):
    service(scene, type="nlb", scheme="internal")
    (record,) = balancers(scene)
    assert (record["inputs"]["scheme"], record["inputs"]["type"]) == ("internal", "network")
    assert len(record["inputs"]["subnetIds"]) == 2
    host = scene.kube.objects["Service", "ns", "gw"]["status"]["loadBalancer"]["ingress"][0]["hostname"]
    assert host.endswith(".elb.us-east-1.amazonaws.com")
    assert FINALIZER in scene.kube.objects["Service", "ns", "gw"]["metadata"]["finalizers"]


def test_without_tagged_subnets_it_never_gets_one_and_an_event_says_so(scene):
    service(scene, type="nlb", scheme="internet-facing")
    assert balancers(scene) == []
    ((reason, message),) = scene.kube.events()
    assert reason == "SyncLoadBalancerFailed"
    assert message.endswith("could not find any suitable subnets for creating the ELB")


def test_the_network_stays_until_the_load_balancer_went_with_its_service(scene):
    made = service(scene, type="nlb", scheme="internal")
    scene.amazon.delete(scene.cluster)
    subnet = scene.amazon.made("subnet", balancers(scene)[0]["inputs"]["subnetIds"])[0]
    with pytest.raises(Refusal, match="DependencyViolation"):
        scene.amazon.delete(subnet)
    # Nobody is left who would take it away: its controller went with the cluster.
    scene.balancers.reconcile([going(made)])
    assert len(balancers(scene)) == 1


def test_it_goes_with_its_service_while_the_cluster_is_there(scene):
    made = service(scene, type="nlb", scheme="internal")
    scene.balancers.reconcile([going(made)])
    assert balancers(scene) == []
    assert scene.kube.objects["Service", "ns", "gw"]["metadata"]["finalizers"] == []


# -- what istiod's stand-in says of them -------------------------------------------------------------


@pytest.mark.parametrize(
    ("ingress", "reason"), [([], "AddressNotAssigned"), ([{"hostname": "x.elb.amazonaws.com"}], "Programmed")]
)
def test_a_gateway_is_programmed_once_its_load_balancer_has_a_name(tmp_path, ingress, reason):
    gateway = item(GATEWAY_API, "Gateway", "gw", "ns", {"gatewayClassName": "istio", "listeners": []})
    marks = {"finalizers": [FINALIZER]}
    controller = GatewayController(None, lambda: True, lambda *_: [], tmp_path)
    controller.objects.put(
        {**item("v1", "Service", "gw-istio", "ns", **marks), "status": {"loadBalancer": {"ingress": ingress}}}
    )
    status = controller.status_of(gateway, Verdict(ready=True))
    assert {c["type"]: c["reason"] for c in status["conditions"]}["Programmed"] == reason
    assert status.get("addresses", []) == [{"type": "Hostname", "value": i["hostname"]} for i in ingress]
