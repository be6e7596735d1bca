"""Settings of namespaces: what is refused, with the arithmetic, and what is enough to the last byte."""

from __future__ import annotations

from typing import Any

import pytest

from stacks.config import ConfigError, load_config

NS = "namespaces/llm-models"
STATED = {"models/qwen/resources": {"cpu": 4, "memory": "16Gi"}}
# Two replicas, one of them in a rollout, the picker, and what makes room: a full pool of two nodes with one GPU.
ONE = {**STATED, "cluster/accelerators/pool/maxNodes": 1}
ENOUGH: dict[str, Any] = {
    "cpu": "9.01", "memory": "34848Mi", "memoryLimits": "49216Mi", "chips": 2, "pods": 4, "claims": 0,
}  # fmt: skip
LESS = {"cpu": "9", "memory": "34847Mi", "memoryLimits": "49215Mi", "chips": 1, "pods": 3}


def refused(raw: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as refusal:
        load_config(raw)
    return {p.path.removeprefix("llm-platform:"): str(p) for p in refusal.value.problems}


def test_a_quota_of_exactly_what_the_models_need_is_enough(stack) -> None:
    assert load_config(stack(change={**ONE, f"{NS}/quota": ENOUGH}))


@pytest.mark.parametrize("key", LESS)
def test_less_of_anything_is_refused_with_the_sum(stack, key: str) -> None:
    found = refused(stack(change={**ONE, f"{NS}/quota": {**ENOUGH, key: LESS[key]}}))
    assert list(found) == [f"namespaces.llm-models.quota.{key}"]
    assert "2 pods of qwen, 1 of them beside the old ones in a rollout" in found[next(iter(found))]


def test_the_refusal_names_every_part_and_what_would_do(stack) -> None:
    text = refused(stack(change={**ONE, f"{NS}/quota": {"cpu": 9}}))["namespaces.llm-models.quota.cpu"]
    assert (
        "9 of requests.cpu is less than its models need: 8 (2 pods of qwen, 1 of them beside the old ones in a "
        "rollout) + 1 (1 picker of qwen) + 0.01 (what makes room for rollouts of qwen) = 9.01; " in text
    )
    assert text.endswith("Fix: use 9.01 or more, or fewer replicas.")


def test_a_pool_with_room_needs_nobody_to_make_it(stack) -> None:
    assert load_config(stack(change={**STATED, f"{NS}/quota": {"cpu": 9, "pods": 3}}))


@pytest.mark.parametrize(
    ("change", "quota"),
    [
        # Each of four machines has a pod, and no replica starts beside another.
        (
            {
                "models/qwen/resources": {"cpu": 4, "memory": "16Gi"},
                "cluster/accelerators/pool/topology": "4x4",
                "cluster/accelerators/pool/maxNodes": 4,
            },
            {"cpu": 17, "pods": 5, "chips": 16},
        ),
        (
            {**STATED, "models/qwen/replicas": 2, "models/qwen/pickers": 2},
            {"cpu": 14, "pods": 5, "chips": 12},
        ),
    ],
)
def test_several_hosts_and_several_pickers_count(
    stack, change: dict[str, Any], quota: dict[str, int]
) -> None:
    assert load_config(stack("gke", {**change, f"{NS}/quota": quota}))
    for key, value in quota.items():
        found = refused(stack("gke", {**change, f"{NS}/quota": {**quota, key: value - 1}}))
        assert list(found) == [f"namespaces.llm-models.quota.{key}"]


def test_a_runtime_whose_old_replica_ends_first_needs_no_second_one(stack) -> None:
    change = {**ONE, "models/qwen/runtime": "vllm-cuda", f"{NS}/quota": {"cpu": 4, "pods": 1, "chips": 1}}
    assert load_config(stack(change=change))


def test_claims_and_their_job_count(stack) -> None:
    claim = {"size": "60Gi", "fill": {"from": "hf://Qwen/Qwen2.5-3B-Instruct"}}
    change = {**STATED, "models/qwen/uri": "pvc://weights/qwen", "models/qwen/claim": claim}
    # Two of the model, a picker, the job, and what has the old pod give up the volume, whatever room the pool has.
    enough = {"claims": 1, "storage": "60Gi", "pods": 5}
    assert load_config(stack(change={**change, f"{NS}/quota": enough}))
    for key, less in (("claims", 0), ("storage", "59Gi"), ("pods", 4)):
        found = refused(stack(change={**change, f"{NS}/quota": {**enough, key: less}}))
        assert list(found) == [f"namespaces.llm-models.quota.{key}"]
        assert ("renames a claim" in next(iter(found.values()))) == (key != "pods")


def test_models_of_other_namespaces_do_not_count(stack) -> None:
    other = {"uri": "hf://Qwen/Qwen3-0.6B", "accelerator": "pool", "namespace": "others", "maxModelLen": 2048}
    assert load_config(stack(change={**STATED, "models/other": other, f"{NS}/quota": {"pods": 4}}))


def test_asleep_the_quota_is_still_that_of_the_models_awake(stack) -> None:
    found = refused(stack(change={**ONE, "power": "asleep", f"{NS}/quota": {"chips": 1}}))
    assert list(found) == ["namespaces.llm-models.quota.chips"]


RUNTIME = {**STATED, "models/qwen/runtime": "vllm-cuda", "models/qwen/resources": {"cpu": 4, "memory": "6Gi"}}


def test_what_downloads_for_a_runtime_has_kserve_s_limits_and_not_the_engine_s(stack) -> None:
    """It has 8Gi, and of a pod's containers that follow each other Kubernetes counts the largest: two pods in a rollout."""
    for settings in ({"quota": {"memoryLimits": "16Gi"}}, {"limits": {"maxMemory": "8Gi"}}):
        assert load_config(stack(change={**RUNTIME, NS: settings}))
    found = refused(stack(change={**RUNTIME, f"{NS}/quota": {"memoryLimits": "15Gi"}}))
    assert "less than its models need: 16Gi" in found["namespaces.llm-models.quota.memoryLimits"]
    found = refused(stack(change={**RUNTIME, f"{NS}/limits": {"maxMemory": "7Gi"}}))
    assert "7Gi is less than 8Gi (the download of qwen)" in found["namespaces.llm-models.limits.maxMemory"]


@pytest.mark.parametrize(
    ("change", "most", "words"),
    [
        (
            {"models/qwen/uri": "pvc://w/", "models/qwen/claim": {"size": "60Gi", "fill": {"from": "hf://Qwen/Qwen3-0.6B"}}},
            "3Gi",
            "4Gi (what fills the claim of qwen)",
        ),
        ({"models/qwen/uri": "oci://registry.example/qwen:v1"}, "14Mi", "15Mi (the modelcar of qwen)"),
        (ONE, "63Mi", "64Mi (what makes room for rollouts of qwen)"),
    ],
)  # fmt: skip
def test_containers_beside_the_engine_are_let_in_as_well(stack, change, most: str, words: str) -> None:
    limits = {"maxMemory": most, "memoryRequest": "1Mi"}
    found = refused(stack(change={**STATED, **change, f"{NS}/limits": limits}))
    assert words in found["namespaces.llm-models.limits.maxMemory"]


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"quota": {"cpu": 99}}, "cpu"),
        ({"quota": {"memory": "999Gi"}}, "memory"),
        ({"quota": {"memoryLimits": "999Gi"}}, "memory"),
        ({"limits": {"memoryLimit": "2Gi"}}, "memory"),
        ({"limits": {"maxMemory": "64Gi"}}, "memory"),
    ],
)
def test_an_engine_that_says_nothing_of_what_is_counted_is_refused(stack, settings, missing: str) -> None:
    found = refused(stack(change={NS: settings}))
    assert list(found) == [f"models.qwen.resources.{missing}"]


def test_what_is_not_counted_need_not_be_said(stack) -> None:
    assert load_config(stack(change={NS: {"quota": {"chips": 8, "pods": 9}, "limits": {}}}))


@pytest.mark.parametrize(
    ("limits", "key", "words"),
    [
        ({"maxCpu": 4}, "maxCpu", "4 is less than 6 (the picker of qwen)"),
        ({"maxMemory": "12Gi"}, "maxMemory", "16Gi (the engine of qwen) and 16Gi (the download of qwen)"),
        ({"maxMemory": "64Gi", "memoryLimit": "65Gi"}, "maxMemory", "65Gi (memoryLimit)"),
        ({"memoryLimit": "100Mi"}, "memoryRequest", "128Mi is more than the memoryLimit of 100Mi"),
    ],
)
def test_limits_that_would_keep_the_models_out_are_refused(stack, limits, key: str, words: str) -> None:
    found = refused(stack(change={**STATED, f"{NS}/limits": limits}))
    assert list(found) == [f"namespaces.llm-models.limits.{key}"] and words in found[next(iter(found))]


def test_a_namespace_without_a_model_is_refused_with_the_nearest(stack) -> None:
    found = refused(stack(change={"namespaces/llm-model": {"team": {"groups": ["a"]}}}))
    assert list(found) == ["namespaces.llm-model"]
    assert "use llm-models (valid are llm-models)" in found["namespaces.llm-model"]


@pytest.mark.parametrize("group", ["system:authenticated", "system:masters", "system:serviceaccounts"])
def test_groups_of_kubernetes_itself_are_no_team(stack, group: str) -> None:
    found = refused(stack(change={f"{NS}/team": {"groups": [group]}}))
    assert "is a group of Kubernetes itself" in found["namespaces.llm-models.team.groups[0]"]


def test_a_team_of_nobody_and_a_quota_of_nothing_are_refused(stack) -> None:
    assert "namespaces.llm-models.team.groups" in refused(stack(change={f"{NS}/team": {"groups": []}}))
    found = refused(stack(change={f"{NS}/quota": {}}))
    assert "it limits nothing" in found["namespaces.llm-models.quota"]


def test_one_unreadable_namespace_does_not_hide_what_is_wrong_elsewhere(stack) -> None:
    found = refused(
        stack(change={f"{NS}/quota": {"gpus": 1}, "namespaces/none": {"team": {"groups": ["a"]}}})
    )
    assert set(found) == {"namespaces.llm-models.quota.gpus", "namespaces.none"}
