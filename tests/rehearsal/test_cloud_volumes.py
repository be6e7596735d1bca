"""Simulated drivers of volumes: which claims get one and where, what is refused, and what goes with a claim."""

from __future__ import annotations

import json

import pytest

from rehearsal.cloud.project import Project
from rehearsal.cloud.storage_classes import DISK, EBS, FILES, LOCAL
from rehearsal.node import volumes as mounts
from rehearsal.stand_ins.volumes import DRIVERS, PROVISIONED_BY, Volumes
from tests.rehearsal.test_stand_ins import item
from tests.support.simulated_aws import MANAGED, Amazon, trust
from tests.support.simulated_cloud import FakeKube
from tests.support.simulated_google import Google


class Scene:
    """Claims in a cluster with one node in a zone."""

    def __init__(self, root):
        self.amazon = Amazon(root)
        self.kube, self.project = self.amazon.kube, Project.of(root)
        self.volumes = Volumes(self.kube, self.project, root / "volumes", lambda: 0.0)
        labels = {"topology.kubernetes.io/zone": "us-east-1b", "kubernetes.io/hostname": "n"}
        self.put(item("v1", "Node", "n", labels=labels))

    def put(self, manifest):
        self.kube.create(manifest)
        self.volumes.objects.put(manifest)
        return manifest

    def allow(self, policy="AmazonEBSCSIDriverPolicy"):
        """The add-on, with a role that has a policy, and the agent that hands roles out."""
        self.amazon.make_cluster()
        self.amazon.make_system()
        self.amazon.create("addon", "agent", clusterName="c", addonName="eks-pod-identity-agent")
        role = self.amazon.create("role", "r", name="r", assumeRolePolicy=trust("pods.eks.amazonaws.com"))
        self.amazon.create("attachment", "r", role="r", policyArn=f"{MANAGED}service-role/{policy}")
        given = [{"roleArn": role.outputs["arn"], "serviceAccount": "ebs-csi-controller-sa"}]
        addon = {"clusterName": "c", "addonName": "aws-ebs-csi-driver", "podIdentityAssociations": given}
        self.amazon.create("addon", "ebs", **addon)

    def claim(self, driver, *modes, node="n", late=True):
        """A claim that Kubernetes has asked the driver to serve."""
        mode = {"volumeBindingMode": "WaitForFirstConsumer" if late else "Immediate"}
        kind = {**item("storage.k8s.io/v1", "StorageClass", "fast"), "provisioner": driver, **mode}
        self.put(kind)
        marks = {"volume.kubernetes.io/storage-provisioner": driver}
        marks |= {"volume.kubernetes.io/selected-node": node} if node else {}
        spec = {
            "storageClassName": "fast",
            "accessModes": list(modes or ("ReadWriteOnce",)),
            "resources": {"requests": {"storage": "50Gi"}},
        }
        made = item("v1", "PersistentVolumeClaim", "c", "ns", spec, uid="u-1", annotations=marks)
        self.put({**made, "status": {"phase": "Pending"}})
        self.volumes.reconcile()

    def made(self):
        return self.kube.list("v1", "PersistentVolume")

    def records(self, driver):
        return self.project.read().of(DRIVERS[driver].kind)


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def test_a_claim_gets_a_volume_in_the_zone_of_its_first_pod(scene):
    scene.allow()
    scene.claim(EBS)
    (volume,) = scene.made()
    assert volume["spec"]["claimRef"]["uid"] == "u-1" and volume["spec"]["capacity"] == {"storage": "50Gi"}
    (term,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["us-east-1b"]
    (record,) = scene.records(EBS).values()
    assert (record["owner"], record["inputs"]["place"]) == ("ns/c", "us-east-1b")


def test_a_claim_that_nobody_uses_yet_gets_none(scene):
    scene.allow()
    scene.claim(EBS, node="")
    assert scene.made() == []


@pytest.mark.parametrize(
    ("driver", "mode", "served"),
    [
        (EBS, "ReadWriteMany", False),
        (EBS, "ReadWriteOncePod", True),
        (DISK, "ReadWriteMany", False),
        (DISK, "ReadOnlyMany", True),
        (FILES, "ReadWriteMany", True),
        (LOCAL, "ReadWriteMany", False),
    ],
)
def test_only_files_are_shared_by_nodes(scene, driver, mode, served):
    scene.allow()
    scene.claim(driver, mode)
    assert bool(scene.made()) is served
    reasons = [reason for reason, _ in scene.kube.events()]
    assert reasons == ([] if served else ["ProvisioningFailed"])


def test_files_are_reached_from_everywhere(scene):
    scene.claim(FILES, "ReadWriteMany")
    assert "nodeAffinity" not in scene.made()[0]["spec"]


@pytest.mark.parametrize("broken", ["no agent", "another policy"])
def test_the_driver_makes_nothing_without_its_role(scene, broken):
    scene.allow("AmazonEKS_CNI_Policy" if broken == "another policy" else "AmazonEBSCSIDriverPolicy")
    if broken == "no agent":
        with scene.project.change() as state:
            del state.of("eks/addon")["c:eks-pod-identity-agent"]
    scene.claim(EBS)
    assert scene.made() == [] and scene.records(EBS) == {}
    ((reason, message),) = scene.kube.events()
    assert reason == "ProvisioningFailed" and "UnauthorizedOperation" in message


def test_a_volume_goes_with_its_claim_and_so_does_what_was_written(scene, tmp_path):
    scene.allow()
    scene.claim(EBS)
    (volume,) = scene.made()
    written = tmp_path / "volumes" / volume["metadata"]["name"] / "weights"
    written.parent.mkdir(parents=True)
    written.write_text("x")
    scene.volumes.objects.drop(scene.volumes.objects.of("PersistentVolumeClaim")[0])
    scene.put({**volume, "status": {"phase": "Released"}})
    scene.volumes.reconcile()
    assert scene.made() == [] and scene.records(EBS) == {} and not written.exists()


def test_a_volume_that_is_to_be_kept_stays(scene):
    scene.allow()
    scene.claim(EBS)
    (volume,) = scene.made()
    kept = json.loads(json.dumps(volume))
    kept["spec"]["persistentVolumeReclaimPolicy"] = "Retain"
    scene.put({**kept, "status": {"phase": "Released"}})
    scene.volumes.reconcile()
    assert len(scene.records(EBS)) == 1


def test_volumes_that_are_none_of_ours_are_left_alone(scene):
    foreign = item("v1", "PersistentVolume", "x", spec={"persistentVolumeReclaimPolicy": "Delete"})
    foreign["metadata"]["annotations"] = {PROVISIONED_BY: "nfs"}
    scene.put({**foreign, "status": {"phase": "Released"}})
    scene.volumes.reconcile()
    assert len(scene.made()) == 1


def test_a_nodes_own_disk_needs_nobody_to_attach_it(scene):
    scene.claim(LOCAL)
    (volume,) = scene.made()
    assert "csi" not in volume["spec"] and "hostPath" in volume["spec"]


@pytest.mark.parametrize(
    ("addons", "default", "shared"),
    [
        ({}, ["standard-rwo"], False),
        ({"gcpFilestoreCsiDriverConfig": {"enabled": True}}, ["standard-rwo"], True),
        ({"gcePersistentDiskCsiDriverConfig": {"enabled": False}}, [], False),
    ],
)
def test_a_gke_cluster_has_the_classes_of_its_drivers(tmp_path, addons, default, shared):
    google = Google(tmp_path)
    cluster = google.make_cluster(addonsConfig=addons)
    classes = google.kube.list("storage.k8s.io/v1", "StorageClass")
    marked = [c["metadata"] for c in classes if "true" in c["metadata"]["annotations"].values()]
    assert [meta["name"] for meta in marked] == default
    assert any(c["provisioner"] == FILES for c in classes) is shared
    google.delete(cluster)
    assert google.kube.list("storage.k8s.io/v1", "StorageClass") == []


# -- what pods see -----------------------------------------------------------------------------------


POD = {
    "metadata": {"namespace": "ns"},
    "spec": {
        "nodeName": "n",
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
    },
}


def cluster(phase="Bound", driver="", attached=""):
    """An API server with a claim whose volume a driver has attached to a node."""
    kube = FakeKube("")
    claim = item("v1", "PersistentVolumeClaim", "c", "ns", {"volumeName": "pvc-1"})
    kube.create({**claim, "status": {"phase": phase}})
    kube.create(item("v1", "PersistentVolume", "pvc-1", spec={"csi": {"driver": driver}}))
    if driver:
        kube.create(item("storage.k8s.io/v1", "CSIDriver", driver, spec={"attachRequired": True}))
    if attached:
        spec = {"nodeName": attached, "source": {"persistentVolumeName": "pvc-1"}}
        made = item("storage.k8s.io/v1", "VolumeAttachment", "a", spec=spec)
        kube.create({**made, "status": {"attached": True}})
    return kube


def mounted(root, disks, kube=None, **entry):
    container = {"volumeMounts": [{"name": "v", "mountPath": "/mnt/models", **entry}]}
    mounts.mount(kube or cluster(), POD, container, root, disks=disks)
    return root / "mnt" / "models"


def test_pods_share_what_is_on_a_volume_and_a_new_one_finds_it_again(tmp_path):
    disks = tmp_path / "volumes"
    (mounted(tmp_path / "first", disks) / "weights").write_text("x")
    assert (mounted(tmp_path / "second", disks) / "weights").read_text() == "x"


def test_a_part_of_a_volume_is_a_directory_of_it(tmp_path):
    disks = tmp_path / "volumes"
    (mounted(tmp_path / "first", disks, subPath="a/b") / "weights").write_text("x")
    assert (disks / "pvc-1" / "a" / "b" / "weights").read_text() == "x"


@pytest.mark.parametrize(
    ("kube", "why"),
    [
        (cluster(phase="Pending"), 'persistentvolumeclaim "c" is not bound'),
        (cluster(driver=EBS), "is not attached to n"),
        (cluster(driver=EBS, attached="other"), "is not attached to n"),
    ],
    ids=["not bound", "not attached", "attached elsewhere"],
)
def test_a_pod_waits_for_its_volume(tmp_path, kube, why):
    with pytest.raises(mounts.NotMountable, match=why):
        mounted(tmp_path / "first", tmp_path / "volumes", kube)


def test_a_pod_has_a_disk_that_is_attached_to_its_node(tmp_path):
    assert mounted(tmp_path / "first", tmp_path / "volumes", cluster(driver=EBS, attached="n")).is_dir()
