"""Finding and reaching the cluster that a stack was deployed to."""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import yaml
from kubernetes.config import ConfigException

from ops.errors import OpsError
from ops.kube import ApiError, Kube
from ops.state import KUBERNETES_PROVIDER, State, is_secret

_FLAGS = "name the cluster with --context, and with --kubeconfig where it is not in your default one"


def add_arguments(parser: ArgumentParser) -> None:
    """The two flags with which a command's user names the cluster himself."""
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="default: what the stack's state names"
    )
    parser.add_argument("--context", metavar="NAME", help="default: what the stack's state names")


def connect(state: State, arguments: Namespace) -> Kube:
    """Reach the cluster named by the flags, else by the Kubernetes provider in the stack's state."""
    if arguments.kubeconfig or arguments.context:
        return _reach(arguments.kubeconfig, arguments.context)
    kubeconfig, context = _provider(state)
    if kubeconfig and "\n" in kubeconfig:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "kubeconfig")
            file.write_text(kubeconfig)
            return _reach(file, context)
    return _reach(Path(kubeconfig).expanduser() if kubeconfig else None, context)


def _provider(state: State) -> tuple[str | None, str | None]:
    """Kubeconfig (path or content) and context of the one cluster that the state's providers name."""
    named = {
        _settings(r.inputs)
        for r in state.resources
        if r.type == KUBERNETES_PROVIDER and not r.raw.get("delete")
    }
    explicit = {settings for settings in named if any(settings)}
    if len(explicit) == 1:
        return explicit.pop()
    found = "no cluster" if not explicit else f"{len(explicit)} clusters"
    raise OpsError(f"the stack's state names {found}: {_FLAGS}")


def _settings(inputs: Any) -> tuple[str | None, str | None]:
    if is_secret(inputs.get("kubeconfig")):
        raise OpsError(f"the stack keeps its kubeconfig as a secret, which is not decrypted here: {_FLAGS}")
    return inputs.get("kubeconfig"), inputs.get("context")


def _reach(kubeconfig: Path | None, context: str | None) -> Kube:
    where = f"context {context or 'in use'} of {kubeconfig or 'your default kubeconfig'}"
    try:
        kube = Kube(kubeconfig, context)
        kube.request("GET", "/version", timeout=10)
    except (ConfigException, FileNotFoundError, yaml.YAMLError) as error:
        raise OpsError(f"{where} cannot be used: {error}") from None
    except ApiError as error:
        raise OpsError(f"the cluster of {where} cannot be looked at: {error.message}") from None
    return kube
