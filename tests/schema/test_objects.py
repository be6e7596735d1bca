"""Every custom object that a stack makes, against the pinned definitions.

The API server prunes fields that a schema does not know, without a word; here they are errors. Rules in CEL
and webhooks are left to the API server of the rehearsed tests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.recorder import Recording
from tests.support.stacks import raw_stack, record_stack

Schema = dict[str, Any]
# Kinds of Kubernetes itself.
NATIVE = frozenset(
    {"v1", "apps/v1", "batch/v1", "networking.k8s.io/v1", "policy/v1", "rbac.authorization.k8s.io/v1"}
)
VARIANTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "as committed": lambda raw: None,
    "by load": lambda raw: model(raw).update(routing="load"),
    "round robin": lambda raw: model(raw).update(routing="none"),
    "asleep": lambda raw: raw.update(power="asleep"),
    "from a claim": lambda raw: model(raw).update(uri="pvc://weights/qwen"),
    "with TLS": lambda raw: raw.update(
        gateway={"exposure": "internal", "host": "llm.example.com", "tls": {"secretName": "cert"}}
    ),
    "several chips": lambda raw: (
        model(raw).update(accelerator="big"),
        raw["cluster"]["accelerators"].update(big={"type": "nvidia-l4", "perNode": 4, "maxNodes": 1}),
    ),
}


def model(raw: dict[str, Any]) -> dict[str, Any]:
    """The dev stack's model."""
    return raw["models"]["qwen3-0-6b"]


def closed(schema: Schema) -> Schema:
    """The schema, refusing what it does not name, and taking Kubernetes' integers or strings."""
    result = {key: value for key, value in schema.items() if key != "default"}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in schema:
        result["properties"] = {name: closed(item) for name, item in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    if isinstance(schema.get("items"), dict):
        result["items"] = closed(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = closed(schema["additionalProperties"])
    # These only narrow what is above, and would refuse each other's properties.
    for narrow in ("anyOf", "oneOf", "allOf", "not"):
        if narrow in schema:
            result[narrow] = schema[narrow]
    return result


def faults_of(spec: Any, schema: Schema) -> list[str]:
    """What a closed schema refuses of a spec."""
    validator = jsonschema.Draft202012Validator(closed(schema))
    return [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors({"spec": spec})]


def custom_objects(recording: Recording) -> list[dict[str, Any]]:
    """What the program hands to the API server, patches left out: they are parts of objects."""
    return [
        {key: value for key, value in r.inputs.items() if key != "status"}
        for r in recording.objects
        if not r.type.endswith("Patch") and r.inputs.get("apiVersion") not in (None, *NATIVE)
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_custom_object_is_valid_and_loses_no_field(
    variant: str, schema_of: Callable[[str, str], Schema | None], tmp_path: Path
) -> None:
    raw = raw_stack("dev")
    VARIANTS[variant](raw)
    objects = custom_objects(record_stack(raw, tmp_path))
    assert {"Gateway", "HTTPRoute", "LLMInferenceService"} <= {item["kind"] for item in objects}
    for item in objects:
        schema = schema_of(item["apiVersion"], item["kind"])
        assert schema is not None, f"no pinned definition of {item['apiVersion']} {item['kind']}"
        own = {key: value for key, value in item.items() if key not in ("apiVersion", "kind", "metadata")}
        faults = [
            f"{item['kind']} {item['metadata']['name']}: {fault.json_path}: {fault.message}"
            for fault in jsonschema.Draft202012Validator(closed(schema)).iter_errors(own)
        ]
        assert not faults, "\n".join(faults)


def test_a_field_that_does_not_exist_is_found(schema_of: Callable[[str, str], Schema | None]) -> None:
    schema = schema_of("serving.kserve.io/v1alpha2", "LLMInferenceService")
    assert schema is not None
    # A field that older instructions use and that the API never had.
    wrong = {"spec": {"model": {"uri": "hf://a/b"}, "router": {"scheduler": {"image": "x"}}}}
    assert list(jsonschema.Draft202012Validator(closed(schema)).iter_errors(wrong))
