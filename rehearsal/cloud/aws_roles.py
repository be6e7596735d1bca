"""Who may do what in the simulated account: roles, their policies, and pods that act in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

from rehearsal.cloud.node_groups import ADDON
from rehearsal.cloud.project import State

ROLE, ATTACHMENT, INLINE = "iam/role", "iam/rolePolicyAttachment", "iam/rolePolicy"
IDENTITY = "eks/podIdentityAssociation"
PODS = "pods.eks.amazonaws.com"
AGENT = "eks-pod-identity-agent"


def policies_of(state: State, role: str) -> set[str]:
    """Names of AWS's own policies that are attached to a role."""
    found = (r["inputs"] for r in state.of(ATTACHMENT).values() if r["inputs"]["role"] == role)
    return {i["policyArn"].rsplit("/", 1)[-1] for i in found}


def services_of(state: State, role: str) -> set[str]:
    """The services that may take a role."""
    record = state.of(ROLE).get(role)
    document = json.loads(record["inputs"]["assumeRolePolicy"]) if record else {}
    principals = (statement.get("Principal") or {} for statement in _statements(document))
    return {service for principal in principals for service in _several(principal.get("Service"))}


def allows(state: State, role: str, action: str, resource: str | None = None) -> bool:
    """Whether a policy of the role's own allows an action by its name, on any resource or on one.

    Conditions are not looked at.
    """
    records = (r["inputs"] for r in state.of(INLINE).values() if r["inputs"]["role"] == role)
    return any(
        action in _several(statement.get("Action"))
        and statement.get("Effect") == "Allow"
        and (resource is None or any(fnmatch(resource, r) for r in _several(statement.get("Resource"))))
        for inputs in records
        for statement in _statements(json.loads(inputs["policy"]))
    )


def pod_role(state: State, cluster: str, namespace: str, account: str) -> str:
    """The role that pods with an account act in; "" without one, or without the agent that hands it out."""
    if f"{cluster}:{AGENT}" not in state.of(ADDON):
        return ""
    for record in state.of(IDENTITY).values():
        inputs = record["inputs"]
        known = inputs["clusterName"], inputs["namespace"], inputs["serviceAccount"]
        if known == (cluster, namespace, account):
            role = inputs["roleArn"].rsplit("/", 1)[-1]
            return role if PODS in services_of(state, role) else ""
    return ""


def _statements(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from _several(document.get("Statement"))


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value is not None else []
