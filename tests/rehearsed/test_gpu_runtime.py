"""The life of the example with InferenceServices on EKS: both models up on one runtime, asked, and everything destroyed.

The tests of this module run in order on one embedded cluster; each starts from where the one before left the stack.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from components.core.services import PREDICTOR
from components.serving.manifests import serving_runtime
from tests.rehearsed.conftest import Stack, settings, succeed, unchanged
from tests.rehearsed.gpu import FULL, NAMESPACE, QUANTIZED, answered, destroyed, on_their_gpus

pytestmark = [pytest.mark.rehearsed, pytest.mark.stacks]


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The example in an account of its own."""
    stack = Stack(tmp_path_factory.mktemp("runtime") / "rehearsal", "inference-service")
    settings(stack)
    yield stack
    stack.rehearsal.down(force=True)


def test_up_brings_both_models_on_as_many_gpus_as_they_ask_for(gpu: Stack) -> None:
    succeed(gpu.run("up"))
    on_their_gpus(gpu)


def test_the_two_share_one_runtime(gpu: Stack) -> None:
    runtimes = gpu.kube.list("serving.kserve.io/v1alpha1", "ServingRuntime", NAMESPACE)
    assert [runtime["metadata"]["name"] for runtime in runtimes] == [serving_runtime.NAME]
    used = {
        found["metadata"]["name"]: found["spec"]["predictor"]["model"]["runtime"]
        for found in gpu.kube.list(PREDICTOR.api_version, PREDICTOR.kind, NAMESPACE)
    }
    assert used == {QUANTIZED: serving_runtime.NAME, FULL: serving_runtime.NAME}


def test_a_request_to_either_model_is_answered_through_the_gateway(gpu: Stack) -> None:
    answered(gpu)


def test_a_second_preview_and_a_refresh_find_no_difference(gpu: Stack) -> None:
    unchanged(gpu)
    succeed(gpu.run("refresh", "--expect-no-changes"))


def test_destroy_leaves_an_empty_account_and_no_volume(gpu: Stack) -> None:
    destroyed(gpu)
