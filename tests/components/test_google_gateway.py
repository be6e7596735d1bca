"""What is built for Google's gateway: routes that it takes, policies for every backend, peers that are addresses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from components.core import labels
from components.core.manifest import Manifest
from components.platform import google_gateway
from components.platform.google_gateway import google_gateway_check
from components.serving.manifests import gateway, google, network_policy
from components.serving.manifests.gateway import INFERENCE_PATHS, MODEL_HEADER, GatewaySpec, RouteSpec
from components.serving.manifests.google import BackendSpec, backend_policies
from components.serving.manifests.network_policy import PolicySpec
from rehearsal.reachability import External, Pod, Reachability

ROUTE = RouteSpec(
    model="qwen",
    namespace="llm-models",
    served_name="qwen-3b",
    gateway="door",
    gateway_namespace="gateway",
    section="http",
    pooled=True,
    google=True,
)
DOOR = GatewaySpec(
    name="door",
    namespace="gateway",
    class_name="gke-l7-rilb",
    internal=True,
    cloud="gcp",
    host="llm.example.com",
    google=True,
)
BACKENDS = BackendSpec(model="qwen", namespace="llm-models", pooled=True, timeout_seconds=600)
BY_NAME = "publishers/llm-models/models/qwen-3b"


def routes(**fields: Any) -> list[Manifest]:
    """Both routes of a model."""
    spec = dataclasses.replace(ROUTE, **fields)
    return [gateway.inference_route(spec), gateway.plain_route(spec)]


def rules(items: list[Manifest]) -> Iterator[dict[str, Any]]:
    for item in items:
        yield from item["spec"]["rules"]


# -- routes --------------------------------------------------------------------------------------------------------


def refusals(rule: dict[str, Any]) -> Iterator[str]:
    """What Google's regional gateways, or the API's own rules, refuse in a rule (reasons: docs/gateway.md)."""
    if "timeouts" in rule:
        yield "timeouts"
    for match in rule["matches"]:
        yield from (f"match by {key}" for key in match.keys() - {"path", "headers"})
        if match["path"]["type"] not in ("Exact", "PathPrefix"):
            yield match["path"]["type"]
    for change in rule.get("filters", ()):
        if change["type"] != "URLRewrite":
            yield change["type"]
            continue
        if change["urlRewrite"]["path"]["type"] != "ReplacePrefixMatch":
            yield change["urlRewrite"]["path"]["type"]
        elif [match["path"]["type"] for match in rule["matches"]] != ["PathPrefix"]:
            yield "a prefix is replaced that is not the only match"


@pytest.mark.parametrize("pooled", [True, False])
def test_nothing_in_a_route_is_refused_by_google(pooled: bool) -> None:
    for rule in rules(routes(pooled=pooled)):
        assert list(refusals(rule)) == []


def test_the_routes_for_istio_would_be() -> None:
    found = {word for rule in rules(routes(google=False, timeout_seconds=600)) for word in refusals(rule)}
    assert found == {"timeouts", "ReplaceFullPath", "ResponseHeaderModifier"}


def served(items: list[Manifest], path: str, name: str | None = None) -> tuple[str, str] | None:
    """(backend, the path that it sees) of a request, as Google's URL map decides it: exact before prefix."""
    for exact in (True, False):
        for rule in rules(items):
            for match in rule["matches"]:
                value = match["path"]["value"]
                fits = path == value if exact else path == value or path.startswith(f"{value}/")
                chosen = [header["value"] for header in match.get("headers", ())]
                if fits and (match["path"]["type"] == "Exact") == exact and chosen in ([], [name]):
                    (backend,) = rule["backendRefs"]
                    changes = [change["urlRewrite"]["path"] for change in rule.get("filters", ())]
                    for change in changes:
                        path = change["replacePrefixMatch"] + path.removeprefix(value)
                    return backend["kind"], path
    return None


@pytest.mark.parametrize("path", INFERENCE_PATHS)
@pytest.mark.parametrize(("pooled", "kind"), [(True, "InferencePool"), (False, "Service")])
def test_inference_goes_to_the_pool_by_path_and_by_the_model_s_name(
    path: str, pooled: bool, kind: str
) -> None:
    items = routes(pooled=pooled)
    assert served(items, f"/llm-models/qwen{path}") == (kind, path)
    assert served(items, path, BY_NAME) == (kind, path)
    assert served(items, path, "publishers/llm-models/models/other") is None
    assert served(items, path) is None, "nothing reads the body for the model's name"


@pytest.mark.parametrize("path", gateway.PLAIN_PATHS)
def test_questions_about_the_model_go_around_the_picker(path: str) -> None:
    assert served(routes(), f"/llm-models/qwen{path}") == ("Service", path)


@pytest.mark.parametrize(
    "path", ["/", "/llm-models/qwen", "/llm-models/qwen/metrics", "/llm-models/qwen2/v1/models"]
)
def test_other_paths_reach_no_model(path: str) -> None:
    assert served(routes(), path) is None


def test_no_rule_of_the_request_program_is_left_over() -> None:
    text = str(routes())
    assert gateway.LONG_HEADER not in text and not any(name in text for name in gateway.BUDGET_HEADERS)
    assert MODEL_HEADER in text


# -- backends ------------------------------------------------------------------------------------------------------


def policies(**fields: Any) -> list[Manifest]:
    return [item for _, item in backend_policies(dataclasses.replace(BACKENDS, **fields))]


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("kind", ["HealthCheckPolicy", "GCPBackendPolicy"])
def test_every_backend_of_a_route_has_exactly_one_policy_of_each_kind(pooled: bool, kind: str) -> None:
    backends = {
        (backend["group"], backend["kind"], backend["name"])
        for rule in rules(routes(pooled=pooled))
        for backend in rule["backendRefs"]
    }
    targets = [item["spec"]["targetRef"] for item in policies(pooled=pooled) if item["kind"] == kind]
    named = [(target["group"], target["kind"], target["name"]) for target in targets]
    assert sorted(named) == sorted(backends)
    names = [item["metadata"]["name"] for item in policies(pooled=pooled) if item["kind"] == kind]
    assert len(set(names)) == len(names)


def test_health_is_asked_where_the_engine_tells_it() -> None:
    for item in policies():
        if item["kind"] != "HealthCheckPolicy":
            continue
        default = item["spec"]["default"]
        assert default["config"] == {
            "type": "HTTP",
            "httpHealthCheck": {"requestPath": "/health", "port": gateway.MODEL_PORT},
        }
        assert default["timeoutSec"] <= default["checkIntervalSec"], "Google refuses the policy"


@pytest.mark.parametrize(("seconds", "draining"), [(30, 30), (3600, 3600), (7200, 3600)])
def test_a_request_may_take_what_the_model_says_also_at_a_replica_that_goes(
    seconds: int, draining: int
) -> None:
    found = [
        item["spec"]["default"]
        for item in policies(timeout_seconds=seconds)
        if item["kind"] == "GCPBackendPolicy"
    ]
    assert {default["timeoutSec"] for default in found} == {seconds}
    assert {default["connectionDraining"]["drainingTimeoutSec"] for default in found} == {draining}
    assert all(default["logging"]["enabled"] for default in found)


# -- the gateway ---------------------------------------------------------------------------------------------------


def test_google_s_class_alone_keeps_it_inside() -> None:
    door = gateway.gateway(DOOR)
    assert door["spec"]["gatewayClassName"] == "gke-l7-rilb"
    assert "infrastructure" not in door["spec"]
    assert set(door["metadata"]["annotations"]) == {labels.WAIT_FOR}


def test_a_managed_certificate_is_named_where_regional_gateways_look_for_it() -> None:
    spec = dataclasses.replace(DOOR, certificate="llm-cert")
    secure, plain = gateway.gateway(spec)["spec"]["listeners"]
    assert secure["tls"] == {
        "mode": "Terminate",
        "options": {"networking.gke.io/cert-manager-certs": "llm-cert"},
    }
    assert (secure["name"], spec.section) == ("https", "https")
    assert plain["allowedRoutes"]["namespaces"] == {"from": "Same"}


def test_the_redirect_names_no_port_which_google_refuses() -> None:
    (rule,) = gateway.redirect(dataclasses.replace(DOOR, certificate="llm-cert"))["spec"]["rules"]
    (change,) = rule["filters"]
    assert change["requestRedirect"] == {"scheme": "https", "statusCode": 301}


# -- network policies ----------------------------------------------------------------------------------------------

HOME = "llm-models"
PROXY, PROBER, PROBER_2 = External("192.168.101.7"), External("35.191.8.9"), External("130.211.3.4")
INTERNET, NODE, NEIGHBOUR = External("142.250.1.1"), External("10.0.0.5"), External("192.168.102.1")


def pod(name: str, home: str, marks: dict[str, str]) -> Pod:
    return Pod(name=name, namespace=home, labels=marks, address="10.4.0.9")


WORKLOAD, PICKER = (
    pod("qwen", HOME, labels.model_workload("qwen")),
    pod("epp", HOME, labels.model_picker("qwen")),
)
# What would have been the gateway, were it Istio's.
IMPOSTOR = pod("door", "gateway", {labels.GATEWAY_NAME: "door"})


@pytest.fixture(scope="module")
def reach() -> Reachability:
    """The policies of a model behind Google's gateway."""
    spec = PolicySpec(
        model="qwen",
        namespace=HOME,
        gateway=network_policy.blocks(["192.168.100.0/23"]),
        probers=google.probers(),
        pooled=True,
        downloads=True,
    )
    made = [network_policy.default_deny(HOME), network_policy.workload(spec), network_policy.picker(spec)]
    spaces = [
        {"metadata": {"name": name, "labels": {labels.NAMESPACE_NAME: name}}} for name in (HOME, "gateway")
    ]
    return Reachability(made, spaces)


@pytest.mark.parametrize(
    ("where", "port", "who"),
    [
        (WORKLOAD, 8000, {PROXY, PROBER, PROBER_2}),
        (PICKER, 9002, {PROXY}),
        (PICKER, 9003, {PROBER, PROBER_2}),
        (PICKER, 9090, set()),
        (WORKLOAD, 22, set()),
    ],
    ids=["engine", "picker", "picker's health", "picker's metrics", "anything else"],
)
def test_google_s_proxies_and_probes_reach_what_they_need_and_nobody_else_does(
    reach: Reachability, where: Pod, port: int, who: set[External]
) -> None:
    outside = {PROXY, PROBER, PROBER_2, INTERNET, NODE, NEIGHBOUR}
    assert {source for source in outside if reach.allowed(source, where, port)} == who
    assert not reach.allowed(IMPOSTOR, where, port)


def test_without_probers_no_rule_stands_open() -> None:
    spec = PolicySpec(model="qwen", namespace=HOME, gateway=(), pooled=True, downloads=False)
    for rule in network_policy.picker(
        dataclasses.replace(spec, gateway=network_policy.blocks(["10.9.0.0/24"]))
    )["spec"]["ingress"]:
        assert rule["from"], "a rule from nobody is a rule from everybody"


# -- the check -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def check() -> dict[str, Manifest]:
    """The objects of the check by role."""
    return dict(google_gateway_check("registry.example/kubectl:v1.34.1", "gke-l7-rilb"))


def asked(container: dict[str, Any]) -> tuple[str, set[tuple[str, str]]]:
    """(condition, (resource, name) of what is asked) of a container."""
    verb, condition, patience, *things = container["args"]
    assert verb == "wait" and int(patience.removeprefix("--timeout=").removesuffix("s")) > 0
    found = {tuple(thing.split("/")) for thing in things}
    return condition.removeprefix("--for="), found  # type: ignore[return-value]


def test_everything_is_waited_for_to_exist_and_then_to_be_fit_for_use(check: dict[str, Manifest]) -> None:
    template = check["job"]["spec"]["template"]["spec"]
    existing = [asked(container) for container in template["initContainers"]]
    conditions = dict(asked(container) for container in template["containers"])
    definitions = {
        ("customresourcedefinitions.apiextensions.k8s.io", name) for name in google_gateway.DEFINITIONS
    }
    chosen = {("gatewayclasses.gateway.networking.k8s.io", "gke-l7-rilb")}
    assert conditions == {"condition=Established": definitions, "condition=Accepted": chosen}
    assert {condition for condition, _ in existing} == {"create"}
    assert set().union(*(things for _, things in existing)) == definitions | chosen
    assert all(len(things) == 1 for _, things in existing), "the pod's status names what is missing"


def test_the_check_may_read_what_it_waits_for_and_nothing_else(check: dict[str, Manifest]) -> None:
    template = check["job"]["spec"]["template"]["spec"]
    needed = {
        thing
        for container in (*template["initContainers"], *template["containers"])
        for thing in asked(container)[1]
    }
    allowed = set()
    for rule in check["role"]["rules"]:
        (group,), (kind,) = rule["apiGroups"], rule["resources"]
        assert set(rule["verbs"]) == {"get", "list", "watch"}
        allowed |= {(f"{kind}.{group}", name) for name in rule["resourceNames"]}
    assert allowed == needed


def test_the_check_outlasts_the_first_enabling_and_tells_before_it_ends(check: dict[str, Manifest]) -> None:
    spec = check["job"]["spec"]
    assert 45 * 60 < google_gateway.PATIENCE_SECONDS < spec["activeDeadlineSeconds"]


def test_another_class_is_waited_for_anew(check: dict[str, Manifest]) -> None:
    public = dict(
        google_gateway_check("registry.example/kubectl:v1.34.1", "gke-l7-regional-external-managed")
    )
    assert public["job"]["spec"] != check["job"]["spec"]
