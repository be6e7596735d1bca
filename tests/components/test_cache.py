"""The cache volume of a model: what is kept on it, under which key, and who mounts it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components.serving.manifests import cache
from components.serving.manifests.cache import CacheSpec
from components.serving.manifests.llm_service import ModelSpec, llm_service

CACHE = CacheSpec(
    model="qwen",
    namespace="llm-models",
    uri="hf://Qwen/Qwen2.5-3B-Instruct",
    size="100Gi",
    storage_class="premium-rwx",
    shared=True,
    engine="vllm/vllm-tpu:v1",
    shape="tpu-v6e 1x4",
)


def pod(spec: CacheSpec | None) -> dict[str, Any]:
    model = ModelSpec(
        name="qwen",
        namespace="llm-models",
        uri=spec.uri if spec else CACHE.uri,
        served_name="qwen",
        replicas=1,
        image="vllm/vllm-tpu:v1",
        resource="google.com/tpu",
        chips=4,
        node_selector={},
        tolerations=(),
        cache=spec,
    )
    return llm_service(model, "gateway", "llm-gateway", ("route",))["spec"]["template"]


def mounts(container: dict[str, Any]) -> dict[str, str]:
    return {mount["mountPath"]: mount["subPath"] for mount in container["volumeMounts"]}


def test_download_and_engine_see_the_same_weights() -> None:
    template = pod(CACHE)
    (download,), (engine,) = template["initContainers"], template["containers"]
    assert mounts(download)[cache.WEIGHTS_PATH] == mounts(engine)[cache.WEIGHTS_PATH] == CACHE.weights
    assert {v["persistentVolumeClaim"]["claimName"] for v in template["volumes"]} == {CACHE.claim}


def test_the_engine_cannot_change_the_weights() -> None:
    (engine,) = pod(CACHE)["containers"]
    (weights,) = (m for m in engine["volumeMounts"] if m["mountPath"] == cache.WEIGHTS_PATH)
    assert weights["readOnly"] is True


def test_what_is_compiled_goes_to_the_volume() -> None:
    (engine,) = pod(CACHE)["containers"]
    environment = {entry["name"]: entry["value"] for entry in engine["env"]}
    for name in ("VLLM_CACHE_ROOT", "VLLM_XLA_CACHE_PATH"):
        assert environment[name].startswith(cache.COMPILED_PATH)
    assert cache.COMPILED_PATH in mounts(engine)


@pytest.mark.parametrize("field", ["uri", "engine", "shape"])
def test_programs_are_compiled_anew_for_another_model_engine_or_shape(field: str) -> None:
    assert replace(CACHE, **{field: "other"}).compiled != CACHE.compiled


def test_a_new_engine_finds_the_weights_that_the_old_one_had() -> None:
    assert replace(CACHE, engine="vllm/vllm-tpu:v2").weights == CACHE.weights
    assert replace(CACHE, uri="hf://Qwen/Qwen2.5-3B-Instruct:main").weights != CACHE.weights


def test_weights_that_are_copied_anew_at_every_start_take_no_room() -> None:
    template = pod(replace(CACHE, uri="s3://bucket/qwen"))
    assert [v["name"] for v in template["volumes"]] == [cache.COMPILED_VOLUME]
    assert "volumeMounts" not in template["initContainers"][0]


def test_a_volume_of_one_node_is_claimed_as_one() -> None:
    assert cache.claim(replace(CACHE, shared=False))["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert cache.claim(CACHE)["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize(("field", "value"), [("shared", False), ("storage_class", "filestore-rwx")])
def test_what_a_claim_cannot_change_makes_another_claim(field: str, value: object) -> None:
    """Of one name, the new one would wait for the old one's pod, and that for the rollout, and that for the new one."""
    other = replace(CACHE, **{field: value})
    assert cache.claim(other)["metadata"]["name"] != cache.claim(CACHE)["metadata"]["name"]


def test_a_larger_volume_is_the_same_claim() -> None:
    larger = replace(CACHE, size="900Gi", engine="vllm/vllm-tpu:v2")
    assert cache.claim(larger)["metadata"]["name"] == cache.claim(CACHE)["metadata"]["name"]


def test_without_a_cache_the_pod_has_no_volume_of_ours() -> None:
    template = pod(None)
    assert "volumes" not in template and "volumeMounts" not in template["containers"][0]
