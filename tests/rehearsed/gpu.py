"""The gpu stack in a simulated account, as its tests see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from components.core import labels
from ops.kube import Manifest
from rehearsal.cloud.node_groups import GROUP
from rehearsal.cloud.project import Project, State
from rehearsal.cloud.settings import Settings
from tests.rehearsed.conftest import MODELS, Outcome, Stack, conditions, ends

QUANTIZED, FULL, NAMESPACE = "mistral-24b-quantized", "mistral-24b", "llm-models"
GPUS, POWER, CLUSTER = "nvidia.com/gpu", "llm-platform:power", "llm-platform:cluster"
NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"


def settings(stack: Stack, **content: object) -> None:
    """Put settings of the simulated account into force, with an autoscaler that acts within seconds."""
    file = Settings.of(stack.paths.root).file
    file.parent.mkdir(parents=True, exist_ok=True)
    pace = {"idleSeconds": 5, "backoffSeconds": 3}
    file.write_text(yaml.safe_dump({"autoscaler": pace, **content}))


def account(stack: Stack) -> State:
    """What there is in the simulated account."""
    return Project.of(stack.paths.root).read()


def succeed(outcome: Outcome) -> Outcome:
    assert outcome.status == 0, outcome.output
    return outcome


def unchanged(stack: Stack) -> None:
    succeed(stack.run("preview", "--expect-no-changes"))


def set_model(stack: Stack, name: str = QUANTIZED, **fields: Any) -> None:
    """Change a model's entry, and leave the others."""
    stack.configure(MODELS, lambda models: {**models, name: {**models[name], **fields}})


def set_pool(stack: Stack, key: str = "l4", **fields: Any) -> None:
    """Change a pool's entry; None takes a field out."""

    def change(cluster: dict[str, Any]) -> dict[str, Any]:
        pools = cluster["accelerators"]
        pool = {k: v for k, v in {**pools[key], **fields}.items() if v is not None}
        return {**cluster, "accelerators": {**pools, key: pool}}

    stack.configure(CLUSTER, change)


def only(stack: Stack, *names: str) -> None:
    """Serve these models only."""
    stack.configure(MODELS, lambda models: {name: models[name] for name in names})


def replicas(stack: Stack, model: str = QUANTIZED) -> list[Manifest]:
    """The model's pods that serve: Ready, and not about to end."""
    selector = ",".join(f"{key}={value}" for key, value in labels.model_workload(model).items())
    found = stack.kube.list("v1", "Pod", NAMESPACE, selector)
    return [pod for pod in found if conditions(pod).get("Ready") == "True" and not ends(pod)]


def uids(pods: list[Manifest]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def nodes(stack: Stack, pool: str = "") -> dict[str, Manifest]:
    """The cluster's nodes by name: all of them, or those of one pool."""
    selector = f"{labels.POOL}={pool}" if pool else ""
    return {n["metadata"]["name"]: n for n in stack.kube.list("v1", "Node", selector=selector)}


def with_gpus(stack: Stack) -> set[str]:
    """The nodes whose GPUs are known."""
    return {name for name, node in nodes(stack).items() if GPUS in node["status"]["capacity"]}


def homes(stack: Stack, model: str = QUANTIZED) -> set[str]:
    """The pools that the model's replicas are on."""
    placed = {pod["spec"]["nodeName"] for pod in replicas(stack, model)}
    return {node["metadata"]["labels"][labels.POOL] for name, node in nodes(stack).items() if name in placed}


def group(stack: Stack, pool: str) -> Mapping[str, Any]:
    """The account's record of a pool's node group."""
    found = account(stack).of(GROUP).values()
    return next(r for r in found if r["inputs"]["labels"][labels.POOL] == pool)


def growths(stack: Stack, pool: str) -> int:
    """How often the autoscaler has asked for machines of a pool."""
    name = group(stack, pool)["inputs"]["nodeGroupName"]
    asked = [e for e in stack.kube.list("v1", "Event", NAMESPACE) if e["reason"] == "TriggeredScaleUp"]
    return sum(f"eks-{name}-" in event["message"] for event in asked)


def node_groups(outcome: Outcome) -> dict[str, str]:
    """What happened to which node groups."""
    steps = {urn: step["op"] for urn, step in outcome.steps.items() if f"{NODE_GROUP}::" in urn}
    return {urn.rsplit("::", 1)[1]: op for urn, op in steps.items() if op != "same"}
