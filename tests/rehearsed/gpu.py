"""The gpu stack in a simulated account, as its tests see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.core import labels
from components.core.services import ServiceKind, kind_of
from ops.kube import Manifest
from rehearsal.cloud.node_groups import GROUP
from rehearsal.cloud.project import Project, State
from tests.rehearsed.conftest import MODELS, Outcome, Stack, conditions, ends, eventually, succeed

QUANTIZED, FULL, NAMESPACE = "mistral-24b-quantized", "mistral-24b", "llm-models"
GPUS, POWER, CLUSTER = "nvidia.com/gpu", "llm-platform:power", "llm-platform:cluster"
NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"


def account(stack: Stack) -> State:
    """What there is in the simulated account."""
    return Project.of(stack.paths.root).read()


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


def kind(stack: Stack, model: str) -> ServiceKind:
    """What KServe serves the model as."""
    return kind_of(stack.in_force(MODELS)[model].get("runtime"))


def replicas(stack: Stack, model: str = QUANTIZED) -> list[Manifest]:
    """The model's pods that serve: Ready, and not about to end."""
    selector = ",".join(f"{key}={value}" for key, value in kind(stack, model).pods(model).items())
    found = stack.kube.list("v1", "Pod", NAMESPACE, selector)
    return [pod for pod in found if conditions(pod).get("Ready") == "True" and not ends(pod)]


def on_their_gpus(stack: Stack) -> None:
    """Each model has one replica, on as many GPUs as it asks for, and KServe calls it Ready."""
    for name, gpus, pool in ((QUANTIZED, "1", "l4-on-demand"), (FULL, "4", "l4x4-on-demand")):
        (pod,) = replicas(stack, name)
        engine = next(c for c in pod["spec"]["containers"] if c["name"] == kind(stack, name).engine)
        assert engine["resources"]["limits"][GPUS] == engine["resources"]["requests"][GPUS] == gpus
        assert homes(stack, name) == {pool}
        eventually(lambda name=name: _ready(stack, name), f"KServe calls {name} Ready")


def _ready(stack: Stack, model: str) -> bool:
    what = kind(stack, model)
    found = stack.kube.get(what.api_version, what.kind, model, NAMESPACE)
    return found is not None and conditions(found).get("Ready") == "True"


def answered(stack: Stack) -> None:
    """Both models answer at the gateway, which lists them and no others."""
    with stack.client() as client:
        for name in (QUANTIZED, FULL):
            answer = client.ask(None, name)
            assert answer.error == (200, None), (name, answer.body)
            assert answer.json["model"] == name
        listed = client.request("GET", "/v1/models")
    assert {model["id"] for model in listed.json["data"]} == {QUANTIZED, FULL}


def destroyed(stack: Stack) -> None:
    """Nothing is left after `destroy`: in the account, in the cluster, and in the state."""
    assert not account(stack).empty
    succeed(stack.run("destroy"))
    assert account(stack).empty, account(stack).document()["resources"]
    assert nodes(stack) == {}
    assert stack.kube.list("v1", "PersistentVolumeClaim", NAMESPACE) == []
    assert stack.kube.list("v1", "PersistentVolume") == []
    assert [r for r in stack.exported() if r["type"] != "pulumi:pulumi:Stack"] == []


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
