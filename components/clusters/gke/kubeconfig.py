"""The kubeconfig of a GKE cluster. Pure."""

from __future__ import annotations

import json

CONTEXT = "gke"
PLUGIN = "gke-gcloud-auth-plugin"
_INSTALL = "Install it with `gcloud components install gke-gcloud-auth-plugin`, or by your system's packages."


def kubeconfig(server: str, certificate: str | None) -> str:
    """A kubeconfig with one context, as JSON, which is YAML.

    `server` is a host name or an address. `certificate` is the cluster's own authority in base64; None for the DNS
    endpoint, which answers with a public certificate that the cluster's authority did not sign.

    The plugin is told to use Application Default Credentials, as the provider of Google's resources
    does: left to itself it would act as whoever `gcloud` is logged in as.
    """
    trust = {"certificate-authority-data": certificate} if certificate else {}
    exec_plugin = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": PLUGIN,
        "args": ["--use_application_default_credentials"],
        "installHint": _INSTALL,
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": {"server": f"https://{server}", **trust}}],
        "users": [{"name": CONTEXT, "user": {"exec": exec_plugin}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
    }
    return json.dumps(content)
