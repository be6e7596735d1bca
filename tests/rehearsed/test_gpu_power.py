"""The gpu stack out of machines, asleep, and awake again.

The quantized model's pool may be empty, so its size is the autoscaler's. A pool with a floor beside it has its size from
the stack: EKS honours that only in the way it is sent here. The tests run in order on one embedded cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rehearsed.conftest import (
    MODELS,
    Stack,
    Watched,
    conditions,
    eventually,
    settings,
    succeed,
    unchanged,
)
from tests.rehearsed.gpu import (
    CLUSTER,
    POWER,
    QUANTIZED,
    group,
    growths,
    homes,
    node_groups,
    nodes,
    only,
    replicas,
    set_model,
    set_pool,
    with_gpus,
)

pytestmark = [pytest.mark.rehearsed, pytest.mark.stacks]
FLOORED = "second-24b"


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two quantized models, each on a pool of its own: one that may be empty, and one with a floor."""
    stack = Stack(tmp_path_factory.mktemp("power") / "rehearsal", "gpu")
    settings(stack)
    only(stack, QUANTIZED)
    stack.configure(
        MODELS, lambda models: {**models, FLOORED: {**models[QUANTIZED], "accelerator": "floored"}}
    )
    stack.configure(
        CLUSTER,
        lambda cluster: {
            **cluster,
            "accelerators": {
                "l4": cluster["accelerators"]["l4"],
                "floored": {"instanceType": "g6.4xlarge", "maxNodes": 2, "minNodes": 1, "zone": "us-east-1b"},
            },
        },
    )
    yield stack
    stack.rehearsal.down(force=True)


def sizes(stack: Stack, pool: str) -> tuple[int, int, int]:
    """Floor, size and ceiling as the account has them."""
    record = group(stack, pool)
    scaling = record["inputs"]["scalingConfig"]
    return scaling["minSize"], record["size"], scaling["maxSize"]


def test_without_stock_up_fails_with_amazons_words_and_goes_on_when_there_is_some(gpu: Stack) -> None:
    settings(gpu, stockOuts=[{"machine": "g6.4xlarge", "zone": "us-east-1b"}])
    outcome = gpu.run("up")
    assert outcome.status != 0
    assert "InsufficientInstanceCapacity" in outcome.output and "us-east-1b" in outcome.output
    settings(gpu)
    succeed(gpu.run("up"))
    assert homes(gpu, QUANTIZED) == {"l4-on-demand"} and homes(gpu, FLOORED) == {"floored-on-demand"}
    assert sizes(gpu, "floored-on-demand") == (1, 1, 2)
    unchanged(gpu)


def test_asleep_no_gpu_is_left_and_everything_else_stays(gpu: Stack) -> None:
    others, before = nodes(gpu, "system").keys(), growths(gpu, "floored-on-demand")
    gpu.configure(POWER, lambda _: "asleep")
    outcome = succeed(gpu.run("up"))
    # The floor goes, and no node from under a model that has not left yet: another would be started for its pods.
    assert node_groups(outcome) == {"cluster-floored-on-demand": "update"}
    assert growths(gpu, "floored-on-demand") == before
    eventually(lambda: not with_gpus(gpu), "the autoscaler takes the idle nodes", 60)
    assert sizes(gpu, "floored-on-demand") == (0, 0, 2)
    assert nodes(gpu).keys() == others
    for name in (QUANTIZED, FLOORED):
        assert replicas(gpu, name) == [] and conditions(gpu.model(name))["Ready"] == "True"
    unchanged(gpu)


def test_a_preview_wakes_nothing(gpu: Stack) -> None:
    gpu.configure(POWER, lambda _: "awake")
    preview = succeed(gpu.run("preview"))
    assert QUANTIZED in preview.changed() and "cluster-floored-on-demand" in preview.changed()
    assert not with_gpus(gpu) and sizes(gpu, "floored-on-demand") == (0, 0, 2)


def test_awake_again_the_watch_names_machines_that_do_not_come_until_they_do(gpu: Stack) -> None:
    settings(gpu, stockOuts=[{"machine": "g6.4xlarge", "zone": "us-east-1a"}])
    with Watched(gpu).running() as watched:
        up = gpu.begin("up")
        told = lambda: watched.lines("NO NODE") or up.poll() is not None
        eventually(told, "a line is told", 300)
        assert up.poll() is None, gpu.finish(up).output
        settings(gpu)
        succeed(gpu.finish(up))
    trouble = watched.lines("NO NODE")
    assert trouble and trouble == watched.lines(f"{QUANTIZED}: NO NODE (no machine from AWS)")
    assert "us-east-1a has no g6.4xlarge free as on-demand" in trouble[0]
    assert (
        f"--auto-scaling-group-name eks-{group(gpu, 'l4-on-demand')['inputs']['nodeGroupName']}-"
        in trouble[0]
    )
    assert watched.lines(f"{QUANTIZED}: 1 ready")
    assert homes(gpu, QUANTIZED) == {"l4-on-demand"} and homes(gpu, FLOORED) == {"floored-on-demand"}
    assert sizes(gpu, "floored-on-demand") == (1, 1, 2)
    unchanged(gpu)


def test_the_ceiling_of_a_pool_that_grew_is_raised_after_a_look_and_keeps_its_nodes(gpu: Stack) -> None:
    """EKS is sent all three sizes at once, and the one in the state is as old as the last refresh."""
    set_pool(gpu, "l4", maxNodes=2)
    succeed(gpu.run("refresh"))
    succeed(gpu.run("up"))
    set_model(gpu, QUANTIZED, replicas=2)
    succeed(gpu.run("up"))
    before = {pod["metadata"]["uid"] for pod in replicas(gpu)}
    assert len(before) == 2
    set_pool(gpu, "l4", maxNodes=3)
    succeed(gpu.run("refresh"))
    succeed(gpu.run("up"))
    assert {pod["metadata"]["uid"] for pod in replicas(gpu)} == before
    assert group(gpu, "l4-on-demand")["size"] == 2
