"""A model's cache volume: the second start finds what the first one fetched and compiled.

The stages of a start are simulated, with times of our own; what is real is the claim, its volume, and how KServe's
pods mount it. The tests run in order on one embedded cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rehearsed.conftest import MODELS, Stack, conditions, ends, eventually

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]
MODEL, NAMESPACE = "qwen3-0-6b", "llm-models"
SELECTOR = f"app.kubernetes.io/name={MODEL},kserve.io/component=workload"
SECONDS = 4
LINES = 200
STAGES = {"stages": [{"match": f"{NAMESPACE}/{MODEL}-*", "download": SECONDS, "compile": SECONDS}]}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The dev stack with a cache of one node, ended after the module."""
    result = Stack(tmp_path_factory.mktemp("cache") / "rehearsal")
    cache = {"cache": {"size": "20Gi", "shared": False}}
    result.configure(MODELS, lambda models: {**models, MODEL: {**models[MODEL], **cache}})
    result.inject(STAGES)
    yield result
    result.rehearsal.down(force=True)


def serving(stack: Stack, but: str = "") -> dict[str, Any]:
    """The one pod that serves, once it is another than `but`."""

    def found() -> dict[str, Any] | None:
        pods = [p for p in stack.kube.list("v1", "Pod", NAMESPACE, SELECTOR) if not ends(p)]
        ready = [p for p in pods if conditions(p).get("Ready") == "True" and p["metadata"]["name"] != but]
        return ready[0] if len(ready) == 1 else None

    return eventually(found, "a pod that serves", 120)


def took(stack: Stack, pod: dict[str, Any]) -> tuple[float, float]:
    """Seconds of the download and of the compilation, as the pod's own logs say."""
    name = pod["metadata"]["name"]
    fetched, compiled = (
        "\n".join(stack.kube.log(NAMESPACE, name, container, LINES))
        for container in ("storage-initializer", "main")
    )
    return _seconds(r"Model downloaded in ([\d.]+) seconds", fetched), _seconds(
        r"(?:finished in|input shapes in) ([\d.]+)", compiled
    )


def _seconds(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in: {text}"
    return float(found[1])


def test_the_first_start_fetches_and_compiles(stack: Stack) -> None:
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    assert min(took(stack, serving(stack))) >= SECONDS
    (claim,) = stack.kube.list("v1", "PersistentVolumeClaim", NAMESPACE)
    assert claim["status"]["phase"] == "Bound"


def test_the_second_start_does_neither(stack: Stack) -> None:
    first = serving(stack)["metadata"]["name"]
    stack.kube.delete("v1", "Pod", first, NAMESPACE)
    assert max(took(stack, serving(stack, but=first))) < SECONDS


def test_a_second_preview_is_empty(stack: Stack) -> None:
    assert stack.run("preview", "--expect-no-changes").status == 0


def test_another_class_is_another_volume_to_which_the_model_moves(stack: Stack) -> None:
    """A claim cannot change its class; replaced under its name it would wait for the pod that uses it."""
    cache = {"cache": {"size": "20Gi", "shared": False, "storageClass": "standard"}}
    claims = lambda: {
        c["metadata"]["name"] for c in stack.kube.list("v1", "PersistentVolumeClaim", NAMESPACE)
    }
    before, first = claims(), serving(stack)["metadata"]["name"]
    stack.configure(MODELS, lambda models: {**models, MODEL: {**models[MODEL], **cache}})
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    serving(stack, but=first)
    eventually(lambda: len(claims()) == 1 and not claims() & before, "the old claim goes with its last pod")


def test_destroy_takes_the_volume_with_it(stack: Stack) -> None:
    outcome = stack.run("destroy")
    assert outcome.status == 0, outcome.output
    assert not stack.kube.list("v1", "PersistentVolume")
