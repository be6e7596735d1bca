"""The classes of volumes, and records of their drivers, that clusters have from whoever runs them.

Claims of these classes get volumes by rehearsal/stand_ins/volumes.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from ops.kube import Kube, Manifest

API = "storage.k8s.io/v1"
EBS, DISK, FILES = "ebs.csi.aws.com", "pd.csi.storage.gke.io", "filestore.csi.storage.gke.io"
# The driver of a node's own disk, which local clusters of kind have.
LOCAL = "rancher.io/local-path"
LATE = "WaitForFirstConsumer"
_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def storage_class(name: str, driver: str, default: bool = False, **parameters: str) -> Manifest:
    """A class whose volumes are made where their first pod is; claims that name none get the `default` one."""
    return {
        "apiVersion": API,
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": {_DEFAULT: str(default).lower()}},
        "provisioner": driver,
        # None at all where there are none: applied again, an empty map would be a change, which is forbidden.
        **({"parameters": parameters} if parameters else {}),
        "volumeBindingMode": LATE,
        "allowVolumeExpansion": driver != LOCAL,
        "reclaimPolicy": "Delete",
    }


def driver(name: str, attached: bool = True) -> Manifest:
    """A driver's record; volumes that are `attached` are for one node at a time."""
    spec = {"attachRequired": attached, "podInfoOnMount": False, "fsGroupPolicy": "ReadWriteOnceWithFSType"}
    return {"apiVersion": API, "kind": "CSIDriver", "metadata": {"name": name}, "spec": spec}


def amazon(default: bool) -> list[Manifest]:
    """What the EBS add-on brings; its class only where its configuration says so."""
    kind = storage_class("ebs-csi-default-sc", EBS, default=True, type="gp3")
    return [driver(EBS), *([kind] if default else [])]


def google(disks: bool, files: bool) -> list[Manifest]:
    """What GKE brings with its drivers (cloud.google.com/kubernetes-engine/docs/concepts/persistent-volumes)."""
    found: list[Manifest] = []
    if disks:
        found += [driver(DISK), storage_class("standard-rwo", DISK, default=True, type="pd-balanced")]
        found += [storage_class("premium-rwo", DISK, type="pd-ssd")]
    if files:
        found += [driver(FILES, attached=False), storage_class("standard-rwx", FILES, tier="standard")]
        found += [storage_class("premium-rwx", FILES, tier="premium")]
    return found


def local() -> list[Manifest]:
    """What an existing cluster is simulated with: the default class of kind."""
    return [storage_class("standard", LOCAL, default=True)]


def bring(kube: Kube, items: Iterable[Manifest], manager: str) -> None:
    """Put them into the cluster."""
    for item in items:
        kube.apply(item, manager, force=True)


def take_away(kube: Kube, drivers: Iterable[str]) -> None:
    """Remove these drivers and their classes."""
    gone = set(drivers)
    for item in kube.list(API, "StorageClass"):
        if item["provisioner"] in gone:
            kube.delete(API, "StorageClass", item["metadata"]["name"])
    for name in sorted(gone):
        kube.delete(API, "CSIDriver", name)
