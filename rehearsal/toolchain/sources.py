"""Which Go modules carry the charts and CRDs of the platform, and fetching those modules."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rehearsal.toolchain.golang import Go
from rehearsal.toolchain.store import Lock, Report
from rehearsal.toolchain.table import MODULES, requirements

SOURCES = "sources"  # the directory below modules/ that pins them


@dataclass(frozen=True)
class Source:
    """Where a chart (a directory) or the files of a manifest (a glob) lie in a Go module.

    `serves` is the lock file's version that the module is used for where the
    two number differently; otherwise they must be equal but for a leading v.
    A project's release fills some things in: `edits` are such lines of
    values.yaml, (old, new), and `fills_app_version` says that appVersion is one.
    """

    module: str
    path: str
    serves: str | None = None
    fills_app_version: bool = False
    edits: tuple[tuple[str, str], ...] = ()

    def version(self, pins: Mapping[str, str]) -> str:
        """The version in the lock file that this source can stand for."""
        return self.serves or pins[self.module]


def _istio(path: str, *edits: tuple[str, str]) -> Source:
    # No released version of this module can be had, only a later commit; its charts are used as 1.30.3's.
    return Source("istio.io/istio", f"manifests/charts/{path}", "1.30.3", True, edits)


def _kserve(chart: str) -> Source:
    return Source("github.com/kserve/kserve", f"charts/{chart}")


# By their names in the lock file. A chart that is not here becomes an empty stand-in.
CHARTS: Mapping[str, Source] = {
    "cert-manager": Source(
        "github.com/cert-manager/cert-manager", "deploy/charts/cert-manager", fills_app_version=True
    ),
    "istio-base": _istio("base"),
    "istiod": _istio(
        "istio-control/istio-discovery",
        ("    hub: registry.istio.io/testing", "    hub: docker.io/istio"),
        ("    tag: latest", "    tag: {version}"),
    ),
    "lws": Source(
        "sigs.k8s.io/lws",
        "charts/lws",
        edits=(
            ("    tag: main", "    tag: v{version}"),
            ("    pullPolicy: Always", "    pullPolicy: IfNotPresent"),
        ),
    ),
    "kserve-crd": _kserve("kserve-crd"),
    "kserve-resources": _kserve("kserve-resources"),
    "kserve-llmisvc-crd": _kserve("kserve-llmisvc-crd"),
    "kserve-llmisvc-resources": _kserve("kserve-llmisvc-resources"),
    "kserve-runtime-configs": _kserve("kserve-runtime-configs"),
}

MANIFESTS: Mapping[str, Source] = {
    "gateway-api": Source("sigs.k8s.io/gateway-api", "config/crd/standard/gateway*.yaml"),
    "gateway-api-inference-extension": Source(
        "sigs.k8s.io/gateway-api-inference-extension", "config/crd/bases/*.yaml"
    ),
}


# What Google puts into a cluster whose Gateway API is on, by name of the file; each GKE minor has pins of its own.
GATEWAY_API, POOLS = "gateway-api", "inference-pool"
GOOGLE: Mapping[str, Source] = {
    GATEWAY_API: Source("sigs.k8s.io/gateway-api", "config/crd/standard/gateway*.yaml"),
    "networking": Source(
        "github.com/GoogleCloudPlatform/gke-gateway-api", "config/crd/networking.gke.io_*.yaml"
    ),
    POOLS: Source(
        "sigs.k8s.io/gateway-api-inference-extension",
        "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml",
    ),
}


def google_pins(minor: str) -> str:
    """The directory below modules/ that pins what a GKE minor brings."""
    return f"gke-{minor}"


def download(go: Go, lock: Lock, report: Report, directory: str = SOURCES) -> dict[str, Path]:
    """The directory of each module that `directory` pins, fetched when it is not there yet.

    Each is asked for by name and version, which checks it against go.sum but
    resolves nothing: in one build they would push each other's versions up.
    """
    with tempfile.TemporaryDirectory() as scratch:
        module = shutil.copytree(MODULES / directory, Path(scratch) / directory)
        wanted = [f"{name}@{version}" for name, version in requirements(directory).items()]
        output = go.run("the charts' modules", ["mod", "download", "-json", *wanted], module, lock, report)
    return {found["Path"]: Path(found["Dir"]) for found in _json_objects(output)}


def _json_objects(text: str) -> list[dict[str, str]]:
    decoder, objects, position = json.JSONDecoder(), [], 0
    while position < len(text.rstrip()):
        found, end = decoder.raw_decode(text, position)
        objects.append(found)
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return objects
