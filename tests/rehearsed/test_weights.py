"""A model on a claim that the stack fills: once, again with another set, and never with half of one.

Downloads are simulated; what is real is the job and its program, the claim and its volume of one node, where the
scheduler puts the pods, and KServe's roll-out. The tests run in order on one embedded cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rehearsed.conftest import MODELS, Stack, conditions, ends, eventually, settings

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]
MODEL, NAMESPACE = "qwen3-0-6b", "llm-models"
SERVING = f"app.kubernetes.io/name={MODEL},kserve.io/component=workload"
FILLING = f"app.kubernetes.io/name={MODEL},app.kubernetes.io/component=weights"
SOURCE = "hf://Qwen/Qwen3-0.6B"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The dev stack with its model on a claim, ended after the module."""
    result = Stack(tmp_path_factory.mktemp("weights") / "rehearsal")
    configure(result, claim={"size": "10Gi", "fill": {"from": SOURCE}})
    yield result
    result.rehearsal.down(force=True)


def configure(stack: Stack, **fields: Any) -> None:
    """Change the model's entry; None takes a field out."""

    def change(models: dict[str, Any]) -> dict[str, Any]:
        entry = {**models[MODEL], "uri": "pvc://weights/fp16", **fields}
        return {**models, MODEL: {k: v for k, v in entry.items() if v is not None}}

    stack.configure(MODELS, change)


def serving(stack: Stack, but: str = "") -> dict[str, Any]:
    """The one pod that serves, once it is another than `but`."""

    def found() -> dict[str, Any] | None:
        pods = [p for p in stack.kube.list("v1", "Pod", NAMESPACE, SERVING) if not ends(p)]
        ready = [p for p in pods if conditions(p).get("Ready") == "True" and p["metadata"]["name"] != but]
        return ready[0] if len(ready) == 1 else None

    return eventually(found, "a pod that serves", 120)


def disk(stack: Stack) -> set[str]:
    """The files in the directory that the model's uri names."""
    (volume,) = stack.kube.list("v1", "PersistentVolume")
    place = Path(stack.paths.root) / "volumes" / volume["metadata"]["name"] / "fp16"
    return {file.name for file in place.iterdir()}


def hub(stack: Stack, **model: Any) -> None:
    """What the simulated Hugging Face says of the repository."""
    settings(stack, web={"models": [{"name": "Qwen/*", **model}] if model else []})


def test_the_claim_holds_one_set_before_the_model_starts(stack: Stack) -> None:
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    assert "model-00001-of-00010.safetensors" in disk(stack) and "consolidated.safetensors" not in disk(stack)
    serving(stack)


def test_nobody_but_the_model_holds_the_volume(stack: Stack) -> None:
    """A picker with the claim in its pod would attach a disk of one node elsewhere."""
    pods = [p for p in stack.kube.list("v1", "Pod", NAMESPACE) if p["status"]["phase"] == "Running"]
    users = [p for p in pods if any("persistentVolumeClaim" in v for v in p["spec"].get("volumes", ()))]
    assert [p["metadata"]["name"] for p in users] == [serving(stack)["metadata"]["name"]]


def test_a_second_preview_is_empty(stack: Stack) -> None:
    assert stack.run("preview", "--expect-no-changes").status == 0


def test_a_set_that_cannot_be_had_takes_nothing_away_and_up_ends_with_the_last_words(stack: Stack) -> None:
    first, before = serving(stack)["metadata"]["name"], disk(stack)
    hub(stack, gated=True, approved=False)
    # An engine that is told so reads that set only, and ends where it finds the other.
    told = ["--load-format=mistral", "--config-format=mistral"]
    configure(stack, args=told, claim={"size": "10Gi", "fill": {"from": SOURCE, "exclude": ["model*"]}})
    outcome = stack.run("up")
    assert outcome.status != 0 and "HuggingFace authentication failed" in outcome.output
    assert disk(stack) == before and serving(stack)["metadata"]["name"] == first


def test_another_set_is_fetched_beside_the_model_which_then_starts_anew(stack: Stack) -> None:
    before = serving(stack)
    hub(stack)
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    assert "consolidated.safetensors" in disk(stack)
    assert not [name for name in disk(stack) if name.endswith("of-00010.safetensors")]
    serving(stack, but=before["metadata"]["name"])
    fillers = stack.kube.list("v1", "Pod", NAMESPACE, FILLING)
    assert {p["spec"]["nodeName"] for p in fillers} == {before["spec"]["nodeName"]}


def test_a_claim_that_nobody_made_is_named(stack: Stack) -> None:
    configure(stack, claim=None, uri="pvc://nobodys/", loadBudgetSeconds=30)
    assert "nobodys, which this stack does not make" in stack.run("preview").output
    outcome = stack.run("up")
    assert outcome.status != 0 and 'persistentvolumeclaim "nobodys" not found' in outcome.output


def test_destroy_takes_the_volume_with_it(stack: Stack) -> None:
    outcome = stack.run("destroy")
    assert outcome.status == 0, outcome.output
    assert not stack.kube.list("v1", "PersistentVolume")
