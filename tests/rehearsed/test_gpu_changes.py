"""Changes of GPU node groups under a model that serves: how machines are bought, their disks, and their type.

One rehearsal serves all tests. They run in order, and each leaves the model serving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from components.core import labels
from tests.rehearsed.conftest import Load, Outcome, Stack, eventually, settings, succeed, unchanged
from tests.rehearsed.gpu import (
    CLUSTER,
    NAMESPACE,
    QUANTIZED,
    homes,
    node_groups,
    nodes,
    only,
    replicas,
    set_pool,
)

pytestmark = [pytest.mark.rehearsed, pytest.mark.stacks]
SERVED = {(200, None)}


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The quantized model, up, on a pool that may have a second node while something changes."""
    stack = Stack(tmp_path_factory.mktemp("changes") / "rehearsal", "gpu")
    settings(stack)
    only(stack, QUANTIZED)
    set_pool(stack, maxNodes=2)
    succeed(stack.run("up"))
    yield stack
    stack.rehearsal.down(force=True)


def changed_under_load(stack: Stack, change: Callable[[], None]) -> Outcome:
    """Apply a change while somebody asks all the time, who may not notice."""
    with stack.client() as client, Load(lambda: client.ask(None, QUANTIZED)) as load:
        load.next(4)
        change()
        outcome = succeed(stack.run("up"))
        stack.pods(NAMESPACE, labels.model_workload(QUANTIZED))
        load.next(4)
    assert load.kinds == SERVED
    return outcome


def test_another_capacity_in_two_ups_moves_first_and_removes_then(gpu: Stack) -> None:
    first = changed_under_load(gpu, lambda: set_pool(gpu, capacity="spot", keep=["on-demand"]))
    assert node_groups(first) == {"cluster-l4-spot": "create"}
    assert homes(gpu) == {"l4-spot"}
    eventually(lambda: not nodes(gpu, "l4-on-demand"), "the autoscaler empties what was left", 60)
    second = changed_under_load(gpu, lambda: set_pool(gpu, keep=None))
    assert node_groups(second) == {"cluster-l4-on-demand": "delete"}
    unchanged(gpu)


def test_even_in_one_up_the_old_group_goes_after_the_new_replica_serves(gpu: Stack) -> None:
    outcome = changed_under_load(gpu, lambda: set_pool(gpu, capacity="on-demand"))
    assert node_groups(outcome) == {"cluster-l4-on-demand": "create", "cluster-l4-spot": "delete"}
    order = [urn.rsplit("::", 1)[1] for urn in outcome.steps]
    assert order.index("cluster-l4-spot") > order.index(f"{QUANTIZED}-ready")
    assert homes(gpu) == {"l4-on-demand"}


def test_a_stock_out_leaves_the_old_group_and_its_replica(gpu: Stack) -> None:
    settings(gpu, stockOuts=[{"machine": "g6.4xlarge", "capacity": "spot"}])
    set_pool(gpu, capacity="spot")
    outcome = gpu.run("up")
    settings(gpu)
    assert outcome.status != 0 and "UnfulfillableCapacity" in outcome.output
    assert "delete" not in node_groups(outcome).values()
    assert homes(gpu) == {"l4-on-demand"}
    set_pool(gpu, capacity="on-demand")
    succeed(gpu.run("up"))
    assert homes(gpu) == {"l4-on-demand"}


def test_a_larger_disk_renews_the_nodes_of_the_group_that_is_there(gpu: Stack) -> None:
    before = nodes(gpu, "l4-on-demand").keys()
    set_pool(gpu, diskGib=300)
    outcome = succeed(gpu.run("up"))
    assert node_groups(outcome) == {"cluster-l4-on-demand": "update"}
    eventually(lambda: homes(gpu) == {"l4-on-demand"}, "the model serves again", 120)
    assert not nodes(gpu, "l4-on-demand").keys() & before
    unchanged(gpu)


def test_a_group_that_models_use_is_not_replaced_under_them(gpu: Stack) -> None:
    gpu.configure(CLUSTER, lambda cluster: {**cluster, "deletionProtection": True})
    succeed(gpu.run("up"))
    serving = {pod["metadata"]["uid"] for pod in replicas(gpu)}
    set_pool(gpu, instanceType="g6.8xlarge")
    refused = gpu.run("preview")
    assert refused.status != 0 and "protect" in refused.output, refused.output
    assert {pod["metadata"]["uid"] for pod in replicas(gpu)} == serving
