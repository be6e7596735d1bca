"""Names: of Pulumi resources, and of what KServe and Istio derive from a model's name.

Logical names are `<component>-<role>`; collections are keyed by their map's key, never by position.
Kubernetes names are fixed, checked for length where they are configured, and never cut here.
"""

from __future__ import annotations

import hashlib

DNS_LABEL_LENGTH = 63


def join(*parts: str) -> str:
    """A logical name of its parts."""
    return "-".join(parts)


def workload(model: str) -> str:
    """The Deployment that KServe makes for a model (`workload_single_node.go` of KServe 0.20)."""
    return f"{model}-kserve"


def group_set(model: str) -> str:
    """The LeaderWorkerSet that KServe makes for a model on several hosts (`workload_multi_node.go`).

    The StatefulSet of its leaders and the headless Service of all its pods have the same name (LeaderWorkerSet 0.8).
    """
    return f"{model}-kserve-mn"


def workload_service(model: str) -> str:
    """The Service in front of a model's pods (`workload.go`)."""
    return f"{model}-kserve-workload-svc"


def predictor(model: str) -> str:
    """The Deployment of an InferenceService, and the Service in front of its pods (`constants.PredictorServiceName`)."""
    return f"{model}-predictor"


def filler(model: str) -> str:
    """What fills the claim of a model: account, policy, program and, with a hash at its end, the job."""
    return f"{model}-fill"


def inference_pool(model: str) -> str:
    """The InferencePool of a model (`scheduler.go`)."""
    return f"{model}-inference-pool"


def picker_service(model: str) -> str:
    """The Service of the endpoint picker (`scheduler.go`)."""
    return f"{model}-epp-service"


def shadow_service(pool: str) -> str:
    """The headless Service that istiod makes for an InferencePool.

    `InferencePoolServiceName` in Istio 1.30's `inferencepool_collection.go`: the pool's name, cut so that
    the whole has 63 characters at most, and eight digits of its hash.
    """
    suffix = f"-ip-{hashlib.sha256(pool.encode()).hexdigest()[:8]}"
    return pool[: DNS_LABEL_LENGTH - len(suffix)] + suffix


def host(service: str, namespace: str) -> str:
    """The name of a Service in the cluster's DNS."""
    return f"{service}.{namespace}.svc.cluster.local"
