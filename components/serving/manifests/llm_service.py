"""The LLMInferenceService of a model and what belongs to it. Pure.

What KServe 0.20 does with the fields is read in `pkg/controller/v1alpha2/llmisvc` of its source: the
container `main` is merged over the preset's by name, and its `args` end up behind `vllm serve`. For a model on one
host the preset is KServe's, for several it is ours (`preset.py`).
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.core import labels, naming
from components.core.manifest import Manifest, manifest, revision
from components.core.services import ServiceKind, kind_of
from components.serving.manifests import cache as caches
from components.serving.manifests import preset, storage
from components.serving.manifests.cache import CacheSpec
from components.serving.manifests.gateway import MODEL_PORT
from components.serving.manifests.network_policy import PICKER_PORT
from components.serving.manifests.scheduling import Routing, endpoint_picker
from components.serving.manifests.serving_runtime import RuntimeSpec
from components.serving.manifests.storage import Store

API = "serving.kserve.io/v1alpha2"
GROUPS_API = "leaderworkerset.x-k8s.io/v1"
PROBE_SECONDS = 10
# KServe's 1 GiB is too little for the page cache of a download of many gigabytes (kserve 0.20, config map template).
DOWNLOAD_CPU, DOWNLOAD_MEMORY = "2", "8Gi"
# Weights that the storage initializer copies into the pod; a claim is mounted and an image is pulled instead.
DOWNLOADED = ("hf://", "s3://")
# KServe hands this on to the LeaderWorkerSet, which then puts a group on the nodes that share one value of the label and
# no other group there. On GKE a slice of several hosts is a node pool (`components/clusters/gke/args.py`).
EXCLUSIVE = "leaderworkerset.sigs.k8s.io/exclusive-topology"
SLICE_LABEL = "cloud.google.com/gke-nodepool"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model service.

    `chips` of `resource` serve one replica, on `hosts` nodes in equal shares. `args` are flags of the engine, one item each.
    `cpu`, `memory` and `ephemeral_storage` are quantities or None. `load_budget_seconds` bounds the
    time from the start of a pod to Ready, `starts` counts those that follow each other when it changes, and
    `grace_seconds` are what a pod has from its deletion to its end. `pickers` choose replicas, and where none answers requests
    go to any replica if `picker_fails_open`, else to none. `run_as_root` is for images that have no other user.
    `store` says where weights with an s3:// uri are, and `weights` changes when other weights are put into a claim.
    With a `runtime` of its namespace the model is an InferenceService, whose Deployment gets the `strategy`.
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
    starts: int = 1
    grace_seconds: int | None = None
    routing: Routing = "prefix-cache"
    pickers: int = 1
    picker_fails_open: bool = True
    run_as_root: bool = False
    hosts: int = 1
    cache: CacheSpec | None = None
    store: Store | None = None
    weights: str | None = None
    runtime: RuntimeSpec | None = None
    strategy: Mapping[str, Any] | None = None

    @property
    def kind(self) -> ServiceKind:
        """Which kind of service the model is."""
        return kind_of(self.runtime)

    @property
    def pooled(self) -> bool:
        """Whether a picker chooses the replica."""
        return self.routing != "none"

    @property
    def spans_hosts(self) -> bool:
        """Whether a replica is a group of pods, one on each of its hosts."""
        return self.hosts > 1

    @property
    def downloads(self) -> bool:
        """Whether the weights come over the network at every start."""
        return self.uri.startswith(DOWNLOADED)

    @property
    def marks(self) -> dict[str, str]:
        """Annotations of the pods that make new ones of them when their weights change.

        A label would do so as well, if KServe did not put it into the Deployment's selector, which cannot be changed.
        """
        return {labels.WEIGHTS: self.weights} if self.weights else {}


def llm_service(spec: ModelSpec, gateway: str, gateway_namespace: str, routes: tuple[str, ...]) -> Manifest:
    """The service, attached to our gateway and our routes.

    `routes` are names of HTTPRoutes in the model's namespace. With routes of our own KServe makes
    none, which on some gateways would carry a group or a timeout that they refuse.
    """
    picker, group = endpoint_picker(spec.routing), _group(spec) if spec.spans_hosts else {}
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
        annotations={EXCLUSIVE: SLICE_LABEL} if spec.spans_hosts else None,
        spec={
            "model": {"uri": spec.uri, "name": spec.served_name},
            "replicas": spec.replicas,
            # One chip needs no flag, and KServe renders none for a missing value.
            "parallelism": {"tensor": spec.chips} if spec.chips > 1 else None,
            "router": router,
            "annotations": spec.marks or None,
            "template": _pod(spec, _engine(spec)),
            **group,
        },
    )


def _group(spec: ModelSpec) -> dict[str, Any]:
    """What makes each replica a group of pods: `pipeline` is how many there are, leader and workers together."""
    return {
        "parallelism": {"tensor": spec.chips, "pipeline": spec.hosts},
        "worker": _pod(spec, _host(spec)),
        # On every pod, so that a rollout can be told from the one before: LeaderWorkerSet 0.8 observes no generations.
        "annotations": {labels.REVISION: group_revision(spec), **spec.marks},
    }


def group_revision(spec: ModelSpec) -> str:
    """Changes when the pods of a group do, and not with their number."""
    pods = [_pod(spec, _engine(spec)), _pod(spec, _host(spec)), spec.chips, spec.hosts]
    marks = [spec.marks] if spec.marks else []
    return revision([*pods, preset.pipeline_parallel(spec.namespace)["spec"], *marks])


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


def _pod(spec: ModelSpec, container: dict[str, Any]) -> dict[str, Any]:
    return {
        "serviceAccountName": spec.name,
        "nodeSelector": dict(spec.node_selector),
        "tolerations": [dict(toleration) for toleration in spec.tolerations],
        # KServe derives from it how long the engine may finish what it has begun.
        "terminationGracePeriodSeconds": spec.grace_seconds,
        "securityContext": caches.owner() if spec.cache else None,
        "volumes": caches.volumes(spec.cache) if spec.cache else None,
        "initContainers": [_download(spec)] if spec.downloads else None,
        "containers": [container],
    }


def _download(spec: ModelSpec) -> dict[str, Any]:
    # A pod is scheduled by the larger of its init and its main containers, so this costs nothing more.
    limits = {"cpu": DOWNLOAD_CPU, "memory": spec.memory or DOWNLOAD_MEMORY}
    return {
        "name": "storage-initializer",
        "env": storage.environment(spec.store) if spec.store and spec.store.endpoint else None,
        "resources": {"requests": {"cpu": "100m"}, "limits": limits},
        "volumeMounts": caches.download_mounts(spec.cache) if spec.cache else None,
    }


def _engine(spec: ModelSpec) -> dict[str, Any]:
    return {
        **_host(spec),
        # The preset's script evaluates them once more in a shell.
        "args": [shlex.quote(argument) for argument in spec.args],
        # The preset gives ten minutes. The kubelet must not give up before the load budget does.
        "startupProbe": {
            "periodSeconds": PROBE_SECONDS,
            "failureThreshold": math.ceil(spec.load_budget_seconds / PROBE_SECONDS),
        },
    }


def _host(spec: ModelSpec) -> dict[str, Any]:
    """The engine's container without the server: what it runs on. All of it, on each of several hosts."""
    chips = str(spec.chips // spec.hosts)
    environment = {
        **(caches.environment() if spec.cache else {}),
        **({preset.CHIPS_VARIABLE: chips} if spec.spans_hosts else {}),
        **spec.env,
    }
    root = {"runAsNonRoot": False, "runAsUser": 0, "readOnlyRootFilesystem": False}
    return {
        "name": "main",
        "image": spec.image,
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())] or None,
        "volumeMounts": caches.engine_mounts(spec.cache) if spec.cache else None,
        "resources": resources(spec),
        "securityContext": root if spec.run_as_root else None,
    }


def resources(spec: ModelSpec) -> dict[str, Any]:
    """What the engine's container asks for; accelerators as they are limited, or the API server refuses it."""
    limits = {
        "memory": spec.memory,
        "ephemeral-storage": spec.ephemeral_storage,
        spec.resource: str(spec.chips // spec.hosts),
    }
    return {"requests": {"cpu": spec.cpu, **limits}, "limits": limits}


def download_secrets(spec: ModelSpec, hub: tuple[str, ...]) -> tuple[str, ...]:
    """The Secrets that a model's download needs: those of the `hub`, or its store's; none where nothing is downloaded."""
    if spec.uri.startswith(storage.SCHEME):
        return (spec.store.secret,) if spec.store and spec.store.secret else ()
    return hub if spec.downloads else ()


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


def waits(spec: ModelSpec, item: Manifest, route: str) -> tuple[tuple[str, Manifest], ...]:
    """(role, fields) of what is waited for after the service `item`, one after the other (docs/adr/0004)."""
    mark = revision(item["spec"])
    return (
        ("routed", routed(spec, route)),
        ("rollout", rollout(spec, mark)),
        *((("leaders", leaders(spec, mark)),) if spec.spans_hosts else ()),
        ("ready", ready(spec, mark)),
    )


def routed(spec: ModelSpec, route: str) -> Manifest:
    """Fields of the route that wait until its backend exists, which KServe makes after the model's pods are asked for."""
    resolved = 'jsonpath={.status.parents[0].conditions[?(@.type=="ResolvedRefs")].status}=True'
    return manifest(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        route,
        spec.namespace,
        annotations={labels.WAIT_FOR: resolved},
    )


def rollout(spec: ModelSpec, revision: str) -> Manifest:
    """Fields of what KServe makes: the groups of a model on several hosts, else its Deployment.

    The provider awaits a Deployment's rollout, and says why pods are not ready.

    Nothing may put `waitFor` on this object: the provider reads it from the live one, where it would
    replace the built-in await (docs/adr/0004).
    """
    if spec.spans_hosts:
        return _groups(spec, revision)
    return manifest(
        "apps/v1",
        "Deployment",
        naming.workload(spec.name),
        spec.namespace,
        annotations={labels.REVISION: revision},
    )


def _groups(spec: ModelSpec, revision: str) -> Manifest:
    """Fields of the LeaderWorkerSet that wait until every group has all its pods, and its leader serves."""
    annotations = {labels.REVISION: revision, labels.WAIT_FOR: "condition=Available"}
    name = naming.group_set(spec.name)
    return manifest(GROUPS_API, "LeaderWorkerSet", name, spec.namespace, annotations=annotations)


def leaders(spec: ModelSpec, revision: str) -> Manifest:
    """Fields of the leaders' StatefulSet that wait until all leaders are of this revision, and serve.

    LeaderWorkerSet 0.8 states no generation with `Available`, which stays True until it has seen a change; the
    StatefulSet that it makes has one, and our mark in its template. A leader only serves with its whole group.
    """
    marked = f"jsonpath={{.spec.template.metadata.annotations['{labels.REVISION}']}}={group_revision(spec)}"
    serving = ("replicas", "updatedReplicas", "readyReplicas") if spec.replicas else ("replicas",)
    counts = [f"jsonpath={{.status.{name}}}={spec.replicas}" for name in serving]
    annotations = {labels.REVISION: revision, labels.WAIT_FOR: json.dumps([marked, *counts])}
    return manifest(
        "apps/v1", "StatefulSet", naming.group_set(spec.name), spec.namespace, annotations=annotations
    )


def ready(spec: ModelSpec, revision: str) -> Manifest:
    """Fields of the service itself that wait until KServe calls this generation Ready."""
    annotations = {labels.REVISION: revision, labels.WAIT_FOR: "condition=Ready"}
    return manifest(API, "LLMInferenceService", spec.name, spec.namespace, annotations=annotations)
