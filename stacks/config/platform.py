"""What the platform installs, and where from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints, model_validator

from stacks.config.base import Strict, entry
from stacks.config.errors import refusal
from stacks.config.types import DnsLabel, Text

Ownership = Literal["managed", "provided"]
MonitoringSystem = Literal["none", "prometheus-operator", "google"]
# As Kubernetes takes them: an optional DNS prefix and a name of 63 characters.
LabelKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
    ),
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")]
_OWNERSHIP = "managed: this stack installs it; provided: it is on the cluster already and is left alone."


def _part(name: str) -> Ownership:
    return entry(f"{name}. {_OWNERSHIP}", "managed")


def _gateway_part(name: str, with_google: str) -> Ownership | None:
    return entry(
        f"{name}. {_OWNERSHIP}", None, derived=f"managed with gateway kind istio, {with_google} with gke"
    )


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
    istio: Ownership | None = _gateway_part("Istio, the gateway", "not needed")
    gateway_api: Ownership | None = _gateway_part("Gateway API's custom resource definitions", "Google's")
    inference_extension: Ownership | None = _gateway_part(
        "The inference extension's custom resource definitions", "Google's"
    )
    kserve: Ownership = _part("KServe, which runs the models")
    leader_worker_set: Ownership = _part("LeaderWorkerSet, for models on several machines")
    gpu_operator: Ownership | None = entry(
        f"NVIDIA's GPU operator, without its driver and toolkit. {_OWNERSHIP}",
        None,
        derived="managed on a new cluster with NVIDIA nodes, provided elsewhere",
    )
    monitoring: MonitoringSystem = entry(
        "What scrapes metrics and evaluates alerts. It must be on the cluster already: its kinds of objects are not "
        "installed, and without them nothing could be created.",
        "none",
    )
    monitoring_namespace: DnsLabel | None = entry(
        "Namespace of the pods that scrape; network policies let them in.",
        None,
        derived="monitoring for prometheus-operator, gmp-system for google",
    )
    monitoring_labels: dict[LabelKey, LabelValue] = entry(
        "Labels that your Prometheus selects monitors and rules by, for example `release: prometheus`. Others it "
        "overlooks without a word.",
        factory=dict,
    )

    @model_validator(mode="after")
    def _monitoring_is_chosen(self) -> Platform:
        given = {"monitoringNamespace": self.monitoring_namespace, "monitoringLabels": self.monitoring_labels}
        idle = [name for name, value in given.items() if value]
        if self.monitoring == "none" and idle:
            raise refusal(
                f"{' and '.join(idle)} without monitoring",
                "nothing would be scraped",
                "add monitoring: prometheus-operator or google, or remove the key",
            )
        return self
