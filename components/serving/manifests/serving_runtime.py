"""The ServingRuntime that the InferenceServices of a namespace share: the engine, and how it is started. Pure.

KServe 0.20 makes a model's container of the runtime's and of its own (`MergeRuntimeContainers`): fields that the model
sets win, arguments are joined, the runtime's first. What differs from model to model is therefore not here.
The flags need vLLM 0.18 or newer, as the image of the lock file is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.core import labels
from components.core.manifest import Manifest, manifest, revision
from components.core.services import MODEL_PORT, PREDICTOR
from components.serving.manifests.cache import WEIGHTS_PATH
from components.serving.manifests.rollout import PRE_STOP_SECONDS

API = "serving.kserve.io/v1alpha1"
NAME = "vllm-cuda"
# What models say that want it: KServe's own spelling, by which it knows the engine (`constants.SupportedModelVLLM`).
MODEL_FORMAT = "vLLM"
# Istio and Kubernetes know a port's protocol by its name.
PORT_NAME = "http"
# The engine's user may write here; vLLM and CUDA keep what they compile in the home directory.
_VOLUMES = {"home": "/home", "tmp-dir": "/tmp", "dshm": "/dev/shm"}


@dataclass(frozen=True, kw_only=True)
class RuntimeSpec:
    """The runtime of one namespace; `image` is the engine's, which a model may replace by its own."""

    namespace: str
    image: str


def serving_runtime(spec: RuntimeSpec) -> Manifest:
    """The runtime. Its annotations reach the pods, so that a rollout of a new runtime can be told from the one before."""
    return manifest(
        API,
        "ServingRuntime",
        NAME,
        spec.namespace,
        labels=labels.common("models"),
        spec={
            # Nobody gets it who has not asked for it by name.
            "supportedModelFormats": [{"name": MODEL_FORMAT, "autoSelect": False}],
            "multiModel": False,
            "annotations": {labels.RUNTIME: runtime_revision(spec)},
            **_pod(spec),
        },
    )


def runtime_revision(spec: RuntimeSpec) -> str:
    """Changes when the pods of every model of the runtime do."""
    return revision(_pod(spec))


def _pod(spec: RuntimeSpec) -> dict[str, Any]:
    # Shared memory has no limit of its own, as in KServe's runtime: it counts as memory of the engine.
    kinds: dict[str, dict[str, Any]] = {"dshm": {"medium": "Memory"}}
    return {
        "containers": [_engine(spec)],
        "volumes": [{"name": name, "emptyDir": kinds.get(name, {})} for name in _VOLUMES],
    }


def _engine(spec: RuntimeSpec) -> dict[str, Any]:
    return {
        "name": PREDICTOR.engine,
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["vllm", "serve", WEIGHTS_PATH],
        "args": [f"--port={MODEL_PORT}", "--disable-access-log-for-endpoints=/health,/metrics,/ping"],
        "env": [{"name": "HOME", "value": "/home"}, {"name": "VLLM_LOGGING_LEVEL", "value": "INFO"}],
        "ports": [{"name": PORT_NAME, "containerPort": MODEL_PORT, "protocol": "TCP"}],
        # The gateway learns meanwhile that the pod ends.
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sleep", str(PRE_STOP_SECONDS)]}}},
        # The model's own startup probe gives its load budget; these only begin after it.
        "readinessProbe": {**health(), "periodSeconds": 1, "failureThreshold": 2},
        "livenessProbe": {**health(), "periodSeconds": 10, "failureThreshold": 10},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in _VOLUMES.items()],
    }


def health() -> dict[str, Any]:
    """A probe of the engine; without one of ours KServe asks whether the port is open, which says less."""
    return {"httpGet": {"path": "/health", "port": MODEL_PORT, "scheme": "HTTP"}, "timeoutSeconds": 1}
