"""The job that fills a claim with one set of weights, once. Pure.

It runs in KServe's storage initializer, whose downloads `fill_claim.py` uses. A job cannot be changed, so its name
carries what it does: other weights are another job, and nothing that stays the same runs again. It has no time to
live, after which it would be gone and made anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.core import labels, naming
from components.core.containers import confined
from components.core.manifest import Manifest, manifest, revision
from components.serving.manifests import network_policy, storage
from components.serving.manifests.storage import Store

NAME = "fill"
PROGRAM = Path(__file__).with_name("fill_claim.py")
HF_KEY = "HF_TOKEN"
# The storage initializer's user (its Dockerfile); a new volume must be writable for it.
USER = 1000
# A connection that is lost is tried again; what was fetched stays.
ATTEMPTS = 3
# What the job itself needs to end after its deadline, so that its own words are seen and not the wait's.
SPARE_SECONDS = 60
CPU, MEMORY, MEMORY_LIMIT = "100m", "512Mi", "4Gi"
_PROGRAM_PATH, _CLAIM_PATH, _SCRATCH = "/program", "/claim", "/tmp"


@dataclass(frozen=True, kw_only=True)
class FillSpec:
    """One set of weights in a directory of a claim.

    `path` is the directory, "" for the whole volume; `source` is an hf:// or s3:// uri, of whose files those that match
    `include` (all, where it is empty) and none of `exclude` are fetched. `image` is KServe's storage initializer.
    `hf_secret` holds a Hugging Face token, `store` says where s3:// is. `shared` claims can be mounted by several
    nodes at once. A pod goes to nodes with the labels of `node_selector`, and rather to those of `rather`.
    """

    model: str
    namespace: str
    claim: str
    path: str
    source: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    image: str
    budget_seconds: int
    shared: bool = False
    hf_secret: str | None = None
    store: Store | None = None
    pull_secrets: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    rather: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def fingerprint_of(source: str, include: Sequence[str], exclude: Sequence[str]) -> str:
        """Changes when another set of weights is wanted."""
        return revision([source, list(include), list(exclude)])

    @property
    def fingerprint(self) -> str:
        """That of this set."""
        return self.fingerprint_of(self.source, self.include, self.exclude)

    @property
    def name(self) -> str:
        """The name of everything but the job."""
        return naming.filler(self.model)


def fill(spec: FillSpec) -> tuple[tuple[str, Manifest], ...]:
    """(role, object) of what fills the claim, in the order of creation; the job is the last."""
    names: dict[str, Any] = {"name": spec.name, "namespace": spec.namespace, "labels": _labels(spec)}
    secrets = [{"name": name} for name in spec.pull_secrets] or None
    account = manifest(
        "v1", "ServiceAccount", **names, automountServiceAccountToken=False, imagePullSecrets=secrets
    )
    return (
        ("account", account),
        ("policy", network_policy.downloader(spec.namespace, spec.model, spec.store)),
        ("program", manifest("v1", "ConfigMap", **names, data={PROGRAM.name: PROGRAM.read_text()})),
        ("job", _job(spec, names)),
    )


def _labels(spec: FillSpec) -> dict[str, str]:
    return {**labels.common("weights"), **labels.filler(spec.model), labels.MODEL: spec.model}


def _job(spec: FillSpec, names: Mapping[str, Any]) -> Manifest:
    marks = {
        # Another program is another job, which finds that nothing is to be done.
        labels.REVISION: revision(PROGRAM.read_text()),
        # Half a download is not lost, but an hour of a node that is about to be taken away is.
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    }
    wanted = {
        "backoffLimit": ATTEMPTS,
        "activeDeadlineSeconds": spec.budget_seconds,
        # A node that goes away is no attempt that failed.
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
            ]
        },
        "template": {"metadata": {"labels": _labels(spec), "annotations": marks}, "spec": _pod(spec)},
    }
    # One that failed is made anew by the next `up`.
    again = {labels.REPLACE_UNREADY: "true"}
    named = {**names, "name": f"{spec.name}-{revision(wanted)[:8]}"}
    return manifest("batch/v1", "Job", **named, annotations=again, spec=wanted)


def _pod(spec: FillSpec) -> dict[str, Any]:
    return {
        "serviceAccountName": spec.name,
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "nodeSelector": dict(spec.node_selector) or None,
        "tolerations": [dict(toleration) for toleration in spec.tolerations] or None,
        "affinity": _affinity(spec),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec)],
        "volumes": [
            {"name": "program", "configMap": {"name": spec.name}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": spec.claim}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }


def _affinity(spec: FillSpec) -> dict[str, Any] | None:
    """Beside whoever has mounted the claim, where one node mounts it; else rather where nothing is waited for."""
    expressions = [{"key": key, "operator": "In", "values": [value]} for key, value in spec.rather.items()]
    rather = [{"weight": 100, "preference": {"matchExpressions": expressions}}] if expressions else None
    readers = {"matchExpressions": labels.readers(spec.model)}
    beside = [{"labelSelector": readers, "topologyKey": "kubernetes.io/hostname"}]
    return {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": rather} if rather else None,
        # Where nobody has, the pod itself is what it asks for, and the scheduler takes any node.
        "podAffinity": None if spec.shared else {"requiredDuringSchedulingIgnoredDuringExecution": beside},
    }


def _container(spec: FillSpec) -> dict[str, Any]:
    directory = f"{_CLAIM_PATH}/{spec.path}".rstrip("/")
    return {
        "name": NAME,
        "image": spec.image,
        "command": ["python3", f"{_PROGRAM_PATH}/{PROGRAM.name}"],
        "args": [spec.source, directory, spec.fingerprint],
        "env": _environment(spec),
        "resources": {
            "requests": {"cpu": CPU, "memory": MEMORY},
            "limits": {"memory": MEMORY_LIMIT},
        },
        "securityContext": confined(),
        "volumeMounts": [
            {"name": "program", "mountPath": _PROGRAM_PATH, "readOnly": True},
            {"name": "claim", "mountPath": _CLAIM_PATH},
            {"name": "scratch", "mountPath": _SCRATCH},
        ],
        # The last lines of its log are what `up` shows of a job that failed.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _environment(spec: FillSpec) -> list[dict[str, Any]]:
    plain = {
        "INCLUDE": json.dumps(list(spec.include)),
        "EXCLUDE": json.dumps(list(spec.exclude)),
        # What the hub's client writes beside the files themselves; nothing is worth keeping between runs.
        "HF_HOME": f"{_SCRATCH}/huggingface",
        "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0",
    }
    token = {"secretKeyRef": {"name": spec.hf_secret, "key": HF_KEY}}
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *([{"name": HF_KEY, "valueFrom": token}] if spec.hf_secret else []),
        *(storage.environment(spec.store) if spec.store else []),
    ]
