"""Where the gateway of a rehearsed stack answers, and how to ask it.

A gateway's pod has a loopback address; its listeners' ports below 1024 are moved up,
since nobody but root may listen there. Clients use the pod directly, as the load
balancer does that a cloud would put before it.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ops.kube import Kube, Manifest
from rehearsal.gateway.translate import moved
from rehearsal.gateway.workload import is_ready

GATEWAY_API = "gateway.networking.k8s.io/v1"
POD_LABEL = "gateway.networking.k8s.io/gateway-name"


class NoAddress(Exception):
    """No gateway answers now; the message says what is missing."""


@dataclass(frozen=True)
class Address:
    """One listener of a gateway: `host` is its name, `ip` the pod's address, `ca` the file that proves it (TLS)."""

    scheme: str
    host: str
    ip: str
    port: int
    ca: Path | None = None

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def curl(self) -> str:
        """The options that curl needs beside the URL: what DNS and a public authority would say."""
        resolve = ["--resolve", f"{self.host}:{self.port}:{self.ip}"] if self.host != self.ip else []
        trust = ["--cacert", str(self.ca)] if self.ca else []
        return shlex.join([*resolve, *trust])


def find(kube: Kube, namespace: str, name: str, directory: Path) -> Address:
    """The address of a Gateway's most useful listener: HTTPS if it has one.

    The authority of an HTTPS listener's certificate is written to `directory`.
    Raises NoAddress.
    """
    gateway = kube.get(GATEWAY_API, "Gateway", name, namespace)
    if gateway is None:
        raise NoAddress(f"there is no Gateway {namespace}/{name}: `make up` makes it")
    pods = kube.list("v1", "Pod", namespace, selector=f"{POD_LABEL}={name}")
    ip = next((pod["status"]["podIP"] for pod in pods if is_ready(pod)), None)
    if ip is None:
        state = ", ".join(_states(pods)) or "it has none"
        raise NoAddress(
            f"no pod of the Gateway {namespace}/{name} is Ready ({state}): `make status` says why"
        )
    listeners = gateway["spec"]["listeners"]
    listener = next((x for x in listeners if x["protocol"] == "HTTPS"), listeners[0])
    port = moved(listener["port"])
    host = listener.get("hostname") or ip
    if listener["protocol"] != "HTTPS":
        return Address("http", host, ip, port)
    return Address(
        "https", host, ip, port, _authority(kube, namespace, listener, directory / "gateway-ca.crt")
    )


def _states(pods: Iterable[Manifest]) -> Iterable[str]:
    """`pod name: why it waits`, of pods that are not Ready."""
    for pod in pods:
        statuses = pod["status"].get("containerStatuses", [])
        reasons = (s["state"].get("waiting", {}).get("reason") for s in statuses)
        yield f"{pod['metadata']['name']}: {next((r for r in reasons if r), pod['status'].get('phase'))}"


def _authority(kube: Kube, namespace: str, listener: Manifest, file: Path) -> Path:
    name = listener["tls"]["certificateRefs"][0]["name"]
    secret = kube.get("v1", "Secret", name, namespace)
    if secret is None:
        raise NoAddress(f"the certificate of the gateway, Secret {namespace}/{name}, does not exist (yet)")
    # A self-signed certificate proves itself.
    data = secret["data"]
    file.write_bytes(base64.b64decode(data.get("ca.crt") or data["tls.crt"]))
    return file
