"""What Helm keeps of a release: one Secret per revision, of type `helm.sh/release.v1`.

The Secret's labels say name, status and version; its `release` entry holds
the same and more as gzipped JSON in base64, once more in base64 as every
Secret is.
"""

from __future__ import annotations

import base64
import gzip
import json
import time
from dataclasses import dataclass

import yaml

from ops.errors import OpsError
from ops.kube import Kube, Manifest

_TYPE = "helm.sh/release.v1"
_OWNER = "meta.helm.sh/release"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Charts of CRDs are megabytes.
_POLL = 0.5
PENDING = {"pending-install", "pending-upgrade", "pending-rollback"}


@dataclass(frozen=True)
class Revision:
    """One revision of a release: its number, status, chart's name and version, and the Secret it is in."""

    version: int
    status: str
    chart: str
    chart_version: str
    secret: str


def revisions(kube: Kube, namespace: str, name: str) -> tuple[Revision, ...]:
    """All revisions of one release, oldest first; empty where there is no such release."""
    return tuple(sorted(map(_revision, _secrets(kube, namespace, name)), key=lambda r: r.version))


def _secrets(kube: Kube, namespace: str, name: str) -> list[Manifest]:
    found = kube.list("v1", "Secret", namespace, f"owner=helm,name={name}")
    return [secret for secret in found if secret.get("type") == _TYPE]


def _revision(secret: Manifest) -> Revision:
    labels = secret["metadata"]["labels"]
    chart = decode(secret["data"]["release"]).get("chart", {}).get("metadata", {})
    return Revision(
        int(labels["version"]),
        labels["status"],
        chart.get("name", ""),
        chart.get("version", ""),
        secret["metadata"]["name"],
    )


def decode(data: str) -> Manifest:
    """The release in a Secret's `release` entry."""
    packed = base64.b64decode(base64.b64decode(data))
    return json.loads(gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed)


def uninstall(kube: Kube, namespace: str, name: str, patience: float) -> None:
    """Remove what an unfinished release put into the cluster, then its revisions; hooks are not run.

    Only objects that say they belong to this very release are deleted, and not
    those that the chart asks to keep. :class:`OpsError` when they are not gone
    within `patience` seconds; the revisions are then kept, so that it can be
    repeated.
    """
    found = {secret["metadata"]["name"]: secret for secret in _secrets(kube, namespace, name)}
    for revision in reversed(revisions(kube, namespace, name)):
        manifest = decode(found[revision.secret]["data"]["release"]).get("manifest", "")
        documents = [d for d in yaml.load_all(manifest, Loader=_LOADER) if d]
        leaving = [d for d in reversed(documents) if _delete(kube, d, namespace, name)]
        deadline = time.monotonic() + patience
        while leaving := [d for d in leaving if _owned(kube, d, namespace, name)]:
            if time.monotonic() > deadline:
                names = ", ".join(f"{d['kind']} {d['metadata']['name']}" for d in leaving)
                raise OpsError(
                    f"Helm release {namespace}/{name} is not removed: after {patience:.0f} s finalizers "
                    f"still hold {names}. See what they wait for (`kubectl get -o yaml`), then run this again"
                )
            time.sleep(_POLL)
    for secret in found:
        kube.delete("v1", "Secret", secret, namespace)


def _delete(kube: Kube, document: Manifest, namespace: str, name: str) -> bool:
    if not _owned(kube, document, namespace, name):
        return False
    metadata = document["metadata"]
    where = metadata.get("namespace", namespace)
    kube.delete(document["apiVersion"], document["kind"], metadata["name"], where)
    return True


def _owned(kube: Kube, document: Manifest, namespace: str, name: str) -> bool:
    """Whether the object exists, was installed by this release, and is not to be kept."""
    metadata = document["metadata"]
    live = kube.get(
        document["apiVersion"], document["kind"], metadata["name"], metadata.get("namespace", namespace)
    )
    annotations = (live or {}).get("metadata", {}).get("annotations") or {}
    release = (annotations.get(f"{_OWNER}-namespace"), annotations.get(f"{_OWNER}-name"))
    return release == (namespace, name) and annotations.get("helm.sh/resource-policy") != "keep"
