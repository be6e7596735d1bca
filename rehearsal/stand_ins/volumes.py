"""Stands in for the drivers of volumes: Amazon's EBS, Google's disks and Filestore, and a node's own disk.

A claim whose class names one of them gets a volume, once Kubernetes' own controllers ask for one: at once, or where the
first pod is scheduled. It is an entry in the simulated cloud and a directory here, which pods on simulated nodes see
(rehearsal/node/volumes.py); both go with the claim. What a driver refuses is an event on the claim, in its words.
Whether a disk is free for another node, Kubernetes' attachment controller says; we confirm what it attaches.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.kube import ApiError, Kube, Manifest
from rehearsal.cloud import aws_roles
from rehearsal.cloud.node_groups import ADDON
from rehearsal.cloud.project import VOLUME, Project, State
from rehearsal.cloud.storage_classes import API, DISK, EBS, FILES, LATE, LOCAL
from rehearsal.stand_ins.autoscaler import event
from rehearsal.stand_ins.mirror import Mirror

PROVISIONER = ("volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner")
SELECTED_NODE = "volume.kubernetes.io/selected-node"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
WATCHED = (
    ("v1", "PersistentVolumeClaim"),
    ("v1", "PersistentVolume"),
    ("v1", "Node"),
    (API, "StorageClass"),
    (API, "VolumeAttachment"),
)
ONE_NODE = frozenset(("ReadWriteOnce", "ReadWriteOncePod"))
EBS_POLICY, EBS_ADDON = "AmazonEBSCSIDriverPolicy", "aws-ebs-csi-driver"


def _may_make_ebs(state: State) -> str:
    """Why the driver may not make volumes: it acts in the role of its own account; "" where it may."""
    for identity, record in state.of(ADDON).items():
        cluster, _, name = identity.partition(":")
        if name == EBS_ADDON and f"{cluster}:{aws_roles.AGENT}" in state.of(ADDON):
            associations = record["inputs"].get("podIdentityAssociations") or ()
            roles = [a["roleArn"].rsplit("/", 1)[-1] for a in associations]
            if any(EBS_POLICY in aws_roles.policies_of(state, role) for role in roles):
                return ""
    return (
        "could not create volume in EC2: operation error EC2: CreateVolume, https response error StatusCode: 403, "
        "api error UnauthorizedOperation: You are not authorized to perform this operation."
    )


def _always(_: State) -> str:
    return ""


@dataclass(frozen=True)
class Driver:
    """A driver: the kind of its volumes' records, the modes of access that it has, and what binds them to a place.

    `place` is the label of nodes by which a volume's place is known, "" for one that all nodes reach. `may` says
    why it must not make volumes, `refusal` what it says of other modes.
    """

    kind: str
    modes: frozenset[str]
    place: str
    refusal: str
    may: Callable[[State], str] = _always


DRIVERS: Mapping[str, Driver] = {
    EBS: Driver(
        VOLUME,
        ONE_NODE,
        ZONE,
        "Volume capabilities {modes} not supported. Only AccessModes[ReadWriteOnce] supported.",
        _may_make_ebs,
    ),
    DISK: Driver(
        "compute/disk",
        ONE_NODE | {"ReadOnlyMany"},
        ZONE,
        "VolumeCapabilities is invalid: specified multi writer with mount access type",
    ),
    FILES: Driver("filestore/instance", ONE_NODE | {"ReadOnlyMany", "ReadWriteMany"}, "", ""),
    LOCAL: Driver(
        "local/path", ONE_NODE, HOST, "NodePath only supports ReadWriteOnce and ReadWriteOncePod access modes"
    ),
}


class Volumes:
    """Makes and removes volumes; their directories are in `directory`, by name."""

    def __init__(self, kube: Kube, project: Project, directory: Path, clock: Callable[[], float] = time.time):
        self._kube, self._project, self._directory, self._clock = kube, project, directory, clock
        self.objects = Mirror(kube, WATCHED)
        self._told: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Act until told to stop."""
        self.objects.run(stop, self.reconcile)

    def reconcile(self) -> None:
        """One round over claims, volumes and attachments."""
        for claim in self.objects.of("PersistentVolumeClaim"):
            if driver := self._wanted(claim):
                self._provision(claim, driver)
        for volume in self.objects.of("PersistentVolume"):
            if self._is_over(volume):
                self._remove(volume)
        for attachment in self.objects.of("VolumeAttachment"):
            if (
                not (attachment.get("status") or {}).get("attached")
                and attachment["spec"]["attacher"] in DRIVERS
            ):
                body = {"status": {"attached": True}}
                name = attachment["metadata"]["name"]
                self._kube.patch(API, "VolumeAttachment", name, None, body, subresource="status")

    def _wanted(self, claim: Manifest) -> str:
        """The driver that a claim waits for, "" for none."""
        marks = claim["metadata"].get("annotations") or {}
        name = next((marks[mark] for mark in PROVISIONER if mark in marks), "")
        if (
            name not in DRIVERS
            or claim["spec"].get("volumeName")
            or claim["metadata"].get("deletionTimestamp")
        ):
            return ""
        kind = self.objects.get("StorageClass", claim["spec"].get("storageClassName") or "")
        late = kind is not None and kind.get("volumeBindingMode") == LATE
        return name if kind is not None and (not late or SELECTED_NODE in marks) else ""

    def _provision(self, claim: Manifest, name: str) -> None:
        driver, modes = DRIVERS[name], set(claim["spec"].get("accessModes") or ())
        problem = driver.may(self._project.read())
        code = "Internal"
        if not modes <= driver.modes:
            problem, code = driver.refusal.format(modes="MULTI_NODE_MULTI_WRITER"), "InvalidArgument"
        if problem:
            self._refuse(claim, code, problem)
            return
        volume = self._volume(claim, name, driver)
        record = {
            "inputs": {"size": volume["spec"]["capacity"]["storage"], "place": self._place(claim, driver)},
            "outputs": {},
            "created": self._clock(),
            "owner": f"{claim['metadata']['namespace']}/{claim['metadata']['name']}",
        }
        with self._project.change() as state:
            state.of(driver.kind)[volume["metadata"]["name"]] = record
        try:
            self._kube.create(volume)
        except ApiError as error:
            if error.code != 409:
                raise

    def _place(self, claim: Manifest, driver: Driver) -> str:
        """The zone or node of a volume: where its pod is to run, else the first there is."""
        if not driver.place:
            return ""
        chosen = (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE)
        nodes = [self.objects.get("Node", chosen)] if chosen else self.objects.of("Node")
        labels = (node["metadata"].get("labels") or {} for node in nodes if node)
        return next((str(found[driver.place]) for found in labels if driver.place in found), "")

    def _volume(self, claim: Manifest, name: str, driver: Driver) -> Manifest:
        kind = self.objects.get("StorageClass", claim["spec"]["storageClassName"]) or {}
        identity, place = f"pvc-{claim['metadata']['uid']}", self._place(claim, driver)
        meta = claim["metadata"]
        bound = {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
        spec: dict[str, Any] = {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "storageClassName": claim["spec"]["storageClassName"],
            "persistentVolumeReclaimPolicy": kind.get("reclaimPolicy", "Delete"),
            "volumeMode": claim["spec"].get("volumeMode", "Filesystem"),
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **bound},
            **_source(name, identity),
        }
        if place:
            term = {"matchExpressions": [{"key": driver.place, "operator": "In", "values": [place]}]}
            spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
        marks = {PROVISIONED_BY: name}
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": identity, "annotations": marks},
            "spec": spec,
        }

    def _refuse(self, claim: Manifest, code: str, problem: str) -> None:
        """An event on the claim, once for each reason."""
        kind = claim["spec"]["storageClassName"]
        text = f'failed to provision volume with StorageClass "{kind}": rpc error: code = {code} desc = {problem}'
        known = f"{claim['metadata']['uid']} {text}"
        if known not in self._told:
            self._told.add(known)
            about = {"kind": "PersistentVolumeClaim", **claim}
            self._kube.create(event(about, "Warning", "ProvisioningFailed", text, "csi-provisioner"))

    def _is_over(self, volume: Manifest) -> bool:
        """Whether nobody needs one of our volumes any more, and its class says to delete it then."""
        marks = volume["metadata"].get("annotations") or {}
        released = (volume.get("status") or {}).get("phase") == "Released"
        deleted = volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
        return marks.get(PROVISIONED_BY) in DRIVERS and released and deleted

    def _remove(self, volume: Manifest) -> None:
        name = volume["metadata"]["name"]
        driver = DRIVERS[volume["metadata"]["annotations"][PROVISIONED_BY]]
        with self._project.change() as state:
            state.of(driver.kind).pop(name, None)
        shutil.rmtree(self._directory / name, ignore_errors=True)
        self._kube.delete("v1", "PersistentVolume", name)


def _source(driver: str, identity: str) -> dict[str, Any]:
    if driver == LOCAL:
        return {"hostPath": {"path": f"/opt/local-path-provisioner/{identity}", "type": "DirectoryOrCreate"}}
    return {"csi": {"driver": driver, "volumeHandle": identity, "fsType": "ext4"}}
