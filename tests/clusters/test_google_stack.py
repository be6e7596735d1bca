"""Pattern 1 as recorded: what comes before what with Google's gateway, and what is not there at all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.platform import google_gateway
from components.serving.gateway import GOOGLE_SECONDS, PROGRAMMED_SECONDS
from tests.support.recorder import ADDRESS, Recording, Registration
from tests.support.stacks import raw_stack, record_stack

MODEL = "qwen2-3b-pattern1"
HOME = "llm-d-inference-scheduling"
SERVICE = "kubernetes:serving.kserve.io/v1alpha2:LLMInferenceService"
GATEWAY = "kubernetes:gateway.networking.k8s.io/v1:Gateway"
NAMESPACE = "kubernetes:core/v1:Namespace"
RELEASE = "kubernetes:helm.sh/v3:Release"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
# Groups whose kinds Google defines.
GOOGLES = ("gateway.networking.k8s.io", "inference.networking.k8s.io", "networking.gke.io")
Run = Callable[..., Recording]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Records the example, changed by a function of its raw configuration."""

    def go(change: Callable[[dict[str, Any]], None] = lambda raw: None) -> Recording:
        raw = copy.deepcopy(raw_stack("pattern1"))
        change(raw)
        return record_stack(raw, tmp_path)

    return go


@pytest.fixture
def example(run: Run) -> Recording:
    """The example as it is committed."""
    return run()


def check(recording: Recording) -> Registration:
    """The job that waits for what Google defines."""
    return recording.named(f"platform-{google_gateway.NAME}-job")


def gateway(recording: Recording) -> Registration:
    return recording.named("gateway", GATEWAY)


def on_existing(raw: dict[str, Any]) -> None:
    """The same before somebody else's cluster."""
    raw["cluster"] = {
        "kind": "existing",
        "context": "somewhere",
        "accelerators": {"v6e": {"type": "tpu-v6e", "perNode": 4, "maxNodes": 3}},
    }
    raw["gateway"]["proxyOnly"] = "192.168.8.0/23"


def test_nothing_of_istio_and_none_of_google_s_definitions_is_installed(example: Recording) -> None:
    types = {r.type for r in example.objects}
    assert not [name for name in types if "istio.io" in name or "CustomResourceDefinition" in name]
    charts = {r.inputs["name"] for r in example.of_type(RELEASE)}
    assert {"cert-manager", "kserve-llmisvc-resources", "lws"} <= charts
    assert not [name for name in charts if "istio" in name]
    assert example.outputs["operators"]["provided"] == ["gateway-api", "gpu-operator", "inference-extension"]


def test_what_needs_google_s_definitions_comes_after_the_job_that_waits_for_them(example: Recording) -> None:
    job = check(example).urn
    users = [r for r in example.objects if any(f"kubernetes:{group}/" in r.type for group in GOOGLES)]
    releases = [
        r
        for r in example.of_type(RELEASE)
        if r.inputs["name"] in ("cert-manager", "kserve-llmisvc-resources")
    ]
    kinds = {item.type.rsplit(":", 1)[-1].removesuffix("Patch") for item in users}
    assert kinds == {"Gateway", "HTTPRoute", "HealthCheckPolicy", "GCPBackendPolicy"} and len(releases) == 2
    for item in (*users, *releases, example.named(MODEL, SERVICE)):
        assert job in example.before(item), item.name


def test_every_kind_that_google_defines_and_the_program_makes_is_waited_for(example: Recording) -> None:
    plural = {"HTTPRoute": "httproutes", "Gateway": "gateways", "HealthCheckPolicy": "healthcheckpolicies",
              "GCPBackendPolicy": "gcpbackendpolicies"}  # fmt: skip
    used = {
        f"{plural[kind]}.{version.split('/')[0]}"
        for version, kind in ((r.inputs["apiVersion"], r.inputs["kind"]) for r in example.objects if "apiVersion" in r.inputs)
        if version.split("/")[0] in GOOGLES
    }  # fmt: skip
    # KServe makes the pool.
    assert used | {"inferencepools.inference.networking.k8s.io"} == set(google_gateway.DEFINITIONS)


def test_the_check_waits_for_the_class_of_the_gateway(example: Recording) -> None:
    chosen = gateway(example).inputs["spec"]["gatewayClassName"]
    pod = check(example).inputs["spec"]["template"]["spec"]
    assert chosen == "gke-l7-regional-external-managed"
    assert pod["containers"][-1]["args"][-1].endswith(f"/{chosen}")


def test_the_proxies_subnet_is_there_before_anything_in_the_cluster_and_goes_after_it(
    example: Recording,
) -> None:
    proxies = example.named("cluster-proxies")
    assert proxies.inputs["purpose"] == "REGIONAL_MANAGED_PROXY"
    provider = example.named("cluster-kubernetes")
    assert proxies.urn in example.before(provider)
    assert all(item.provider.startswith(f"{provider.urn}::") for item in example.objects)


def test_policies_of_the_backends_are_there_before_kserve_makes_the_backends(example: Recording) -> None:
    earlier = example.before(example.named(MODEL, SERVICE))
    found = [r for r in example.objects if "networking.gke.io/v1:" in r.type]
    assert {r.name for r in found} == {
        f"{MODEL}-{target}-{what}" for target in ("service", "pool") for what in ("health", "backend")
    }
    assert {r.urn for r in found} <= earlier
    assert {r.inputs["metadata"]["namespace"] for r in found} == {HOME}


@pytest.mark.parametrize(
    ("change", "block"),
    [
        (lambda raw: None, "192.168.100.0/23"),
        (lambda raw: raw["cluster"].update(network={"proxyOnly": "192.168.6.0/23"}), "192.168.6.0/23"),
        (on_existing, "192.168.8.0/23"),
    ],
    ids=["default", "own range", "somebody else's cluster"],
)
def test_the_models_let_in_the_proxies_of_this_network(
    run: Run, change: Callable[[dict[str, Any]], None], block: str
) -> None:
    recording = run(change)
    (rule,) = recording.named(f"{MODEL}-workload-policy", POLICY).inputs["spec"]["ingress"]
    blocks = [peer["ipBlock"]["cidr"] for peer in rule["from"] if "ipBlock" in peer]
    assert blocks == [block, "35.191.0.0/16", "130.211.0.0/22"]


def test_outputs_say_what_the_gateway_serves(example: Recording) -> None:
    outputs = example.outputs
    assert outputs["model_urls"] == {MODEL: f"http://{ADDRESS}/{HOME}/{MODEL}/v1"}
    assert outputs["base_url"] == f"http://{ADDRESS}/v1"
    assert outputs["model_headers"] == {MODEL: f"x-gateway-model-name: publishers/{HOME}/models/{MODEL}"}


def test_kserve_leaves_tls_to_the_gateway(example: Recording) -> None:
    (release,) = [r for r in example.of_type(RELEASE) if r.inputs["name"] == "kserve-resources"]
    settings = release.inputs["values"]["kserve"]["controller"]["gateway"]
    assert "disableHTTPRouteTimeout" not in settings
    assert settings["ingressGateway"]["className"] == "gke-l7-regional-external-managed"


def test_google_has_time_to_make_the_load_balancer_and_to_take_it_apart(example: Recording) -> None:
    times = gateway(example).timeouts
    assert times["create"] == times["delete"] == f"{GOOGLE_SECONDS}s"
    assert GOOGLE_SECONDS > PROGRAMMED_SECONDS


def with_certificate(raw: dict[str, Any]) -> None:
    raw["gateway"] |= {"host": "llm.example.com", "tls": {"issuer": "own-ca"}}


def test_a_certificate_comes_before_google_s_gateway_which_does_nothing_without_it(run: Run) -> None:
    recording = run(with_certificate)
    certificate = recording.named("gateway-certificate-certificate")
    assert certificate.urn in recording.before(gateway(recording))
    assert recording.named("gateway-namespace", NAMESPACE).urn in recording.before(
        recording.named("gateway-certificate-issuer-start")
    )
    assert recording.outputs["base_url"] == "https://llm.example.com/v1"


def test_a_managed_certificate_needs_no_object_of_ours(run: Run) -> None:
    recording = run(lambda raw: raw["gateway"].update(tls={"certificateManager": "llm-cert"}))
    assert not [r for r in recording.objects if "cert-manager.io" in r.type]
    secure, _ = gateway(recording).inputs["spec"]["listeners"]
    assert secure["tls"]["options"] == {"networking.gke.io/cert-manager-certs": "llm-cert"}
    assert recording.named("gateway-redirect").inputs["spec"]["rules"][0]["filters"]


def test_monitoring_looks_for_no_pods_of_the_gateway(run: Run) -> None:
    recording = run(lambda raw: raw.update(platform={"monitoring": "google"}))
    names = {r.name for r in recording.objects}
    assert f"monitoring-model-{MODEL}-workload" in names
    assert not [name for name in names if name.startswith("monitoring-gateway")]
    assert "infrastructure" not in gateway(recording).inputs["spec"]
