"""What the platform installs, and where from."""

from __future__ import annotations

from typing import Literal

from stacks.config.base import Strict, entry
from stacks.config.types import Text

Ownership = Literal["managed", "provided"]
_OWNERSHIP = "managed: this stack installs it; provided: it is on the cluster already and is left alone."


def _part(name: str) -> Ownership:
    return entry(f"{name}. {_OWNERSHIP}", "managed")


class Artifacts(Strict):
    """Charts and manifests from a directory of your own instead of the internet."""

    directory: Text | None = entry(
        "Directory with `charts/<chart>-<version>.tgz` and `manifests/<name>-<version>.yaml`.",
        None,
        derived="fetched from their sources",
    )
    verify_digests: bool = entry("Compare each file with the digest of the lock file.", True)


class Platform(Strict):
    """Operators and their sources; versions are those of the lock file."""

    artifacts: Artifacts = entry("Source of charts and manifests.", factory=Artifacts)
    image_pull_secret: bool = entry(
        "Give the secret key pullSecret (a Docker config JSON) to the model pods.", False
    )
    cert_manager: Ownership = _part("cert-manager, which issues the webhooks' certificates")
    istio: Ownership = _part("Istio, the gateway")
    gateway_api: Ownership = _part("Gateway API's custom resource definitions")
    inference_extension: Ownership = _part("The inference extension's custom resource definitions")
    kserve: Ownership = _part("KServe, which runs the models")
    leader_worker_set: Ownership = _part("LeaderWorkerSet, for models on several machines")
    gpu_operator: Ownership | None = entry(
        f"NVIDIA's GPU operator, without its driver and toolkit. {_OWNERSHIP}",
        None,
        derived="managed on a new cluster with NVIDIA nodes, provided elsewhere",
    )
