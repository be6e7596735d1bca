"""The address that `make url` prints, and what curl needs beside it."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from rehearsal import address
from rehearsal.address import Address, NoAddress

LISTENERS = {
    "http": {"name": "http", "protocol": "HTTP", "port": 80},
    "https": {
        "name": "https",
        "protocol": "HTTPS",
        "port": 443,
        "hostname": "llm.example.com",
        "tls": {"certificateRefs": [{"name": "gateway-tls"}]},
    },
}


class Api:
    """A gateway with some listeners, pods and Secrets."""

    def __init__(
        self, listeners: list[str], pods: list[dict[str, Any]], secret: dict[str, str] | None = None
    ):
        self.listeners, self.pods, self.secret = listeners, pods, secret

    def get(self, _api: str, kind: str, _name: str, _namespace: str) -> dict[str, Any] | None:
        if kind == "Gateway":
            return {"spec": {"listeners": [LISTENERS[x] for x in self.listeners]}} if self.listeners else None
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in (self.secret or {}).items()}
        return {"data": encoded} if self.secret else None

    def list(self, _api: str, _kind: str, namespace: str, selector: str) -> list[dict[str, Any]]:
        assert (namespace, selector) == ("llm-gateway", "gateway.networking.k8s.io/gateway-name=main")
        return self.pods


def pod(ip: str, ready: bool = True, ending: bool = False, reason: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason}} if reason else {"running": {}}
    return {
        "metadata": {"name": f"main-{ip}", **({"deletionTimestamp": "now"} if ending else {})},
        "status": {
            "podIP": ip,
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"state": state}],
        },
    }


def find(api: Api, directory: Path) -> Address:
    return address.find(api, "llm-gateway", "main", directory)  # type: ignore[arg-type]


def test_a_plain_gateway_answers_at_its_ready_pod_on_a_port_that_anybody_may_use(tmp_path: Path) -> None:
    pods = [pod("127.10.0.1", ready=False), pod("127.10.0.2", ending=True), pod("127.10.0.3")]
    found = find(Api(["http"], pods), tmp_path)
    assert (found.url, found.curl) == ("http://127.10.0.3:8080", "")


@pytest.mark.parametrize("secret", [{"ca.crt": "authority", "tls.crt": "leaf"}, {"tls.crt": "authority"}])
def test_https_is_preferred_and_curl_is_told_the_host_and_the_authority(secret, tmp_path: Path) -> None:
    found = find(Api(["http", "https"], [pod("127.10.0.3")], secret), tmp_path)
    assert found.url == "https://llm.example.com:8443"
    file = tmp_path / "gateway-ca.crt"
    assert found.curl == f"--resolve llm.example.com:8443:127.10.0.3 --cacert {file}"
    assert file.read_text() == "authority"


@pytest.mark.parametrize(
    ("api", "why"),
    [
        (Api([], []), "there is no Gateway llm-gateway/main"),
        (Api(["http"], []), "no pod of the Gateway llm-gateway/main is Ready (it has none)"),
        (
            Api(["http"], [pod("127.10.0.1", ready=False, reason="CrashLoopBackOff")]),
            "is Ready (main-127.10.0.1: CrashLoopBackOff)",
        ),
        (Api(["https"], [pod("127.10.0.3")]), "Secret llm-gateway/gateway-tls, does not exist"),
    ],
)
def test_no_address_is_said_with_what_is_missing(api: Api, why: str, tmp_path: Path) -> None:
    with pytest.raises(NoAddress, match=re.escape(why)):
        find(api, tmp_path)


class Google:
    """A Gateway of Google's: no pods, a status, and a certificate of Certificate Manager."""

    def __init__(self, status: dict[str, Any], *listeners: dict[str, Any]):
        spec = {"gatewayClassName": "gke-l7-rilb", "listeners": listeners or [LISTENERS["http"]]}
        meta = {"namespace": "llm-gateway", "name": "main"}
        self.gateway = {"metadata": meta, "spec": spec, "status": status}

    def get(self, *_: Any) -> dict[str, Any]:
        return self.gateway


def test_googles_gateway_answers_where_its_status_says(tmp_path: Path) -> None:
    programmed = {"addresses": [{"type": "IPAddress", "value": "127.10.254.1"}]}
    assert find(Google(programmed), tmp_path).url == "http://127.10.254.1:8080"  # type: ignore[arg-type]
    managed = {**LISTENERS["https"], "tls": {"options": {"networking.gke.io/cert-manager-certs": "llm"}}}
    found = find(Google(programmed, managed), tmp_path / "work")  # type: ignore[arg-type]
    assert (found.url, found.ip) == ("https://llm.example.com:8443", "127.10.254.1")
    assert found.ca == tmp_path / "cloud" / "certificates" / "public.authority.crt"


def test_a_gateway_that_google_does_not_program_says_why(tmp_path: Path) -> None:
    why = {"type": "Programmed", "status": "False", "message": "An active proxy-only subnetwork is required"}
    with pytest.raises(NoAddress, match="is not programmed: An active proxy-only subnetwork is required"):
        find(Google({"conditions": [why]}), tmp_path)  # type: ignore[arg-type]
