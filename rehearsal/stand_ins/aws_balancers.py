"""Stands in for the load balancer controller in EKS's control plane (Amazon's cloud provider).

A Service of type LoadBalancer gets a network load balancer, or a classic one, in the cluster's subnets that carry the
tag for its kind; without such subnets it never gets one, and an event says so. The load balancer is in the simulated
account as long as its Service is, and holds on to the network. Nothing listens at its name: clients of a rehearsal
ask the gateway's pods (rehearsal/address.py).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any

from ops.kube import ApiError, Kube, Manifest
from rehearsal.cloud.node_groups import CLUSTER, SUBNET
from rehearsal.cloud.project import BALANCER, Project, Record, State
from rehearsal.cloud.settings import Settings
from rehearsal.stand_ins.autoscaler import event
from rehearsal.stand_ins.mirror import Mirror

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
COMPONENT = "service-controller"
PUBLIC, INTERNAL = "kubernetes.io/role/elb", "kubernetes.io/role/internal-elb"
TYPE = "service.beta.kubernetes.io/aws-load-balancer-type"
# Both are read: the first is the in-tree provider's, the second that of the AWS Load Balancer Controller as well.
INTERNAL_MARK = "service.beta.kubernetes.io/aws-load-balancer-internal"
SCHEME = "service.beta.kubernetes.io/aws-load-balancer-scheme"
WATCHED = (("v1", "Service"),)
NO_SUBNETS = "could not find any suitable subnets for creating the ELB"


class AmazonBalancers:
    """Keeps the account's load balancers those of the cluster's Services."""

    def __init__(
        self, kube: Kube, project: Project, settings: Settings, clock: Callable[[], float] = time.time
    ):
        self._kube, self._project, self._settings, self._clock = kube, project, settings, clock
        self._objects = Mirror(kube, WATCHED)
        self._told: set[str] = set()
        self._since: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Act until told to stop."""
        self._objects.run(stop, lambda: self.reconcile(self._objects.of("Service")))

    def reconcile(self, services: list[Manifest]) -> None:
        """One round over the Services; nothing without a cluster, whose control plane this is."""
        state = self._project.read()
        cluster = next(iter(state.of(CLUSTER).items()), None)
        if cluster is None:
            return
        for service in services:
            owner = owner_of(service)
            wanted = service["spec"].get("type") == "LoadBalancer"
            if service["metadata"].get("deletionTimestamp") or not wanted:
                if FINALIZER in (service["metadata"].get("finalizers") or ()):
                    self._drop(service, owner)
            elif owner not in owners(state):
                self._make(service, owner, *cluster)
            elif not (service.get("status", {}).get("loadBalancer") or {}).get("ingress"):
                self._show(service, owner, state)

    def _make(self, service: Manifest, owner: str, name: str, cluster: Record) -> None:
        self._finalize(service, True)
        subnets = suitable(self._project.read(), cluster, is_internal(service))
        if not subnets:
            self._warn(service, f"Error syncing load balancer: failed to ensure load balancer: {NO_SUBNETS}")
            return
        began = self._since.setdefault(owner, self._clock())
        if self._clock() - began < self._settings.balancer_seconds:
            return
        record = balancer(service, owner, name, cluster, subnets) | {"created": self._clock()}
        with self._project.change() as state:
            state.of(BALANCER)[record["outputs"]["arn"]] = record
        self._show(service, owner, self._project.read())

    def _show(self, service: Manifest, owner: str, state: State) -> None:
        meta = service["metadata"]
        host = next(r["outputs"]["dnsName"] for r in state.of(BALANCER).values() if r["owner"] == owner)
        body = {"status": {"loadBalancer": {"ingress": [{"hostname": host}]}}}
        self._kube.patch("v1", "Service", meta["name"], meta["namespace"], body, subresource="status")

    def _drop(self, service: Manifest, owner: str) -> None:
        with self._project.change() as state:
            for identity in [i for i, r in state.of(BALANCER).items() if r["owner"] == owner]:
                del state.of(BALANCER)[identity]
        self._since.pop(owner, None)
        self._finalize(service, False)

    def _finalize(self, service: Manifest, there: bool) -> None:
        meta = service["metadata"]
        others = [f for f in meta.get("finalizers") or () if f != FINALIZER]
        wanted = [*others, FINALIZER] if there else others
        if wanted == (meta.get("finalizers") or []):
            return
        body: dict[str, Any] = {"metadata": {"finalizers": wanted}}
        try:
            self._kube.patch("v1", "Service", meta["name"], meta["namespace"], body)
        except ApiError as error:
            if error.code != 404:
                raise

    def _warn(self, service: Manifest, message: str) -> None:
        """An event, once for each Service and message."""
        known = f"{service['metadata']['uid']} {message}"
        if known not in self._told:
            self._told.add(known)
            about = {"kind": "Service", **service}
            self._kube.create(event(about, "Warning", "SyncLoadBalancerFailed", message, COMPONENT))


def owner_of(service: Manifest) -> str:
    """The Service as the account's records name it."""
    return f"{service['metadata']['namespace']}/{service['metadata']['name']}"


def owners(state: State) -> set[str]:
    """The Services that have a load balancer."""
    return {record["owner"] for record in state.of(BALANCER).values()}


def is_internal(service: Manifest) -> bool:
    """Whether a Service asks for a load balancer that only the network reaches."""
    marks = service["metadata"].get("annotations") or {}
    return marks.get(INTERNAL_MARK) == "true" or marks.get(SCHEME) == "internal"


def suitable(state: State, cluster: Record, internal: bool) -> list[str]:
    """Subnets of the cluster's network with the tag for this kind of load balancer, one in each zone."""
    tag, vpc = INTERNAL if internal else PUBLIC, cluster["outputs"]["vpcConfig"]["vpcId"]
    found: dict[str, str] = {}
    for identity, record in sorted(state.of(SUBNET).items()):
        if record["inputs"]["vpcId"] == vpc and tag in (record["inputs"].get("tags") or {}):
            found.setdefault(record["outputs"]["availabilityZone"], identity)
    return sorted(found.values())


def balancer(service: Manifest, owner: str, name: str, cluster: Record, subnets: list[str]) -> Record:
    """The record of a Service's load balancer."""
    marks, internal = service["metadata"].get("annotations") or {}, is_internal(service)
    region, uid = cluster["outputs"]["region"], service["metadata"]["uid"].replace("-", "")
    network = marks.get(TYPE) in ("nlb", "external")
    short = f"a{uid[:31]}"
    token = hashlib.sha256(uid.encode()).hexdigest()[:16]
    domain = f"elb.{region}.amazonaws.com" if network else f"{region}.elb.amazonaws.com"
    inputs = {
        "cluster": name,
        "vpcId": cluster["outputs"]["vpcConfig"]["vpcId"],
        "subnetIds": subnets,
        "scheme": "internal" if internal else "internet-facing",
        "type": "network" if network else "classic",
        "ports": [port["port"] for port in service["spec"]["ports"]],
    }
    account = cluster["outputs"]["arn"].split(":")[4]
    arn = f"arn:aws:elasticloadbalancing:{region}:{account}:loadbalancer/{'net/' if network else ''}{short}/{token}"
    host = f"{'internal-' if internal and not network else ''}{short}-{token}.{domain}"
    return {"inputs": inputs, "outputs": {**inputs, "arn": arn, "dnsName": host}, "owner": owner}
