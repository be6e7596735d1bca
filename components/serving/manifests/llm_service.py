"""The LLMInferenceService of a model and what belongs to it. Pure.

What KServe 0.20 does with the fields is read in `pkg/controller/v1alpha2/llmisvc` of its source: the
container `main` is merged over the preset's by name, and its `args` end up behind `vllm serve`.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.core import labels, naming
from components.core.manifest import Manifest, manifest
from components.serving.manifests import cache as caches
from components.serving.manifests.cache import CacheSpec
from components.serving.manifests.gateway import MODEL_PORT
from components.serving.manifests.network_policy import PICKER_PORT
from components.serving.manifests.scheduling import Routing, endpoint_picker

API = "serving.kserve.io/v1alpha2"
PROBE_SECONDS = 10
# KServe's 1 GiB is too little for the page cache of a download of many gigabytes (kserve 0.20, config map template).
DOWNLOAD_MEMORY = "8Gi"
# Weights that the storage initializer copies into the pod; a claim is mounted and an image is pulled instead.
DOWNLOADED = ("hf://", "s3://")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model service.

    `chips` of `resource` serve one replica. `args` are flags of the engine, one item each.
    `cpu`, `memory` and `ephemeral_storage` are quantities or None. `load_budget_seconds` bounds the
    time from the start of a pod to Ready. `pickers` choose replicas, and where none answers requests
    go to any replica if `picker_fails_open`, else to none. `run_as_root` is for images that have no other user.
    """

    name: str
    namespace: str
    uri: str
    served_name: str
    replicas: int
    image: str
    resource: str
    chips: int
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cpu: str | None = None
    memory: str | None = None
    ephemeral_storage: str | None = None
    load_budget_seconds: int = 900
    routing: Routing = "prefix-cache"
    pickers: int = 1
    picker_fails_open: bool = True
    run_as_root: bool = False
    cache: CacheSpec | None = None

    @property
    def pooled(self) -> bool:
        """Whether a picker chooses the replica."""
        return self.routing != "none"

    @property
    def downloads(self) -> bool:
        """Whether the weights come over the network at every start."""
        return self.uri.startswith(DOWNLOADED)


def llm_service(spec: ModelSpec, gateway: str, gateway_namespace: str, routes: tuple[str, ...]) -> Manifest:
    """The service, attached to our gateway and our routes.

    `routes` are names of HTTPRoutes in the model's namespace. With routes of our own KServe makes
    none, which on some gateways would carry a group or a timeout that they refuse.
    """
    picker = endpoint_picker(spec.routing)
    router = {
        "gateway": {"refs": [{"name": gateway, "namespace": gateway_namespace}]},
        "route": {"http": {"refs": [{"name": name} for name in routes]}},
        "scheduler": _scheduler(spec, picker) if picker else None,
    }
    return manifest(
        API,
        "LLMInferenceService",
        spec.name,
        spec.namespace,
        labels={**labels.common("model"), labels.MODEL: spec.name},
        spec={
            "model": {"uri": spec.uri, "name": spec.served_name},
            "replicas": spec.replicas,
            # One chip needs no flag, and KServe renders none for a missing value.
            "parallelism": {"tensor": spec.chips} if spec.chips > 1 else None,
            "router": router,
            "template": _pod(spec),
        },
    )


def _scheduler(spec: ModelSpec, picker: Manifest) -> dict[str, Any]:
    """The picker: its configuration, how many there are, and what happens when none answers."""
    reference = {
        "group": "",
        "kind": "Service",
        "name": naming.picker_service(spec.name),
        "port": {"number": PICKER_PORT},
        "failureMode": "FailOpen" if spec.picker_fails_open else "FailClose",
    }
    pool = {
        "selector": {"matchLabels": labels.model_workload(spec.name)},
        "targetPorts": [{"number": MODEL_PORT}],
        "endpointPickerRef": reference,
    }
    # Of several one picks and the others wait for its lease, so that all requests see one view of the caches.
    replicas = spec.pickers if spec.pickers > 1 else None
    return {"config": {"inline": picker}, "pool": {"spec": pool}, "replicas": replicas}


def _pod(spec: ModelSpec) -> dict[str, Any]:
    return {
        "serviceAccountName": spec.name,
        "nodeSelector": dict(spec.node_selector),
        "tolerations": [dict(toleration) for toleration in spec.tolerations],
        "securityContext": caches.owner() if spec.cache else None,
        "volumes": caches.volumes(spec.cache) if spec.cache else None,
        "initContainers": [_download(spec)] if spec.downloads else None,
        "containers": [_engine(spec)],
    }


def _download(spec: ModelSpec) -> dict[str, Any]:
    # A pod is scheduled by the larger of its init and its main containers, so this costs nothing more.
    limits = {"cpu": "2", "memory": spec.memory or DOWNLOAD_MEMORY}
    return {
        "name": "storage-initializer",
        "resources": {"requests": {"cpu": "100m"}, "limits": limits},
        "volumeMounts": caches.download_mounts(spec.cache) if spec.cache else None,
    }


def _engine(spec: ModelSpec) -> dict[str, Any]:
    limits = {
        "memory": spec.memory,
        "ephemeral-storage": spec.ephemeral_storage,
        spec.resource: str(spec.chips),
    }
    environment = {**(caches.environment() if spec.cache else {}), **spec.env}
    root = {"runAsNonRoot": False, "runAsUser": 0, "readOnlyRootFilesystem": False}
    return {
        "name": "main",
        "image": spec.image,
        # The preset's script evaluates them once more in a shell.
        "args": [shlex.quote(argument) for argument in spec.args],
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())] or None,
        "volumeMounts": caches.engine_mounts(spec.cache) if spec.cache else None,
        "resources": {"requests": {"cpu": spec.cpu, **limits}, "limits": limits},
        "securityContext": root if spec.run_as_root else None,
        # The preset gives ten minutes. The kubelet must not give up before the load budget does.
        "startupProbe": {
            "periodSeconds": PROBE_SECONDS,
            "failureThreshold": math.ceil(spec.load_budget_seconds / PROBE_SECONDS),
        },
    }


def service_account(spec: ModelSpec, secrets: tuple[str, ...], pull_secrets: tuple[str, ...]) -> Manifest:
    """The identity of a model's pods; KServe takes download credentials from its `secrets`. No API token."""
    return manifest(
        "v1",
        "ServiceAccount",
        spec.name,
        spec.namespace,
        labels={**labels.common("model"), labels.MODEL: spec.name},
        automountServiceAccountToken=False,
        secrets=[{"name": name} for name in secrets] or None,
        imagePullSecrets=[{"name": name} for name in pull_secrets] or None,
    )


def routed(spec: ModelSpec, route: str) -> Manifest:
    """Fields of the route that wait until its backend exists, which KServe makes after the model's Deployment."""
    resolved = 'jsonpath={.status.parents[0].conditions[?(@.type=="ResolvedRefs")].status}=True'
    return manifest(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        route,
        spec.namespace,
        annotations={labels.WAIT_FOR: resolved},
    )


def rollout(spec: ModelSpec, revision: str) -> Manifest:
    """Fields of the Deployment that KServe makes; the provider awaits its rollout, and says why pods are not ready.

    Nothing may put `waitFor` on this object: the provider reads it from the live one, where it would
    replace the built-in await (docs/adr/0004).
    """
    return manifest(
        "apps/v1",
        "Deployment",
        naming.workload(spec.name),
        spec.namespace,
        annotations={labels.REVISION: revision},
    )


def ready(spec: ModelSpec, revision: str) -> Manifest:
    """Fields of the service itself that wait until KServe calls this generation Ready."""
    annotations = {labels.REVISION: revision, labels.WAIT_FOR: "condition=Ready"}
    return manifest(API, "LLMInferenceService", spec.name, spec.namespace, annotations=annotations)
