"""The simulated Node objects and their heartbeat."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ops.kube import ApiError, Kube, Manifest

ATTACHED = "volumes.kubernetes.io/controller-managed-attach-detach"
LABEL = "rehearsal.llm-platform.dev/node"
MANAGER = "rehearsal-node"
HEARTBEAT_SECONDS = 10.0
VERSION = "v1.34.1"


@dataclass(frozen=True)
class NodeShape:
    """What a node offers: `capacity` in Kubernetes quantities, labels and taints as the real one carries.

    `allocatable` is what pods get of it, all where it is empty; `provider_id` is the cloud's name of the machine.
    `unready` says why its kubelet is not, "" where it is.
    """

    name: str
    capacity: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)
    provider_id: str = ""
    unready: str = ""


SYSTEM = NodeShape("system-0", {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "200Gi", "pods": "110"})


def manifest(shape: NodeShape) -> Manifest:
    """The Node object of a shape."""
    labels = {
        LABEL: "simulated",
        "kubernetes.io/hostname": shape.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        **shape.labels,
    }
    spec: dict[str, Any] = {"taints": [dict(t) for t in shape.taints]} if shape.taints else {}
    if shape.provider_id:
        spec["providerID"] = shape.provider_id
    return {
        "apiVersion": "v1",
        "kind": "Node",
        # As a kubelet says it: the controller attaches volumes to the node, and refuses those of others.
        "metadata": {"name": shape.name, "labels": labels, "annotations": {ATTACHED: "true"}},
        "spec": spec,
    }


def status(shape: NodeShape, address: str) -> dict[str, Any]:
    """The status of a healthy node."""
    now = timestamp()
    condition = {
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
        "reason": "Simulated",
        "message": "simulated",
    }
    ready = {"type": "Ready", "status": "True", **condition}
    if shape.unready:
        ready |= {"status": "False", "reason": "KubeletNotReady", "message": shape.unready}
    pressures = ("MemoryPressure", "DiskPressure", "PIDPressure")
    return {
        "capacity": dict(shape.capacity),
        "allocatable": dict(shape.allocatable or shape.capacity),
        "conditions": [
            ready,
            *({"type": t, "status": "False", **condition} for t in pressures),
        ],
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": shape.name}],
        "nodeInfo": {
            "architecture": "amd64", "bootID": "", "machineID": "", "systemUUID": "", "kernelVersion": "simulated",
            "operatingSystem": "linux", "osImage": "simulated", "containerRuntimeVersion": "simulated://1",
            "kubeletVersion": VERSION, "kubeProxyVersion": VERSION,
        },
    }  # fmt: skip


def timestamp() -> str:
    """Now, as the API writes times."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ensure(kube: Kube, shape: NodeShape) -> None:
    """Create or refresh one node."""
    kube.apply(manifest(shape), MANAGER, force=True)
    kube.patch("v1", "Node", shape.name, None, {"status": status(shape, "127.0.0.1")}, subresource="status")


def beat(kube: Kube, names: list[str]) -> None:
    """Renew the leases by which the node controller sees that nodes live."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for name in names:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now},
        }
        kube.apply(lease, MANAGER, force=True)


def announce(kube: Kube, nodes: list[Manifest], port: int) -> None:
    """Tell the API server at which port of their address the nodes' kubelet answers."""
    endpoints = {"kubeletEndpoint": {"Port": port}}
    for node in nodes:
        if node["status"].get("daemonEndpoints") != endpoints:
            status = {"status": {"daemonEndpoints": endpoints}}
            kube.patch("v1", "Node", node["metadata"]["name"], None, status, subresource="status")


def heartbeat(kube: Kube, port: int, stop: threading.Event) -> None:
    """Renew the lease of every simulated node, whose kubelet answers at `port`, until told to stop."""
    while not stop.is_set():
        try:
            nodes = kube.list("v1", "Node", selector=LABEL)
            announce(kube, nodes, port)
            beat(kube, [n["metadata"]["name"] for n in nodes])
        except ApiError:
            # The API server is starting or restarting; the next beat comes soon enough.
            stop.wait(1)
        stop.wait(HEARTBEAT_SECONDS)
