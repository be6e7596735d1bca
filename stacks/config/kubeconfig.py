"""The kubeconfig of an existing cluster: read early, so that a wrong context is a configuration error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stacks.config.cluster import Cluster, ExistingCluster
from stacks.config.errors import Problem, choice, path_of


def kubeconfig_paths(kubeconfig: str | None, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The files that kubectl would merge: the configured one, else KUBECONFIG's, else the user's."""
    if kubeconfig is not None:
        return [Path(kubeconfig).expanduser()]
    listed = [Path(entry) for entry in environ.get("KUBECONFIG", "").split(os.pathsep) if entry]
    return listed or [Path(environ.get("HOME", "~")).expanduser() / ".kube" / "config"]


def kubeconfig_problems(cluster: Cluster, environ: Mapping[str, str] = os.environ) -> list[Problem]:
    """A kubeconfig that cannot be read, or lacks the context.

    Files that are not there are no problem: a preview works before the cluster exists.
    """
    if cluster.kind != "existing":
        return []
    files = [path for path in kubeconfig_paths(cluster.kubeconfig, environ) if path.is_file()]
    place = path_of("cluster", "kubeconfig")
    contexts: list[str] = []
    for path in files:
        try:
            contexts += _contexts(path)
        except (OSError, ValueError) as fault:
            fix = "correct it, or set cluster.kubeconfig to another file"
            return [Problem(place, f"{path}: {fault}", "the cluster cannot be reached", fix)]
    if not files or cluster.context in contexts:
        return []
    return [
        Problem(
            path_of("cluster", "context"),
            f'{", ".join(str(path) for path in files)} has no context "{cluster.context}"',
            "the stack would not know its cluster",
            choice(cluster.context, contexts) if contexts else "add the context, or set cluster.kubeconfig",
        )
    ]


def server_of(cluster: ExistingCluster, environ: Mapping[str, str] = os.environ) -> str | None:
    """The API server's URL behind the stack's context; None where only a kubectl could tell (a proxy, no file)."""
    content: dict[str, list[Any]] = {"contexts": [], "clusters": []}
    for path in kubeconfig_paths(cluster.kubeconfig, environ):
        if path.is_file():
            file = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            for key, entries in content.items():
                entries += file.get(key) or []
    names = [c["context"]["cluster"] for c in content["contexts"] if c["name"] == cluster.context]
    found = [c["cluster"] for c in content["clusters"] if c["name"] in names]
    return found[0].get("server") if found and not found[0].get("proxy-url") else None


def _contexts(path: Path) -> list[str]:
    """The contexts of one file. Raises `ValueError` that says what is wrong, without its content."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ValueError("it is not YAML") from None
    match content:
        case None:
            return []
        case {"contexts": [*entries]}:
            return [str(one["name"]) for one in entries if isinstance(one, dict) and "name" in one]
        case {"contexts": None}:
            return []
        case _:
            raise ValueError("it is not a kubeconfig")
