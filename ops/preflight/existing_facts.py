"""What a cluster that is there already says about itself: one small collector per fact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.config import ConfigException

from components.clusters.handle import AcceleratorPool
from components.core import labels
from components.platform.platform import releases_of
from ops.errors import OpsError
from ops.kube import ApiError, Kube
from ops.preflight.site import Site
from ops.preflight.verdicts import Collector
from ops.references import Reference, references
from stacks import translate
from stacks.config import ExistingCluster

# What `up` makes in the cluster: API group and resource. Custom resources follow from their definitions.
OBJECTS = (
    ("", "configmaps"), ("", "namespaces"), ("", "secrets"), ("", "serviceaccounts"), ("", "services"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"), ("apps", "deployments"), ("batch", "jobs"),
    ("gateway.networking.k8s.io", "gateways"), ("networking.k8s.io", "networkpolicies"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"), ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "rolebindings"), ("rbac.authorization.k8s.io", "roles"),
    ("serving.kserve.io", "inferenceservices"), ("serving.kserve.io", "llminferenceservices"),
    ("serving.kserve.io", "servingruntimes"),
)  # fmt: skip
# Beside them, where namespaces have settings.
ALLOWANCES = (("", "limitranges"), ("", "resourcequotas"))
VERBS = ("create", "get", "list", "patch", "delete")
# Roles that allow more than the caller has: charts bring such.
MORE = (("rbac.authorization.k8s.io", "clusterroles", "escalate"),)
_HELM = "meta.helm.sh/release-"


@dataclass(frozen=True)
class Version:
    """The API server's URL and version."""

    server: str
    major: int
    minor: int
    full: str


@dataclass(frozen=True)
class Definition:
    """A custom resource definition: its API group and the Helm release (namespace/name) that owns it, if one does."""

    name: str
    group: str
    release: str
    bundle: str


@dataclass(frozen=True)
class Needs:
    """`releases` are (namespace, name) of the Helm releases, by operator; `pools` those of the configuration.

    `wanted` are nodes per pool for all replicas of the models.
    """

    managed: frozenset[str]
    provided: tuple[str, ...]
    releases: Mapping[str, frozenset[str]]
    bundles: Mapping[str, str]
    pools: Mapping[str, AcceleratorPool]
    wanted: Mapping[str, int]


@dataclass(frozen=True)
class Node:
    """A node: its labels, whether it is Ready, and what it can give."""

    name: str
    labels: Mapping[str, str]
    ready: bool
    allocatable: Mapping[str, str]


def needs(site: Site) -> Needs:
    """From the configuration alone."""
    config = site.config
    assert isinstance(config.cluster, ExistingCluster)
    managed, provided = translate.operators(config)
    settings = translate.kserve_args(config)
    wanted: dict[str, int] = {}
    for model in config.models.values():
        shape = config.cluster.accelerators[model.accelerator].shape()
        chips = config.tensor_parallel(model) * model.replicas
        nodes = -(-chips // shape.chips_per_node) * shape.nodes_per_replica
        wanted[model.accelerator] = wanted.get(model.accelerator, 0) + nodes
    return Needs(
        managed,
        provided,
        {
            name: frozenset(f"{spec.namespace}/{spec.name}" for spec in releases_of((name,), settings))
            for name in managed
        },
        {entry.name: entry.version for entry in site.locked.manifests.values()},
        translate.existing_cluster(config.cluster).accelerators,
        wanted,
    )


def reach(site: Site) -> Kube:
    """The cluster of the configured context, whatever the current one is."""
    cluster = site.config.cluster
    assert isinstance(cluster, ExistingCluster)
    file = Path(cluster.kubeconfig).expanduser() if cluster.kubeconfig else None
    where = f"context {cluster.context} of {file or 'your default kubeconfig'}"
    try:
        return Kube(file, cluster.context)
    except (ConfigException, FileNotFoundError, yaml.YAMLError) as error:
        raise OpsError(f"{where} cannot be used: {error}") from None


def version(site: Site) -> Version:
    kube = reach(site)
    try:
        told = kube.request("GET", "/version", timeout=10)
    except ApiError as error:
        raise OpsError(f"{kube.server} cannot be looked at: {error.message}") from None
    numbers = ["".join(c for c in told[part] if c.isdecimal()) for part in ("major", "minor")]
    return Version(kube.server, int(numbers[0]), int(numbers[1]), told.get("gitVersion", ""))


def definitions(site: Site) -> tuple[Definition, ...]:
    found = reach(site).list("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    return tuple(_definition(item) for item in found)


def _definition(item: Mapping[str, Any]) -> Definition:
    marks = item["metadata"].get("annotations") or {}
    owner = [marks.get(_HELM + part, "") for part in ("namespace", "name")]
    bundle = next((value for key, value in marks.items() if key.endswith("/bundle-version")), "")
    release = "/".join(owner) if all(owner) else ""
    return Definition(item["metadata"]["name"], item["spec"]["group"], release, bundle)


def namespaces(site: Site) -> Mapping[str, bool]:
    """Every namespace, and whether this program made it."""
    return {
        item["metadata"]["name"]: (item["metadata"].get("labels") or {}).get(labels.PART_OF) == "llm-platform"
        for item in reach(site).list("v1", "Namespace")
    }


def nodes(site: Site) -> tuple[Node, ...]:
    return tuple(_node(item) for item in reach(site).list("v1", "Node"))


def _node(item: Mapping[str, Any]) -> Node:
    status = item.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    return Node(
        item["metadata"]["name"],
        item["metadata"].get("labels") or {},
        ready,
        status.get("allocatable") or {},
    )


def refused(site: Site) -> tuple[str, ...]:
    """What the caller may not do, as `verb resource.group`, by the API server's own review."""
    kube = reach(site)
    objects = (*OBJECTS, *ALLOWANCES) if site.config.namespaces else OBJECTS
    wanted = [(group, resource, verb) for group, resource in objects for verb in VERBS]
    return tuple(_words(*asked) for asked in (*wanted, *MORE) if not _allowed(kube, *asked))


def _allowed(kube: Kube, group: str, resource: str, verb: str) -> bool:
    attributes = {"group": group, "resource": resource, "verb": verb}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = kube.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
    return bool(answer["status"].get("allowed"))


def _words(group: str, resource: str, verb: str) -> str:
    return f"{verb} {resource}" + (f".{group}" if group else "")


def kept_secrets(site: Site) -> Mapping[Reference, str | None]:
    """What is wrong with each Secret that somebody else keeps for the models; None where its namespace is not there."""
    kube, here = reach(site), namespaces(site)
    found = [(one, kube.get("v1", "Secret", one.name, one.namespace)) for one in references(site.config)]
    return {one: one.fault(live) if one.namespace in here else None for one, live in found}


COLLECTORS: Mapping[str, Collector] = {
    "needs": needs,
    "version": version,
    "definitions": definitions,
    "namespaces": namespaces,
    "nodes": nodes,
    "refused": refused,
    "kept_secrets": kept_secrets,
}
