"""Reading vLLM's metrics from a pod, and what of them a judgement needs."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException

from kubernetes.client.exceptions import ApiException

from ops.errors import OpsError
from ops.kube import Kube, Manifest
from ops.status import pods

PATH = "/metrics"
PORT = 8000
_SECONDS = 10.0
_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_CACHE = "vllm:cache_config_info"


def read(kube: Kube, pod: Manifest) -> str:
    """A pod's metrics page; raises OpsError where it does not come.

    The way is a forwarded port, as of `kubectl port-forward`: it ends inside the pod, so that no network policy is
    in its way, which the API server's own proxy would find closed. A pod with a loopback address is on this
    very machine and is asked directly. Model pods sign their certificates themselves, so none is verified.
    """
    scheme, port = _server(pod)
    address = (pod.get("status") or {}).get("podIP") or ""
    try:
        with _line(kube, pod, address, port) as line:
            return _ask(_encrypted(line) if scheme == "https" else line, f"{address}:{port}")
    except (OSError, HTTPException, ApiException) as error:
        why = getattr(error, "reason", None) or error
        raise OpsError(f"{scheme}://{address}:{port}{PATH} of pod {pod['metadata']['name']}: {why}") from None


def _line(kube: Kube, pod: Manifest, address: str, port: int) -> socket.socket:
    if address and ipaddress.ip_address(address).is_loopback:
        return socket.create_connection((address, port), _SECONDS)
    return kube.forwarded(pod["metadata"]["name"], pod["metadata"]["namespace"], port, _SECONDS)


def _server(pod: Manifest) -> tuple[str, int]:
    """Scheme and port of the engine, as its readiness probe has them."""
    container = next(c for c in pod["spec"]["containers"] if c["name"] == pods.engine(pod))
    probe = (container.get("readinessProbe") or {}).get("httpGet") or {}
    port = probe.get("port", PORT)
    return str(probe.get("scheme", "HTTP")).lower(), port if isinstance(port, int) else PORT


def _encrypted(line: socket.socket) -> socket.socket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    line.settimeout(_SECONDS)
    return context.wrap_socket(line)


def _ask(line: socket.socket, host: str) -> str:
    line.settimeout(_SECONDS)
    connection = HTTPConnection(host)
    connection.sock = line
    try:
        connection.request("GET", PATH)
        answer = connection.getresponse()
        if answer.status != 200:
            raise HTTPException(f"HTTP {answer.status}")
        return answer.read().decode(errors="replace")
    finally:
        connection.close()


def sums(page: str) -> dict[str, float]:
    """The values of a page in Prometheus' text format by name, summed over their labels."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        sample = _SAMPLE.match(line)
        if sample is None:
            continue
        try:
            value = float(sample["value"])
        except ValueError:
            continue
        found[sample["name"]] = found.get(sample["name"], 0.0) + value
    return found


def engine(page: str) -> Mapping[str, str]:
    """The engine's cache settings, which it gives as labels of a metric; empty where it does not."""
    for line in page.splitlines():
        sample = _SAMPLE.match(line)
        if sample is not None and sample["name"] == _CACHE:
            return dict(_LABEL.findall(sample["labels"] or ""))
    return {}
