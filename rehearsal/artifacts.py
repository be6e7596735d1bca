"""The charts and manifests of the platform's lock file, as a directory that a stack can install from.

A rehearsal has no chart repositories, but many projects keep their charts and
CRDs inside their Go modules. Each is packaged by the real Helm under the name
and version that the lock file asks for; a chart that no module carries becomes
an empty stand-in that says so. `sources.json` tells where each file came from.

    charts/<chart>-<version>.tgz    manifests/<name>-<version>.yaml    sources.json

What Google itself puts into a cluster with its Gateway API on is another directory, since no stack installs it:

    <GKE minor>/<name>.json    (lists of CustomResourceDefinitions)
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from rehearsal.cloud.releases import RELEASES
from rehearsal.paths import CHECKOUT
from rehearsal.toolchain import Store, ToolchainError, Tools, charts, golang
from rehearsal.toolchain.sources import (
    CHARTS,
    GOOGLE,
    MANIFESTS,
    POOLS,
    SOURCES,
    Source,
    download,
    google_pins,
)
from rehearsal.toolchain.store import Lock, Report, say
from rehearsal.toolchain.table import requirements

LOCK_FILE = CHECKOUT / "components" / "platform" / "lock.yaml"
NO_MODULE = "no Go module carries this chart"
RECIPE = "1"  # raise it when the same pins shall give different files

# GoogleCloudPlatform/gke-gateway-api, apis/networking/v1/healthcheck_types.go after v1.3.0: what it demands, in our
# words. Unset values are 5 seconds both.
_PORT = (
    "has(self.{0}.port) || !has(self.{0}.portSpecification) || self.{0}.portSpecification != 'USE_FIXED_PORT'"
)
_CHECKS = tuple(f"{kind}HealthCheck" for kind in ("http", "https", "http2", "grpc", "tcp"))
ADDED_RULES: Mapping[str, Mapping[str, Sequence[Mapping[str, str]]]] = {
    "healthcheckpolicies.networking.gke.io": {
        "spec.default": (
            {
                "rule": "(has(self.checkIntervalSec) ? self.checkIntervalSec : 5) >= "
                "(has(self.timeoutSec) ? self.timeoutSec : 5)",
                "message": "checkIntervalSec must not be less than timeoutSec",
            },
        ),
        "spec.default.config": tuple(
            {
                "rule": f"!has(self.{kind}) || {_PORT.format(kind)}",
                "message": "port must be given with USE_FIXED_PORT",
            }
            for kind in _CHECKS
        ),
    }
}

Modules = Mapping[str, Path]
"""The directory of each Go module."""


@dataclass(frozen=True)
class Wanted:
    """One entry of the lock file: `name` is ours, `chart` the chart's own name (equal for a manifest)."""

    name: str
    version: str
    chart: str


@dataclass(frozen=True)
class Lockfile:
    """What the lock file asks for."""

    charts: tuple[Wanted, ...]
    manifests: tuple[Wanted, ...]


def ensure(
    tools: Tools,
    report: Report = say,
    store: Store | None = None,
    lock_file: Path = LOCK_FILE,
    modules: Callable[[Lock, Report], Modules] | None = None,
) -> Path:
    """The artifacts directory for the platform's lock file, made once per content and kept in the cache.

    `tools` must have helm. Raises ToolchainError.
    """
    lockfile = read_lock_file(lock_file)
    pins = requirements(SOURCES)
    check(lockfile, pins)
    store = store or Store()
    entry = f"artifacts/{_key(lockfile, pins, tools.binary('helm'))}"
    if not store.has(entry):
        with store.lock(report) as lock:
            if not store.has(entry):
                report(f"fetching the {len(pins)} modules that carry charts and CRDs")
                found = (modules or _download)(lock, report)
                report(f"packaging {len(lockfile.charts)} charts and {len(lockfile.manifests)} manifests")
                lock.add(entry, lambda d: fill(d, lockfile, found, pins, tools.binary("helm")))
    return store.path(entry)


def ensure_google(
    report: Report = say,
    store: Store | None = None,
    modules: Callable[[str, Lock, Report], Modules] | None = None,
) -> Path:
    """The definitions that Google brings, for every GKE minor that is offered; made once and kept in the cache.

    Raises ToolchainError.
    """
    pins = {minor: requirements(google_pins(minor)) for minor in RELEASES}
    # The edition of InferencePool is the platform's own (rehearsal/cloud/releases.py).
    own = {GOOGLE[POOLS].module: requirements(SOURCES)[GOOGLE[POOLS].module]}
    store = store or Store()
    sources = {name: asdict(source) for name, source in GOOGLE.items()}
    content = json.dumps([RECIPE, pins, own, sources, ADDED_RULES], sort_keys=True)
    entry = f"google/{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if not store.has(entry):
        with store.lock(report) as lock:
            if not store.has(entry):
                report("fetching the definitions that Google's Gateway API brings")
                fetch = modules or _download_google
                found = {minor: fetch(minor, lock, report) for minor in RELEASES}
                lock.add(entry, lambda d: fill_google(d, found))
    return store.path(entry)


def fill_google(directory: Path, modules: Mapping[str, Modules]) -> None:
    """One file for every source and minor, with nothing but definitions in it."""
    for minor, found in modules.items():
        (directory / minor).mkdir()
        for name, source in GOOGLE.items():
            documents = yaml.safe_load_all(_concatenate(found[source.module], source.path))
            kept = [_stricter(d) for d in documents if d and d["kind"] == "CustomResourceDefinition"]
            (directory / minor / f"{name}.json").write_text(json.dumps(kept, sort_keys=True))


def _stricter(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition with the rules that Google added after the last edition that can be had as a module."""
    for path, rules in ADDED_RULES.get(definition["metadata"]["name"], {}).items():
        for version in definition["spec"]["versions"]:
            place = version["schema"]["openAPIV3Schema"]
            for name in path.split("."):
                place = place["properties"][name]
            place["x-kubernetes-validations"] = [*place.get("x-kubernetes-validations", ()), *rules]
    return definition


def _download_google(minor: str, lock: Lock, report: Report) -> Modules:
    go = golang.find(lock, report)
    own = download(go, lock, report)
    return {**own, **download(go, lock, report, google_pins(minor))}


def read_lock_file(file: Path = LOCK_FILE) -> Lockfile:
    """Names and versions from the platform's lock file; the rest of it does not matter here."""
    content = yaml.safe_load(file.read_text())

    def section(name: str) -> tuple[Wanted, ...]:
        items = content.get(name) or []
        return tuple(Wanted(i["name"], str(i["version"]), i.get("chart") or i["name"]) for i in items)

    return Lockfile(section("charts"), section("manifests"))


def check(lockfile: Lockfile, pins: Mapping[str, str]) -> None:
    """Refuse a lock file whose versions are not those of the pinned modules, naming all of them at once."""
    problems = [f"manifest {m.name} has no module" for m in lockfile.manifests if m.name not in MANIFESTS]
    for items, sources in ((lockfile.charts, CHARTS), (lockfile.manifests, MANIFESTS)):
        for item in items:
            source = sources.get(item.name)
            if source and source.version(pins).lstrip("v") != item.version.lstrip("v"):
                there = f"the module {source.module} {pins[source.module]} has {source.version(pins)}"
                problems.append(f"{item.name} {item.version} is wanted, but {there}")
    if problems:
        raise ToolchainError(
            "The rehearsal cannot provide what components/platform/lock.yaml asks for:\n"
            + "".join(f"  {problem}\n" for problem in problems)
            + "Change both together: rehearsal/toolchain/modules/sources/go.mod and go.sum pin the modules, "
            "rehearsal/toolchain/sources.py says what they hold."
        )


def fill(directory: Path, lockfile: Lockfile, modules: Modules, pins: Mapping[str, str], helm: Path) -> None:
    """Make every chart, every manifest and sources.json in `directory`, the same bytes each time."""
    origins = {}
    for kind in ("charts", "manifests"):
        (directory / kind).mkdir()
    for item in lockfile.charts:
        file = directory / "charts" / f"{item.chart}-{item.version}.tgz"
        source = CHARTS.get(item.name)
        _package(item, source, modules, helm, file)
        origins[f"charts/{file.name}"] = _origin(source, pins)
    for item in lockfile.manifests:
        file = directory / "manifests" / f"{item.name}-{item.version}.yaml"
        source = MANIFESTS[item.name]
        file.write_text(_concatenate(modules[source.module], source.path))
        origins[f"manifests/{file.name}"] = _origin(source, pins)
    (directory / "sources.json").write_text(json.dumps(origins, indent=1, sort_keys=True) + "\n")


def _download(lock: Lock, report: Report) -> Modules:
    return download(golang.find(lock, report), lock, report)


def _key(lockfile: Lockfile, pins: Mapping[str, str], helm: Path) -> str:
    sources = {name: asdict(source) for name, source in {**CHARTS, **MANIFESTS}.items()}
    content = json.dumps([RECIPE, asdict(lockfile), pins, sources, helm.parent.name], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _package(item: Wanted, source: Source | None, modules: Modules, helm: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        chart = Path(scratch) / item.chart
        if source:
            edits = [(old, new.format(version=item.version)) for old, new in source.edits]
            charts.copy(modules[source.module] / source.path, chart, edits)
        else:
            charts.stand_in(chart, item.version, NO_MODULE)
        app_version = item.version if source and source.fills_app_version else None
        charts.package(helm, chart, item.version, app_version, target)


def _concatenate(module: Path, pattern: str) -> str:
    """All documents of the matching files, in the order of their names."""
    texts = [file.read_text().strip().removeprefix("---\n") for file in sorted(module.glob(pattern))]
    if not texts:
        raise ToolchainError(
            f"No file matches {pattern} in {module.name}: see rehearsal/toolchain/sources.py."
        )
    return "\n---\n".join(texts) + "\n"


def _origin(source: Source | None, pins: Mapping[str, str]) -> dict[str, str]:
    if source is None:
        return {"unavailable": NO_MODULE}
    return {"module": f"{source.module}@{pins[source.module]}", "path": source.path}
