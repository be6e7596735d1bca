"""Volume claims of models, and how a uri names one that holds weights. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from components.core import labels
from components.core.manifest import Manifest, manifest

SCHEME = "pvc://"


@dataclass(frozen=True, kw_only=True)
class ClaimSpec:
    """A claim: `size` is a quantity, `storage_class` None for the cluster's own default.

    `shared` volumes are mounted by several nodes at once, others by one. `model` is whose entry it belongs to.
    """

    name: str
    namespace: str
    model: str
    size: str
    storage_class: str | None
    shared: bool


def claim(spec: ClaimSpec, part: str = "weights") -> Manifest:
    """The claim; `part` says in its labels what it is for. By most classes its volume goes with it."""
    return manifest(
        "v1",
        "PersistentVolumeClaim",
        spec.name,
        spec.namespace,
        labels={**labels.common(part), labels.MODEL: spec.model},
        # Many classes bind a claim when its first pod is scheduled, which comes after it.
        annotations={labels.SKIP_AWAIT: "true"},
        spec={
            "accessModes": ["ReadWriteMany" if spec.shared else "ReadWriteOnce"],
            "storageClassName": spec.storage_class,
            "resources": {"requests": {"storage": spec.size}},
        },
    )


def parts(uri: str) -> tuple[str, str]:
    """(claim, path) of a uri such as `pvc://claim/path`; KServe mounts the path where the weights are looked for."""
    name, _, path = uri.removeprefix(SCHEME).partition("/")
    return name, path.strip("/")
