"""The kinds of service that KServe makes of a model, and the names by which others find what it makes.

Read in KServe 0.20: `pkg/controller/v1alpha2/llmisvc` and `pkg/controller/v1beta1/inferenceservice`. Whoever looks for
the Deployment, the Service or the pods of a model asks its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from components.core import labels, naming

# The port that every engine listens at.
MODEL_PORT = 8000


@dataclass(frozen=True, kw_only=True)
class ServiceKind:
    """One kind; the functions take the model's name.

    `engine` is the container of the engine. `workload` is the Deployment of a model on one host, `service` the Service
    in front of its pods, which listens at `port`. `pods` select those that serve, `parts` everything that KServe makes.
    `tls` says whether the pods speak TLS where KServe's is on, `counts` whether `status.observedGeneration` is
    that of the service itself.
    """

    api_version: str
    kind: str
    engine: str
    port: int
    tls: bool
    counts: bool
    workload: Callable[[str], str]
    service: Callable[[str], str]
    pods: Callable[[str], dict[str, str]]
    parts: Callable[[str], dict[str, str]]


LLM = ServiceKind(
    api_version="serving.kserve.io/v1alpha2",
    kind="LLMInferenceService",
    engine="main",
    port=MODEL_PORT,
    tls=True,
    counts=True,
    workload=naming.workload,
    service=naming.workload_service,
    pods=labels.model_workload,
    parts=labels.model_parts,
)
PREDICTOR = ServiceKind(
    api_version="serving.kserve.io/v1beta1",
    kind="InferenceService",
    engine="kserve-container",
    # The first port of the engine, whatever its number (`service_reconciler.go`).
    port=80,
    tls=False,
    # It is copied from the Deployment (`PropagateRawStatus`).
    counts=False,
    workload=naming.predictor,
    service=naming.predictor,
    pods=labels.predictor_workload,
    parts=labels.predictor_parts,
)

# By the kind of their objects.
SERVICE_KINDS: Mapping[str, ServiceKind] = MappingProxyType({kind.kind: kind for kind in (LLM, PREDICTOR)})
ENGINES = frozenset(kind.engine for kind in SERVICE_KINDS.values())


def kind_of(runtime: object | None) -> ServiceKind:
    """The kind of a model by its runtime, or by the name of one."""
    return LLM if runtime is None else PREDICTOR
