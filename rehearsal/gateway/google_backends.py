"""What stands behind Google's gateway: a backend service for every Service, pool and picker, with its policies. Pure.

Google infers nothing from readiness probes: without a HealthCheckPolicy a backend must answer `GET /` at its serving
port with 200, and without a GCPBackendPolicy every answer ends after 30 seconds
(docs.cloud.google.com/kubernetes-engine/docs/how-to/configure-gateway-resources). A picker's health is asked by gRPC at
port 9003 unless a policy names another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from rehearsal.gateway import attach, clusters, routes
from rehearsal.gateway.clusters import Target
from rehearsal.gateway.objects import (
    Manifest,
    Objects,
    Unsupported,
    age,
    cluster_name,
    host,
    key,
    one_of,
    only,
)

NETWORKING = "networking.gke.io/v1"
CHECK_POLICY, BACKEND_POLICY = "HealthCheckPolicy", "GCPBackendPolicy"
POLICIES = (CHECK_POLICY, BACKEND_POLICY)
DEFAULT_TIMEOUT = 30
PICKER_HEALTH_PORT = 9003
# A Service's appProtocol as Google reads it; it verifies no certificate.
PROTOCOLS = {"http": "HTTP", "https": "HTTPS", "http2": "HTTP2", "kubernetes.io/h2c": "H2C"}
# What is asked here; Google asks by HTTP/2 as well.
CHECK_FIELDS = {
    "HTTP": "httpHealthCheck", "HTTPS": "httpsHealthCheck", "GRPC": "grpcHealthCheck", "TCP": "tcpHealthCheck",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Check:
    """A health check; `port` is None for the serving port. Times are seconds, Google's defaults."""

    kind: str = "HTTP"
    path: str = "/"
    port: int | None = None
    interval: float = 15.0
    timeout: float = 15.0
    healthy: int = 1
    unhealthy: int = 2


@dataclass(frozen=True, kw_only=True)
class BackendService:
    """`reference` is what policies name: (group, kind, namespace, name); `picker` says that it picks endpoints."""

    target: Target
    reference: tuple[str, str, str, str]
    protocol: str = "HTTP"
    picker: bool = False
    check: Check = Check()
    timeout: int = DEFAULT_TIMEOUT

    @property
    def port(self) -> int | str:
        """The serving port in the pods."""
        return self.target.ports[0]


def backend_services(objects: Objects, attached: Iterable[Manifest]) -> list[BackendService]:
    """One for everything that the routes lead to, and for the pickers of their pools, each once."""
    found: dict[str, BackendService] = {}
    for route in attached:
        for backend in attach.backends(route):
            for service in _services(objects, route, backend):
                found.setdefault(service.target.name, service)
    services = [_with_policies(objects, found[name]) for name in sorted(found)]
    for service in services:
        item = objects.get(service.reference[1], service.reference[3], service.reference[2]) or {}
        one_of(item, service.check.kind, "the kind of its health check", CHECK_FIELDS)
    return services


def _services(objects: Objects, route: Manifest, backend: Manifest) -> Iterator[BackendService]:
    group, kind = attach.backend_kind(backend)
    namespace, name = attach.backend_namespace(route, backend), backend["name"]
    item = objects.get(kind, name, namespace)
    if item is None:
        return
    if kind == "InferencePool":
        yield from _pool(objects, item)
    else:
        yield _service(item, backend["port"], (group, kind, namespace, name))


def _pool(objects: Objects, pool: Manifest) -> Iterator[BackendService]:
    """The pool's pods, and the picker before them, which speaks gRPC over TLS that nobody verifies."""
    namespace, name = key(pool)
    reference = pool["spec"]["endpointPickerRef"]
    yield BackendService(
        target=clusters.pool_target(pool), reference=(attach.POOL_GROUP, "InferencePool", namespace, name)
    )
    picker = objects.get("Service", reference["name"], namespace)
    if picker is not None:
        # Refuses what cannot be asked.
        routes.picker_cluster(pool)
        made = _service(picker, reference["port"]["number"], ("", "Service", namespace, reference["name"]))
        check = Check(kind="GRPC", port=PICKER_HEALTH_PORT)
        yield replace(
            made, target=replace(made.target, http2=True), protocol="HTTP2", picker=True, check=check
        )


def _service(service: Manifest, port: int, reference: tuple[str, str, str, str]) -> BackendService:
    namespace, name = key(service)
    entry = next((p for p in service["spec"].get("ports") or [] if p["port"] == port), None)
    if entry is None:
        raise Unsupported(service, f"spec.ports has no port {port}")
    # Other words of Google's and everybody else's mean plain HTTP.
    protocol = PROTOCOLS.get((entry.get("appProtocol") or "").lower(), "HTTP")
    full = host(name, namespace)
    target = Target(
        cluster_name(full, port), full, namespace, service["spec"].get("selector") or {},
        (entry.get("targetPort", port),), protocol in ("HTTP2", "H2C"),
    )  # fmt: skip
    check = Check(kind={"H2C": "HTTP"}.get(protocol, protocol))
    return BackendService(target=target, reference=reference, protocol=protocol, check=check)


# -- policies ----------------------------------------------------------------------------------------------------


def _with_policies(objects: Objects, service: BackendService) -> BackendService:
    if policy := attached_policy(objects, CHECK_POLICY, service.reference):
        service = replace(service, check=_check(policy, service.check))
    if policy := attached_policy(objects, BACKEND_POLICY, service.reference):
        service = replace(service, timeout=_timeout(policy))
    return service


def target_of(policy: Manifest) -> tuple[str, str, str, str]:
    """What a policy names: (group, kind, namespace, name)."""
    reference, home = policy["spec"]["targetRef"], policy["metadata"]["namespace"]
    return reference["group"], reference["kind"], reference.get("namespace", home), reference["name"]


def attached_policy(objects: Objects, kind: str, reference: tuple[str, str, str, str]) -> Manifest | None:
    """The policy of a kind that counts for something: the oldest of those that name it."""
    return next((p for p in sorted(objects.of(kind), key=age) if target_of(p) == reference), None)


def _check(policy: Manifest, default: Check) -> Check:
    """A policy's health check, with Google's defaults for what it leaves out."""
    spec = policy["spec"].get("default") or {}
    numbers = ("checkIntervalSec", "timeoutSec", "healthyThreshold", "unhealthyThreshold")
    only(policy, spec, "spec.default", (*numbers, "config", "logConfig"))
    config = spec.get("config") or {}
    kind = config.get("type", default.kind)
    one_of(policy, kind, "spec.default.config.type", CHECK_FIELDS)
    details = config.get(CHECK_FIELDS[kind]) or {}
    only(
        policy,
        details,
        f"spec.default.config.{CHECK_FIELDS[kind]}",
        ("port", "requestPath", "portSpecification"),
    )
    chosen = details.get("portSpecification", "USE_FIXED_PORT")
    one_of(policy, chosen, "portSpecification", ("USE_FIXED_PORT", "USE_SERVING_PORT"))
    return Check(
        kind=kind,
        path=details.get("requestPath", "/"),
        port=details.get("port") if chosen == "USE_FIXED_PORT" else None,
        interval=spec.get("checkIntervalSec", 5),
        timeout=spec.get("timeoutSec", 5),
        healthy=spec.get("healthyThreshold", 2),
        unhealthy=spec.get("unhealthyThreshold", 2),
    )


def _timeout(policy: Manifest) -> int:
    spec: dict[str, Any] = policy["spec"].get("default") or {}
    only(policy, spec, "spec.default", ("timeoutSec", "logging", "connectionDraining"))
    return int(spec.get("timeoutSec", DEFAULT_TIMEOUT))
