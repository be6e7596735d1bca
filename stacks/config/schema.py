"""The JSON Schema of a whole stack file, for editors and for checks outside of Python."""

from __future__ import annotations

import json
from typing import Any

from stacks.config.describe import schema_of
from stacks.config.errors import PREFIX
from stacks.config.load import SECRET_KEYS
from stacks.config.root import StackConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECRET_TEXT = {
    "hfToken": "Hugging Face token, for models with `gated: true`.",
    "pullSecret": "Docker config JSON of a private registry, with `platform.imagePullSecret: true`.",
    "s3AccessKeyId": "Access key of the store of weights, with `storage.s3`.",
    "s3SecretAccessKey": "Secret half of the store's access key, with `storage.s3`.",
}
# What Pulumi itself keeps in a stack file.
_PULUMI_KEYS = {
    "secretsprovider": "Key service that encrypts the secrets.",
    "encryptedkey": "Data key, encrypted by the key service.",
    "encryptionsalt": "Salt of the passphrase.",
}


def stack_file_schema() -> dict[str, Any]:
    """A schema of `Pulumi.<stack>.yaml`: our keys are closed, those of other namespaces are free."""
    generated = schema_of(StackConfig)
    definitions = generated.pop("$defs")
    keys = {f"{PREFIX}{name}": value for name, value in generated["properties"].items()}
    keys |= {f"{PREFIX}{name}": _secret(name) for name in SECRET_KEYS}
    config = {
        "type": "object",
        "description": "Configuration of the stack.",
        "properties": keys,
        "required": [f"{PREFIX}{name}" for name in generated["required"]],
        "patternProperties": {f"^(?!{PREFIX})": True},
        "additionalProperties": False,
    }
    others = {name: {"type": "string", "description": text} for name, text in _PULUMI_KEYS.items()}
    return {
        "$schema": DIALECT,
        "title": "A stack of the LLM platform",
        "type": "object",
        "properties": {
            "config": config,
            **others,
            "environment": {"description": "Pulumi ESC environments."},
        },
        "required": ["config"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _secret(name: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": f"{_SECRET_TEXT[name]} Set it with `pulumi config set --secret {PREFIX}{name}`.",
        "properties": {"secure": {"type": "string"}},
        "required": ["secure"],
        "additionalProperties": False,
    }


def render() -> str:
    """The schema as the text of `config.schema.json`."""
    return json.dumps(stack_file_schema(), indent=2, ensure_ascii=False) + "\n"
