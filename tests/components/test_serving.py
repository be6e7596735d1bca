"""The builders of a model's objects."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
from typing import Any

import pytest

from components.core import labels, naming
from components.serving.manifests import gateway, llm_service, network_policy
from components.serving.manifests.destination_rule import destination_rules
from components.serving.manifests.gateway import GatewaySpec, RouteSpec
from components.serving.manifests.llm_service import ModelSpec
from components.serving.manifests.network_policy import PolicySpec
from components.serving.manifests.scheduling import endpoint_picker

MODEL = ModelSpec(
    name="qwen",
    namespace="llm-models",
    uri="hf://Qwen/Qwen3-0.6B",
    served_name="qwen",
    replicas=1,
    image="registry.example/vllm:v1.0.0",
    resource="nvidia.com/gpu",
    chips=1,
    node_selector={"nvidia.com/gpu.product": "NVIDIA-L4"},
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
    args=("--max-model-len=8192",),
)
GATEWAY = GatewaySpec(name="door", namespace="gateway", class_name="istio", internal=True, cloud="other")
ROUTE = RouteSpec(
    model="qwen",
    namespace="llm-models",
    served_name="qwen",
    gateway="door",
    gateway_namespace="gateway",
    section="http",
    pooled=True,
)
POLICY = PolicySpec(
    model="qwen",
    namespace="llm-models",
    gateway=(network_policy.pods({labels.GATEWAY_NAME: "door"}, "gateway"),),
    pooled=True,
    downloads=True,
)


def built(spec: ModelSpec = MODEL) -> dict[str, Any]:
    """The service's spec."""
    return llm_service.llm_service(spec, "door", "gateway", ("a", "b"))["spec"]


def engine(spec: ModelSpec = MODEL) -> dict[str, Any]:
    """The engine's container."""
    (container,) = built(spec)["template"]["containers"]
    return container


def changed(**fields: Any) -> ModelSpec:
    return dataclasses.replace(MODEL, **fields)


# -- the service ---------------------------------------------------------------------------------------------------


def test_accelerators_are_requested_as_they_are_limited() -> None:
    resources = engine(changed(chips=4, memory="16Gi"))["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "4"
    assert resources["requests"]["memory"] == resources["limits"]["memory"] == "16Gi"


def test_chips_are_shared_by_tensor_parallelism_where_there_are_several() -> None:
    assert "parallelism" not in built()
    assert built(changed(chips=4))["parallelism"] == {"tensor": 4}


def test_arguments_survive_the_shell_of_the_preset() -> None:
    tricky = ('--override={"a": "b c"}', "--x=$HOME", "--y=`id`", "--plain=1")
    quoted = engine(changed(args=tricky))["args"]
    # What the preset does: its own arguments, joined and evaluated once more.
    script = "eval \"printf '%s\\n' $@\""
    said = subprocess.run(["bash", "-c", script, "--", *quoted], capture_output=True, text=True, check=True)
    assert tuple(said.stdout.splitlines()) == tricky


@pytest.mark.parametrize(("uri", "fetched"), [("hf://a/b", True), ("s3://b/c", True), ("pvc://claim", False)])
def test_only_weights_that_are_copied_get_room_for_the_copy(uri: str, fetched: bool) -> None:
    template = built(changed(uri=uri, memory="32Gi"))["template"]
    assert ("initContainers" in template) == fetched
    if fetched:
        assert template["initContainers"][0]["resources"]["limits"]["memory"] == "32Gi"


def test_the_kubelet_waits_at_least_the_load_budget() -> None:
    probe = engine(changed(load_budget_seconds=901))["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 901


def test_no_replicas_keep_the_service_and_its_picker() -> None:
    spec = built(changed(replicas=0))
    assert spec["replicas"] == 0 and "scheduler" in spec["router"]


def test_a_model_s_account_holds_no_token_for_the_cluster() -> None:
    account = llm_service.service_account(MODEL, ("hf-token",), ("image-pull",))
    assert account["automountServiceAccountToken"] is False
    assert account["secrets"] == [{"name": "hf-token"}]
    assert account["imagePullSecrets"] == [{"name": "image-pull"}]


def test_round_robin_has_no_picker_and_no_pool() -> None:
    assert "scheduler" not in built(changed(routing="none"))["router"]
    assert endpoint_picker("none") is None
    assert [role for role, _ in destination_rules("qwen", "ns", pooled=False, tls=True)] == ["workload-tls"]


@pytest.mark.parametrize("routing", ["prefix-cache", "load"])
def test_every_plugin_of_a_profile_is_declared(routing: Any) -> None:
    config = endpoint_picker(routing)
    assert config is not None
    declared = {plugin["type"] for plugin in config["plugins"]}
    (profile,) = config["schedulingProfiles"]
    assert {plugin["pluginRef"] for plugin in profile["plugins"]} == declared - {
        "single-profile-handler",
        "approx-prefix-cache-producer",
    }
    assert ("prefix-cache-scorer" in declared) == (routing == "prefix-cache")


# -- the gateway ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cloud", ["other", "gcp", "aws"])
def test_an_internal_gateway_says_so_to_its_cloud(cloud: Any) -> None:
    inside = gateway.gateway(dataclasses.replace(GATEWAY, cloud=cloud))
    outside = gateway.gateway(dataclasses.replace(GATEWAY, cloud=cloud, internal=False))
    assert inside != outside
    assert set(outside["metadata"]["annotations"]) == {labels.WAIT_FOR}
    marks = outside["spec"].get("infrastructure", {}).get("annotations", {})
    assert not any("internal" in mark.lower() for mark in (*marks, *marks.values()))


@pytest.mark.parametrize("internal", [True, False])
def test_on_aws_no_classic_load_balancer_ends_long_answers(internal: bool) -> None:
    made = gateway.gateway(dataclasses.replace(GATEWAY, cloud="aws", internal=internal))
    marks = made["spec"]["infrastructure"]["annotations"]
    assert marks["service.beta.kubernetes.io/aws-load-balancer-type"] == "nlb"


def test_only_namespaces_of_models_may_attach_routes() -> None:
    (listener,) = gateway.gateway(GATEWAY)["spec"]["listeners"]
    assert listener["allowedRoutes"]["namespaces"] == {
        "from": "Selector",
        "selector": {"matchLabels": {labels.ROUTES: "door"}},
    }


def test_with_tls_plain_http_only_redirects() -> None:
    spec = dataclasses.replace(GATEWAY, host="llm.example.com", tls_secret="cert")
    listeners = {item["name"]: item for item in gateway.gateway(spec)["spec"]["listeners"]}
    assert listeners["https"]["tls"]["certificateRefs"] == [{"kind": "Secret", "name": "cert"}]
    assert listeners["http"]["allowedRoutes"] == {"namespaces": {"from": "Same"}}
    (rule,) = gateway.redirect(spec)["spec"]["rules"]
    assert rule["filters"][0]["requestRedirect"] == {"scheme": "https", "statusCode": 301}
    assert "backendRefs" not in rule


LONG = {"name": "x-gateway-prompt", "value": "long"}


def long(rule: dict[str, Any]) -> bool:
    return all(LONG in match.get("headers", []) for match in rule["matches"])


def test_inference_goes_through_the_picker_and_questions_past_it() -> None:
    for rule in gateway.inference_route(ROUTE)["spec"]["rules"]:
        if not long(rule):
            assert rule["backendRefs"][0]["kind"] == "InferencePool"
            assert rule["backendRefs"][0]["name"] == naming.inference_pool("qwen")
    for rule in gateway.plain_route(ROUTE)["spec"]["rules"]:
        assert rule["backendRefs"][0]["kind"] == "Service"


def test_what_is_too_long_for_a_picker_has_the_same_addresses_and_passes_it_by() -> None:
    def addresses(wanted: bool) -> list[tuple[str, Any]]:
        return [
            (m["path"]["value"], [h for h in m.get("headers", []) if h != LONG])
            for rule in rules
            if long(rule) is wanted
            for m in rule["matches"]
        ]

    rules = gateway.inference_route(ROUTE)["spec"]["rules"]
    assert addresses(True) == addresses(False) != []
    assert {rule["backendRefs"][0]["kind"] for rule in rules if long(rule)} == {"Service"}
    unpooled = gateway.inference_route(dataclasses.replace(ROUTE, pooled=False))["spec"]["rules"]
    assert not any(map(long, unpooled)) and len(unpooled) * 2 == len(rules)
    # The Gateway API allows no more.
    assert len(rules) <= 16


def by_header(rule: dict[str, Any]) -> bool:
    return len(rule["matches"]) > 1


def test_a_path_is_matched_exactly_and_loses_the_model_s_prefix() -> None:
    rules = [*gateway.inference_route(ROUTE)["spec"]["rules"], *gateway.plain_route(ROUTE)["spec"]["rules"]]
    for rule in rules:
        if not by_header(rule):
            (match,) = rule["matches"]
            rewritten = rule["filters"][0]["urlRewrite"]["path"]["replaceFullPath"]
            assert match["path"] == {"type": "Exact", "value": f"/llm-models/qwen{rewritten}"}


def test_the_base_url_leads_to_a_model_by_its_header_alone() -> None:
    (rule,) = (r for r in gateway.inference_route(ROUTE)["spec"]["rules"] if by_header(r) and not long(r))
    assert {match["path"]["value"] for match in rule["matches"]} == set(gateway.INFERENCE_PATHS)
    for match in rule["matches"]:
        assert match["headers"] == [
            {"name": "x-gateway-model-name", "value": "publishers/llm-models/models/qwen"}
        ]


def test_a_model_cannot_speak_of_budgets() -> None:
    for rule in gateway.inference_route(ROUTE)["spec"]["rules"]:
        (removed,) = (
            f["responseHeaderModifier"]["remove"] for f in rule["filters"] if "responseHeaderModifier" in f
        )
        assert {"x-tokens-remaining", "x-tokens-used", "x-requests-limit"} <= set(removed)


def test_whatever_no_model_takes_goes_to_the_request_program() -> None:
    spec = gateway.base_route(GATEWAY)["spec"]
    assert spec["rules"] == [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]
    assert spec["parentRefs"] == [{"name": "door", "sectionName": "http"}]


def test_a_timeout_is_in_the_routes_only_where_the_gateway_takes_one() -> None:
    rules = gateway.inference_route(dataclasses.replace(ROUTE, timeout_seconds=600))["spec"]["rules"]
    assert {rule["timeouts"]["request"] for rule in rules} == {"600s"}
    assert not [rule for rule in gateway.inference_route(ROUTE)["spec"]["rules"] if "timeouts" in rule]


@pytest.mark.parametrize("other", ["qwen-models", "qwen-inference", "qwen-workload", "qwen-picker"])
def test_two_models_never_share_an_object_s_name(other: str) -> None:
    def names(model: str) -> set[tuple[str, str]]:
        route = dataclasses.replace(ROUTE, model=model)
        policy = dataclasses.replace(POLICY, model=model)
        rules = destination_rules(model, "llm-models", pooled=True, tls=True)
        items = [gateway.inference_route(route), gateway.plain_route(route)]
        items += [
            network_policy.workload(policy),
            network_policy.picker(policy),
            *(item for _, item in rules),
        ]
        return {(item["kind"], item["metadata"]["name"]) for item in items}

    assert not names("qwen") & names(other)


# -- isolation -----------------------------------------------------------------------------------------------------


def peers(policy: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything that a policy lets in or out."""
    spec = policy["spec"]
    ingress = (peer for rule in spec.get("ingress", []) for peer in rule["from"])
    return [*ingress, *(peer for rule in spec.get("egress", []) for peer in rule["to"])]


def test_no_path_is_open_to_every_pod() -> None:
    for peer in peers(network_policy.workload(POLICY)) + peers(network_policy.picker(POLICY)):
        selectors = [peer.get("podSelector"), peer.get("namespaceSelector")]
        assert all(selector is None or selector.get("matchLabels") for selector in selectors), peer
        assert peer.get("podSelector") or peer.get("ipBlock"), peer


def test_metadata_services_are_out_of_reach() -> None:
    for peer in peers(network_policy.workload(POLICY)) + peers(network_policy.picker(POLICY)):
        block = peer.get("ipBlock")
        if block and block["cidr"] == "0.0.0.0/0":
            assert network_policy.LINK_LOCAL in block["except"]


def test_weights_come_from_the_internet_and_never_from_private_networks() -> None:
    (rule,) = network_policy.workload(POLICY)["spec"]["egress"]
    assert set(rule["to"][0]["ipBlock"]["except"]) == set(network_policy.PRIVATE)
    assert rule["ports"] == [{"protocol": "TCP", "port": 443}]
    mounted = dataclasses.replace(POLICY, downloads=False)
    assert network_policy.workload(mounted)["spec"]["egress"] == []


def test_each_rule_names_its_ports() -> None:
    for policy in (network_policy.workload(POLICY), network_policy.picker(POLICY), network_policy.dns("ns")):
        rules = itertools.chain(policy["spec"].get("ingress", []), policy["spec"].get("egress", []))
        assert all(rule["ports"] for rule in rules)


def test_without_a_picker_nobody_but_the_gateway_reaches_the_model() -> None:
    alone = network_policy.workload(dataclasses.replace(POLICY, pooled=False))
    assert alone["spec"]["ingress"][0]["from"] == list(POLICY.gateway)
