"""What a stack with Google's gateway makes, against the definitions that Google puts into a cluster of GKE 1.34."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rehearsal import artifacts
from tests.schema.test_objects import Schema, closed, custom_objects
from tests.support.stacks import raw_stack, record_stack

GROUPS = ("gateway.networking.k8s.io/", "networking.gke.io/")
HOST = "llm.example.com"
VARIANTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "as committed": lambda raw: None,
    "internal": lambda raw: (raw["gateway"].pop("openReason"), raw["gateway"].update(exposure="internal")),
    "with a Secret": lambda raw: raw["gateway"].update(host=HOST, tls={"secretName": "certificate"}),
    "with Certificate Manager": lambda raw: raw["gateway"].update(
        host=HOST, tls={"certificateManager": "llm"}
    ),
    "round robin": lambda raw: raw["models"]["qwen2-3b-pattern1"].update(routing="none"),
}


@pytest.fixture(scope="module")
def schemas() -> dict[tuple[str, str], Schema]:
    """Google's schemas by apiVersion and kind."""
    found = {}
    for file in (artifacts.ensure_google() / "1.34").glob("*.json"):
        for definition in json.loads(file.read_text()):
            spec = definition["spec"]
            for version in spec["versions"]:
                api = f"{spec['group']}/{version['name']}"
                found[api, spec["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_that_google_reads_is_valid_and_loses_no_field(
    variant: str, schemas: dict[tuple[str, str], Schema], tmp_path: Path
) -> None:
    raw = raw_stack("pattern1")
    VARIANTS[variant](raw)
    objects = custom_objects(record_stack(raw, tmp_path))
    mine = [o for o in objects if o["apiVersion"].startswith(GROUPS)]
    assert {o["kind"] for o in mine} >= {"Gateway", "HTTPRoute", "HealthCheckPolicy", "GCPBackendPolicy"}
    for item in mine:
        schema = closed(schemas[item["apiVersion"], item["kind"]])
        # What the API server itself checks of every object's metadata is not in a definition.
        schema["properties"]["metadata"] = {"type": "object"}
        jsonschema.validate(item, schema)
