"""Runtime and service of a model that names a runtime, against KServe's pinned definitions and its rendered settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.platform import kserve
from components.serving.manifests import serving_runtime
from tests.schema.conftest import Charts
from tests.schema.test_charts import named, of
from tests.schema.test_objects import custom_objects, faults_of
from tests.support.stacks import raw_stack, record_stack

KINDS = ("ServingRuntime", "InferenceService")


@pytest.mark.parametrize("power", ["awake", "asleep"])
def test_service_and_runtime_are_valid_and_lose_no_field(
    power: str, schema_of: Callable[[str, str], dict[str, Any] | None], tmp_path: Path
) -> None:
    raw = {**raw_stack("dev"), "power": power}
    for model in raw["models"].values():
        model.update(runtime=serving_runtime.NAME, image="registry.example/vllm:v1", env={"A": "b"})
    found = {item["kind"]: item for item in custom_objects(record_stack(raw, tmp_path))}
    for kind in KINDS:
        schema = schema_of(found[kind]["apiVersion"], kind)
        assert schema is not None
        assert not faults_of(found[kind]["spec"], schema)


def test_kserve_writes_no_resources_of_its_own_into_a_service(charts: Charts) -> None:
    config = named(of(charts, kserve.RESOURCES), "ConfigMap", "inferenceservice-config")["data"]
    assert not any(json.loads(config["inferenceService"])["resource"].values())


def test_a_download_has_room_for_the_page_cache_of_large_weights(charts: Charts) -> None:
    container = named(of(charts, kserve.RESOURCES), "ClusterStorageContainer", "default")["spec"]["container"]
    assert container["resources"]["limits"] == kserve.DOWNLOAD_LIMITS
    # A request as large would keep pods off the machines that have the memory only in bursts.
    assert container["resources"]["requests"]["memory"] == "100Mi"


def test_no_runtime_of_the_cluster_has_the_name(charts: Charts) -> None:
    shipped = {
        item["metadata"]["name"] for _, item in charts.everything() if item["kind"].endswith("ServingRuntime")
    }
    assert serving_runtime.NAME not in shipped
