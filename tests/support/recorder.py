"""Runs the whole program without an engine and keeps every registration as it was sent.

Pulumi's own mocks show only inputs. Here the whole request is kept: parent, provider,
dependencies, protect, time-outs and secret marks are what the tests are about. The recorder is strict:
a resource of a type that it does not know is an error, so a new kind of resource is a decision.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pulumi
from google.protobuf import json_format
from pulumi.runtime import mocks, rpc, test
from pulumi.runtime.proto import resource_pb2

from components.core.manifest import deep_merge

ADDRESS = "203.0.113.10"
KUBERNETES = "kubernetes:"
PASSWORD = "random:index/randomPassword:RandomPassword"
PROVIDERS = tuple(f"pulumi:providers:{name}" for name in ("aws", "gcp", "kubernetes", "random"))
OTHER_TYPES = frozenset({"pulumi:pulumi:Stack", *PROVIDERS, PASSWORD})
COMPONENTS = "llmp:index:"
DNS_ENDPOINT = "gke-0123.europe-west4.gke.goog"
AUTHORITY = "LS0tLS1CRUdJTg=="
NODE_ACCOUNT = "cluster-nodes-0123@my-project.iam.gserviceaccount.com"
# Google's resources by type, with what Google adds to their inputs and the program reads.
GOOGLE: Mapping[str, Mapping[str, Any]] = {
    "gcp:projects/service:Service": {},
    "gcp:projects/iAMMember:IAMMember": {},
    "gcp:serviceaccount/account:Account": {
        "email": NODE_ACCOUNT,
        "member": f"serviceAccount:{NODE_ACCOUNT}",
    },
    "gcp:compute/network:Network": {},
    "gcp:compute/subnetwork:Subnetwork": {},
    "gcp:compute/router:Router": {"name": "cluster-router-0123"},
    "gcp:compute/routerNat:RouterNat": {},
    "gcp:compute/firewall:Firewall": {},
    "gcp:container/cluster:Cluster": {
        "name": "cluster-0123",
        "endpoint": ADDRESS,
        "masterAuth": {"clusterCaCertificate": AUTHORITY},
        "controlPlaneEndpointsConfig": {"dnsEndpointConfig": {"endpoint": DNS_ENDPOINT}},
    },
    "gcp:container/nodePool:NodePool": {},
}
CLUSTER_NAME = "cluster-0123abcd"
RANDOM_ID = "random:index/randomId:RandomId"
# Amazon's, likewise.
AMAZON: Mapping[str, Mapping[str, Any]] = {
    **{
        f"aws:{token}": {}
        for token in (
            "autoscaling/tag:Tag",
            "cloudwatch/logGroup:LogGroup",
            "ec2/defaultSecurityGroup:DefaultSecurityGroup",
            "ec2/eip:Eip",
            "ec2/internetGateway:InternetGateway",
            "ec2/natGateway:NatGateway",
            "ec2/route:Route",
            "ec2/routeTable:RouteTable",
            "ec2/routeTableAssociation:RouteTableAssociation",
            "ec2/securityGroup:SecurityGroup",
            "ec2/subnet:Subnet",
            "ec2/vpc:Vpc",
            "ec2/vpcEndpoint:VpcEndpoint",
            "eks/accessEntry:AccessEntry",
            "eks/accessPolicyAssociation:AccessPolicyAssociation",
            "eks/addon:Addon",
            "eks/podIdentityAssociation:PodIdentityAssociation",
            "iam/rolePolicy:RolePolicy",
            "iam/rolePolicyAttachment:RolePolicyAttachment",
            "vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        )
    },
    "aws:ec2/launchTemplate:LaunchTemplate": {"latestVersion": 1},
    "aws:iam/role:Role": {"arn": "arn:aws:iam::123456789012:role/cluster-0123", "name": "cluster-0123"},
    "aws:kms/key:Key": {"arn": "arn:aws:kms:us-east-1:123456789012:key/0123"},
    "aws:eks/cluster:Cluster": {
        "arn": f"arn:aws:eks:us-east-1:123456789012:cluster/{CLUSTER_NAME}",
        "endpoint": "https://0123.gr7.us-east-1.eks.amazonaws.com",
        "certificateAuthority": {"data": AUTHORITY},
    },
    "aws:eks/nodeGroup:NodeGroup": {"resources": [{"autoscalingGroups": [{"name": "eks-group-0123"}]}]},
}
# What a resource says beside its inputs, by type.
ADDED: Mapping[str, Mapping[str, Any]] = {
    **GOOGLE,
    **AMAZON,
    RANDOM_ID: {"hex": CLUSTER_NAME.rpartition("-")[2]},
}
# What the cluster would have said by the time that an object is awaited.
STATUS: Mapping[str, Mapping[str, Any]] = {
    "kubernetes:gateway.networking.k8s.io/v1:Gateway": {
        "addresses": [{"type": "IPAddress", "value": ADDRESS}],
        "conditions": [{"type": "Programmed", "status": "True"}],
    },
}


@dataclass(frozen=True)
class Registration:
    """One resource as the program registered it. `secrets` are dotted paths of inputs marked secret."""

    urn: str
    type: str
    name: str
    custom: bool
    parent: str
    provider: str
    dependencies: frozenset[str]
    inputs: Mapping[str, Any]
    protect: bool
    retain_on_delete: bool
    delete_before_replace: bool
    ignored: tuple[str, ...]
    timeouts: Mapping[str, str]
    secret_outputs: tuple[str, ...]
    secrets: tuple[str, ...]


@dataclass
class Recording:
    """Everything that a run registered, in order, and what its program returned."""

    registrations: list[Registration] = field(default_factory=list)
    completed: set[str] = field(default_factory=set)
    outputs: dict[str, Any] = field(default_factory=dict)

    def of_type(self, token: str) -> list[Registration]:
        """All of one type."""
        return [r for r in self.registrations if r.type == token]

    def named(self, name: str, token: str | None = None) -> Registration:
        """The one of this logical name, among those of a type if names repeat."""
        (found,) = (r for r in self.registrations if r.name == name and token in (None, r.type))
        return found

    @property
    def objects(self) -> list[Registration]:
        """All Kubernetes resources."""
        return [r for r in self.registrations if r.type.startswith(KUBERNETES)]

    def before(self, later: Registration) -> set[str]:
        """URNs of everything that must exist before `later` is created, through any chain of dependencies."""
        by_urn = {r.urn: r for r in self.registrations}
        seen: set[str] = set()
        todo = [later.urn]
        while todo:
            for urn in by_urn[todo.pop()].dependencies - seen:
                seen.add(urn)
                todo.append(urn)
        return seen


class _Echo(mocks.Mocks):
    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        known = args.typ.startswith((KUBERNETES, COMPONENTS)) or args.typ in (*OTHER_TYPES, *ADDED)
        if not known:
            raise AssertionError(
                f"{args.name} is a {args.typ}: decide in tests/support/recorder.py what that means"
            )
        if args.typ == PASSWORD:
            return f"{args.name}-id", {**args.inputs, "result": pulumi.Output.secret("generated")}
        status = STATUS.get(args.typ)
        added = {"status": dict(status)} if status else ADDED.get(args.typ, {})
        return f"{args.name}-id", deep_merge(args.inputs, added)

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        raise AssertionError(f"the program calls {args.token}: a preview without a cluster would fail")


class _Monitor(mocks.MockMonitor):
    def __init__(self, recording: Recording):
        super().__init__(_Echo())
        self._recording = recording

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)
        self._recording.registrations.append(_registration(response.urn, request))
        return response

    def ReadResource(self, request: Any) -> Any:
        raise AssertionError(f"the program reads {request.name}: a preview without a cluster would fail")

    def RegisterResourceOutputs(self, request: Any) -> Any:
        self._recording.completed.add(request.urn)
        return super().RegisterResourceOutputs(request)


def _registration(urn: str, request: resource_pb2.RegisterResourceRequest) -> Registration:
    raw = json_format.MessageToDict(request.object)
    inputs, secrets = _plain(raw, ())
    timeouts = {
        name: value
        for name in ("create", "update", "delete")
        if (value := getattr(request.customTimeouts, name))
    }
    return Registration(
        urn=urn,
        type=request.type,
        name=request.name,
        custom=request.custom,
        parent=request.parent,
        provider=request.provider or next(iter(request.providers.values()), ""),
        dependencies=frozenset(request.dependencies),
        inputs=inputs,
        protect=request.protect,
        retain_on_delete=request.retainOnDelete,
        delete_before_replace=request.deleteBeforeReplace,
        ignored=tuple(request.ignoreChanges),
        timeouts=timeouts,
        secret_outputs=tuple(request.additionalSecretOutputs),
        secrets=tuple(sorted(".".join(path) for path in secrets)),
    )


def _plain(value: Any, path: tuple[str, ...]) -> tuple[Any, list[tuple[str, ...]]]:
    """The value without Pulumi's envelopes, and the paths of what was secret; secrets themselves are hidden."""
    if isinstance(value, dict):
        if value.get(rpc._special_sig_key) == rpc._special_secret_sig:
            return "[secret]", [path]
        parts = {key: _plain(item, (*path, key)) for key, item in value.items()}
        return {key: part for key, (part, _) in parts.items()}, [
            s for _, found in parts.values() for s in found
        ]
    if isinstance(value, list):
        items = [_plain(item, (*path, str(index))) for index, item in enumerate(value)]
        return [item for item, _ in items], [s for _, found in items for s in found]
    # Protocol buffers have only floating numbers.
    return int(value) if isinstance(value, float) and value.is_integer() else value, []


def record(program: Callable[[], Mapping[str, Any] | None]) -> Recording:
    """Runs the program to its end and returns what it registered; its exceptions pass through.

    What it returns may hold Outputs; the recording has their values.
    """
    recording = Recording()

    def recorded() -> pulumi.Output[None]:
        return pulumi.Output.all(**(program() or {})).apply(recording.outputs.update)

    def run() -> None:
        pulumi.runtime.set_mocks(
            _Echo(), project="llm-platform", stack="test", preview=False, monitor=_Monitor(recording)
        )
        test(recorded)()

    with _own_event_loops():
        # A context of its own: the SDK keeps its root resource and settings there, and an earlier run's would count.
        contextvars.Context().run(run)
    return recording


@contextmanager
def _own_event_loops() -> Iterator[None]:
    """Closes every loop that is made inside: Pulumi's mocks leave one in each thread that answers."""
    made: list[asyncio.AbstractEventLoop] = []
    make = asyncio.new_event_loop

    def tracked() -> asyncio.AbstractEventLoop:
        made.append(make())
        return made[-1]

    with patch("asyncio.new_event_loop", tracked):
        asyncio.set_event_loop(asyncio.new_event_loop())
        try:
            yield
        finally:
            asyncio.set_event_loop(None)
            for loop in made:
                loop.close()
