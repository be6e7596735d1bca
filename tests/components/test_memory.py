"""Whether a model fits: the arithmetic, by hand."""

from __future__ import annotations

import pytest

from components.core.accelerators import ACCELERATORS
from components.core.models import (
    KNOWN_MODELS,
    ModelArchitecture,
    architecture_of,
    fit,
    tensor_parallel_fault,
)
from components.platform.lock import load_lock

L4, V6E = ACCELERATORS["nvidia-l4"], ACCELERATORS["tpu-v6e"]
QWEN = KNOWN_MODELS["Qwen/Qwen2.5-3B-Instruct"]


def test_one_replica_s_memory_is_weights_and_a_cache_of_whole_tokens() -> None:
    result = fit(QWEN, L4, chips=1, max_model_len=2048)
    assert result.weights_gib == pytest.approx(3.09e9 * 2 / 2**30)
    assert result.kv_gib_per_token * 2**30 == 2 * 36 * 2 * 128 * 2
    assert result.budget_gib == pytest.approx(22888 / 1024 * 0.9)
    assert result.max_tokens == int((result.budget_gib - result.weights_gib) / result.kv_gib_per_token)
    assert result.ok


def test_with_more_chips_than_kv_heads_each_chip_keeps_a_copy() -> None:
    # Two KV heads on four chips are stored twice, so a token costs twice as much.
    two, four = fit(QWEN, V6E, chips=2), fit(QWEN, V6E, chips=4)
    assert four.kv_gib_per_token == 2 * two.kv_gib_per_token


def test_weights_that_do_not_fit_say_by_how_much() -> None:
    result = fit(KNOWN_MODELS["mistralai/Mistral-Small-24B-Instruct-2501"], L4, chips=1)
    assert not result.ok and result.max_tokens == 0
    assert "23.8 GiB too much" in result.explanation


def test_a_request_of_the_greatest_length_must_fit_alone() -> None:
    most = fit(QWEN, L4, chips=1).max_tokens
    assert fit(QWEN, L4, chips=1, max_model_len=most).ok
    assert not fit(QWEN, L4, chips=1, max_model_len=most + 1).ok


def test_the_model_s_own_context_is_its_greatest_length_unless_another_is_set() -> None:
    long = ModelArchitecture(parameters_billions=8, layers=32, kv_heads=8, head_dim=128, context=10**6)
    assert not fit(long, L4, chips=1).ok
    assert fit(long, L4, chips=1, max_model_len=8192).ok


def test_requests_at_a_time_are_explained_and_never_refused() -> None:
    result = fit(QWEN, L4, chips=1, max_model_len=32768, max_num_seqs=10_000)
    assert result.ok and "12 of 10000 requests" in result.explanation


@pytest.mark.parametrize(("chips", "whole"), [(1, True), (2, True), (3, False), (4, True), (32, False)])
def test_heads_are_dealt_out_or_copied_evenly(chips: int, whole: bool) -> None:
    assert (tensor_parallel_fault(QWEN, chips) is None) == whole


def test_a_revision_in_the_uri_does_not_hide_a_known_model() -> None:
    assert architecture_of("hf://Qwen/Qwen3-0.6B:main") is KNOWN_MODELS["Qwen/Qwen3-0.6B"]
    assert architecture_of("s3://Qwen/Qwen3-0.6B") is None


def test_every_accelerator_has_its_image_in_the_lock_file_and_tolerates_its_own_taint() -> None:
    images = load_lock().images
    for name, accelerator in ACCELERATORS.items():
        assert accelerator.name == name and accelerator.image_key in images
        assert {toleration["key"] for toleration in accelerator.tolerations} == {accelerator.resource}
