"""What this machine has: commands, packages, the stack's backend and what is set in it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, urlsplit

from components.clusters.eks.kubeconfig import COMMAND
from components.clusters.gke.kubeconfig import PLUGIN
from ops.aws import AwsError
from ops.google import GoogleError
from ops.preflight.site import Site
from ops.preflight.verdicts import Collector
from ops.pulumi import CHECKOUT
from stacks.config import Problem
from stacks.config.kubeconfig import kubeconfig_problems
from stacks.eks import eks_problems
from stacks.gke import gke_problems
from stacks.ledger import key_problems
from stacks.limits import limits

COMMANDS = ("gcloud", "kubectl", PLUGIN, COMMAND)
_PIN = re.compile(r"([A-Za-z0-9_.-]+)==([^\s;]+)")
# What `up` imports, by kind of cluster; the files beside this checkout's stacks pin them.
_REQUIREMENTS = {
    "gke": ("requirements.txt", "requirements-gcp.txt"),
    "eks": ("requirements.txt", "requirements-aws.txt"),
}
PLUGINS = {"gke": ("gcp", "kubernetes", "random"), "eks": ("aws", "kubernetes", "random")}
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
class Bucket:
    """What a bucket lacks that keeps state, and the commands that give it that."""

    lacks: tuple[str, ...] = ()
    fix: str = ""


@dataclass(frozen=True)
class Backend:
    """Where the state is and who encrypts its secrets.

    `bucket` is known where it is one of the cluster's own cloud. `key` is AWS's word for the state of the encrypting
    key: "" where nobody was asked, `Enabled` where it can be used. `refused` and `key_refused` are a cloud's refusals.
    """

    url: str
    secrets: str
    bucket: Bucket | None = None
    refused: str = ""
    key: str = ""
    key_refused: str = ""


def problems(site: Site) -> tuple[Problem, ...]:
    """What this release cannot build of a valid configuration. OpsError lists what is invalid."""
    config = site.config
    return (
        *limits(config),
        *gke_problems(config),
        *eks_problems(config),
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
    """Bucket and key are looked at where they are of the cluster's own cloud."""
    url = site.pulumi.backend
    settings = site.settings
    secrets = str(settings.get("secretsprovider") or ("passphrase" if settings.get("encryptionsalt") else ""))
    found, parts = Backend(url, secrets), urlsplit(url)
    look = _BUCKETS.get((site.config.cluster.kind, parts.scheme))
    if look is not None:
        try:
            found = replace(found, bucket=look(site, parts.netloc, parts.query))
        except (GoogleError, AwsError) as error:
            found = replace(found, refused=error.message)
    return _with_key(site, found) if site.config.cluster.kind == "eks" else found


def _google_bucket(site: Site, name: str, _: str) -> Bucket:
    record = site.google.get("storage", f"b/{name}")
    iam = record.get("iamConfiguration") or {}
    faults = {
        "--versioning": not (record.get("versioning") or {}).get("enabled"),
        "--uniform-bucket-level-access": not (iam.get("uniformBucketLevelAccess") or {}).get("enabled"),
        "--public-access-prevention": iam.get("publicAccessPrevention") != "enforced",
    }
    flags = [flag for flag, missing in faults.items() if missing]
    fix = f"gcloud storage buckets update gs://{name} {' '.join(flags)}"
    return Bucket(tuple(flag.removeprefix("--") for flag in flags), fix if flags else "")


def _amazon_bucket(site: Site, name: str, query: str) -> Bucket:
    region = _region(query)
    versioned = (
        site.aws.call("s3api", "get-bucket-versioning", region, bucket=name).get("Status") == "Enabled"
    )
    block = "BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true"
    faults = {
        "versioning": (
            versioned,
            f"put-bucket-versioning --bucket {name} --versioning-configuration Status=Enabled",
        ),
        "public access block": (
            _never_public(site, name, region),
            f"put-public-access-block --bucket {name} --public-access-block-configuration {block}",
        ),
    }
    lacks = {what: fix for what, (good, fix) in faults.items() if not good}
    return Bucket(tuple(lacks), " && ".join(f"aws s3api {fix}" for fix in lacks.values()))


def _never_public(site: Site, name: str, region: str | None) -> bool:
    try:
        found = site.aws.call("s3api", "get-public-access-block", region, bucket=name)
    except AwsError as error:
        if error.code != "NoSuchPublicAccessBlockConfiguration":
            raise
        return False
    return all((found.get("PublicAccessBlockConfiguration") or {"": False}).values())


def _with_key(site: Site, found: Backend) -> Backend:
    """`awskms://alias/NAME?region=…`, or an id, or `awskms:///ARN?…`."""
    parts = urlsplit(found.secrets)
    if parts.scheme != "awskms":
        return found
    name = (parts.netloc + parts.path).removeprefix("/")
    try:
        record = site.aws.call("kms", "describe-key", _region(parts.query), key_id=name)["KeyMetadata"]
    except AwsError as error:
        return replace(found, key_refused=error.message)
    return replace(found, key=str(record["KeyState"]))


def _region(query: str) -> str | None:
    return next(iter(parse_qs(query).get("region", ())), None)


_BUCKETS: Mapping[tuple[str, str], Callable[[Site, str, str], Bucket]] = {
    ("gke", "gs"): _google_bucket,
    ("eks", "s3"): _amazon_bucket,
}
"""How a bucket is looked at, by kind of cluster and scheme of the backend's address."""


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
