"""The model of the dev stack."""

from __future__ import annotations

from typing import Any

from tests.rehearsed.conftest import MODELS, Stack, conditions

MODEL = "qwen3-0-6b"
NAMESPACE = "llm-models"
ROLLED = {MODEL, *(f"{MODEL}-{step}" for step in ("rollout", "ready"))}
"""Resources that a changed model touches."""


def pods(stack: Stack) -> list[dict[str, Any]]:
    """The serving pods of the model."""
    return stack.kube.list(
        "v1", "Pod", NAMESPACE, f"app.kubernetes.io/name={MODEL},kserve.io/component=workload"
    )


def serving(stack: Stack) -> set[str]:
    """The pods that are Ready and stay."""
    return {
        p["metadata"]["uid"]
        for p in pods(stack)
        if conditions(p).get("Ready") == "True" and not p["metadata"].get("deletionTimestamp")
    }


def set_model(stack: Stack, **fields: Any) -> None:
    """Change fields of the model's configuration."""
    stack.configure(MODELS, lambda models: {**models, MODEL: {**models[MODEL], **fields}})
