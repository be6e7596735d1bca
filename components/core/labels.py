"""Labels and annotations that we set, and those of others that we select by."""

from __future__ import annotations

from typing import Any

DOMAIN = "llmp.dev"
MANAGED_BY = "app.kubernetes.io/managed-by"
PART_OF = "app.kubernetes.io/part-of"
APP_NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"

MODEL = f"{DOMAIN}/model"
# Marks namespaces whose routes a gateway accepts.
ROUTES = f"{DOMAIN}/gateway"
# Carries the hash of what a model's pods are made of.
REVISION = f"{DOMAIN}/revision"
# Carries the hash of the runtime that pods share.
RUNTIME = f"{DOMAIN}/runtime"
# On a workload of KServe's: which rollout is waited for.
ROLLOUT = f"{DOMAIN}/rollout"
# The pool of a node, on clusters that this program creates.
POOL = f"{DOMAIN}/pool"
# Of a model's pods: which weights their claim was filled with.
WEIGHTS = f"{DOMAIN}/weights"

# KServe 0.20, pkg/constants: what its pods carry.
KSERVE_COMPONENT = "kserve.io/component"
KSERVE_PART_OF = "llminferenceservice"
KSERVE_PICKER = "llminferenceservice-router-scheduler"
KSERVE_WORKLOAD = "llminferenceservice-workload"
KSERVE_SERVICE = "serving.kserve.io/inferenceservice"
# Gateway API: what the pods of a Gateway carry.
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
# Kubernetes sets it on every namespace.
NAMESPACE_NAME = "kubernetes.io/metadata.name"

# The Kubernetes provider's own annotations.
WAIT_FOR = "pulumi.com/waitFor"
SKIP_AWAIT = "pulumi.com/skipAwait"
REPLACE_UNREADY = "pulumi.com/replaceUnready"
# Takes fields back that somebody else has written, whoever that is; without it only those of kubectl.
TAKE_BACK = "pulumi.com/patchForce"


def common(component: str) -> dict[str, str]:
    """Labels of an object of ours."""
    return {MANAGED_BY: "pulumi", PART_OF: "llm-platform", COMPONENT: component}


def model_workload(model: str) -> dict[str, str]:
    """Selects the serving pods of a model; KServe's Service and InferencePool select the same."""
    return {APP_NAME: model, PART_OF: KSERVE_PART_OF, KSERVE_COMPONENT: "workload"}


def model_parts(model: str) -> dict[str, str]:
    """Selects what KServe makes for an LLMInferenceService."""
    return {PART_OF: KSERVE_PART_OF, APP_NAME: model}


def predictor_workload(model: str) -> dict[str, str]:
    """Selects the serving pods of a model that is an InferenceService."""
    return {**predictor_parts(model), "component": "predictor"}


def predictor_parts(model: str) -> dict[str, str]:
    """Selects what KServe makes for an InferenceService."""
    return {KSERVE_SERVICE: model}


def filler(model: str) -> dict[str, str]:
    """Selects what fills a model's claim."""
    return {APP_NAME: model, COMPONENT: "weights"}


def readers(model: str) -> list[dict[str, Any]]:
    """Selects whatever mounts a model's weights: the pods that serve, of either kind of service, and what fills the claim.

    An InferenceService hands its own labels on to its pods.
    """
    parts = [KSERVE_WORKLOAD, "model", "weights"]
    return [
        {"key": APP_NAME, "operator": "In", "values": [model]},
        {"key": COMPONENT, "operator": "In", "values": parts},
    ]


def model_picker(model: str) -> dict[str, str]:
    """Selects the endpoint picker of a model."""
    return {APP_NAME: model, PART_OF: KSERVE_PART_OF, COMPONENT: KSERVE_PICKER}
