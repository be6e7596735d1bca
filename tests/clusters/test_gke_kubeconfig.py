"""The kubeconfig of a GKE cluster."""

from __future__ import annotations

from typing import Any

import yaml

from components.clusters.gke.kubeconfig import kubeconfig


def parts(server: str, certificate: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cluster and the exec plugin of the context that a client would use."""
    content = yaml.safe_load(kubeconfig(server, certificate))
    current = content["current-context"]
    (context,) = (c["context"] for c in content["contexts"] if c["name"] == current)
    (cluster,) = (c["cluster"] for c in content["clusters"] if c["name"] == context["cluster"])
    (user,) = (u["user"] for u in content["users"] if u["name"] == context["user"])
    return cluster, user["exec"]


def test_the_name_is_trusted_by_public_authorities_and_never_by_the_cluster_s() -> None:
    """With the cluster's authority, clients refuse the DNS endpoint: signed by unknown authority."""
    cluster, _ = parts("gke-0123.europe-west4.gke.goog", None)
    assert cluster == {"server": "https://gke-0123.europe-west4.gke.goog"}


def test_the_address_is_trusted_by_the_cluster_s_own_authority() -> None:
    cluster, _ = parts("203.0.113.10", "Q0E=")
    assert cluster == {"server": "https://203.0.113.10", "certificate-authority-data": "Q0E="}


def test_it_acts_as_the_provider_does_and_holds_no_credential() -> None:
    content = yaml.safe_load(kubeconfig("203.0.113.10", "Q0E="))
    (user,) = content["users"]
    assert set(user["user"]) == {"exec"}
    _, plugin = parts("203.0.113.10", "Q0E=")
    assert plugin["command"] == "gke-gcloud-auth-plugin"
    assert plugin["args"] == ["--use_application_default_credentials"]
    assert plugin["interactiveMode"] == "Never" and plugin["installHint"]
