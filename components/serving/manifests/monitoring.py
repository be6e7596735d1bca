"""What is scraped, and what wakes somebody up. Pure.

Two systems read the same: Prometheus with its operator (PodMonitor, PrometheusRule of monitoring.coreos.com/v1), and
Google's managed collection (PodMonitoring, Rules of monitoring.googleapis.com/v1). Google evaluates a Rules
object over the metrics of its own namespace only, so the alerts of each namespace are an object of their own.

Where the names of metrics come from:

    vllm:*                       vLLM 0.10 and later, as the inference extension 1.5 reads them
                                 (pkg/epp/framework/plugins, docs of its model server protocol)
    ratelimit_service_*          ratelimit's default mapping from statsd (src/stats/prom/default_mapper.yaml)
    istio_requests_total         Istio's standard metric; a gateway reports it as `source`
    envoy_http_lua_llmp_errors,  seen from an Envoy 1.40 with our filters and Istio's own tags and delimiters of names
    envoy_cluster_ratelimit_*    (tools/packaging/common/envoy_bootstrap.json); Istio drops both unless asked: `STATS`
    kube_pod_container_status_*  kube-state-metrics, which the operator's usual bundle brings
    process_start_time_seconds   the client libraries of Go and Python
    up                           the scraper itself
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from components.core import labels
from components.core.manifest import Manifest, manifest
from components.core.services import LLM, ServiceKind
from components.serving.manifests import network_policy, token_limits
from components.serving.manifests.gateway import MODEL_PORT
from components.serving.manifests.network_policy import Peer

System = Literal["prometheus-operator", "google"]

# For the pods of the gateway, through `infrastructure.annotations` of the Gateway. Separated by commas, so none inside.
STATS = {
    "sidecar.istio.io/statsInclusionRegexps": r"http\..*\.lua\.llmp\..*,cluster\..*\.ratelimit\..*",
}
# The scrapers' pods: the operator labels those of every Prometheus so; Google's collector is a DaemonSet of its own.
_SCRAPERS = {
    "prometheus-operator": {labels.APP_NAME: "prometheus"},
    "google": {"app": "managed-prometheus-collector"},
}
# Their namespaces where the configuration names none.
NAMESPACES: dict[str, str] = {"prometheus-operator": "monitoring", "google": "gmp-system"}
# Google's collector reads Secrets as this account.
_COLLECTOR = "collector"
_INTERVAL, _EVALUATION = "30s", "30s"
# Istio's agent joins its own metrics with Envoy's (pilot/cmd/pilot-agent/status/server.go).
_ENVOY_PORT, _ENVOY_PATH = 15020, "/stats/prometheus"
_READER, _TOKEN = "metrics-reader", "metrics-reader-token"
_RBAC = "rbac.authorization.k8s.io"

# Objects that must be created one after the other, by role.
Chain = tuple[tuple[str, Manifest], ...]


@dataclass(frozen=True, kw_only=True)
class ModelTarget:
    """One model: `running` says whether it has replicas, which asleep it has not."""

    name: str
    namespace: str
    pooled: bool
    running: bool
    load_budget_seconds: int
    kind: ServiceKind = LLM


@dataclass(frozen=True, kw_only=True)
class MonitoringSpec:
    """Everything of one stack that has metrics.

    `gateway` is None where it has no pods in the cluster. `namespace` is where the scraper runs, `marks` are labels
    that it selects monitors and rules by.
    `tls` says whether model pods speak TLS, `limits` whether tokens are counted. `slow_seconds` is how
    long the first token of the slowest hundredth of requests may take.
    """

    system: System
    namespace: str
    gateway: str | None
    gateway_namespace: str
    models: tuple[ModelTarget, ...]
    tls: bool
    limits: bool
    marks: Mapping[str, str] = field(default_factory=dict)
    slow_seconds: int = 10


@dataclass(frozen=True, kw_only=True)
class Target:
    """Pods with the labels `match` and metrics at `port`; `token` names a Secret with a bearer token."""

    name: str
    namespace: str
    match: Mapping[str, str]
    port: int
    path: str = "/metrics"
    https: bool = False
    token: str | None = None


@dataclass(frozen=True, kw_only=True)
class Alert:
    """A rule: fires when `expr` has held for `minutes`. `critical` wakes somebody, the others can wait."""

    name: str
    expr: str
    minutes: int
    critical: bool
    summary: str
    action: str


def scraper(system: System, namespace: str) -> Peer:
    """The pods that scrape, as a peer of network policies."""
    return network_policy.pods(_SCRAPERS[system], namespace)


def objects(spec: MonitoringSpec) -> tuple[Chain, ...]:
    """Everything, in groups; the objects of a group depend on those before them, the groups on nothing."""
    homes = sorted({model.namespace for model in spec.models if model.pooled})
    return (
        *_gateway(spec),
        *(_reader(spec, home) for home in homes),
        *(chain for model in spec.models for chain in _model(spec, model)),
    )


def _gateway(spec: MonitoringSpec) -> Iterable[Chain]:
    if spec.gateway is None:
        return
    home = spec.gateway_namespace
    door = Target(
        name=spec.gateway,
        namespace=home,
        match={labels.GATEWAY_NAME: spec.gateway},
        port=_ENVOY_PORT,
        path=_ENVOY_PATH,
    )
    alerts = _gateway_alerts(_job(spec.system, door))
    yield (("gateway", scrape(spec, door)),)
    if spec.limits:
        limits = Target(
            name=token_limits.NAME,
            namespace=home,
            match=token_limits.selector(token_limits.NAME),
            port=token_limits.METRICS_PORT,
        )
        yield (("limits", scrape(spec, limits)),)
        alerts = (*alerts, *_limits_alerts(_job(spec.system, door), _job(spec.system, limits)))
    yield (("gateway-alerts", rules(spec, f"{spec.gateway}-alerts", home, alerts)),)


def _model(spec: MonitoringSpec, model: ModelTarget) -> Iterable[Chain]:
    pods = Target(
        name=f"{model.name}-workload",
        namespace=model.namespace,
        match=model.kind.pods(model.name),
        port=MODEL_PORT,
        https=spec.tls and model.kind.tls,
    )
    alerts = _model_alerts(_job(spec.system, pods), model, spec.slow_seconds)
    yield ((f"model-{model.name}-workload", scrape(spec, pods)),)
    if model.pooled:
        picker = Target(
            name=f"{model.name}-picker",
            namespace=model.namespace,
            match=labels.model_picker(model.name),
            port=network_policy.PICKER_METRICS_PORT,
            token=_TOKEN,
        )
        yield ((f"model-{model.name}-picker", scrape(spec, picker)),)
        alerts = (*alerts, _picker_alert(_job(spec.system, picker), model))
    yield ((f"model-{model.name}-alerts", rules(spec, f"{model.name}-alerts", model.namespace, alerts)),)


# -- scraping ------------------------------------------------------------------------------------------------------


def scrape(spec: MonitoringSpec, target: Target) -> Manifest:
    """The object that makes the system scrape a target."""
    build = {"prometheus-operator": _pod_monitor, "google": _pod_monitoring}[spec.system]
    return build(spec, target)


def _job(system: System, target: Target) -> str:
    """The `job` label of a target's metrics: both systems make it of the monitor's name."""
    return f"{target.namespace}/{target.name}" if system == "prometheus-operator" else target.name


def _pod_monitor(spec: MonitoringSpec, target: Target) -> Manifest:
    # By number: vLLM's port has no name in KServe's preset. `portNumber` came late, and older operators would drop it
    # without a word and scrape every port; `targetPort` is deprecated. This works in all of them.
    this_port = {
        "action": "keep",
        "sourceLabels": ["__meta_kubernetes_pod_container_port_number"],
        "regex": str(target.port),
    }
    endpoint = {
        **_endpoint(target),
        "relabelings": [this_port],
        "tlsConfig": _unverified(target),
        "authorization": _bearer({"name": target.token, "key": "token"}) if target.token else None,
    }
    body = {"selector": {"matchLabels": dict(target.match)}, "podMetricsEndpoints": [endpoint]}
    return _object(spec, "monitoring.coreos.com/v1", "PodMonitor", target.name, target.namespace, body)


def _pod_monitoring(spec: MonitoringSpec, target: Target) -> Manifest:
    secret = {"secret": {"name": target.token, "key": "token"}}
    endpoint = {
        **_endpoint(target),
        "port": target.port,
        "tls": _unverified(target),
        "authorization": _bearer(secret) if target.token else None,
    }
    body = {"selector": {"matchLabels": dict(target.match)}, "endpoints": [endpoint]}
    return _object(spec, "monitoring.googleapis.com/v1", "PodMonitoring", target.name, target.namespace, body)


def _endpoint(target: Target) -> dict[str, Any]:
    return {"path": target.path, "scheme": "https" if target.https else "http", "interval": _INTERVAL}


def _unverified(target: Target) -> dict[str, bool] | None:
    """KServe's certificates sign themselves: they encrypt, and prove nothing."""
    return {"insecureSkipVerify": True} if target.https else None


def _bearer(credentials: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Bearer", "credentials": credentials}


def _reader(spec: MonitoringSpec, home: str) -> Chain:
    """An account whose token may read metrics, and nothing else: the picker asks the API server whether it may.

    A monitor can present a token from a Secret of its own namespace only, never the scraper's own. So this one does
    not expire; deleting the Secret ends it. What it opens at the API server as well is that
    server's own `/metrics`, because the permission is for a path and not for a server.
    """
    names = {"namespace": home, "labels": labels.common("monitoring")}
    cluster_wide = f"llmp-{_READER}-{home}"
    subject = {"kind": "ServiceAccount", "name": _READER, "namespace": home}
    may = [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    chain = [
        ("account", manifest("v1", "ServiceAccount", _READER, **names, automountServiceAccountToken=False)),
        ("token", _token(names)),
        ("role", _role("ClusterRole", cluster_wide, {"labels": names["labels"]}, may)),
        ("binding", _binding("ClusterRole", cluster_wide, {"labels": names["labels"]}, subject)),
    ]
    if spec.system == "google":
        see = [
            {
                "apiGroups": [""],
                "resources": ["secrets"],
                "resourceNames": [_TOKEN],
                "verbs": ["get", "list", "watch"],
            }
        ]
        collector = {"kind": "ServiceAccount", "name": _COLLECTOR, "namespace": spec.namespace}
        chain += [
            ("secret", _role("Role", _TOKEN, names, see)),
            ("collector", _binding("Role", _TOKEN, names, collector)),
        ]
    # Roles without a hyphen, so that no two namespaces can meet in one name.
    return tuple((f"reader-{home}-{role}", item) for role, item in chain)


def _token(names: dict[str, Any]) -> Manifest:
    # Filled by Kubernetes, which deletes it again if the account is not there yet.
    account = {"kubernetes.io/service-account.name": _READER}
    kind = "kubernetes.io/service-account-token"
    return manifest("v1", "Secret", _TOKEN, **names, annotations=account, type=kind)


def _role(kind: str, name: str, where: dict[str, Any], may: list[dict[str, Any]]) -> Manifest:
    return manifest(f"{_RBAC}/v1", kind, name, **where, rules=may)


def _binding(kind: str, name: str, where: dict[str, Any], subject: dict[str, str]) -> Manifest:
    role = {"apiGroup": _RBAC, "kind": kind, "name": name}
    return manifest(f"{_RBAC}/v1", f"{kind}Binding", name, **where, roleRef=role, subjects=[subject])


# -- alerts --------------------------------------------------------------------------------------------------------


def rules(spec: MonitoringSpec, name: str, namespace: str, alerts: Iterable[Alert]) -> Manifest:
    """The object that makes the system evaluate alerts of one namespace."""
    kinds = {
        "prometheus-operator": ("monitoring.coreos.com/v1", "PrometheusRule"),
        "google": ("monitoring.googleapis.com/v1", "Rules"),
    }
    entries = [
        {
            "alert": alert.name,
            "expr": alert.expr,
            "for": f"{alert.minutes}m",
            "labels": {"severity": "critical" if alert.critical else "warning"},
            "annotations": {"summary": alert.summary, "description": alert.action},
        }
        for alert in alerts
    ]
    body = {"groups": [{"name": name, "interval": _EVALUATION, "rules": entries}]}
    return _object(spec, *kinds[spec.system], name, namespace, body)


def _grew(metric: str, window: str, by: str) -> str:
    """Whether a counter rose. One that appears has risen as well, which `increase` alone does not see."""
    return (
        f"sum by ({by}) (increase({metric}[{window}]) > 0 or ({metric} > 0 unless {metric} offset {window}))"
    )


def _gone(job: str) -> str:
    """Whether no pod of a target answers, be it that none is there."""
    return f'absent(up{{job="{job}"}} == 1)'


def _gateway_alerts(job: str) -> tuple[Alert, ...]:
    requests = f'istio_requests_total{{job="{job}",reporter="source"'
    failed, all_ = f'{requests},response_code=~"5.."}}', f"{requests}}}"
    by = "destination_service_name"
    return (
        Alert(
            name="LlmGatewayDown",
            expr=_gone(job),
            minutes=5,
            critical=True,
            summary="No pod of the gateway answers.",
            action="Nobody reaches any model. Look at the pods of the Gateway and at istiod.",
        ),
        Alert(
            name="LlmGatewayErrors",
            expr=f"sum by ({by}) (rate({failed}[5m])) / sum by ({by}) (rate({all_}[5m])) > 0.05",
            minutes=10,
            critical=True,
            summary="More than 5 % of the requests to {{ $labels.destination_service_name }} fail.",
            action="The access log of the gateway names status, response flags and model of each request.",
        ),
        Alert(
            name="LlmRequestProgramErrors",
            expr=_grew(f'envoy_http_lua_llmp_errors{{job="{job}"}}', "15m", "job"),
            minutes=0,
            critical=True,
            summary="The gateway's request program fails.",
            action="Requests are refused or charged by estimate. The gateway's log holds the script's message.",
        ),
    )


def _limits_alerts(gateway: str, job: str) -> tuple[Alert, ...]:
    over = f'ratelimit_service_rate_limit_over_limit{{job="{job}",domain="llmp"}}'
    return (
        Alert(
            name="LlmLimitsDown",
            expr=_gone(job),
            minutes=5,
            critical=True,
            summary="No copy of the limit service answers.",
            action="With failureMode closed nobody is served, with open nothing is counted. Look at its pods.",
        ),
        Alert(
            name="LlmLimitsFailing",
            expr=_grew(f'ratelimit_service_should_rate_limit_error{{job="{job}"}}', "5m", "err_type"),
            minutes=5,
            critical=True,
            summary="The limit service cannot count ({{ $labels.err_type }}).",
            action="redis_error: look at the pod of valkey and at its memory. Counts are lost meanwhile.",
        ),
        Alert(
            name="LlmLimitsUnreachable",
            expr=_grew(f'envoy_cluster_ratelimit_error{{job="{gateway}"}}', "5m", "job"),
            minutes=5,
            critical=True,
            summary="The gateway cannot ask the limit service.",
            action="Look at the service's pods and at the network policy that lets the gateway in.",
        ),
        Alert(
            name="LlmRequestsUncounted",
            expr=_grew(f'envoy_cluster_ratelimit_failure_mode_allowed{{job="{gateway}"}}', "5m", "job"),
            minutes=0,
            critical=False,
            summary="Requests pass uncounted, because the limits cannot be checked.",
            action="That is what failureMode open means. The access log holds what to charge by hand.",
        ),
        Alert(
            name="LlmLimitsConfigRefused",
            expr=_grew(f'ratelimit_service_config_load_error{{job="{job}"}}', "15m", "job"),
            minutes=0,
            critical=True,
            summary="The limit service refused its new configuration and keeps the old one.",
            action="Its log names the line of ConfigMap ratelimit-config. New tenants and tiers have no budget yet.",
        ),
        Alert(
            name="LlmTenantOverLimit",
            expr=_grew(over, "15m", "key1, key2"),
            minutes=30,
            critical=False,
            summary="{{ $labels.key1 }}, {{ $labels.key2 }} has been over its limit for half an hour.",
            action="Its requests are refused with 429 (in shadow mode they would be). Does the tier still fit?",
        ),
    )


def _model_alerts(job: str, model: ModelTarget, slow_seconds: int) -> tuple[Alert, ...]:
    # A pod that loads its weights does not answer yet.
    loading = model.load_budget_seconds // 60 + 5
    name = model.name
    first_token = f'vllm:time_to_first_token_seconds_bucket{{job="{job}"}}'
    pods = f'namespace="{model.namespace}",pod=~"{model.kind.workload(name)}-.*"'
    restarts = f"kube_pod_container_status_restarts_total{{{pods}}}"
    started = f'process_start_time_seconds{{job="{job}"}}'
    down = (
        Alert(
            name="LlmModelNotReady",
            expr=_gone(job),
            minutes=loading,
            critical=True,
            summary=f"No replica of {name} answers.",
            action=f"Requests get 503. Look at the events and logs of the pods of {name}.",
        ),
    )
    return (
        *(down if model.running else ()),
        Alert(
            name="LlmReplicaNotReady",
            expr=f'up{{job="{job}"}} == 0',
            minutes=loading,
            critical=False,
            summary=f"A replica of {name} has not answered for longer than it may load.",
            action="The others carry its load. Look at the pod's events and log.",
        ),
        Alert(
            name="LlmModelRestarts",
            # Where there is no kube-state-metrics, at least those restarts show that came as far as serving.
            expr=f"increase({restarts}[1h]) > 2 or changes({started}[1h]) > 2",
            minutes=0,
            critical=True,
            summary=f"A replica of {name} restarts again and again.",
            action="Out of memory, a probe that gives up, or an engine that fails: see the log before the last start.",
        ),
        Alert(
            name="LlmModelSlow",
            expr=f"histogram_quantile(0.99, sum by (le) (rate({first_token}[10m]))) > {slow_seconds}",
            minutes=10,
            critical=False,
            summary=f"One in a hundred requests to {name} waits more than {slow_seconds} s for its first token.",
            action="Look at the queue, the KV cache and the prefix hits of its replicas; add a replica.",
        ),
        Alert(
            name="LlmModelQueue",
            expr=f'sum(avg_over_time(vllm:num_requests_waiting{{job="{job}"}}[10m])) > 10',
            minutes=10,
            critical=False,
            summary=f"More than ten requests wait for {name}.",
            action="Its replicas are full: add one, or lower the budgets of tenants.",
        ),
    )


def _picker_alert(job: str, model: ModelTarget) -> Alert:
    return Alert(
        name="LlmPickerDown",
        expr=_gone(job),
        minutes=10,
        critical=model.running,
        summary=f"No endpoint picker of {model.name} answers.",
        action="Replicas are taken in turn, or requests get 503, by the pool's failure mode. Look at its pod.",
    )


def _object(
    spec: MonitoringSpec, api: str, kind: str, name: str, namespace: str, body: dict[str, Any]
) -> Manifest:
    marks = {**labels.common("monitoring"), **spec.marks}
    return manifest(api, kind, name, namespace, labels=marks, spec=body)
