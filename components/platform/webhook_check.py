"""A job that asks KServe's webhooks until they answer. Pure.

A Ready controller is not yet a webhook that the API server reaches: its address has to spread, its CA
has to be injected. Pulumi and Helm try once and fail. The job's pod asks with a dry run and is started
again until the answer is yes, and the provider awaits jobs (docs/adr/0005).
"""

from __future__ import annotations

import json

from components.core import labels
from components.core.manifest import Manifest, manifest
from components.platform.kserve import NAMESPACE, WEBHOOK_CHECK

DEADLINE_SECONDS = 300
_RBAC = "rbac.authorization.k8s.io"
_SERVING = "serving.kserve.io"


def webhook_check(image: str, version: str) -> tuple[tuple[str, Manifest], ...]:
    """(role, object) of the check, in the order of creation; `version` of KServe makes a new one ask again."""
    names = {"name": WEBHOOK_CHECK, "namespace": NAMESPACE, "labels": labels.common("webhook-check")}
    kinds = ["llminferenceservices", "inferenceservices"]
    rules = [{"apiGroups": [_SERVING], "resources": kinds, "verbs": ["create"]}]
    subject = {"kind": "ServiceAccount", "name": WEBHOOK_CHECK, "namespace": NAMESPACE}
    role = {"apiGroup": _RBAC, "kind": "Role", "name": WEBHOOK_CHECK}
    return (
        ("account", manifest("v1", "ServiceAccount", **names)),
        ("role", manifest(f"{_RBAC}/v1", "Role", **names, rules=rules)),
        ("binding", manifest(f"{_RBAC}/v1", "RoleBinding", **names, roleRef=role, subjects=[subject])),
        ("question", manifest("v1", "ConfigMap", **names, data={"question.json": json.dumps(_question())})),
        ("job", _job(image, version, names)),
    )


def _question() -> Manifest:
    """A model service of either kind that would do nothing; the webhooks of both controllers see them."""
    uri = "hf://llm-platform/webhook-check"
    services = {
        ("v1alpha2", "LLMInferenceService"): {"model": {"uri": uri}, "replicas": 0},
        ("v1beta1", "InferenceService"): {
            "predictor": {"model": {"modelFormat": {"name": "vLLM"}, "storageUri": uri}, "minReplicas": 0}
        },
    }
    items = [
        manifest(f"{_SERVING}/{version}", kind, "webhook-check", NAMESPACE, spec=spec)
        for (version, kind), spec in services.items()
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _job(image: str, version: str, names: dict) -> Manifest:
    container = {
        "name": "kubectl",
        "image": image,
        "args": ["create", "--dry-run=server", "--filename=/question/question.json"],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "question", "mountPath": "/question", "readOnly": True}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    pod = {
        "serviceAccountName": WEBHOOK_CHECK,
        "restartPolicy": "OnFailure",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "question", "configMap": {"name": WEBHOOK_CHECK}}],
    }
    template = {"metadata": {"annotations": {f"{labels.DOMAIN}/kserve": version}}, "spec": pod}
    spec = {"backoffLimit": 20, "activeDeadlineSeconds": DEADLINE_SECONDS, "template": template}
    # A check that failed is asked again by the next `up`, not patched.
    return manifest("batch/v1", "Job", **names, annotations={labels.REPLACE_UNREADY: "true"}, spec=spec)
