"""The life of the gpu stack: both of its models up, asked, scaled to zero and back, and everything destroyed.

The tests of this module run in order on one embedded cluster; each starts from where the one before left the stack.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rehearsed.conftest import Stack, eventually, settings, succeed, unchanged
from tests.rehearsed.gpu import (
    FULL,
    GPUS,
    answered,
    destroyed,
    homes,
    nodes,
    on_their_gpus,
    replicas,
    set_model,
    uids,
    with_gpus,
)

pytestmark = [pytest.mark.rehearsed, pytest.mark.stacks]
# A GPU by its product and its machine, as manifests of others select their nodes.
L4_SELECTOR = {
    "nvidia.com/gpu.product": "NVIDIA-L4",
    "node.kubernetes.io/instance-type": "g6.4xlarge",
}


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The committed stack in an account of its own."""
    stack = Stack(tmp_path_factory.mktemp("gpu") / "rehearsal", "gpu")
    settings(stack)
    yield stack
    stack.rehearsal.down(force=True)


def test_up_brings_both_models_on_as_many_gpus_as_they_ask_for(gpu: Stack) -> None:
    succeed(gpu.run("up"))
    on_their_gpus(gpu)
    types = sorted(n["metadata"]["labels"]["node.kubernetes.io/instance-type"] for n in nodes(gpu).values())
    assert types == ["g6.12xlarge", "g6.4xlarge", "m6i.xlarge", "m6i.xlarge"]


def test_a_request_to_either_model_is_answered_through_the_gateway(gpu: Stack) -> None:
    answered(gpu)


def test_a_second_preview_and_a_refresh_find_no_difference(gpu: Stack) -> None:
    unchanged(gpu)
    succeed(gpu.run("refresh", "--expect-no-changes"))


def test_a_model_at_zero_gives_its_machine_back_and_gets_one_again(gpu: Stack) -> None:
    other = uids(replicas(gpu, FULL))
    set_model(gpu, replicas=0)
    outcome = succeed(gpu.run("up"))
    # The size of the group is the autoscaler's: nothing of the cluster changes.
    assert not [urn for urn, step in outcome.steps.items() if "::aws:" in urn and step["op"] != "same"]
    assert replicas(gpu) == []
    eventually(lambda: not nodes(gpu, "l4-on-demand"), "the autoscaler takes the idle node", 60)
    unchanged(gpu)
    set_model(gpu, replicas=1)
    succeed(gpu.run("up"))
    assert homes(gpu) == {"l4-on-demand"}
    assert uids(replicas(gpu, FULL)) == other, "the other model served on"


def test_a_pod_that_selects_the_gpu_s_product_starts_a_group_from_zero(gpu: Stack) -> None:
    """GPU feature discovery sets the product's label on running nodes only; before there is one, the group's tags do."""
    set_model(gpu, replicas=0)
    succeed(gpu.run("up"))
    eventually(lambda: not nodes(gpu, "l4-on-demand"), "the autoscaler takes the idle node", 60)
    resources = {"cpu": "6", "memory": "16Gi", GPUS: "1"}
    container = {"name": "main", "image": "registry.k8s.io/pause:3.10"}
    spec = {
        "containers": [{**container, "resources": {"requests": resources, "limits": resources}}],
        "nodeSelector": L4_SELECTOR,
        "tolerations": [{"key": GPUS, "operator": "Exists", "effect": "NoSchedule"}],
    }
    meta = {"name": "selecting", "namespace": "default"}
    gpu.kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    placed = lambda: gpu.kube.get("v1", "Pod", "selecting", "default")["spec"].get("nodeName")
    node = eventually(placed, "a node comes for the pod, and its GPU is known", 60)
    assert L4_SELECTOR.items() <= nodes(gpu)[node]["metadata"]["labels"].items()
    assert node in with_gpus(gpu)
    gpu.kube.delete("v1", "Pod", "selecting", "default")
    set_model(gpu, replicas=1)
    succeed(gpu.run("up"))
    unchanged(gpu)


def test_destroy_leaves_an_empty_account_and_no_volume(gpu: Stack) -> None:
    destroyed(gpu)
