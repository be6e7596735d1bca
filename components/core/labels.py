"""Labels and annotations that we set, and those of others that we select by."""

from __future__ import annotations

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
# The pool of a node, on clusters that this program creates.
POOL = f"{DOMAIN}/pool"

# KServe 0.20, pkg/constants: what its pods carry.
KSERVE_COMPONENT = "kserve.io/component"
KSERVE_PART_OF = "llminferenceservice"
KSERVE_PICKER = "llminferenceservice-router-scheduler"
# Gateway API: what the pods of a Gateway carry.
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
# Kubernetes sets it on every namespace.
NAMESPACE_NAME = "kubernetes.io/metadata.name"

# The Kubernetes provider's own annotations.
WAIT_FOR = "pulumi.com/waitFor"
SKIP_AWAIT = "pulumi.com/skipAwait"
REPLACE_UNREADY = "pulumi.com/replaceUnready"


def common(component: str) -> dict[str, str]:
    """Labels of an object of ours."""
    return {MANAGED_BY: "pulumi", PART_OF: "llm-platform", COMPONENT: component}


def model_workload(model: str) -> dict[str, str]:
    """Selects the serving pods of a model; KServe's Service and InferencePool select the same."""
    return {APP_NAME: model, PART_OF: KSERVE_PART_OF, KSERVE_COMPONENT: "workload"}


def model_picker(model: str) -> dict[str, str]:
    """Selects the endpoint picker of a model."""
    return {APP_NAME: model, PART_OF: KSERVE_PART_OF, COMPONENT: KSERVE_PICKER}
