"""A model's replicas come and go, and so does the model itself.

The tests run in order on one embedded cluster.
"""

from __future__ import annotations

import pytest

from tests.rehearsed.conftest import MODELS, eventually
from tests.rehearsed.dev import MODEL, NAMESPACE, ROLLED, pods, serving, set_model

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]


def test_changed_replicas_replace_no_pod(stack):
    # A rolling update keeps the old replica until the new one serves, so it needs a spare accelerator.
    stack.add_nodes()
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    (old,) = {p["metadata"]["uid"] for p in pods(stack)}
    for replicas in (2, 1):
        set_model(stack, replicas=replicas)
        outcome = stack.run("up")
        assert outcome.status == 0, outcome.output
        # A pool that gets full gets a program that makes room for rollouts, and loses it with its last spare place.
        changed = {name for name in outcome.changed() if not name.startswith(f"{MODEL}-room")}
        assert changed <= ROLLED and MODEL in changed
        now = eventually(
            lambda n=replicas: [u for u in serving(stack) if len(serving(stack)) == n], "the replicas"
        )
        assert replicas == 1 or old in now


def test_a_removed_model_leaves_no_object_behind(stack):
    stack.configure(MODELS, lambda models: {})
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    kinds = [
        ("serving.kserve.io/v1alpha2", "LLMInferenceService"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("inference.networking.k8s.io/v1", "InferencePool"),
        ("apps/v1", "Deployment"),
    ]
    left = lambda: [o["metadata"]["name"] for v, k in kinds for o in stack.kube.list(v, k, NAMESPACE)]
    eventually(lambda: not left(), "the model's objects go")
