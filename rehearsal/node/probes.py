"""Readiness probes, at a faster clock than a kubelet's.

HTTP, TCP and gRPC probes ask the program. `exec` probes pass: the commands belong to
images that are not here. Liveness probes are not asked; a program that ends is started
again, one that only hangs is not. What a startup probe allows is in real seconds.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ops.kube import Manifest

# Controllers are ready within a second here and say so only after an initial delay meant for
# slow machines; waiting it out in full would test nothing.
CLOCK = 30.0
TIMEOUT_SECONDS = 1.0


def passes(probe: Manifest | None, endpoint: Callable[[int | str], tuple[str, int]], age: float) -> bool:
    """Whether a container that started `age` seconds ago passes its probe now (none passes always)."""
    if not probe:
        return True
    if age < probe.get("initialDelaySeconds", 0) / CLOCK:
        return False
    if check := probe.get("httpGet"):
        host, port = endpoint(check["port"])
        return _http(host, port, check.get("path", "/"), check.get("scheme", "HTTP") == "HTTPS")
    if check := probe.get("tcpSocket"):
        return _tcp(*endpoint(check["port"]))
    if check := probe.get("grpc"):
        return _grpc(*endpoint(check["port"]), check.get("service") or "")
    return True


def budget(probe: Manifest) -> float:
    """The seconds after which a startup probe that never passed has its container ended."""
    failures, period = probe.get("failureThreshold", 3), probe.get("periodSeconds", 10)
    return float(probe.get("initialDelaySeconds", 0) + failures * period)


def _http(host: str, port: int, path: str, tls: bool) -> bool:
    # A kubelet does not verify certificates either.
    connection = (
        http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_SECONDS, context=ssl._create_unverified_context()
        )
        if tls
        else http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    )
    try:
        connection.request("GET", path)
        return 200 <= connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _tcp(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_SECONDS):
            return True
    except OSError:
        return False


def _grpc(host: str, port: int, service: str) -> bool:
    """Ask a gRPC health service, in the clear as a kubelet does (it has no setting for TLS)."""
    request = health_pb2.HealthCheckRequest(service=service)
    # Without a channel of its own, a probe would share the back-off of the failed ones before it.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"{host}:{port}", options) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError:
            return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING
