"""Changes of three TPU replicas under load: other images, with and without a spare node, other capacity, other sizes.

One rehearsal of the TPU stack serves all tests. They run in order, and each leaves three serving replicas behind.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest
import yaml

from components.core import labels
from tests.rehearsed.conftest import (
    MODELS,
    Answer,
    Load,
    Outcome,
    Stack,
    chat,
    conditions,
    ends,
    eventually,
    succeed,
)

pytestmark = [pytest.mark.rehearsed, pytest.mark.stacks]

MODEL, NAMESPACE, REPLICAS = "qwen2-5-3b", "llm-models", 3
ACCESS = "llm-platform:access"
AMPLE = {"tiers": {"ample": {"tokensPerMinute": 100_000_000}}, "tenants": {"loading": {"tier": "ample"}}}
CLUSTER, POOL = "llm-platform:cluster", "gcp:container/nodePool:NodePool"
SERVED = {(200, None)}
CUT_OFF = 599
"""Stands for the status of a stream that had no end."""
STREAMED_TOKENS = 150
WORKLOAD = labels.model_workload(MODEL)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The TPU stack in a rehearsal of its own, ended after the module."""
    result = Stack(tmp_path_factory.mktemp("tpu") / "rehearsal", "tpu")
    yield result
    result.rehearsal.down(force=True)


@pytest.fixture(scope="module")
def served(stack: Stack) -> Stack:
    """The stack, up, with a budget that no test spends, and answers that outlast the step of a rollout."""
    # What counts tokens is not asked in time on a busy machine; that must not look like a lost replica.
    stack.configure(ACCESS, lambda access: {**access, "failureMode": "open", **AMPLE})
    set_model(stack, env={"REHEARSAL_DECODE_SECONDS": "0.02"})
    succeed(stack.run("up"))
    return stack


def set_model(stack: Stack, **fields: Any) -> None:
    stack.configure(MODELS, lambda models: {MODEL: {**models[MODEL], **fields}})


def set_pool(stack: Stack, **fields: Any) -> None:
    def change(cluster: dict[str, Any]) -> dict[str, Any]:
        pool = {**cluster["accelerators"]["v6e"], **fields}
        return {**cluster, "accelerators": {"v6e": {k: v for k, v in pool.items() if v is not None}}}

    stack.configure(CLUSTER, change)


def replicas(stack: Stack) -> list[dict[str, Any]]:
    """The model's pods that serve: Ready, and not about to end."""
    selector = ",".join(f"{key}={value}" for key, value in WORKLOAD.items())
    found = stack.kube.list("v1", "Pod", NAMESPACE, selector)
    return [pod for pod in found if conditions(pod).get("Ready") == "True" and not ends(pod)]


def settled(stack: Stack, count: int = REPLICAS) -> list[dict[str, Any]]:
    """The model's pods, once there are just so many."""
    return stack.pods(NAMESPACE, WORKLOAD, count)


class Traffic:
    """Requests and streams all the time, and a look at how many replicas serve, while it is open as a context."""

    def __init__(self, stack: Stack):
        issued = stack.ops("keys", "issue", "--stack", "tpu", "--tenant", "loading")
        assert issued.returncode == 0, issued.stderr
        self._key, self._client, self._stack = issued.stdout.strip(), stack.client(), stack
        self._loads = Load(self._ask), Load(self._stream)
        self._stop, self._watcher = threading.Event(), threading.Thread(target=self._watch, daemon=True)
        self.fewest = REPLICAS

    def __enter__(self) -> Self:
        for load in self._loads:
            load.__enter__()
        self._watcher.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        self._watcher.join()
        for load in self._loads:
            load.__exit__(*details)
        self._client.__exit__(*details)

    @property
    def seen(self) -> dict[tuple[int, str | None], int]:
        """How often each kind of answer came."""
        every = [kind for load in self._loads for kind in load.seen]
        return {kind: every.count(kind) for kind in set(every)}

    def goes_on(self) -> None:
        """Returns once every client has been answered again."""
        for load in self._loads:
            load.next(4)

    def _ask(self) -> Answer:
        return self._client.ask(self._key, MODEL, tokens=20)

    def _stream(self) -> Answer:
        body = {**chat(MODEL, "Hello", STREAMED_TOKENS), "stream": True}
        with self._client.open("POST", "/v1/chat/completions", self._key, body) as response:
            text = response.read()
            if response.status == 200 and not text.rstrip().endswith(b"data: [DONE]"):
                return Answer(CUT_OFF, {}, json.dumps({"error": {"code": "cut_off"}}).encode())
            return Answer(response.status, {}, text)

    def _watch(self) -> None:
        with_client = self._stack
        while not self._stop.wait(0.2):
            self.fewest = min(self.fewest, len(replicas(with_client)))


def changed_under_load(stack: Stack, change: Callable[[], None]) -> tuple[Outcome, Traffic]:
    """Apply a change while everybody asks; nobody may notice."""
    with Traffic(stack) as traffic:
        traffic.goes_on()
        change()
        outcome = succeed(stack.run("up"))
        settled(stack)
        traffic.goes_on()
    assert set(traffic.seen) == SERVED, traffic.seen
    return outcome, traffic


def images(stack: Stack) -> set[str]:
    containers = [c for pod in settled(stack) for c in pod["spec"]["containers"] if c["name"] == "main"]
    return {container["image"] for container in containers}


def test_an_image_changes_without_a_spare_node_one_replica_at_a_time(served: Stack) -> None:
    said = served.run("preview").output
    assert f"a change of {MODEL} needs no spare node; 2 of 3 replicas serve meanwhile" in said, said
    _, traffic = changed_under_load(served, lambda: set_model(served, image="vllm/vllm-tpu:v0.22.1"))
    assert images(served) == {"vllm/vllm-tpu:v0.22.1"}
    assert traffic.fewest == REPLICAS - 1


def test_an_image_changes_beside_the_old_one_where_the_pool_may_grow(served: Stack) -> None:
    set_pool(served, maxNodes=4)
    roomy = succeed(served.run("up"))
    assert not [name for name in roomy.changed() if name.startswith(f"{MODEL}-rollout")]
    _, traffic = changed_under_load(served, lambda: set_model(served, image="vllm/vllm-tpu:v0.22.2"))
    assert images(served) == {"vllm/vllm-tpu:v0.22.2"}
    assert traffic.fewest == REPLICAS


def pools(stack: Stack) -> set[str]:
    """The pools whose nodes the replicas are on."""
    nodes = {pod["spec"]["nodeName"] for pod in settled(stack)}
    return {stack.kube.get("v1", "Node", name)["metadata"]["labels"][labels.POOL] for name in nodes}


def node_pools(outcome: Outcome) -> dict[str, str]:
    """What happened to which node pools."""
    steps = {urn: step["op"] for urn, step in outcome.steps.items() if f"{POOL}::" in urn}
    return {urn.rsplit("::", 1)[1]: op for urn, op in steps.items() if op != "same"}


def test_another_capacity_in_two_ups_moves_first_and_removes_then(served: Stack) -> None:
    both = lambda: set_pool(served, capacity="spot", keep=["on-demand"])
    first, traffic = changed_under_load(served, both)
    assert node_pools(first)["cluster-v6e-spot"] == "create"
    assert "delete" not in node_pools(first).values()
    assert pools(served) == {"v6e-spot"} and traffic.fewest == REPLICAS
    second, traffic = changed_under_load(served, lambda: set_pool(served, keep=None))
    assert node_pools(second) == {"cluster-v6e-on-demand": "delete"}
    assert traffic.fewest == REPLICAS


def test_an_up_that_fails_removes_no_pool(served: Stack) -> None:
    refusal = {
        "kind": "container/nodePool",
        "name": "*",
        "operation": "create",
        "status": 400,
        "message": "no",
    }
    settings = served.paths.root / "cloud" / "settings.yaml"
    settings.write_text(yaml.safe_dump({"refusals": [refusal]}))
    set_pool(served, capacity="on-demand", keep=None)
    outcome = served.run("up")
    settings.unlink()
    assert outcome.status != 0
    assert "delete" not in node_pools(outcome).values()
    assert pools(served) == {"v6e-spot"}


def test_even_in_one_up_the_old_pool_goes_after_the_new_replicas_serve(served: Stack) -> None:
    outcome, traffic = changed_under_load(served, lambda: set_pool(served, capacity="on-demand", keep=None))
    assert node_pools(outcome) == {"cluster-v6e-on-demand": "create", "cluster-v6e-spot": "delete"}
    order = [urn.rsplit("::", 1)[1] for urn in outcome.steps]
    assert order.index("cluster-v6e-spot") > order.index(f"{MODEL}-ready")
    assert pools(served) == {"v6e-on-demand"} and traffic.fewest == REPLICAS


def test_it_scales_to_one_and_zero_and_back_and_replaces_no_replica(served: Stack) -> None:
    for count in (1, 3, 0, 3):
        before = {pod["metadata"]["uid"] for pod in replicas(served)}
        set_model(served, replicas=count)
        succeed(served.run("up"))
        now = {pod["metadata"]["uid"] for pod in settled(served, count)} if count else set()
        assert now <= before or before <= now
        eventually(lambda n=count: len(replicas(served)) == n, f"{count} replicas")
