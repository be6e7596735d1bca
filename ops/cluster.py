"""Finding and reaching the cluster that a stack was deployed to."""

from __future__ import annotations

import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from kubernetes.config import ConfigException

from ops.errors import OpsError
from ops.kube import ApiError, Kube
from ops.pulumi import Pulumi
from ops.state import KUBERNETES_PROVIDER, Resource, State, is_secret, opened

_FLAGS = "name the cluster with --context, and with --kubeconfig where it is not in your default one"
_MINE = "the stack's own kubeconfig"

Settings = tuple[str | None, str | None]
"""Kubeconfig (a path or its content) and context of a provider."""


def add_arguments(parser: ArgumentParser) -> None:
    """The two flags with which a command's user names the cluster himself."""
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="default: what the stack's state names"
    )
    parser.add_argument("--context", metavar="NAME", help="default: what the stack's state names")


def connect(state: State, arguments: Namespace) -> Kube:
    """Reach the cluster named by the flags, else by the Kubernetes provider in the stack's state.

    A cluster that the stack made has its kubeconfig in the state as a secret: it is decrypted by `pulumi`, with
    whatever the stack's secrets provider needs, and only ever held in memory.
    """
    if arguments.kubeconfig or arguments.context:
        return _reach(arguments.kubeconfig, arguments.context)
    kubeconfig, context = _settings(state, arguments)
    content = _content(kubeconfig)
    if content is not None:
        _require_plugins(content)
        return _reach(content, context)
    return _reach(Path(kubeconfig).expanduser() if kubeconfig else None, context)


def providers(state: State) -> tuple[Resource, ...]:
    """The Kubernetes providers of the state; none where its cluster does not exist yet."""
    return tuple(r for r in state.resources if r.type == KUBERNETES_PROVIDER and not r.raw.get("delete"))


def _settings(state: State, arguments: Namespace) -> Settings:
    """Those of the one cluster that the state's providers name."""
    found = providers(state)
    if any(is_secret(provider.inputs.get("kubeconfig")) for provider in found):
        found = providers(State.parse(_opened(arguments)))
    explicit = {settings for settings in _named(found) if any(settings)}
    if len(explicit) == 1:
        return explicit.pop()
    what = "no cluster" if not explicit else f"{len(explicit)} clusters"
    raise OpsError(f"the stack's state names {what}: {_FLAGS}")


def _opened(arguments: Namespace) -> dict[str, Any]:
    try:
        return Pulumi(arguments.stack, arguments.project).opened()
    except OpsError as error:
        raise OpsError(
            f"{error}\nThe kubeconfig is one of them: log in to what encrypts them, or {_FLAGS}"
        ) from None


def _named(found: Iterable[Resource]) -> Iterable[Settings]:
    for provider in found:
        yield opened(provider.inputs.get("kubeconfig")), provider.inputs.get("context")


def _content(kubeconfig: str | None) -> Mapping[str, Any] | None:
    """What a kubeconfig says, where the state has its content and not a path."""
    try:
        read = yaml.safe_load(kubeconfig or "")
    except yaml.YAMLError:
        # Without its text: it may hold credentials.
        raise OpsError(f"{_MINE} is not YAML: {_FLAGS}") from None
    return read if isinstance(read, Mapping) else None


def _require_plugins(kubeconfig: Mapping[str, Any]) -> None:
    """The client only logs that a credential plugin is missing, and then asks as nobody."""
    for user in kubeconfig.get("users") or ():
        plugin = (user.get("user") or {}).get("exec")
        if plugin and shutil.which(plugin["command"]) is None:
            hint = plugin.get("installHint") or "Install it."
            raise OpsError(f"{_MINE} asks for the command {plugin['command']}, which is not on PATH. {hint}")


def _reach(kubeconfig: Path | Mapping[str, Any] | None, context: str | None) -> Kube:
    file = _MINE if isinstance(kubeconfig, Mapping) else kubeconfig or "your default kubeconfig"
    where = f"context {context or 'in use'} of {file}"
    try:
        kube = Kube(kubeconfig, context)
        kube.request("GET", "/version", timeout=10)
    except (ConfigException, FileNotFoundError, yaml.YAMLError) as error:
        raise OpsError(f"{where} cannot be used: {error}") from None
    except ApiError as error:
        raise OpsError(f"the cluster of {where} cannot be looked at: {error.message}") from None
    return kube
