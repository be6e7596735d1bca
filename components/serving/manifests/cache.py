"""A volume that keeps a model's weights and compiled programs between starts. Pure.

KServe's storage initializer downloads into a volume named `kserve-provision-location`, which it makes where the pod
has none (`AddModelMount` in `pkg/utils/storage.go` of KServe 0.20); a pod that brings one of that name downloads
into that. The Hugging Face download leaves complete files alone, after asking the hub for their checksums; the one
from S3 starts anew (`kserve_storage.py`), so that of S3 weights only the compiled programs are kept.

vLLM keeps compiled programs below VLLM_CACHE_ROOT, and on TPU in VLLM_XLA_CACHE_PATH (`vllm/envs.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.core.manifest import Manifest, revision
from components.serving.manifests import claim as claims
from components.serving.manifests.claim import ClaimSpec

WEIGHTS_VOLUME, WEIGHTS_PATH = "kserve-provision-location", "/mnt/models"
COMPILED_VOLUME, COMPILED_PATH = "compiled", "/var/cache/vllm"
# Weights from elsewhere are mounted, or written over at every start.
KEPT = ("hf://",)
# The storage initializer's user (its Dockerfile), to whom a new volume must belong.
GROUP = 1000


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """The volume of a model: `size` is a quantity, `storage_class` None for the cluster's own default.

    `shared` volumes are mounted by all replicas at once, others by the pods of one node. `engine` is the image that
    compiles, `shape` names the chips that it compiles for: programs of one do not run on another.
    """

    model: str
    namespace: str
    uri: str
    size: str
    storage_class: str | None
    shared: bool
    engine: str
    shape: str

    @property
    def claim(self) -> str:
        """The name of the volume claim, another one for another mode of access or class.

        Neither can be changed. A claim of the same name would wait for the old one to go, which waits for the pod that
        uses it, which waits for the rollout; one beside it is filled anew, and the old one goes when nobody uses it.
        """
        return f"{self.model}-cache-{revision([self.shared, self.storage_class])}"

    @property
    def keeps_weights(self) -> bool:
        """Whether a second start finds its weights here."""
        return self.uri.startswith(KEPT)

    @property
    def weights(self) -> str:
        """Where the weights are on the volume."""
        return f"weights/{revision(self.uri)}"

    @property
    def compiled(self) -> str:
        """Where the programs of this model, engine and shape are on the volume."""
        return f"compiled/{revision([self.uri, self.engine, self.shape])}"


def claim(spec: CacheSpec) -> Manifest:
    """The claim. Its volume goes with it: a cache can be filled again."""
    held = ClaimSpec(
        name=spec.claim,
        namespace=spec.namespace,
        model=spec.model,
        size=spec.size,
        storage_class=spec.storage_class,
        shared=spec.shared,
    )
    return claims.claim(held, "cache")


def volumes(spec: CacheSpec) -> list[dict[str, Any]]:
    """The volumes of a pod; two names for one claim."""
    names = (WEIGHTS_VOLUME, COMPILED_VOLUME) if spec.keeps_weights else (COMPILED_VOLUME,)
    return [{"name": name, "persistentVolumeClaim": {"claimName": spec.claim}} for name in names]


def download_mounts(spec: CacheSpec) -> list[dict[str, Any]] | None:
    """What the storage initializer mounts; None where it writes to a volume of the pod's own."""
    return [_weights(spec, read_only=False)] if spec.keeps_weights else None


def engine_mounts(spec: CacheSpec) -> list[dict[str, Any]]:
    """What the engine mounts: weights to read, programs to read and write."""
    compiled = {"name": COMPILED_VOLUME, "mountPath": COMPILED_PATH, "subPath": spec.compiled}
    return [_weights(spec, read_only=True), compiled] if spec.keeps_weights else [compiled]


def _weights(spec: CacheSpec, read_only: bool) -> dict[str, Any]:
    mount = {"name": WEIGHTS_VOLUME, "mountPath": WEIGHTS_PATH, "subPath": spec.weights}
    return {**mount, "readOnly": True} if read_only else mount


def environment() -> dict[str, str]:
    """Where the engine keeps what it compiles."""
    return {"VLLM_CACHE_ROOT": COMPILED_PATH, "VLLM_XLA_CACHE_PATH": f"{COMPILED_PATH}/xla"}


def owner() -> dict[str, Any]:
    """The pod's security context: both users may write, and a full volume is not walked at every start."""
    return {"fsGroup": GROUP, "fsGroupChangePolicy": "OnRootMismatch"}
