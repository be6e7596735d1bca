"""What this machine has: commands, packages, the stack's backend and what is set in it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.clusters.gke.kubeconfig import PLUGIN
from ops.google import GoogleError
from ops.preflight.site import Site
from ops.preflight.verdicts import Collector
from ops.pulumi import CHECKOUT
from stacks.config import Problem
from stacks.config.kubeconfig import kubeconfig_problems
from stacks.gke import gke_problems
from stacks.ledger import key_problems
from stacks.limits import limits

COMMANDS = ("gcloud", "kubectl", PLUGIN)
_PIN = re.compile(r"([A-Za-z0-9_.-]+)==([^\s;]+)")
# What `up` imports, by kind of cluster; the files beside this checkout's stacks pin them.
_REQUIREMENTS = {"gke": ("requirements.txt", "requirements-gcp.txt")}
PLUGINS = {"gke": ("gcp", "kubernetes", "random")}
EVERYWHERE = ("kubernetes", "random")


@dataclass(frozen=True)
class Tools:
    """Paths of commands (None where one is missing), the CLI's version, and plugins that are there already."""

    commands: Mapping[str, str | None]
    pulumi: str
    plugins: Mapping[str, frozenset[str]]
    acquires: bool


@dataclass(frozen=True)
class Package:
    """A Python package as it is pinned, and as it is installed."""

    name: str
    pinned: str
    installed: str | None


@dataclass(frozen=True)
class Backend:
    """Where the state is and who encrypts its secrets; `bucket` is its record where it is one of Google's."""

    url: str
    secrets: str
    bucket: Mapping[str, Any] | None = None
    refused: str = ""


def problems(site: Site) -> tuple[Problem, ...]:
    """What this release cannot build of a valid configuration. OpsError lists what is invalid."""
    config = site.config
    return (
        *limits(config),
        *gke_problems(config),
        *key_problems(config, site.stack, site.project),
        *kubeconfig_problems(config.cluster, site.environ),
    )


def tools(site: Site) -> Tools:
    path = site.environ.get("PATH")
    version = site.pulumi.call("version").strip().removeprefix("v")
    listed = json.loads(site.pulumi.call("plugin", "ls", "--json"))
    found: dict[str, set[str]] = {}
    for plugin in listed:
        if plugin.get("kind") == "resource":
            found.setdefault(plugin["name"], set()).add(str(plugin.get("version") or ""))
    return Tools(
        {name: shutil.which(name, path=path) for name in COMMANDS},
        version,
        {name: frozenset(versions) for name, versions in found.items()},
        site.environ.get("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "").lower() not in ("true", "1"),
    )


def packages(site: Site) -> tuple[Package, ...]:
    """The pinned packages of this stack's kind of cluster."""
    files = _REQUIREMENTS.get(site.config.cluster.kind, ("requirements.txt",))
    text = "\n".join((CHECKOUT / name).read_text(encoding="utf-8") for name in files)
    return tuple(Package(name, pinned, _installed(name)) for name, pinned in _PIN.findall(text))


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def wanted_plugins(site: Site) -> Mapping[str, str | None]:
    """Provider plugins and the version that the SDK asks for."""
    names = PLUGINS.get(site.config.cluster.kind, EVERYWHERE)
    return {name: _installed(f"pulumi-{name}") for name in names}


def backend(site: Site) -> Backend:
    """The bucket is looked at where it is Google's."""
    url = site.pulumi.backend
    settings = site.settings
    secrets = str(settings.get("secretsprovider") or ("passphrase" if settings.get("encryptionsalt") else ""))
    if not url.startswith("gs://") or site.config.cluster.kind != "gke":
        return Backend(url, secrets)
    name = url.removeprefix("gs://").split("/", 1)[0].split("?", 1)[0]
    try:
        return Backend(url, secrets, site.google.get("storage", f"b/{name}"))
    except GoogleError as error:
        return Backend(url, secrets, None, error.message)


def addresses(site: Site) -> tuple[str, ...]:
    """What the gateway's host name stands for now; nothing where it stands for nothing."""
    host = site.config.gateway.host
    if host is None:
        return ()
    try:
        found = site.resolve(host, 443)
    except OSError:
        return ()
    return tuple(sorted({str(entry[4][0]) for entry in found}))


COLLECTORS: Mapping[str, Collector] = {
    "config": lambda site: site.config,
    "problems": problems,
    "stack": lambda site: site.stack,
    "set": lambda site: site.secret_keys(),
    "tools": tools,
    "packages": packages,
    "plugins": wanted_plugins,
    "backend": backend,
    "addresses": addresses,
}
