"""A job that waits until Google's Gateway API is there. Pure.

With Google's gateway the definitions and the gateway classes are Google's: they appear some time after the cluster does,
and after the first enabling the classes were seen to take 30 to 45 minutes. KServe's controller watches only
what is defined when it starts, and an object of an undefined kind cannot be made, so all of it comes after this job.

One init container waits for each thing to exist, so that the pod's status names the one that is missing. What exists
is then asked for its condition. What must be there:

    gateways, httproutes          Gateway API, with `gatewayApiConfig`
    inferencepools                GKE 1.34.0-gke.1626000 and later
    healthcheckpolicies,          GKE's own
    gcpbackendpolicies
    the gateway's class           its controller takes gateways now
"""

from __future__ import annotations

from typing import Any

from components.core import labels
from components.core.manifest import Manifest, manifest

# A step that others can need.
NAME = "google-gateway-check"
NAMESPACE = "llm-platform-check"
DEADLINE_SECONDS = 3000
# The pod says what it waits for in vain; the job, which ends it, would not.
PATIENCE_SECONDS = DEADLINE_SECONDS - 60
DEFINITIONS = (
    "gateways.gateway.networking.k8s.io",
    "httproutes.gateway.networking.k8s.io",
    "inferencepools.inference.networking.k8s.io",
    "healthcheckpolicies.networking.gke.io",
    "gcpbackendpolicies.networking.gke.io",
)
_CLUSTER_NAME = f"llmp-{NAME}"
_RBAC = "rbac.authorization.k8s.io"
_CLASSES = "gatewayclasses.gateway.networking.k8s.io"
_READ = ("get", "list", "watch")


def google_gateway_check(image: str, gateway_class: str) -> tuple[tuple[str, Manifest], ...]:
    """(role, object) of the check, in the order of creation; another class is waited for anew."""
    marks = {"labels": labels.common(NAME)}
    names = {"name": NAME, "namespace": NAMESPACE, **marks}
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
    role = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": _CLUSTER_NAME}
    # Neither kind is in a namespace.
    wide = {"name": _CLUSTER_NAME, **marks}
    return (
        ("namespace", manifest("v1", "Namespace", NAMESPACE, **marks)),
        ("account", manifest("v1", "ServiceAccount", **names)),
        ("role", manifest(f"{_RBAC}/v1", "ClusterRole", **wide, rules=_rules(gateway_class))),
        ("binding", manifest(f"{_RBAC}/v1", "ClusterRoleBinding", **wide, roleRef=role, subjects=[subject])),
        ("job", _job(image, gateway_class, names)),
    )


def _rules(gateway_class: str) -> list[dict[str, Any]]:
    """To read what is waited for, by name."""
    wanted = (
        ("apiextensions.k8s.io", "customresourcedefinitions", list(DEFINITIONS)),
        ("gateway.networking.k8s.io", "gatewayclasses", [gateway_class]),
    )
    return [
        {"apiGroups": [group], "resources": [kind], "resourceNames": named, "verbs": list(_READ)}
        for group, kind, named in wanted
    ]


def _job(image: str, gateway_class: str, names: dict[str, Any]) -> Manifest:
    definitions = [f"customresourcedefinitions.apiextensions.k8s.io/{name}" for name in DEFINITIONS]
    chosen = f"{_CLASSES}/{gateway_class}"
    existing = {
        **{name.split(".")[0]: item for name, item in zip(DEFINITIONS, definitions, strict=True)},
        "gatewayclass": chosen,
    }
    pod = {
        "serviceAccountName": NAME,
        "restartPolicy": "OnFailure",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_wait(image, name, "create", [item]) for name, item in existing.items()],
        "containers": [
            _wait(image, "established", "condition=Established", definitions),
            _wait(image, "accepted", "condition=Accepted", [chosen]),
        ],
    }
    # A definition that has just appeared is not served at once; kubectl gives up then, and is started again.
    spec = {"backoffLimit": 20, "activeDeadlineSeconds": DEADLINE_SECONDS, "template": {"spec": pod}}
    # A check that failed is made again by the next `up`, not patched.
    return manifest("batch/v1", "Job", **names, annotations={labels.REPLACE_UNREADY: "true"}, spec=spec)


def _wait(image: str, name: str, condition: str, things: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "args": ["wait", f"--for={condition}", f"--timeout={PATIENCE_SECONDS}s", *things],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
