"""The tpu stack out of stock, asleep, and awake again.

The tests of this module run in order on one embedded cluster; each starts from
where the one before left the stack.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ops.kube import Manifest
from rehearsal.cloud.project import Project
from tests.rehearsed.conftest import Client, Stack, Watched, conditions, eventually, settings, unchanged

pytestmark = [pytest.mark.rehearsed, pytest.mark.stacks]
MODEL, NAMESPACE, REPLICAS = "qwen2-5-3b", "llm-models", 3
POWER = "llm-platform:power"
CHIPS = "google.com/tpu"
# So that every phase takes a time that can be told.
STAGES = {"stages": [{"match": f"{NAMESPACE}/{MODEL}-*", "download": 1, "pull": 1, "load": 2, "compile": 2}]}
# Of the whole first `up`, on a machine that others use as well.
FIRST_SECONDS = 1200.0


@pytest.fixture(scope="module")
def tpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack on a project where no TPU is free."""
    stack = Stack(tmp_path_factory.mktemp("power") / "rehearsal", "tpu")
    stack.inject(STAGES)
    settings(stack, stockOuts=[{"machine": "ct6e-*"}])
    yield stack
    stack.rehearsal.down(force=True)


def replicas(stack: Stack) -> list[Manifest]:
    return stack.kube.list(
        "v1", "Pod", NAMESPACE, f"app.kubernetes.io/name={MODEL},kserve.io/component=workload"
    )


def nodes(stack: Stack) -> dict[str, bool]:
    """Each node by name, and whether it has TPUs."""
    return {n["metadata"]["name"]: CHIPS in n["status"]["capacity"] for n in stack.kube.list("v1", "Node")}


def key(stack: Stack) -> str:
    answer = stack.ops("keys", "issue", "--stack", stack.name, "--tenant", "acme")
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def test_without_stock_the_watch_names_the_reason_and_up_goes_on_when_there_is_some(tpu: Stack) -> None:
    up = tpu.begin("up")
    with Watched(tpu).running() as watched:
        eventually(lambda: watched.lines("the cluster does not exist yet"), "it waits for the cluster", 60)
        eventually(lambda: watched.lines("NO NODE") or up.poll() is not None, "a line is told", FIRST_SECONDS)
        assert up.poll() is None, tpu.finish(up).output
        (line,) = watched.lines("NO NODE")
        assert f"{MODEL}: NO NODE (stock-out): FailedScaleUp: Node scale up in zones europe-west4-a" in line
        assert "(accelerators.v6e.capacity: spot or flex-start or reservation)" in line
        status = tpu.ops("status", "--stack", "tpu")
        assert status.returncode == 1 and "waiting for a node (step 1 of 6)" in status.stdout
        assert up.poll() is None, "`up` waits"
        settings(tpu)
        outcome = tpu.finish(up)
        assert outcome.status == 0, outcome.output
    assert len(watched.lines("NO NODE")) == 1
    (ready,) = watched.lines(f"{REPLICAS} ready")
    assert all(phase in ready for phase in ("node ", "download ", "image ", "load and compile "))


def test_asleep_nothing_but_models_and_their_nodes_goes(tpu: Stack) -> None:
    secret, before = key(tpu), nodes(tpu)
    with tpu.client() as client:
        assert client.ask(secret, MODEL).error == (200, None)
    tpu.configure(POWER, lambda _: "asleep")
    outcome = tpu.run("up")
    assert outcome.status == 0, outcome.output
    assert set(outcome.changed()) == {MODEL, f"{MODEL}-rollout", f"{MODEL}-ready", "gateway-requests-tables"}
    assert replicas(tpu) == []
    eventually(lambda: not any(nodes(tpu).values()), "the autoscaler has removed the TPU nodes", 60)
    assert nodes(tpu) == {name: False for name, chips in before.items() if not chips}, "the others stay"
    assert conditions(tpu.model(MODEL))["Ready"] == "True"
    with tpu.client() as client:
        _asks_in_vain(client, secret)
    unchanged(tpu)


def _asks_in_vain(client: Client, secret: str) -> None:
    """Who has a key is told that the model sleeps, at no cost; who has none is told that."""
    eventually(lambda: client.ask(secret, MODEL).error == (503, "model_asleep"), "it says that it sleeps")
    refused = client.ask(secret, MODEL)
    assert "sleeps" in refused.json["error"]["message"] and refused.json["error"]["type"] == "server_error"
    assert client.ask("no-key", MODEL).error == (401, "invalid_api_key")
    listed = client.request("GET", "/v1/models", secret)
    assert [model["id"] for model in listed.json["data"]] == [MODEL]


def test_a_preview_wakes_nothing(tpu: Stack) -> None:
    tpu.configure(POWER, lambda _: "awake")
    preview = tpu.run("preview")
    assert preview.status == 0 and MODEL in preview.changed()
    assert replicas(tpu) == [] and not any(nodes(tpu).values())
    assert tpu.model(MODEL)["spec"]["replicas"] == 0


def test_awake_it_answers_again_and_says_how_long_each_phase_took(tpu: Stack) -> None:
    with Watched(tpu).running() as watched:
        outcome = tpu.run("up")
        assert outcome.status == 0, outcome.output
    (ready,) = watched.lines(f"{MODEL}: {REPLICAS} ready")
    assert all(phase in ready for phase in ("node ", "download ", "image ", "load and compile "))
    secret = key(tpu)
    with tpu.client() as client:
        eventually(lambda: client.ask(secret, MODEL).error == (200, None), "it answers")
        assert "x-tokens-remaining" in client.ask(secret, MODEL).headers
    assert sum(nodes(tpu).values()) == REPLICAS
    unchanged(tpu)


def test_a_preview_puts_nothing_to_sleep(tpu: Stack) -> None:
    serving = {pod["metadata"]["uid"] for pod in replicas(tpu)}
    tpu.configure(POWER, lambda _: "asleep")
    preview = tpu.run("preview")
    assert preview.status == 0 and MODEL in preview.changed()
    assert {pod["metadata"]["uid"] for pod in replicas(tpu)} == serving
    sizes = json.dumps(
        {i: r["size"] for i, r in Project.of(tpu.paths.root).read().of("container/nodePool").items()}
    )
    assert str(REPLICAS) in sizes
