"""One replica on a TPU machine behind Google's own gateway, from an empty project and back to it.

The tests of this module run in order on one simulated project; each starts from where the one before left it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from ops.kube import ApiError
from rehearsal.cloud.project import Project
from rehearsal.stand_ins.google_gateway import CLASSES, FINALIZER
from tests.rehearsed.conftest import Outcome, Stack, conditions, eventually

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]
MODEL, NAMESPACE = "qwen2-3b-pattern1", "llm-d-inference-scheduling"
PATH = f"/{NAMESPACE}/{MODEL}"
GATEWAY_API, NETWORKING = "gateway.networking.k8s.io/v1", "networking.gke.io/v1"
DEFINITIONS = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
POLICY = f"{MODEL}-pool"
PATIENCE_SECONDS = 1200
HEADER = {"x-gateway-model-name": f"publishers/{NAMESPACE}/models/{MODEL}"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack in a rehearsal of its own, ended after the module."""
    result = Stack(tmp_path_factory.mktemp("pattern1") / "rehearsal", "pattern1")
    yield result
    result.rehearsal.down(force=True)


def services(stack: Stack) -> list[dict[str, Any]]:
    """The backend services in the simulated project."""
    return list(Project.of(stack.paths.root).read().backend_services.values())


def run(stack: Stack, operation: str, *arguments: str) -> Outcome:
    """One engine operation, with the time that a busy machine takes for a whole cluster."""
    process = stack.begin(operation, *arguments)
    process.wait(timeout=PATIENCE_SECONDS)
    return stack.finish(process)


def ask(stack: Stack, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of the load balancer's answer: a question, or a completion with a `body`."""
    url = f"{stack.rehearsal.address().url}{path}"
    options = {"headers": {"content-type": "application/json", **headers}, "retries": False, "timeout": 60}
    if body is None:
        answer = urllib3.request("GET", url, **options)
    else:
        answer = urllib3.request("POST", url, body=json.dumps(body), **options)
    return answer.status, answer.data


def completes(stack: Stack, path: str, **headers: str) -> bool:
    body = {"model": MODEL, "prompt": "Hello", "max_tokens": 5}
    status, answer = ask(stack, path, body, **headers)
    return status == 200 and json.loads(answer)["usage"]["completion_tokens"] == 5


def test_up_ends_with_a_model_behind_googles_load_balancer(stack):
    outcome = run(stack, "up")
    assert outcome.status == 0, outcome.output
    found = stack.kube.get(GATEWAY_API, "Gateway", "llm-gateway", "llm-gateway")
    assert found["spec"]["gatewayClassName"] == CLASSES[1]
    assert conditions(found)["Programmed"] == conditions(found)["networking.gke.io/GatewayHealthy"] == "True"
    assert FINALIZER in found["metadata"]["finalizers"]
    # Google's gateway is nothing in the cluster, and Istio is not there.
    assert stack.kube.list("v1", "Pod", "llm-gateway") == []
    assert stack.kube.list("v1", "Namespace", fields="metadata.name=istio-system") == []
    service = stack.kube.get("serving.kserve.io/v1alpha2", "LLMInferenceService", MODEL, NAMESPACE)
    assert conditions(service)["Ready"] == conditions(service)["RouterReady"] == "True"


def test_the_definitions_are_googles_and_nobody_elses(stack):
    found = stack.kube.get(*DEFINITIONS, "httproutes.gateway.networking.k8s.io")
    # The edition that goes with GKE 1.34, not that of the platform's lock file.
    assert found["metadata"]["annotations"]["gateway.networking.k8s.io/bundle-version"] == "v1.4.0"
    meta = {name: found["metadata"][name] for name in ("name", "annotations")}
    mine = {"apiVersion": DEFINITIONS[0], "kind": DEFINITIONS[1], "metadata": meta}
    with pytest.raises(ApiError, match="already exists") as refused:
        stack.kube.create({**mine, "spec": found["spec"]})
    assert refused.value.reason == "AlreadyExists"


@pytest.mark.parametrize(
    ("default", "message"),
    [
        ({"checkIntervalSec": 5, "timeoutSec": 10}, "checkIntervalSec must not be less than timeoutSec"),
        ({"timeoutSec": 6}, "checkIntervalSec must not be less than timeoutSec"),
        ({"config": {"type": "HTTP"}}, "should have at least 2 properties"),
        ({"requestPath": "/health"}, "unknown field"),
    ],
)
def test_googles_definitions_refuse_what_google_refuses(stack, default, message):
    target = {"group": "", "kind": "Service", "name": "any"}
    bad = {
        "apiVersion": NETWORKING,
        "kind": "HealthCheckPolicy",
        "metadata": {"name": "bad", "namespace": NAMESPACE},
        "spec": {"targetRef": target, "default": default},
    }
    with pytest.raises(ApiError, match=message):
        stack.kube.create(bad, fieldValidation="Strict", dryRun="All")


def test_the_model_answers_by_path_and_by_its_header(stack):
    # KServe knows nothing of Google's health checks, which come after it has called the model ready.
    eventually(lambda: completes(stack, f"{PATH}/v1/completions"), "Google finds the model healthy", 60)
    assert completes(stack, "/v1/completions", **HEADER)
    assert not completes(stack, "/v1/completions")


def test_questions_about_the_model_are_answered_too(stack):
    status, answer = ask(stack, f"{PATH}/v1/models")
    assert status == 200
    assert MODEL in {m["id"] for m in json.loads(answer)["data"]}
    assert ask(stack, f"{PATH}/health")[0] == 200


def test_a_second_preview_is_empty(stack):
    outcome = run(stack, "preview", "--expect-no-changes")
    assert outcome.status == 0, outcome.output


def test_google_finds_every_backend_healthy_and_says_how_long_answers_may_take(stack):
    def healthy() -> bool:
        return {b["healthState"] for s in services(stack) for b in s["backends"]} == {"HEALTHY"}

    eventually(healthy, "every backend is healthy", 60)
    assert {s["healthCheck"] for s in services(stack)} == {"HTTP /health", "GRPC"}
    limits = [s["timeoutSec"] for s in services(stack) if s["healthCheck"] != "GRPC"]
    assert len(limits) == 2
    assert min(limits) > 30


def test_without_its_health_check_the_model_is_gone_until_up_puts_it_back(stack):
    stack.kube.delete(NETWORKING, "HealthCheckPolicy", POLICY, NAMESPACE)

    def gone() -> bool:
        body = {"model": MODEL, "prompt": "Hello", "max_tokens": 5}
        return ask(stack, f"{PATH}/v1/completions", body) == (503, b"no healthy upstream")

    eventually(gone, "nothing is healthy")
    assert run(stack, "refresh").status == 0
    outcome = run(stack, "up")
    assert outcome.status == 0, outcome.output
    assert {name: op for name, op in outcome.changed().items() if op != "same"} == {
        f"{POLICY}-health": "create"
    }
    eventually(lambda: completes(stack, f"{PATH}/v1/completions"), "the model answers again")


def test_destroy_leaves_nothing_in_the_project(stack):
    outcome = run(stack, "destroy")
    assert outcome.status == 0, outcome.output
    left = Project.of(stack.paths.root).read()
    assert left.empty, left.document()
    assert stack.kube.list(*DEFINITIONS, selector="addonmanager.kubernetes.io/mode=Reconcile") == []
