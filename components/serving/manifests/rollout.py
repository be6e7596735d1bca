"""What a change of a model takes, and what makes room for it where a pool is full. Pure.

KServe 0.20 leaves the strategy of its Deployments to Kubernetes' defaults, a quarter surge (rounded up) and a quarter
unavailable (rounded down), and writes them again when anybody changes them; LeaderWorkerSets have their own
default, one group at a time and none beside it (docs/adr/0010).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core import labels, naming
from components.core.containers import confined
from components.core.manifest import Manifest, manifest, revision
from components.serving.manifests import network_policy
from components.serving.manifests.make_room import ONE_NODE

NAME = "make-room"
PROGRAM = Path(__file__).with_name("make_room.py")
# KServe's preset waits so long before the engine is asked to end, and keeps a few seconds back (kserve 0.20,
# config-llm-template.yaml and shutdownTimeout in config_merge.go).
PRE_STOP_SECONDS, SPARE_SECONDS = 15, 5
_QUARTER = 4
_PLACE = "/program"
_RBAC = "rbac.authorization.k8s.io"


def grace_seconds(longest_request: int) -> int:
    """Seconds from a pod's deletion to its end by force, so that its longest request comes to its own end."""
    return longest_request + PRE_STOP_SECONDS + SPARE_SECONDS


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How the replicas of one model are replaced.

    `spare` says whether its pool may grow by the replicas that start beside the old ones, while every other model of
    the pool changes as well; `hosts` are the machines of one replica; `budget_seconds` is that of one start.
    `one_node` says that its pods need a volume which one node at a time mounts: such a model is never `spare`.
    """

    replicas: int
    spare: bool
    hosts: int = 1
    budget_seconds: int = 900
    one_node: bool = False

    @property
    def surge(self) -> int:
        """Replicas that start beside the old ones."""
        return math.ceil(self.replicas / _QUARTER) if self.hosts == 1 else 0

    @property
    def in_place(self) -> bool:
        """Whether room has to be made for it: Kubernetes alone would wait for a node, or a volume, that cannot come."""
        return self.hosts == 1 and not self.spare and 0 < self.replicas < _QUARTER

    @property
    def missing(self) -> int:
        """Replicas that may be missing at a time."""
        return min(self.replicas, 1) if self.in_place or self.hosts > 1 else self.replicas // _QUARTER

    @property
    def starts(self) -> int:
        """Starts that follow each other until all replicas are new; one start may take the budget."""
        return max(1, math.ceil(self.replicas / max(1, self.replicas // _QUARTER if self.hosts == 1 else 1)))

    @property
    def strategy(self) -> dict[str, Any]:
        """The same for a Deployment whose strategy is ours to say; one replica waits for the other's end, and its volume."""
        if self.in_place and self.replicas == 1:
            return {"type": "Recreate"}
        surge, missing = (0, 1) if self.in_place else ("25%", "25%")
        return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}}

    def __str__(self) -> str:
        """What a change takes and costs, for people."""
        if self.replicas == 0:
            return "interrupts nothing: no replica runs"
        if self.missing == self.replicas:
            ends = "the only replica ends before the new one starts"
            return f"interrupts serving for up to {self.budget_seconds} s: {ends}, as {self._why}"
        times = "" if self.starts == 1 else f"{self.starts} x "
        takes = f"takes up to {times}{self.budget_seconds} s"
        if self.missing == 0:
            return f"needs room for one more replica, to which the pool may grow; none is missing; {takes}"
        serving = f"{self.replicas - self.missing} of {self.replicas} replicas serve meanwhile"
        return f"needs no spare node; {serving}; {takes}"

    @property
    def _why(self) -> str:
        """What keeps a new replica from starting beside the only old one."""
        if self.hosts > 1:
            return "its machines are replaced as a group"
        return "one node at a time mounts its volume" if self.one_node else "the pool has no room for another"


@dataclass(frozen=True, kw_only=True)
class RoomSpec:
    """What makes room for one model; `image` has a Python interpreter, `one_node` is that of its `Rollout`."""

    model: str
    namespace: str
    image: str
    pull_secrets: tuple[str, ...] = ()
    one_node: bool = False


def make_room(spec: RoomSpec) -> tuple[tuple[str, Manifest], ...]:
    """(role, object) of what makes room, in the order of creation."""
    name = f"{spec.model}-{NAME}"
    names: dict[str, Any] = {
        "name": name,
        "namespace": spec.namespace,
        "labels": {**labels.common(NAME), labels.APP_NAME: name, labels.MODEL: spec.model},
    }
    subject = {"kind": "ServiceAccount", "name": name, "namespace": spec.namespace}
    role = {"apiGroup": _RBAC, "kind": "Role", "name": name}
    secrets = [{"name": name} for name in spec.pull_secrets] or None
    return (
        ("account", manifest("v1", "ServiceAccount", **names, imagePullSecrets=secrets)),
        ("role", manifest(f"{_RBAC}/v1", "Role", **names, rules=_rules(spec))),
        ("binding", manifest(f"{_RBAC}/v1", "RoleBinding", **names, roleRef=role, subjects=[subject])),
        ("policy", _policy(names)),
        ("program", manifest("v1", "ConfigMap", **names, data={PROGRAM.name: PROGRAM.read_text()})),
        ("deployment", _deployment(spec, names)),
    )


def _rules(spec: RoomSpec) -> list[dict[str, Any]]:
    """It reads the model's Deployment and what belongs to it, and changes sizes. ReplicaSets have no names beforehand."""
    return [
        {
            "apiGroups": ["apps"],
            "resources": ["deployments"],
            "verbs": ["get"],
            "resourceNames": [naming.workload(spec.model)],
        },
        {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["list"]},
        {"apiGroups": ["apps"], "resources": ["replicasets/scale"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]


def _policy(names: Mapping[str, Any]) -> Manifest:
    """Nobody may ask it, and it asks the API server alone, which is no pod on managed clusters."""
    block = {"cidr": "0.0.0.0/0", "except": [network_policy.LINK_LOCAL]}
    ports = [{"protocol": "TCP", "port": port} for port in network_policy.API_SERVER_PORTS]
    return manifest(
        network_policy.API,
        "NetworkPolicy",
        **names,
        spec={
            "podSelector": {"matchLabels": {labels.APP_NAME: names["name"]}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [{"to": [{"ipBlock": block}], "ports": ports}],
        },
    )


def _deployment(spec: RoomSpec, names: Mapping[str, Any]) -> Manifest:
    match = {labels.APP_NAME: names["name"]}
    # Another program is another pod.
    marks = {labels.REVISION: revision(PROGRAM.read_text())}
    return manifest(
        "apps/v1",
        "Deployment",
        **names,
        spec={
            "replicas": 1,
            # Two of them would do no harm, but one is enough.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": match},
            "template": {
                "metadata": {"labels": match, "annotations": marks},
                "spec": _pod(spec, names["name"]),
            },
        },
    )


def _pod(spec: RoomSpec, name: str) -> dict[str, Any]:
    container = {
        "name": NAME,
        "image": spec.image,
        "command": ["python3", f"{_PLACE}/{PROGRAM.name}"],
        "args": [spec.namespace, naming.workload(spec.model), *([ONE_NODE] if spec.one_node else [])],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": confined(),
        "volumeMounts": [{"name": "program", "mountPath": _PLACE, "readOnly": True}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {
        "serviceAccountName": name,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # It keeps nothing that would have to be put down.
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "program", "configMap": {"name": name}}],
    }
