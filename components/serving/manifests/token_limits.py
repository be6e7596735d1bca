"""The service that counts what tenants use, and its store. Pure.

Envoy's ratelimit (https://github.com/envoyproxy/ratelimit) adds up in Redis' protocol, one INCRBY per
charge, so any number of gateways and workers share one count. Windows are whole minutes of
the clock; a counter lives as long as its window, so the store keeps nothing on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from components.core import labels, naming
from components.core.containers import confined
from components.core.manifest import Manifest, manifest, revision

NAME, STORE = "ratelimit", "valkey"
CONFIG, AUTH = "ratelimit-config", "valkey-auth"
DOMAIN = "llmp"
DESCRIPTORS = ("tier", "tenant")
# Requests that cost nothing, and requests without an identity: neither can be the name of a tier.
EXEMPT, UNKNOWN = "-", "?"
GRPC_PORT, HTTP_PORT, METRICS_PORT, STORE_PORT = 8081, 8080, 9090, 6379
# Less than the gateway's own time-out; the service's default of ten seconds would pile up requests.
STORE_TIMEOUT = "200ms"
REPLICAS = 2
ROOT = "/data"
STORE_CONFIG = "/etc/valkey"

Measure = Literal["tokens", "requests"]
"""What budgets count."""


@dataclass(frozen=True, kw_only=True)
class LimitsSpec:
    """Budgets per tier and minute, in tokens or requests; with `shadow` they are counted and not enforced."""

    namespace: str
    measure: Measure
    budgets: Mapping[str, int]
    shadow: bool
    image: str
    store_image: str


def header(measure: str | None, name: str) -> str:
    """A response header of the limits: limit, remaining, reset or used."""
    return f"x-{measure or 'tokens'}-{name}"


def objects(spec: LimitsSpec, password: Any, settings: Any) -> tuple[tuple[str, Manifest], ...]:
    """(role, object) of the service and its store.

    `settings` are those of :func:`store_settings` for the password; both may be Outputs.
    """
    return (
        ("store-auth", store_secret(spec, password, settings)),
        ("store", store(spec)),
        ("store-service", _service(spec, STORE, {"tcp-valkey": (STORE_PORT, None)})),
        ("config", config(spec)),
        ("service-pods", service(spec)),
        (
            "service",
            _service(
                spec,
                NAME,
                # Without this protocol Envoy would speak HTTP/1.1, and every check would fail.
                {"grpc": (GRPC_PORT, "grpc"), "http-metrics": (METRICS_PORT, "http")},
            ),
        ),
        ("disruption", disruption_budget(spec)),
    )


def config(spec: LimitsSpec) -> Manifest:
    """The budgets; the service reads a change without a restart."""
    return manifest(
        "v1",
        "ConfigMap",
        CONFIG,
        spec.namespace,
        labels=labels.common("limits"),
        data={"config.yaml": yaml.safe_dump(limits(spec), sort_keys=False)},
    )


def limits(spec: LimitsSpec) -> dict[str, Any]:
    """The service's configuration: a budget for every tenant of a tier, and zero for whoever has none."""
    tier, tenant = DESCRIPTORS

    def entry(name: str | None, budget: dict[str, Any], **more: Any) -> dict[str, Any]:
        # The value of the tenant becomes a label of the service's metrics.
        inner = {"key": tenant, "value_to_metric": True, "rate_limit": budget, **more}
        return {"key": tier, **({"value": name} if name else {}), "descriptors": [inner]}

    shadow = {"shadow_mode": True} if spec.shadow else {}
    tiers = [
        entry(name, {"unit": "minute", "requests_per_unit": budget}, **shadow)
        for name, budget in sorted(spec.budgets.items())
    ]
    return {
        "domain": DOMAIN,
        "descriptors": [
            *tiers,
            entry(EXEMPT, {"unlimited": True}),
            # Also in shadow mode: whoever is nobody stays out.
            entry(None, {"unit": "minute", "requests_per_unit": 0}),
        ],
    }


def _settings(spec: LimitsSpec) -> dict[str, str]:
    """The service's environment (`src/settings/settings.go` of ratelimit), but for the password."""
    return {
        "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": f"{naming.host(STORE, spec.namespace)}:{STORE_PORT}",
        "REDIS_TIMEOUT": STORE_TIMEOUT,
        "REDIS_POOL_SIZE": "20",
        "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION": "true",
        "RUNTIME_ROOT": ROOT,
        "RUNTIME_SUBDIRECTORY": NAME,
        # A mounted ConfigMap is a directory of links that is swapped as a whole.
        "RUNTIME_WATCH_ROOT": "false",
        "RUNTIME_IGNOREDOTFILES": "true",
        "HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED": "true",
        "EXPIRATION_JITTER_MAX_SECONDS": "10",
        "GRPC_MAX_CONNECTION_AGE": "5m",
        "USE_STATSD": "false",
        "USE_PROMETHEUS": "true",
        "LOG_LEVEL": "warn",
        "LOG_FORMAT": "json",
        # Its heap is a few megabytes, which Go would clear out many times a second. A fifth more requests per core
        # (benchmarks/gateway.py), for ten megabytes.
        "GOGC": "400",
        # The debugging port shows and changes everything; nobody outside the pod may ask it.
        "DEBUG_HOST": "127.0.0.1",
        "LIMIT_RESPONSE_HEADERS_ENABLED": "true",
        **{
            f"LIMIT_{name.upper()}_HEADER": header(spec.measure, name)
            for name in ("limit", "remaining", "reset")
        },
    }


def service(spec: LimitsSpec) -> Manifest:
    """The counting service: two copies, on different machines where there are several."""
    reference = {"secretKeyRef": {"name": AUTH, "key": "password"}}
    container = {
        "name": NAME,
        "image": spec.image,
        "command": ["/bin/ratelimit"],
        "env": [
            *({"name": key, "value": value} for key, value in sorted(_settings(spec).items())),
            {"name": "REDIS_AUTH", "valueFrom": reference},
        ],
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "http-metrics", "containerPort": METRICS_PORT},
        ],
        "readinessProbe": {"httpGet": {"path": "/healthcheck", "port": "http"}, "periodSeconds": 5},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": confined(),
        "volumeMounts": [{"name": "config", "mountPath": f"{ROOT}/{NAME}/config", "readOnly": True}],
    }
    apart = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(NAME)},
    }
    pod = {
        **_pod(),
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": CONFIG}}],
        "topologySpreadConstraints": [apart],
    }
    return _deployment(spec, NAME, REPLICAS, pod, {})


def store(spec: LimitsSpec) -> Manifest:
    """The store of the counters: in memory only, and full rather than forgetful."""
    container = {
        "name": STORE,
        "image": spec.store_image,
        "command": ["valkey-server"],
        "args": [f"{STORE_CONFIG}/valkey.conf"],
        "ports": [{"name": "tcp-valkey", "containerPort": STORE_PORT}],
        "readinessProbe": {"tcpSocket": {"port": STORE_PORT}, "periodSeconds": 5},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": confined(),
        "volumeMounts": [{"name": "config", "mountPath": STORE_CONFIG, "readOnly": True}],
    }
    pod = {
        **_pod(),
        "containers": [container],
        "volumes": [{"name": "config", "secret": {"secretName": AUTH}}],
    }
    # Two at once would each hold a part of the counts.
    return _deployment(spec, STORE, 1, pod, {"strategy": {"type": "Recreate"}})


def store_secret(spec: LimitsSpec, password: Any, settings: Any) -> Manifest:
    """The store's password, for the service, and in the store's own settings."""
    return manifest(
        "v1",
        "Secret",
        AUTH,
        spec.namespace,
        labels=labels.common("limits"),
        type="Opaque",
        stringData={"password": password, "valkey.conf": settings},
    )


def store_settings(password: str) -> str:
    """The store's configuration file."""
    lines = (
        f"port {STORE_PORT}",
        f"requirepass {password}",
        "maxmemory 192mb",
        # Evicting a counter would give its tenant a new budget, so a full store refuses instead.
        "maxmemory-policy noeviction",
        'save ""',
        "appendonly no",
    )
    return "\n".join(lines) + "\n"


def disruption_budget(spec: LimitsSpec) -> Manifest:
    """One copy stays while machines are replaced; without any, nobody is served."""
    return manifest(
        "policy/v1",
        "PodDisruptionBudget",
        NAME,
        spec.namespace,
        labels=labels.common("limits"),
        spec={"minAvailable": 1, "selector": {"matchLabels": selector(NAME)}},
    )


def _service(spec: LimitsSpec, name: str, ports: Mapping[str, tuple[int, str | None]]) -> Manifest:
    entries = [
        {"name": role, "port": port, "targetPort": port, "appProtocol": protocol}
        for role, (port, protocol) in ports.items()
    ]
    return manifest(
        "v1",
        "Service",
        name,
        spec.namespace,
        labels={**labels.common("limits"), labels.APP_NAME: name},
        # The pods behind it are awaited; waiting for the Service as well takes ten seconds more and says no more.
        annotations={labels.SKIP_AWAIT: "true"},
        spec={"selector": selector(name), "ports": entries},
    )


def _deployment(
    spec: LimitsSpec, name: str, replicas: int, pod: dict[str, Any], more: dict[str, Any]
) -> Manifest:
    marks = {**labels.common("limits"), labels.APP_NAME: name}
    template = {"metadata": {"labels": marks}, "spec": pod}
    # What is in the environment of a running pod changes with a new pod only.
    template["metadata"]["annotations"] = {labels.REVISION: revision(pod)}
    return manifest(
        "apps/v1",
        "Deployment",
        name,
        spec.namespace,
        labels=marks,
        spec={
            "replicas": replicas,
            "selector": {"matchLabels": selector(name)},
            "template": template,
            **more,
        },
    )


def selector(name: str) -> dict[str, str]:
    """Selects the pods of the service or of its store."""
    return {labels.APP_NAME: name, labels.PART_OF: "llm-platform"}


def _pod() -> dict[str, Any]:
    """No API token, no root."""
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
