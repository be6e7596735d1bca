"""What the people of a team may do in a namespace of models. Pure.

No Secret can be read, and nothing can be made that would read one: a pod of one's own may mount any Secret of its
namespace, a shell in a pod sees its environment, and so does whoever writes a model service with a pod template.
A forwarded port would pass by the gateway, with its keys and limits, and by every NetworkPolicy.
What the stack makes is changed in the stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.core import labels
from components.core.manifest import Manifest, manifest

NAME = "team"
_RBAC = "rbac.authorization.k8s.io"
READ = ("get", "list", "watch")
# What may be read, by API group. No Secrets; no ConfigMaps either, in which people keep what they should not.
READABLE: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "",
        (
            "pods",
            "pods/log",
            "pods/status",
            "events",
            "services",
            "endpoints",
            "persistentvolumeclaims",
            "resourcequotas",
            "limitranges",
        ),
    ),
    ("events.k8s.io", ("events",)),
    ("apps", ("deployments", "replicasets", "statefulsets")),
    ("batch", ("jobs",)),
    ("networking.k8s.io", ("networkpolicies",)),
    ("gateway.networking.k8s.io", ("httproutes",)),
    ("inference.networking.k8s.io", ("inferencepools",)),
    ("leaderworkerset.x-k8s.io", ("leaderworkersets",)),
    ("serving.kserve.io", ("llminferenceservices", "inferenceservices", "servingruntimes")),
)


@dataclass(frozen=True, kw_only=True)
class TeamSpec:
    """`groups` are names of groups as the API server knows them; `edits` lets them start replicas anew."""

    namespace: str
    groups: tuple[str, ...]
    edits: bool = False


def team(spec: TeamSpec) -> tuple[tuple[str, Manifest], ...]:
    """(role, manifest) of the Role and its RoleBinding. One name whatever the role: a binding never changes its role."""
    names: dict[str, Any] = {
        "name": NAME,
        "namespace": spec.namespace,
        "labels": labels.common("models"),
        "annotations": {labels.TAKE_BACK: "true"},
    }
    subjects = [{"apiGroup": _RBAC, "kind": "Group", "name": group} for group in spec.groups]
    reference = {"apiGroup": _RBAC, "kind": "Role", "name": NAME}
    return (
        ("team-role", manifest(f"{_RBAC}/v1", "Role", **names, rules=_rules(spec.edits))),
        (
            "team-binding",
            manifest(f"{_RBAC}/v1", "RoleBinding", **names, roleRef=reference, subjects=subjects),
        ),
    )


def _rules(edits: bool) -> list[dict[str, Any]]:
    rules = [
        {"apiGroups": [group], "resources": list(resources), "verbs": list(READ)}
        for group, resources in READABLE
    ]
    # Its Deployment starts the pod anew; an eviction would ask a PodDisruptionBudget first, so that is allowed too.
    ends = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]},
        {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
    ]
    return [*rules, *ends] if edits else rules
