"""The multi-host example from an empty project: one model on a TPU slice of four machines, over the real LeaderWorkerSet.

The tests of this module run in order on one embedded cluster; each starts from where the one before left the stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from components.core import labels, naming
from rehearsal.cloud.project import Project
from tests.rehearsed.conftest import Stack, chat, conditions, ends, eventually, kill

pytestmark = [pytest.mark.rehearsed, pytest.mark.stacks]
MODEL, NAMESPACE = "qwen2-5-72b", "llm-models"
SET = f"leaderworkerset.sigs.k8s.io/name={naming.group_set(MODEL)}"
HOSTS = 4
SECONDS = 180


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The example in a rehearsal of its own, ended after the module."""
    result = Stack(tmp_path_factory.mktemp("slice") / "rehearsal", "multihost")
    yield result
    result.rehearsal.down(force=True)


def group(stack: Stack) -> dict[str, dict[str, Any]]:
    """The pods of the one group that stay, by name."""
    found = stack.kube.list("v1", "Pod", NAMESPACE, SET)
    return {p["metadata"]["name"]: p for p in found if not ends(p)}


def whole(stack: Stack, hosts: int = HOSTS) -> dict[str, dict[str, Any]]:
    """The pods of the group, when all are there and Ready."""
    pods = group(stack)
    ready = [p for p in pods.values() if conditions(p).get("Ready") == "True"]
    return pods if len(ready) == len(pods) == hosts else {}


def answer(stack: Stack) -> int:
    """The status of a completion through the gateway."""
    with stack.client() as client:
        return client.request("POST", "/v1/chat/completions", None, chat(MODEL, "Hello", 20)).status


def test_up_ends_with_a_group_that_fills_the_slice(stack: Stack) -> None:
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    assert conditions(stack.model(MODEL))["Ready"] == "True"
    pods = whole(stack)
    nodes = {pod["spec"]["nodeName"] for pod in pods.values()}
    assert len(nodes) == HOSTS, "each host of the slice runs one pod"
    pools = {
        node["metadata"]["labels"]["cloud.google.com/gke-nodepool"]
        for node in stack.kube.list("v1", "Node")
        if node["metadata"]["name"] in nodes
    }
    assert len(pools) == 1, "and all of them are of one slice"


def test_only_the_leader_is_an_endpoint(stack: Stack) -> None:
    leader = f"{naming.group_set(MODEL)}-0"
    selector = labels.model_workload(MODEL)
    behind = [n for n, p in group(stack).items() if selector.items() <= p["metadata"]["labels"].items()]
    assert behind == [leader]
    name = naming.inference_pool(MODEL)
    pool = stack.kube.get("inference.networking.k8s.io/v1", "InferencePool", name, NAMESPACE)
    service = stack.kube.get("v1", "Service", naming.workload_service(MODEL), NAMESPACE)
    assert pool is not None and pool["spec"]["selector"]["matchLabels"] == selector
    assert service is not None and service["spec"]["selector"] == selector


def test_a_completion_comes_through_the_gateway(stack: Stack) -> None:
    assert answer(stack) == 200


def test_a_second_preview_is_empty_and_status_is_content(stack: Stack) -> None:
    outcome = stack.run("preview", "--expect-no-changes")
    assert outcome.status == 0, outcome.output
    assert outcome.changed() == {}
    said = stack.ops("status", "--stack", "multihost")
    assert said.returncode == 0, said.stdout + said.stderr


def test_a_lost_worker_takes_the_group_down_and_a_new_one_serves(stack: Stack) -> None:
    before = whole(stack)
    worker = before[f"{naming.group_set(MODEL)}-0-2"]
    for pid in stack.programs(worker):
        kill(pid)
    uids = {pod["metadata"]["uid"] for pod in before.values()}
    anew = lambda: not uids & {p["metadata"]["uid"] for p in whole(stack).values()} and whole(stack)
    eventually(anew, "a group of new pods", SECONDS)
    eventually(lambda: answer(stack) == 200, "it serves", SECONDS)
    restarts = [r["restartCount"] for p in group(stack).values() for r in p["status"]["containerStatuses"]]
    assert restarts == [0] * HOSTS


def test_a_changed_flag_is_awaited_until_the_new_group_serves(stack: Stack) -> None:
    before = {pod["metadata"]["uid"] for pod in whole(stack).values()}

    def fewer(models: dict[str, Any]) -> dict[str, Any]:
        return {**models, MODEL: {**models[MODEL], "maxNumSeqs": 32}}

    stack.configure("llm-platform:models", fewer)
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    pods = whole(stack)
    assert len(pods) == HOSTS and not before & {pod["metadata"]["uid"] for pod in pods.values()}
    (main,) = pods[f"{naming.group_set(MODEL)}-0"]["spec"]["containers"]
    assert "--max-num-seqs=32" in main["args"]
    assert answer(stack) == 200


def test_a_model_that_moves_to_another_number_of_hosts_is_replaced_and_serves(stack: Stack) -> None:
    pair = {"machineType": "ct6e-standard-4t", "topology": "2x4", "hosts": 2, "maxNodes": 2, "diskGib": 300}

    def grown(cluster: dict[str, Any]) -> dict[str, Any]:
        return {**cluster, "accelerators": {**cluster["accelerators"], "pair": pair}}

    def moved(models: dict[str, Any]) -> dict[str, Any]:
        return {**models, MODEL: {**models[MODEL], "accelerator": "pair"}}

    stack.configure("llm-platform:cluster", grown)
    stack.configure("llm-platform:models", moved)
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    waits = ("routed", "rollout", "leaders", "ready")
    replaced = {name for name, step in outcome.changed().items() if "replace" in step}
    assert replaced == {MODEL, *(f"{MODEL}-{wait}" for wait in waits)}
    assert len(whole(stack, hosts=2)) == 2
    assert answer(stack) == 200


def test_destroy_leaves_the_project_empty(stack: Stack) -> None:
    outcome = stack.run("destroy")
    assert outcome.status == 0, outcome.output
    assert [r for r in stack.exported() if r["type"] != "pulumi:pulumi:Stack"] == []
    left = Project.of(stack.paths.root).read()
    assert left.empty, list(left.all())
