"""Where the gateway of a rehearsed stack answers, and how to ask it.

A gateway's pod has a loopback address; its listeners' ports below 1024 are moved up,
since nobody but root may listen there. Clients use the pod directly, as the load
balancer does that a cloud would put before it. Google's own gateway has no pods; its
load balancer answers at the address that the Gateway's status tells.
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
from rehearsal.stand_ins import google_certificates

GATEWAY_API = "gateway.networking.k8s.io/v1"
POD_LABEL = "gateway.networking.k8s.io/gateway-name"
GOOGLE_CLASSES = "gke-"


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

    def options(self, kube: Kube, namespace: str, name: str) -> list[str]:
        """What `python -m ops verify` needs: where each of the Gateway's ports really is, and whom to trust."""
        gateway = kube.get(GATEWAY_API, "Gateway", name, namespace) or {"spec": {"listeners": []}}
        ports = [listener["port"] for listener in gateway["spec"]["listeners"]]
        detours = [part for p in ports for part in ("--connect-to", f":{p}:{self.ip}:{moved(p)}")]
        return [*detours, *(["--ca", str(self.ca)] if self.ca else [])]


def find(kube: Kube, namespace: str, name: str, directory: Path) -> Address:
    """The address of a Gateway's most useful listener: HTTPS if it has one.

    The authority of an HTTPS listener's certificate is written to `directory`, which is one of the rehearsal's.
    Raises NoAddress.
    """
    gateway = kube.get(GATEWAY_API, "Gateway", name, namespace)
    if gateway is None:
        raise NoAddress(f"there is no Gateway {namespace}/{name}: `make up` makes it")
    google = gateway["spec"].get("gatewayClassName", "").startswith(GOOGLE_CLASSES)
    ip = _load_balancer(gateway) if google else _pod(kube, namespace, name)
    listeners = gateway["spec"]["listeners"]
    listener = next((x for x in listeners if x["protocol"] == "HTTPS"), listeners[0])
    port = moved(listener["port"])
    host = listener.get("hostname") or ip
    if listener["protocol"] != "HTTPS":
        return Address("http", host, ip, port)
    return Address(
        "https", host, ip, port, _authority(kube, namespace, listener, directory / "gateway-ca.crt")
    )


def _load_balancer(gateway: Manifest) -> str:
    """Where Google's load balancer of a Gateway answers."""
    status = gateway.get("status") or {}
    found = [a["value"] for a in status.get("addresses") or []]
    if found:
        return str(found[0])
    meta = gateway["metadata"]
    said = [c["message"] for c in status.get("conditions") or [] if c["type"] == "Programmed"]
    why = next(filter(None, said), "nobody has taken it yet")
    raise NoAddress(f"the Gateway {meta['namespace']}/{meta['name']} is not programmed: {why}")


def _pod(kube: Kube, namespace: str, name: str) -> str:
    """The address of a Ready pod of a Gateway."""
    pods = kube.list("v1", "Pod", namespace, selector=f"{POD_LABEL}={name}")
    for pod in pods:
        if is_ready(pod):
            return str(pod["status"]["podIP"])
    state = ", ".join(_states(pods)) or "it has none"
    raise NoAddress(f"no pod of the Gateway {namespace}/{name} is Ready ({state}): `make status` says why")


def _states(pods: Iterable[Manifest]) -> Iterable[str]:
    """`pod name: why it waits`, of pods that are not Ready."""
    for pod in pods:
        statuses = pod["status"].get("containerStatuses", [])
        reasons = (s["state"].get("waiting", {}).get("reason") for s in statuses)
        yield f"{pod['metadata']['name']}: {next((r for r in reasons if r), pod['status'].get('phase'))}"


def _authority(kube: Kube, namespace: str, listener: Manifest, file: Path) -> Path:
    references = listener["tls"].get("certificateRefs")
    if not references:
        # Certificate Manager's: whoever asks for it trusts its authority.
        return google_certificates.authority_file(file.parent.parent)
    name = references[0]["name"]
    secret = kube.get("v1", "Secret", name, namespace)
    if secret is None:
        raise NoAddress(f"the certificate of the gateway, Secret {namespace}/{name}, does not exist (yet)")
    # A self-signed certificate proves itself.
    data = secret["data"]
    file.write_bytes(base64.b64decode(data.get("ca.crt") or data["tls.crt"]))
    return file
