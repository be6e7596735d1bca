"""References to secrets that the stack's own provider can read, and that something uses."""

from __future__ import annotations

from collections.abc import Iterator

from stacks.config.eks import EksCluster
from stacks.config.errors import PREFIX, Problem
from stacks.config.rules.draft import Draft, problem
from stacks.config.secret_sources import STORES


def stores(draft: Draft) -> Iterator[Problem]:
    """A cloud's store is read by the provider of that cloud, which only a cluster of its kind brings."""
    kind = draft.config.cluster.kind
    for name, source in draft.config.secrets.given().items():
        if source.store is None or not draft.knows("cluster", "kind") or STORES[source.store] == kind:
            continue
        other = next((store for store, owner in STORES.items() if owner == kind), None)
        ways = f"{other} or existing" if other else "existing"
        yield problem(
            ("secrets", name, source.store),
            f"a cluster of kind {kind} comes without a provider that reads it",
            "the value could not be had",
            f"use {ways}, or run: pulumi config set --secret {PREFIX}{name}",
        )


def regions(draft: Draft) -> Iterator[Problem]:
    """The deployer's policy holds in the cluster's region alone, and `up` reads there."""
    cluster = draft.config.cluster
    if not isinstance(cluster, EksCluster) or not draft.knows("cluster", "region"):
        return
    for name, source in draft.config.secrets.given().items():
        if source.region in (None, cluster.region):
            continue
        copy = f"--add-replica-regions Region={cluster.region} --region {source.region}"
        yield problem(
            ("secrets", name, "awsSecretsManager"),
            f"the secret is in {source.region}, and the cluster in {cluster.region}",
            "`up` could not read it: the deployer's policy holds in the cluster's region only",
            f"run: aws secretsmanager replicate-secret-to-regions --secret-id {source.name} {copy}, and write "
            f"{cluster.region} into the ARN, which is otherwise the replica's",
        )


def pull_secret(draft: Draft) -> Iterator[Problem]:
    """A registry login is given to the pods only where the platform is told to."""
    source = draft.config.secrets.pull_secret
    if source is not None and not draft.config.platform.image_pull_secret and draft.knows("platform"):
        yield problem(
            ("secrets", "pullSecret"),
            "platform.imagePullSecret is false, so no pod uses it",
            "private images could not be pulled",
            "set platform.imagePullSecret to true, or remove the reference",
        )


RULES = (stores, regions, pull_secret)
