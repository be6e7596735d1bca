"""A namespace that models live in, and the secrets in it."""

from __future__ import annotations

from typing import Any

from components.core import labels
from components.core.manifest import Manifest, manifest

HF_SECRET = "hf-token"
PULL_SECRET = "image-pull"


def model_namespace(name: str, gateway: str) -> Manifest:
    """The namespace; its label lets the gateway of that name accept routes from it."""
    marks = {**labels.common("models"), labels.ROUTES: gateway}
    return manifest("v1", "Namespace", name, labels=marks)


def hf_secret(namespace: str, token: Any) -> Manifest:
    """The Hugging Face token, under the key that KServe's storage initializer reads. `token` may be an Output."""
    return manifest(
        "v1",
        "Secret",
        HF_SECRET,
        namespace,
        labels=labels.common("models"),
        type="Opaque",
        stringData={"HF_TOKEN": token},
    )


def pull_secret(namespace: str, docker_config: Any) -> Manifest:
    """A registry login; `docker_config` is a Docker config JSON and may be an Output."""
    return manifest(
        "v1",
        "Secret",
        PULL_SECRET,
        namespace,
        labels=labels.common("models"),
        type="kubernetes.io/dockerconfigjson",
        stringData={".dockerconfigjson": docker_config},
    )
