"""A model as an InferenceService: what it shares with others, what KServe makes of it, and how others find that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.core import labels
from components.core.services import LLM, PREDICTOR, SERVICE_KINDS, kind_of
from components.serving.manifests import gateway, google, monitoring, network_policy
from components.serving.manifests.destination_rule import destination_rules
from components.serving.manifests.gateway import MODEL_PORT, RouteSpec, model_name
from components.serving.manifests.google import BackendSpec
from components.serving.manifests.inference_service import complete, inference_service, rollout
from components.serving.manifests.llm_service import ModelSpec
from components.serving.manifests.monitoring import ModelTarget, MonitoringSpec
from components.serving.manifests.network_policy import PolicySpec
from components.serving.manifests.rollout import PRE_STOP_SECONDS, Rollout
from components.serving.manifests.serving_runtime import NAME, RuntimeSpec, serving_runtime
from components.serving.rollouts import RoomMaker
from tests.support.recorder import Recording
from tests.support.stacks import raw_stack, record_stack

RUNTIME = RuntimeSpec(namespace="llm-models", image="registry.example/vllm:v1.0.0")
MODEL = ModelSpec(
    name="mistral",
    namespace="llm-models",
    uri="s3://llm-models/mistral/",
    served_name="mistral-24b",
    replicas=1,
    image=RUNTIME.image,
    resource="nvidia.com/gpu",
    chips=4,
    node_selector={"nvidia.com/gpu.product": "NVIDIA-L4"},
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
    args=("--max-model-len=16384",),
    cpu="16",
    memory="80Gi",
    grace_seconds=620,
    routing="none",
    runtime=RUNTIME,
    strategy=Rollout(replicas=1, spare=False).strategy,
)


def predictor(spec: ModelSpec = MODEL) -> dict[str, Any]:
    return inference_service(spec)["spec"]["predictor"]


def engine(spec: ModelSpec = MODEL) -> dict[str, Any]:
    """The engine as KServe merges it: lists of arguments are joined, the model's other fields win."""
    (shared,) = serving_runtime(RUNTIME)["spec"]["containers"]
    own = predictor(spec)["model"]
    return {**shared, **own, "args": [*shared["args"], *own["args"]]}


def awaited(spec: ModelSpec = MODEL) -> list[str]:
    return json.loads(complete(spec)["metadata"]["annotations"][labels.WAIT_FOR])


# -- the object ----------------------------------------------------------------------------------------------------


def test_accelerators_are_requested_as_they_are_limited() -> None:
    given = engine()["resources"]
    assert given["requests"]["nvidia.com/gpu"] == given["limits"]["nvidia.com/gpu"] == "4"
    assert given["requests"]["memory"] == given["limits"]["memory"] == "80Gi"
    assert given["requests"]["cpu"] == "16" and "cpu" not in given["limits"]


def test_the_engine_answers_to_the_names_that_the_gateway_uses_at_the_port_that_it_asks() -> None:
    arguments = engine()["args"]
    at = arguments.index("--served-model-name")
    assert arguments[at + 1 : at + 3] == ["mistral-24b", model_name("llm-models", "mistral-24b")]
    assert f"--port={MODEL_PORT}" in arguments and "--tensor-parallel-size=4" in arguments
    assert [port["containerPort"] for port in engine()["ports"]] == [MODEL_PORT]


def test_nothing_on_the_object_reaches_the_pods_that_means_something_to_pulumi() -> None:
    # KServe copies them to the Deployment, whose own wait they would replace, and to its pods.
    marks = inference_service(MODEL)["metadata"]["annotations"]
    assert not [key for key in marks if key.startswith(("pulumi.com/", labels.DOMAIN))]


def test_the_number_of_replicas_is_ours_down_to_none() -> None:
    item = inference_service(replace(MODEL, replicas=0))
    assert item["spec"]["predictor"]["minReplicas"] == 0
    assert item["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "none"


def test_requests_that_run_may_finish_before_the_pod_ends() -> None:
    (said,) = [a for a in engine()["args"] if a.startswith("--shutdown-timeout=")]
    finishing = int(said.partition("=")[2])
    assert PRE_STOP_SECONDS + finishing < predictor()["terminationGracePeriodSeconds"]
    assert engine()["lifecycle"]["preStop"]["exec"]["command"][-1] == str(PRE_STOP_SECONDS)


def test_the_kubelet_waits_at_least_the_load_budget() -> None:
    probe = engine(replace(MODEL, load_budget_seconds=901))["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 901


def test_only_an_image_of_its_own_stands_at_the_model() -> None:
    assert "image" not in predictor()["model"] and engine()["image"] == RUNTIME.image
    assert engine(replace(MODEL, image="registry.example/vllm:v2"))["image"] == "registry.example/vllm:v2"


# -- what is waited for --------------------------------------------------------------------------------------------


def marks(spec: ModelSpec) -> list[str]:
    return [text for text in awaited(spec) if "template" in text]


def test_neither_the_number_of_pods_nor_how_they_are_replaced_makes_new_ones() -> None:
    strategy = Rollout(replicas=2, spare=True).strategy
    other = replace(MODEL, replicas=2, strategy=strategy)
    assert marks(other) == marks(MODEL)
    assert predictor(other)["annotations"] == predictor()["annotations"]
    assert rollout(other) != rollout(MODEL) and complete(other) != complete(MODEL), "they are waited for"


@pytest.mark.parametrize(
    "change",
    [
        {"args": ()},
        {"image": "registry.example/vllm:v2"},
        {"uri": "s3://llm-models/other/"},
        {"env": {"A": "b"}},
        {"runtime": replace(RUNTIME, image="registry.example/vllm:v2")},
    ],
)
def test_whatever_makes_new_pods_is_waited_for_by_its_mark(change: dict[str, Any]) -> None:
    assert marks(replace(MODEL, **change)) != marks(MODEL)


def test_the_marks_are_those_that_the_pods_carry() -> None:
    carried = {**serving_runtime(RUNTIME)["spec"]["annotations"], **predictor()["annotations"]}
    wanted = {f"jsonpath={{.spec.template.metadata.annotations['{k}']}}={v}" for k, v in carried.items()}
    assert wanted == set(marks(MODEL))


def test_a_count_that_kubernetes_leaves_out_is_not_waited_for() -> None:
    assert any(".status.availableReplicas}=1" in text for text in awaited())
    assert not [text for text in awaited(replace(MODEL, replicas=0)) if ".status." in text]


@pytest.mark.parametrize(
    ("plan", "surge", "missing"),
    [
        (Rollout(replicas=1, spare=True), "25%", "25%"),
        (Rollout(replicas=2, spare=False), 0, 1),
        (Rollout(replicas=8, spare=False), "25%", "25%"),
    ],
)
def test_the_strategy_is_what_the_stack_says_of_a_change(plan: Rollout, surge: Any, missing: Any) -> None:
    assert plan.strategy["rollingUpdate"] == {"maxSurge": surge, "maxUnavailable": missing}


def test_the_only_replica_of_a_full_pool_ends_before_the_next_begins() -> None:
    assert Rollout(replicas=1, spare=False).strategy == {"type": "Recreate"}


# -- what others see -----------------------------------------------------------------------------------------------


def test_the_routes_lead_to_the_service_that_kserve_makes() -> None:
    route = RouteSpec(
        model="mistral",
        namespace="llm-models",
        served_name="mistral-24b",
        gateway="door",
        gateway_namespace="gateway",
        section="http",
        pooled=False,
        kind=PREDICTOR,
    )
    rules = [
        r
        for item in (gateway.inference_route(route), gateway.plain_route(route))
        for r in item["spec"]["rules"]
    ]
    backends = [backend for rule in rules for backend in rule["backendRefs"]]
    assert {(b["kind"], b["name"], b["port"]) for b in backends} == {("Service", "mistral-predictor", 80)}


def test_google_and_istio_are_told_of_that_service() -> None:
    spec = BackendSpec(model="m", namespace="n", pooled=False, timeout_seconds=600, kind=PREDICTOR)
    targets = {item["spec"]["targetRef"]["name"] for _, item in google.backend_policies(spec)}
    assert targets == {"m-predictor"}
    ((_, rule),) = destination_rules("m", "n", pooled=False, tls=True, kind=PREDICTOR)
    assert rule["spec"]["host"] == "m-predictor.n.svc.cluster.local"
    assert rule["spec"]["trafficPolicy"]["tls"] == {"mode": "DISABLE"}


def test_policy_and_monitor_select_its_pods_and_no_others() -> None:
    policy = PolicySpec(
        model="m", namespace="n", gateway=({"x": "y"},), pooled=False, downloads=False, kind=PREDICTOR
    )
    wanted = network_policy.workload(policy)["spec"]["podSelector"]["matchLabels"]
    # As KServe labels them, and none that one of our own objects carries.
    assert wanted == {"serving.kserve.io/inferenceservice": "m", "component": "predictor"}
    target = ModelTarget(
        name="m", namespace="n", pooled=False, running=True, load_budget_seconds=900, kind=PREDICTOR
    )
    spec = MonitoringSpec(
        system="prometheus-operator",
        namespace="monitoring",
        gateway=None,
        gateway_namespace="gateway",
        models=(target,),
        tls=True,
        limits=False,
    )
    items = {role: item for chain in monitoring.objects(spec) for role, item in chain}
    monitor = items["model-m-workload"]["spec"]
    assert monitor["selector"]["matchLabels"] == wanted
    assert monitor["podMetricsEndpoints"][0]["scheme"] == "http"
    assert 'pod=~"m-predictor-.*"' in json.dumps(items["model-m-alerts"]).replace('\\"', '"')


def test_each_kind_is_found_by_its_name() -> None:
    assert (kind_of(None), kind_of(NAME)) == (LLM, PREDICTOR)
    assert all(SERVICE_KINDS[kind.kind] is kind for kind in (LLM, PREDICTOR))


# -- the program ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """The dev stack with two models of the runtime, of which the pool has one place each, and one without."""
    raw = raw_stack("dev")
    (name,) = raw["models"]
    raw["cluster"]["accelerators"]["l4"]["maxNodes"] = 3
    one = raw["models"][name]
    raw["models"] = {"one": {**one, "runtime": NAME}, "two": {**one, "runtime": NAME}, "three": one}
    return record_stack(raw, tmp_path_factory.mktemp("runtime"))


def test_the_models_of_a_namespace_share_one_runtime_which_is_there_first(recording: Recording) -> None:
    (shared,) = [r for r in recording.objects if r.inputs.get("kind") == "ServingRuntime"]
    services = [r for r in recording.objects if r.inputs.get("kind") == "InferenceService"]
    assert {r.name for r in services} == {"one", "two"}
    for service in services:
        assert service.inputs["spec"]["predictor"]["model"]["runtime"] == shared.inputs["metadata"]["name"]
        assert shared.urn in recording.before(service)


def test_only_the_model_without_the_runtime_gets_a_picker_and_a_program_that_makes_room(
    recording: Recording,
) -> None:
    rooms = {r.name for r in recording.registrations if r.type == RoomMaker.TOKEN}
    assert rooms == {"three-room"}
    pickers = {r.name for r in recording.objects if r.name.endswith("-picker-policy")}
    assert pickers == {"three-picker-policy"}


def test_without_such_a_model_there_is_no_runtime(tmp_path: Path) -> None:
    kinds = {r.inputs.get("kind") for r in record_stack(raw_stack("dev"), tmp_path).objects}
    assert "LLMInferenceService" in kinds and not kinds & {"ServingRuntime", "InferenceService"}
