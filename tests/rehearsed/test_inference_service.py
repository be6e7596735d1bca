"""The dev stack's model as an InferenceService on the shared runtime: up, asked, changed, scaled, broken, destroyed.

KServe's own controller makes Deployment and Service of it, and its webhook the pods; the weights and the engine are
simulated. The tests run in order on one embedded cluster.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from components.core.services import PREDICTOR
from components.serving.manifests import serving_runtime
from ops import cli
from rehearsal.node import images
from tests.rehearsed.conftest import MODELS, Answer, Stack, chat, conditions, ends, eventually
from tests.rehearsed.test_verify import QUICK, outcomes, verify

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]
MODEL, NAMESPACE = "qwen3-0-6b", "llm-models"
SELECTOR = ",".join(f"{key}={value}" for key, value in PREDICTOR.pods(MODEL).items())
# A kind of image that the rehearsal knows, with tags that nothing else uses.
ENGINE = next(name for name in images.IMAGES if name.endswith("vllm-openai"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The dev stack, ended after the module. Its pool has one place, so that a change cannot start beside."""
    result = Stack(tmp_path_factory.mktemp("service") / "rehearsal")
    set_model(result, runtime=serving_runtime.NAME)
    yield result
    result.rehearsal.down(force=True)


def set_model(stack: Stack, **fields: Any) -> None:
    stack.configure(MODELS, lambda models: {**models, MODEL: {**models[MODEL], **fields}})


def service(stack: Stack) -> dict[str, Any]:
    """KServe's object as it is."""
    found = stack.kube.get(PREDICTOR.api_version, PREDICTOR.kind, MODEL, NAMESPACE)
    assert found is not None
    return found


def living(stack: Stack) -> list[dict[str, Any]]:
    """The pods of the model that stay."""
    return [p for p in stack.kube.list("v1", "Pod", NAMESPACE, SELECTOR) if not ends(p)]


def engine(pod: dict[str, Any]) -> dict[str, Any]:
    """The engine's container."""
    return next(c for c in pod["spec"]["containers"] if c["name"] == PREDICTOR.engine)


@functools.cache
def key(stack: Stack) -> str:
    return stack.ops("keys", "issue", "--stack", stack.name, "--tenant", "acme").stdout.strip()


def answer(stack: Stack, base: str = "") -> Answer:
    with stack.client() as client:
        return client.request("POST", f"{base}/v1/chat/completions", key(stack), chat(MODEL, "Hello", 5))


def listed(stack: Stack, base: str = "") -> set[str]:
    """The models that the gateway names."""
    with stack.client() as client:
        return {m["id"] for m in client.request("GET", f"{base}/v1/models", key(stack)).json["data"]}


def test_up_ends_with_a_replica_of_kserves_that_serves(stack: Stack) -> None:
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    (pod,) = living(stack)
    assert conditions(pod)["Ready"] == "True"
    given = engine(pod)["resources"]
    assert given["limits"]["nvidia.com/gpu"] == given["requests"]["nvidia.com/gpu"] == "1"
    # KServe's defaults for any InferenceService would be a processor and 2 GiB.
    assert "cpu" not in given["limits"]
    (download,) = pod["spec"]["initContainers"]
    assert download["resources"]["limits"]["memory"] == "8Gi"
    eventually(lambda: conditions(service(stack)).get("Ready") == "True", "KServe calls it Ready")


def test_kserve_makes_no_way_in_of_its_own(stack: Stack) -> None:
    routes = stack.kube.list("gateway.networking.k8s.io/v1", "HTTPRoute", NAMESPACE)
    assert {r["metadata"]["name"] for r in routes} == {f"{MODEL}-inference", f"{MODEL}-models"}
    assert not stack.kube.list("autoscaling/v2", "HorizontalPodAutoscaler", NAMESPACE)


def test_the_gateway_reaches_it_by_every_way(stack: Stack) -> None:
    own = f"/{NAMESPACE}/{MODEL}"
    for base in ("", own):
        said = answer(stack, base)
        assert said.status == 200, said.body
        assert MODEL in listed(stack, base)


def test_a_second_preview_is_empty_and_a_refresh_finds_no_drift(stack: Stack) -> None:
    for operation in ("preview", "refresh"):
        outcome = stack.run(operation, "--expect-no-changes")
        assert outcome.status == 0, outcome.output


def test_the_operator_s_tools_find_it(stack: Stack) -> None:
    for command in ("status", "doctor", "rollout"):
        said = stack.ops(command, "--stack", "dev")
        assert said.returncode == 0, said.stdout + said.stderr
    code, found, _ = verify(stack, *QUICK)
    assert (code, outcomes(found, "failed")) == (cli.UNDECIDED, set()), found
    assert ("isolation", f"model {MODEL}: pod, as written") in outcomes(found, "passed")


def test_another_image_takes_the_only_place_of_the_old_one(stack: Stack) -> None:
    (old,) = living(stack)
    set_model(stack, image=f"{ENGINE}:v0.22.0")
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    assert set(outcome.changed()) == {MODEL, f"{MODEL}-rollout", f"{MODEL}-complete"}
    (new,) = living(stack)
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert engine(new)["image"] == f"{ENGINE}:v0.22.0"
    assert answer(stack).status == 200


def test_asleep_no_replica_is_left_and_awake_the_same_pod_template_comes_back(stack: Stack) -> None:
    def template() -> str:
        live = stack.kube.get("apps/v1", "Deployment", PREDICTOR.workload(MODEL), NAMESPACE)
        assert live is not None
        return str(live["spec"]["template"])

    before = template()
    for power, replicas in (("asleep", 0), ("awake", 1)):
        stack.configure("llm-platform:power", lambda _, power=power: power)
        outcome = stack.run("up")
        assert outcome.status == 0, outcome.output
        eventually(lambda n=replicas: len(living(stack)) == n, f"{replicas} replicas")
        assert template() == before
    assert answer(stack).status == 200


def test_an_image_that_cannot_be_pulled_is_named_and_taken_back(stack: Stack) -> None:
    stack.inject({"images": [{"match": "*:v0.0.0-broken", "at": "pull", "message": "manifest unknown"}]})
    set_model(stack, image=f"{ENGINE}:v0.0.0-broken", loadBudgetSeconds=30)
    outcome = stack.run("up")
    assert outcome.status != 0
    assert "manifest unknown" in outcome.output, outcome.output
    stack.inject({})
    set_model(stack, image=f"{ENGINE}:v0.22.0", loadBudgetSeconds=900)
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    assert stack.run("preview", "--expect-no-changes").status == 0
    assert answer(stack).status == 200


def test_destroy_leaves_nothing(stack: Stack) -> None:
    outcome = stack.run("destroy")
    assert outcome.status == 0, outcome.output
    assert NAMESPACE not in {n["metadata"]["name"] for n in stack.kube.list("v1", "Namespace")}
