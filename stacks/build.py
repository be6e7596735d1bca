"""A whole stack: configuration in, resources and outputs out."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pulumi

from components.platform.artifacts import ArtifactError, resolve
from components.platform.lock import load_lock
from components.platform.platform import manifests_of, releases_of
from stacks import memory, storage, translate
from stacks.config import ConfigError, Problem, Secrets, StackConfig, from_pulumi
from stacks.config.errors import path_of
from stacks.config.kubeconfig import kubeconfig_paths, server_of
from stacks.cost import summary
from stacks.gke import gke_problems
from stacks.layers import build_cluster, build_platform, build_serving
from stacks.ledger import key_problems
from stacks.limits import limits
from stacks.reach import reachable
from stacks.rollouts import announcement, rollouts


def main() -> None:
    """Runs the stack that Pulumi has selected. What is wrong with it is said in its own words, without a traceback."""
    # The SDK keeps every future until the program ends, so collecting cycles finds nothing and costs half of
    # the time that a hundred models take (benchmarks/program.py). The process is gone when the work is done.
    gc.disable()
    try:
        config, secrets = from_pulumi(pulumi.Config())
        outputs = build(config, secrets)
    except (ConfigError, ArtifactError) as refusal:
        raise pulumi.RunError(str(refusal)) from None
    for key, value in outputs.items():
        pulumi.export(key, value)


def build(config: StackConfig, secrets: Secrets) -> dict[str, Any]:
    """Registers every resource of the stack and returns its outputs.

    Everything that can be refused is refused before the first resource: raises ConfigError
    and ArtifactError.
    """
    stack = pulumi.get_stack()
    if problems := [*limits(config), *gke_problems(config), *key_problems(config, stack, Path.cwd())]:
        raise ConfigError(problems)
    if config.cluster.kind == "existing":
        _check_kubeconfig(config)
    if pulumi.runtime.is_dry_run() and config.models:
        # Outputs show in a preview only where they change, and what a change takes is mostly as it was.
        said = (announcement(config), memory.announcement(config), storage.announcement(config))
        pulumi.log.info("\n".join(filter(None, said)))
    lock = load_lock()
    managed, provided = translate.operators(config)
    charts = (spec.name for spec in releases_of(managed, translate.kserve_args(config)))
    artifacts = resolve(lock, charts, manifests_of(managed), translate.artifact_source(config))
    cluster = build_cluster(config)
    platform = build_platform(config, cluster, artifacts, lock)
    serving = build_serving(config, secrets, cluster, platform, lock, stack)
    return {
        "cluster": cluster.description,
        "gateway_address": serving.gateway.address,
        "base_url": serving.gateway.url.apply(lambda url: f"{url}/v1"),
        "model_urls": serving.urls,
        **({"model_headers": headers} if (headers := translate.model_headers(config)) else {}),
        "model_namespaces": {name: model.namespace for name, model in sorted(config.models.items())},
        "load_budgets_seconds": {name: m.load_budget_seconds for name, m in sorted(config.models.items())},
        **({} if cluster.kubeconfig is None else {"kubeconfig": cluster.kubeconfig}),
        "rollouts": {name: str(plan) for name, plan in rollouts(config).items()},
        "memory": memory.memory(config),
        "power": config.power,
        "estimate": summary(config),
        "time_to_ready": translate.time_to_ready(config),
        "operators": {"installed": dict(platform.versions), "provided": list(provided)},
        "kept_on_destroy": list(platform.kept),
    }


def _check_kubeconfig(config: StackConfig) -> None:
    """Without a kubeconfig a preview still shows the plan; a change is refused before it begins."""
    paths = kubeconfig_paths(config.cluster.kubeconfig)
    if any(path.is_file() for path in paths):
        if pulumi.runtime.is_dry_run() and not reachable(server_of(config.cluster)):
            # The provider itself says nothing in a preview, and refuses in `up`.
            pulumi.log.warn(
                f"the cluster of context {config.cluster.context} cannot be reached: the plan is shown as for an "
                "empty cluster, and `up` will refuse"
            )
        return
    where = ", ".join(str(path) for path in paths)
    if pulumi.runtime.is_dry_run():
        pulumi.log.warn(
            f"{where} does not exist: the plan is shown as for an empty cluster, and `up` will refuse"
        )
        return
    raise ConfigError(
        [
            Problem(
                path_of("cluster", "kubeconfig"),
                f"{where} does not exist",
                "the cluster cannot be reached",
                "create the cluster, or set KUBECONFIG or cluster.kubeconfig to its file",
            )
        ]
    )
