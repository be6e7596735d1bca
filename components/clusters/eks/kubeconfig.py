"""The kubeconfig of an EKS cluster. Pure."""

from __future__ import annotations

import json

CONTEXT = "eks"
COMMAND = "aws"
_INSTALL = "Install the AWS CLI, version 2: https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"


def kubeconfig(name: str, region: str, server: str, certificate: str) -> str:
    """A kubeconfig with one context, as JSON, which is YAML.

    `server` is a URL, `certificate` the cluster's authority in base64. It acts as whoever AWS's own chain of
    credentials finds, as the provider of AWS's resources does. A token in it would last 15 minutes and differ at
    every run.
    """
    exec_plugin = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": COMMAND,
        "args": ["eks", "get-token", "--cluster-name", name, "--region", region, "--output", "json"],
        "installHint": _INSTALL,
        "interactiveMode": "Never",
        "provideClusterInfo": False,
    }
    cluster = {"server": server, "certificate-authority-data": certificate}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": CONTEXT, "user": {"exec": exec_plugin}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
    }
    return json.dumps(content)
