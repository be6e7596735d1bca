"""The InferenceService of a model that names a runtime, and how its rollout is awaited. Pure.

What KServe 0.20 does with the fields in its Standard mode is read in `pkg/controller/v1beta1/inferenceservice`:

    annotations     those of the service reach the Deployment and its pods. So nothing is put on it that may change
                    later or that means something to Pulumi; what marks a revision stands at the predictor.
    replicas        `minReplicas`, down to none, where the autoscaler's class is `none`; else an HPA has the number.
    ingress         none for a service that is `cluster-local`; the routes are ours.
    strategy        `deploymentStrategy` as it stands, so that nobody has to make room (docs/adr/0010).
    status          `observedGeneration` is copied from the Deployment, and `Ready` says what the Deployment says.
"""

from __future__ import annotations

import json
import math
from typing import Any

from components.core import labels
from components.core.manifest import Manifest, drop_none, manifest, revision
from components.core.services import PREDICTOR
from components.serving.manifests import serving_runtime
from components.serving.manifests.gateway import model_name
from components.serving.manifests.llm_service import PROBE_SECONDS, ModelSpec, resources, routed
from components.serving.manifests.preset import GRACE_SECONDS
from components.serving.manifests.rollout import PRE_STOP_SECONDS, SPARE_SECONDS

# KServe's own annotations and label.
DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
VISIBILITY = "networking.kserve.io/visibility"


def inference_service(spec: ModelSpec) -> Manifest:
    """The service."""
    return manifest(
        PREDICTOR.api_version,
        PREDICTOR.kind,
        spec.name,
        spec.namespace,
        labels={
            **labels.common("model"),
            labels.APP_NAME: spec.name,
            labels.MODEL: spec.name,
            VISIBILITY: "cluster-local",
        },
        annotations={DEPLOYMENT_MODE: "Standard", AUTOSCALER: "none"},
        spec={
            "predictor": {
                "minReplicas": spec.replicas,
                "deploymentStrategy": spec.strategy,
                "annotations": {labels.REVISION: pod_revision(spec)},
                **_pod(spec),
            }
        },
    )


def pod_revision(spec: ModelSpec) -> str:
    """Changes when the pods do, and neither with their number nor with the way in which they are replaced."""
    return revision([drop_none(_pod(spec)), spec.marks] if spec.marks else drop_none(_pod(spec)))


def _pod(spec: ModelSpec) -> dict[str, Any]:
    return {
        "serviceAccountName": spec.name,
        "nodeSelector": dict(spec.node_selector),
        "tolerations": [dict(toleration) for toleration in spec.tolerations],
        "terminationGracePeriodSeconds": _grace(spec),
        "model": _engine(spec),
    }


def _grace(spec: ModelSpec) -> int:
    return spec.grace_seconds or GRACE_SECONDS


def _engine(spec: ModelSpec) -> dict[str, Any]:
    """The model, and what its container has beyond the runtime's."""
    own = spec.runtime is not None and spec.image != spec.runtime.image
    return {
        "modelFormat": {"name": serving_runtime.MODEL_FORMAT},
        "runtime": serving_runtime.NAME,
        "storageUri": spec.uri,
        "image": spec.image if own else None,
        "args": _arguments(spec),
        "env": [{"name": name, "value": value} for name, value in sorted(spec.env.items())] or None,
        "resources": resources(spec),
        # The kubelet must not give up before the load budget does.
        "startupProbe": {
            **serving_runtime.health(),
            "periodSeconds": PROBE_SECONDS,
            "failureThreshold": math.ceil(spec.load_budget_seconds / PROBE_SECONDS),
        },
    }


def _arguments(spec: ModelSpec) -> list[str]:
    """What KServe's presets say for an LLMInferenceService, and then the model's own, which may answer by these names."""
    names = (spec.served_name, model_name(spec.namespace, spec.served_name))
    finish = _grace(spec) - PRE_STOP_SECONDS - SPARE_SECONDS
    return [
        "--served-model-name",
        *names,
        # One chip needs no flag.
        *([f"--tensor-parallel-size={spec.chips}"] if spec.chips > 1 else []),
        f"--shutdown-timeout={max(finish, 0)}",
        *spec.args,
    ]


def waits(spec: ModelSpec, _: Manifest, route: str) -> tuple[tuple[str, Manifest], ...]:
    """(role, fields) of what is waited for, one after the other (docs/adr/0013)."""
    return (("routed", routed(spec, route)), ("rollout", rollout(spec)), ("complete", complete(spec)))


def rollout(spec: ModelSpec) -> Manifest:
    """Fields of KServe's Deployment, for the provider's own wait for rollouts, which says why pods are not ready."""
    return _deployment(spec, {labels.ROLLOUT: revision([*_marks(spec).items(), spec.replicas])})


def complete(spec: ModelSpec) -> Manifest:
    """Fields of the same that wait until all its replicas, and no others, are of this model and this runtime.

    Where KServe writes the Deployment after the wait before this one has begun, that one looks at the rollout before.
    KServe's own status cannot tell: what it calls observed are generations of this Deployment.
    """
    made = [
        f"jsonpath={{.spec.template.metadata.annotations['{key}']}}={mark}"
        for key, mark in _marks(spec).items()
    ]
    # Numbers of a status that are 0 are left out of it.
    counted = ("replicas", "updatedReplicas", "availableReplicas") if spec.replicas else ()
    counts = [f"jsonpath={{.status.{name}}}={spec.replicas}" for name in counted]
    wanted = f"jsonpath={{.spec.replicas}}={spec.replicas}"
    return _deployment(spec, {labels.WAIT_FOR: json.dumps([*made, wanted, *counts])})


def _marks(spec: ModelSpec) -> dict[str, str]:
    """What the pods carry when they are of this model and this runtime."""
    shared = {labels.RUNTIME: serving_runtime.runtime_revision(spec.runtime)} if spec.runtime else {}
    return {labels.REVISION: pod_revision(spec), **shared}


def _deployment(spec: ModelSpec, annotations: dict[str, str]) -> Manifest:
    return manifest(
        "apps/v1", "Deployment", PREDICTOR.workload(spec.name), spec.namespace, annotations=annotations
    )
