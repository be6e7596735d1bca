"""Configuration to what a namespace of models gets: quota, limits, team, and the credentials of its pods."""

from __future__ import annotations

import asyncio
import json

import pulumi

from components.clusters.handle import ClusterHandle
from components.core.accelerators import ACCELERATORS
from components.core.manifest import drop_none
from components.serving.isolation import Credential
from components.serving.manifests import quota
from components.serving.manifests.quota import LimitsSpec, QuotaSpec
from components.serving.manifests.team import TeamSpec
from stacks.config import StackConfig
from stacks.config.errors import path_of
from stacks.config.load import is_docker_config
from stacks.config.namespaces import NamespaceLimits, default_memory_limit
from stacks.config.secret_sources import SecretSource


def quota_spec(namespace: str, config: StackConfig) -> QuotaSpec | None:
    """The quota of a namespace; chips are those of the accelerators that its models use."""
    settings = config.namespaces.get(namespace)
    if settings is None or settings.quota is None:
        return None
    given = settings.quota
    named = {
        quota.CPU: given.cpu,
        quota.MEMORY: given.memory,
        quota.MEMORY_LIMITS: given.memory_limits,
        **dict.fromkeys(_chips(namespace, config), given.chips),
        quota.PODS: given.pods,
        quota.CLAIMS: given.claims,
        quota.STORAGE: given.storage,
    }
    return QuotaSpec(namespace=namespace, hard={name: str(value) for name, value in drop_none(named).items()})


def _chips(namespace: str, config: StackConfig) -> list[str]:
    pools = config.cluster.accelerators
    here = (model for model in config.models.values() if model.namespace == namespace)
    kinds = {ACCELERATORS[pools[model.accelerator].shape().accelerator].resource for model in here}
    return [quota.chips(resource) for resource in sorted(kinds)]


def limits_spec(namespace: str, config: StackConfig) -> LimitsSpec | None:
    """The defaults and maxima of a namespace's containers: as written, and the usual ones below a quota."""
    settings = config.namespaces.get(namespace)
    if settings is None or (settings.limits is None and settings.quota is None):
        return None
    limits = settings.limits or NamespaceLimits()
    return LimitsSpec(
        namespace=namespace,
        requests={"cpu": limits.cpu_request, "memory": limits.memory_request},
        limits=drop_none({"cpu": limits.max_cpu, "memory": default_memory_limit(settings)}),
        largest=drop_none({"cpu": limits.max_cpu, "memory": limits.max_memory}),
    )


def team_spec(namespace: str, config: StackConfig) -> TeamSpec | None:
    """Who may look into a namespace, beside the cluster's administrators."""
    settings = config.namespaces.get(namespace)
    if settings is None or settings.team is None:
        return None
    return TeamSpec(namespace=namespace, groups=settings.team.groups, edits=settings.team.role == "edit")


def credential(
    name: str, value: pulumi.Output[str] | None, source: SecretSource | None, cluster: ClusterHandle
) -> Credential:
    """One credential: the `value` that the stack's configuration holds, or what its source does.

    A store of the cloud is asked in `up` alone. Whoever may preview need not be able to read the secret.
    """
    if source is None:
        return Credential(value=value)
    if source.store is None:
        return Credential(existing=source.existing)
    if pulumi.runtime.is_dry_run():
        return Credential(value=_unknown(), unread=True)
    if cluster.read_secret is None:
        raise TypeError(f"a cluster in {cluster.cloud} has no store of secrets")
    text = cluster.read_secret(source.name)
    return Credential(value=text.apply(lambda found: _checked(name, source, found)))


def _unknown() -> pulumi.Output[str]:
    """A secret whose value is not known."""
    known, secret, value = (asyncio.Future() for _ in range(3))  # type: ignore[var-annotated]
    known.set_result(False)
    secret.set_result(True)
    value.set_result(None)
    return pulumi.Output(set(), value, known, secret)


def _checked(name: str, source: SecretSource, text: str) -> str:
    """The value in a store's text. Raises RunError, which never shows any of it."""
    value = text if source.key is None else _inner(name, source, text)
    # Whoever stores a token from a file stores the end of its line as well.
    value = value.strip()
    if not value:
        raise _wrong(name, source, "is empty", "no download could use it", "store the value")
    if name == "pullSecret" and not is_docker_config(value):
        raise _wrong(
            name,
            source,
            "is not a Docker config JSON with auths",
            "the nodes could not pull the images",
            "store the content of a config.json",
        )
    return value


def _inner(name: str, source: SecretSource, text: str) -> str:
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        document = None
    found = document.get(source.key) if isinstance(document, dict) else None
    if isinstance(found, dict):
        return json.dumps(found)
    if not isinstance(found, str):
        wrong = f'is not a JSON object with the key "{source.key}"'
        raise _wrong(name, source, wrong, "the value could not be found", "correct key, or remove it")
    return found


def _wrong(name: str, source: SecretSource, wrong: str, consequence: str, fix: str) -> pulumi.RunError:
    return pulumi.RunError(f"{path_of('secrets', name)}: {source} {wrong}; {consequence}. Fix: {fix}.")
