"""Our preset, and the service that it is merged with, against KServe's pinned definitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.serving.manifests import preset
from tests.schema.conftest import Charts
from tests.schema.test_objects import custom_objects, faults_of
from tests.support.stacks import raw_stack, record_stack

KINDS = ("LLMInferenceServiceConfig", "LLMInferenceService")


def test_service_and_preset_are_valid_and_lose_no_field(
    schema_of: Callable[[str, str], dict[str, Any] | None], tmp_path: Path
) -> None:
    found = {item["kind"]: item for item in custom_objects(record_stack(raw_stack("multihost"), tmp_path))}
    for kind in KINDS:
        schema = schema_of(found[kind]["apiVersion"], kind)
        assert schema is not None
        assert not faults_of(found[kind]["spec"], schema)


def test_kserve_ships_no_preset_of_this_name(charts: Charts) -> None:
    shipped = {item["metadata"]["name"] for _, item in charts.everything() if item["kind"] == KINDS[0]}
    assert shipped and preset.NAME not in shipped
