"""Kubeconfigs: from a path or from their content, reduced to the one cluster that is meant."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


class BadKubeconfig(Exception):
    """No usable kubeconfig: the plugin then treats the cluster as unreachable."""


@dataclass(frozen=True)
class Target:
    """One cluster, one user, one context: `document` is a kubeconfig of just these, certificates as data."""

    document: dict[str, Any]
    server: str
    authority: bytes
    namespace: str


def load(path_or_content: str) -> tuple[dict[str, Any], Path]:
    """Parse a kubeconfig given as a path (`~` allowed) or as text; an empty one means the user's own.

    Returns the document and the directory that relative paths in it start from.
    """
    ambient = os.environ.get("KUBECONFIG") or "~/.kube/config"
    path = Path(path_or_content or ambient).expanduser() if len(path_or_content) < 4096 else None
    try:
        found = path is not None and path.is_file()
    except OSError:
        found = False
    if not found and not path_or_content:
        raise BadKubeconfig(f"there is no kubeconfig at {path}")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8") if path and found else path_or_content)
    except (yaml.YAMLError, OSError) as error:
        raise BadKubeconfig(f"the kubeconfig cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise BadKubeconfig(f"{path_or_content!r} is neither a file nor the content of a kubeconfig")
    return document, path.parent if path and found else Path.cwd()


def select(document: dict[str, Any], base: Path, context: str = "", cluster: str = "") -> Target:
    """Choose a context (default the current one) and, over it, a cluster; BadKubeconfig if they do not exist."""
    name = context or document.get("current-context") or ""
    chosen = _named(document, "contexts", "context", name)
    entry = _inlined(_named(document, "clusters", "cluster", cluster or chosen.get("cluster", "")), base)
    user = _inlined(_named(document, "users", "user", chosen["user"]), base) if chosen.get("user") else {}
    namespace = chosen.get("namespace") or "default"
    reduced = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "rehearsal",
        "contexts": [{"name": "rehearsal", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "clusters": [{"name": "c", "cluster": entry}],
        "users": [{"name": "u", "user": user}],
    }
    authority = base64.b64decode(entry.get("certificate-authority-data", ""))
    return Target(reduced, entry.get("server", ""), authority, namespace)


def trusting(target: Target, server: str, authority: bytes) -> Target:
    """The target, with the authority of `server` where it is meant and none is named.

    Google's kubeconfig for a cluster's DNS endpoint names none: a public authority signs for it, and for the
    one server of a rehearsal this is the rehearsal's.
    """
    if target.authority or not authority or target.server != server:
        return target
    data = base64.b64encode(authority).decode()
    entry = {**target.document["clusters"][0]["cluster"], "certificate-authority-data": data}
    document = {**target.document, "clusters": [{"name": "c", "cluster": entry}]}
    return Target(document, target.server, authority, target.namespace)


def active_cluster(path_or_content: Any, context: Any, cluster: Any) -> Any:
    """The cluster entry that a provider's inputs mean, or None; used to tell whether the cluster changed."""
    try:
        document, base = load(path_or_content or "")
        return _active(document, base, context or "", cluster or "")
    except BadKubeconfig:
        return None


def _active(document: dict[str, Any], base: Path, context: str, cluster: str) -> Any:
    chosen = _named(document, "contexts", "context", context or document.get("current-context") or "")
    return _named(document, "clusters", "cluster", cluster or chosen.get("cluster", ""))


def _named(document: dict[str, Any], section: str, field: str, name: str) -> dict[str, Any]:
    entries = {entry.get("name"): entry.get(field) or {} for entry in document.get(section) or []}
    if name not in entries:
        known = ", ".join(sorted(str(entry) for entry in entries)) or "none"
        raise BadKubeconfig(f'{field} "{name}" does not exist in the kubeconfig, which has: {known}')
    return entries[name]


def _inlined(entry: dict[str, Any], base: Path) -> dict[str, Any]:
    """The entry with certificate files replaced by their content, so that it can be stored elsewhere."""
    result = dict(entry)
    for field in ("certificate-authority", "client-certificate", "client-key"):
        if field in result:
            try:
                content = (base / result.pop(field)).read_bytes()
            except OSError as error:
                raise BadKubeconfig(f"{field} of the kubeconfig cannot be read: {error}") from None
            result.setdefault(f"{field}-data", base64.b64encode(content).decode())
    return result
