"""What is scraped, what alerts say, and who may read metrics."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.clusters.objects import KubernetesObject
from components.core import labels
from components.core.manifest import manifest
from components.serving.manifests import monitoring, network_policy
from components.serving.manifests.monitoring import ModelTarget, MonitoringSpec, Target, objects, scraper
from components.serving.monitoring import Monitoring, MonitoringArgs
from stacks.config.platform import Platform
from tests.support.recorder import record

QWEN = ModelTarget(name="qwen", namespace="llm-models", pooled=True, running=True, load_budget_seconds=900)
GEMMA = dataclasses.replace(QWEN, name="gemma", pooled=False, namespace="others")
SPEC = MonitoringSpec(
    system="prometheus-operator",
    namespace="monitoring",
    gateway="door",
    gateway_namespace="gw",
    models=(QWEN, GEMMA),
    tls=True,
    limits=True,
    marks={"release": "prometheus"},
)
SYSTEMS = ("prometheus-operator", "google")
# The names that exist, by where they were read (see the module's docstring); a dashboard of wishes alerts nobody.
KNOWN = {
    "up",
    "istio_requests_total",
    "envoy_http_lua_llmp_errors",
    "envoy_cluster_ratelimit_error",
    "envoy_cluster_ratelimit_failure_mode_allowed",
    "ratelimit_service_rate_limit_over_limit",
    "ratelimit_service_should_rate_limit_error",
    "ratelimit_service_config_load_error",
    "kube_pod_container_status_restarts_total",
    "process_start_time_seconds",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:num_requests_waiting",
}
by_system = pytest.mark.parametrize("system", SYSTEMS)


def made(system: str = "prometheus-operator", **fields: Any) -> dict[str, dict[str, Any]]:
    """Every object by its role."""
    spec = dataclasses.replace(SPEC, system=system, **fields)
    return {role: item for chain in objects(spec) for role, item in chain}


def alerts(found: dict[str, dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Every alert by the namespace of its object and its name."""
    return {
        (item["metadata"]["namespace"] + "/" + role, rule["alert"]): rule
        for role, item in found.items()
        for group in item.get("spec", {}).get("groups", ())
        for rule in group["rules"]
    }


def endpoint(item: dict[str, Any]) -> dict[str, Any]:
    (only,) = item["spec"].get("podMetricsEndpoints") or item["spec"]["endpoints"]
    return only


@by_system
def test_everything_that_has_metrics_is_scraped_at_its_own_pods(system: str) -> None:
    found = made(system)
    selected = {role: item["spec"]["selector"]["matchLabels"] for role, item in found.items() if "selector" in item.get("spec", {})}  # fmt: skip
    assert selected == {
        "gateway": {labels.GATEWAY_NAME: "door"},
        "limits": {labels.APP_NAME: "ratelimit", labels.PART_OF: "llm-platform"},
        "model-qwen-workload": labels.model_workload("qwen"),
        "model-qwen-picker": labels.model_picker("qwen"),
        "model-gemma-workload": labels.model_workload("gemma"),
    }


@by_system
def test_roles_and_objects_are_unique_whatever_models_and_namespaces_are_called(system: str) -> None:
    names = [("gateway", "a"), ("limits", "a-secret"), ("reader-a", "a-token"), ("a", "a")]
    models = tuple(dataclasses.replace(QWEN, name=name, namespace=home) for name, home in names)
    chains = objects(dataclasses.replace(SPEC, system=system, models=models))
    roles = [role for chain in chains for role, _ in chain]
    keys = [
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for chain in chains for _, item in chain
    ]  # fmt: skip
    assert len(set(roles)) == len(roles) and len(set(keys)) == len(keys)


def test_prometheus_scrapes_one_port_whatever_its_name() -> None:
    for role, port in {
        "gateway": "15020",
        "limits": "9090",
        "model-qwen-workload": "8000",
        "model-qwen-picker": "9090",
    }.items():
        (keep,) = endpoint(made()[role])["relabelings"]
        assert (keep["action"], keep["regex"]) == ("keep", port)


def test_google_scrapes_the_same_ports() -> None:
    ports = {role: endpoint(made("google")[role])["port"] for role in ("gateway", "limits", "model-qwen-workload", "model-qwen-picker")}  # fmt: skip
    assert ports == {"gateway": 15020, "limits": 9090, "model-qwen-workload": 8000, "model-qwen-picker": 9090}


@by_system
def test_only_model_pods_are_asked_by_tls_and_only_where_they_speak_it(system: str) -> None:
    key = {"prometheus-operator": "tlsConfig", "google": "tls"}[system]
    secure, plain = made(system), made(system, tls=False)
    assert endpoint(secure["model-qwen-workload"])["scheme"] == "https"
    assert endpoint(secure["model-qwen-workload"])[key] == {"insecureSkipVerify": True}
    for item in (
        secure["gateway"],
        secure["limits"],
        secure["model-qwen-picker"],
        plain["model-qwen-workload"],
    ):
        assert endpoint(item)["scheme"] == "http" and key not in endpoint(item)


@by_system
def test_the_picker_is_asked_with_a_token_of_its_own_namespace(system: str) -> None:
    found = made(system)
    credentials = endpoint(found["model-qwen-picker"])["authorization"]["credentials"]
    credentials = credentials.get("secret", credentials)
    token = found["reader-llm-models-token"]
    assert credentials == {"name": token["metadata"]["name"], "key": "token"}
    assert token["metadata"]["namespace"] == found["model-qwen-picker"]["metadata"]["namespace"]
    others = [
        item
        for role, item in found.items()
        if "selector" in item.get("spec", {}) and role != "model-qwen-picker"
    ]
    assert others and not [item for item in others if "authorization" in endpoint(item)]


@by_system
def test_the_token_opens_metrics_and_nothing_else(system: str) -> None:
    found = made(system)
    assert found["reader-llm-models-role"]["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    assert found["reader-llm-models-account"]["automountServiceAccountToken"] is False
    assert (
        "data" not in found["reader-llm-models-token"]
        and "stringData" not in found["reader-llm-models-token"]
    )


@by_system
def test_the_token_is_made_after_its_account(system: str) -> None:
    """Kubernetes deletes a token whose account does not exist."""
    (chain,) = (c for c in objects(dataclasses.replace(SPEC, system=system)) if c[0][0].startswith("reader-"))
    roles = [role for role, _ in chain]
    assert roles.index("reader-llm-models-account") < roles.index("reader-llm-models-token")


def test_google_s_collector_may_read_that_one_secret() -> None:
    found = made("google", namespace="gmp-system")
    (rule,) = found["reader-llm-models-secret"]["rules"]
    assert rule["resourceNames"] == [found["reader-llm-models-token"]["metadata"]["name"]]
    (subject,) = found["reader-llm-models-collector"]["subjects"]
    assert (subject["namespace"], subject["name"]) == ("gmp-system", "collector")
    assert "reader-llm-models-secret" not in made("prometheus-operator")


def test_without_pickers_there_is_no_reader() -> None:
    assert not [role for role in made(models=(GEMMA,)) if role.startswith("reader-")]


@by_system
def test_every_alert_asks_for_metrics_that_exist(system: str) -> None:
    for rule in alerts(made(system)).values():
        asked = set(re.findall(r"([a-z_]+[:a-z_]*)\{", rule["expr"]))
        assert asked and asked <= KNOWN, asked - KNOWN


@by_system
def test_every_alert_asks_jobs_that_are_scraped(system: str) -> None:
    found = made(system)
    monitors = {(i["metadata"]["namespace"], i["metadata"]["name"]) for i in found.values() if "selector" in i.get("spec", {})}  # fmt: skip
    for (where, _), rule in alerts(found).items():
        for job in re.findall(r'job="([^"]+)"', rule["expr"]):
            home, _, name = job.rpartition("/")
            assert (home or where.split("/")[0], name) in monitors


def test_google_s_rules_see_their_own_namespace_only_so_no_alert_asks_for_another() -> None:
    found = made("google")
    homes = {role: item["metadata"]["namespace"] for role, item in found.items() if item["kind"] == "Rules"}
    assert homes == {
        "gateway-alerts": "gw",
        "model-qwen-alerts": "llm-models",
        "model-gemma-alerts": "others",
    }
    for (where, _), rule in alerts(found).items():
        assert all(home == where.split("/")[0] for home in re.findall(r'namespace="([^"]+)"', rule["expr"]))


@by_system
def test_each_kind_of_trouble_has_an_alert_that_says_what_to_do(system: str) -> None:
    found = alerts(made(system))
    names = {name for _, name in found}
    assert names >= {
        "LlmTenantOverLimit", "LlmLimitsFailing", "LlmLimitsUnreachable", "LlmLimitsConfigRefused", "LlmGatewayErrors",
        "LlmModelSlow", "LlmModelNotReady", "LlmModelRestarts", "LlmRequestProgramErrors", "LlmPickerDown",
    }  # fmt: skip
    for rule in found.values():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_a_model_that_sleeps_on_purpose_wakes_nobody() -> None:
    asleep = alerts(made(models=(dataclasses.replace(QWEN, running=False),)))
    assert "LlmModelNotReady" not in {name for _, name in asleep}
    assert not [r for r in asleep.values() if r["expr"].startswith("absent") and "qwen" in r["expr"] and r["labels"]["severity"] == "critical"]  # fmt: skip


def test_a_model_that_still_loads_wakes_nobody() -> None:
    rule = alerts(made())["llm-models/model-qwen-alerts", "LlmModelNotReady"]
    assert int(rule["for"].removesuffix("m")) * 60 > QWEN.load_budget_seconds


def test_without_limits_nothing_of_them_is_watched() -> None:
    found = made(limits=False)
    assert "limits" not in found and "ratelimit" not in str(found)


def test_a_counter_that_appears_has_risen() -> None:
    """`increase` sees nothing of a counter whose first value is already one, and error counters are like that."""
    for rule in alerts(made()).values():
        if "increase(ratelimit" in rule["expr"] or "increase(envoy" in rule["expr"]:
            assert re.search(r"unless .* offset", rule["expr"])


def test_monitors_and_rules_carry_the_labels_that_prometheus_selects_by() -> None:
    chosen = [i for i in made().values() if i["apiVersion"].startswith("monitoring.")]
    assert chosen and all(i["metadata"]["labels"]["release"] == "prometheus" for i in chosen)


@pytest.mark.parametrize(
    ("system", "home"), [("prometheus-operator", "monitoring"), ("google", "gmp-system")]
)
def test_the_scraper_is_named_by_pod_and_namespace(system: Any, home: str) -> None:
    peer = scraper(system, monitoring.NAMESPACES[system])
    assert peer["namespaceSelector"]["matchLabels"] == {labels.NAMESPACE_NAME: home}
    assert peer["podSelector"]["matchLabels"]


def test_what_is_scraped_is_what_network_policies_open() -> None:
    watch = scraper("prometheus-operator", "monitoring")
    policies = dict(network_policy.limits_policies("gw", network_policy.pods({"a": "b"}, "gw"), watch))
    opened = {p["port"] for rule in policies["service-policy"]["spec"]["ingress"] if watch in rule["from"] for p in rule["ports"]}  # fmt: skip
    (keep,) = endpoint(made()["limits"])["relabelings"]
    assert opened == {int(keep["regex"])}


def test_istio_is_asked_for_exactly_the_statistics_that_alerts_need() -> None:
    """Istio keeps only a few of Envoy's own; the regular expressions are separated by commas and match whole names."""
    (text,) = monitoring.STATS.values()
    patterns = [re.compile(part) for part in text.split(",")]
    # As an Envoy with Istio's delimiters names them.
    wanted = [
        "http.outbound_0.0.0.0_80;.lua.llmp.errors",
        "cluster.outbound|8000||qwen.llm.svc.cluster.local;.ratelimit.error",
        "cluster.outbound|8000||qwen.llm.svc.cluster.local;.ratelimit.failure_mode_allowed",
    ]
    assert all(any(p.fullmatch(name) for p in patterns) for name in wanted)
    assert not any(p.fullmatch("cluster.outbound|8000||qwen;.upstream_rq_total") for p in patterns)


def test_a_target_without_token_or_tls_has_neither_field() -> None:
    plain = Target(name="x", namespace="y", match={"a": "b"}, port=1)
    for system in SYSTEMS:
        item = monitoring.scrape(dataclasses.replace(SPEC, system=system), plain)
        assert not {"authorization", "tls", "tlsConfig"} & endpoint(item).keys()


@pytest.mark.parametrize("idle", [{"monitoringNamespace": "watch"}, {"monitoringLabels": {"release": "x"}}])
def test_keys_that_would_do_nothing_are_refused(idle: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="without monitoring"):
        Platform.model_validate(idle)
    assert Platform.model_validate({"monitoring": "google", **idle}).monitoring == "google"


@pytest.mark.parametrize("bad", [{"-x": "y"}, {"x": "two words"}, {"x/y/z": "a"}, {"x": "a" * 64}, {"": "a"}])
def test_labels_that_kubernetes_refuses_are_refused(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        Platform.model_validate({"monitoring": "google", "monitoringLabels": bad})


def test_every_alert_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    for _, name in alerts(made()):
        assert f"`{name}`" in manual


def test_a_token_is_registered_after_its_account_and_everything_after_the_namespaces() -> None:
    def program() -> None:
        home = KubernetesObject("home", manifest("v1", "Namespace", "llm-models"), pulumi.ResourceOptions())
        Monitoring("monitoring", MonitoringArgs(spec=SPEC, after=(home,)))

    recording = record(program)
    home, account, token = (
        recording.named(name) for name in ("home", "monitoring-reader-llm-models-account", "monitoring-reader-llm-models-token")
    )  # fmt: skip
    assert account.urn in recording.before(token)
    assert all(home.urn in recording.before(r) for r in recording.objects if r is not home)
    assert "data" in token.secret_outputs
