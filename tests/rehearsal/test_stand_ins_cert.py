"""The stand-in for cert-manager issues what the real one would, and nothing else."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from components.platform import cert_manager as chart
from components.serving.manifests.certificate import CertificateSpec, certificate
from components.serving.manifests.gateway import GatewaySpec, gateway
from rehearsal.stand_ins.cert_manager import API, CertManager
from rehearsal.stand_ins.mirror import Mirror

HOST = "llm.example.com"
DOOR = GatewaySpec(
    name="door", namespace="gw", class_name="istio", internal=False, cloud="other", host=HOST, tls_secret="gateway-tls"
)  # fmt: skip
PROGRAMMED = {
    "addresses": [{"value": "127.0.0.1"}],
    "conditions": [{"type": "Programmed", "status": "True"}],
}


class Cluster:
    """An API server in memory, and rounds of the stand-in on it until nothing changes."""

    def __init__(self, directory: Path, *objects: dict[str, Any]):
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.writes = 0
        for item in objects:
            self.put(item)
        self._stand_in = CertManager(self, directory, lambda: True)

    def put(self, item: dict[str, Any]) -> None:
        item = copy.deepcopy(item)
        item["metadata"].setdefault("generation", 1)
        self.objects[item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]] = item

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Any:
        return self.objects.get((kind, namespace or "", name))

    def apply(self, item: dict[str, Any], manager: str, force: bool = False) -> None:
        self.writes += 1
        self.put(item)

    def patch(
        self, api: str, kind: str, name: str, namespace: str | None, body: Any, *_: Any, **__: Any
    ) -> None:
        self.writes += 1
        item = self.objects[kind, namespace or "", name]
        if isinstance(body, dict):
            item.update(body)
            return
        for step in body:
            *path, last = step["path"].strip("/").split("/")
            place: Any = item
            for part in path:
                place = place[int(part)] if isinstance(place, list) else place[part]
            place[last] = step["value"]

    def settle(self) -> Cluster:
        """Rounds until one writes nothing: a controller at rest."""
        for _ in range(10):
            mirror, before = Mirror(self, ()), self.writes
            for item in self.objects.values():
                mirror.put(item)
            self._stand_in.reconcile(mirror)
            if self.writes == before:
                return self
        raise AssertionError("the stand-in never comes to rest")

    def ready(self, kind: str, name: str, namespace: str = "gw") -> tuple[str, str, str]:
        """(status, reason, message) of an object's Ready condition."""
        (condition,) = self.objects[kind, namespace, name]["status"]["conditions"]
        return condition["status"], condition["reason"], condition["message"]

    def issued(self, name: str = "gateway-tls") -> x509.Certificate | None:
        """The certificate in a Secret."""
        secret = self.get("v1", "Secret", name, "gw")
        return secret and x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))


def stack(issuer: str, **fields: Any) -> list[dict[str, Any]]:
    """The objects that the stack makes for an issuer."""
    spec = CertificateSpec(gateway="door", namespace="gw", host=HOST, issuer=issuer, **fields)
    return [item for _, item in certificate(spec)]


def door(status: dict[str, Any] | None = PROGRAMMED, **fields: Any) -> dict[str, Any]:
    """The gateway of the stack as istiod leaves it."""
    item = gateway(GatewaySpec(**{**DOOR.__dict__, **fields}))
    return {**item, "status": status} if status else item


def settings(**values: Any) -> dict[str, Any]:
    """cert-manager's own settings as its chart writes them."""
    (release,) = chart.releases()
    text = str({**release.values["config"], **values})
    meta = {"name": "cert-manager", "namespace": "cert-manager"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"config.yaml": text}}


def names(found: x509.Certificate | None) -> list[str]:
    assert found is not None
    extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(x509.DNSName)


def test_an_own_authority_signs_the_gateway_s_certificate(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, *stack("own-ca")).settle()
    leaf, root = cluster.issued(), cluster.issued("own-ca")
    assert names(leaf) == [HOST]
    leaf.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert (root.not_valid_after_utc - root.not_valid_before_utc).days >= 3650
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 90
    assert cluster.ready("Issuer", "own-ca")[:2] == ("True", "KeyPairVerified")
    assert cluster.ready("Certificate", "gateway-tls")[:2] == ("True", "Ready")


@pytest.mark.parametrize("issuer", ["letsencrypt", "letsencrypt-staging"])
def test_a_challenge_through_the_gateway_is_answered_before_its_certificate_exists(
    issuer: str, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path, *stack(issuer, email="ops@example.com"), door(), settings()).settle()
    assert names(cluster.issued()) == [HOST]
    status, reason, message = cluster.ready("Issuer", issuer)
    assert (status, reason) == ("True", "ACMEAccountRegistered") and "simulated" in message
    assert cluster.get("v1", "Secret", f"{issuer}-account", "gw")
    assert "trusted by nobody" in cluster.issued().issuer.rfc4514_string()


OBSTACLES = {
    "no gateway": ([settings()], "Gateway gw/door does not exist"),
    "gateway not programmed": ([settings(), door(None)], "Gateway gw/door is not programmed"),
    "no plain listener": ([settings(), {**door(), "spec": {"listeners": []}}], "no HTTP listener (http)"),
    "another host": ([settings(), door(host="other.example.com")], f"serves {HOST} to gw"),
    "no gateway api": ([door()], "gateway api is not enabled"),
    "gateway api off": ([door(), settings(gatewayAPI={"enabled": False})], "gateway api is not enabled"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_challenge_that_could_not_be_answered_issues_nothing_and_says_why(
    obstacle: str, tmp_path: Path
) -> None:
    objects, why = OBSTACLES[obstacle]
    cluster = Cluster(tmp_path, *stack("letsencrypt"), *objects).settle()
    assert cluster.issued() is None
    status, reason, message = cluster.ready("Certificate", "gateway-tls")
    assert (status, reason) == ("False", "DoesNotExist") and why in message


def test_a_challenge_succeeds_as_soon_as_the_gateway_is_programmed(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, *stack("letsencrypt"), settings()).settle()
    cluster.put(door())
    assert cluster.settle().issued() is not None


def test_an_issuer_that_does_not_exist_issues_nothing(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, *stack("corporate")).settle()
    status, _, message = cluster.ready("Certificate", "gateway-tls")
    assert status == "False" and "ClusterIssuer corporate does not exist (IssuerNotFound)" in message
    assert cluster.issued() is None


def test_a_namespaced_issuer_is_no_cluster_issuer_of_the_same_name(tmp_path: Path) -> None:
    issuer = {"apiVersion": API, "kind": "Issuer", "metadata": {"name": "corporate", "namespace": "gw"}, "spec": {"selfSigned": {}}}  # fmt: skip
    cluster = Cluster(tmp_path, *stack("corporate"), issuer).settle()
    assert cluster.issued() is None
    cluster.put({**issuer, "kind": "ClusterIssuer", "metadata": {"name": "corporate"}})
    assert names(cluster.settle().issued()) == [HOST]


def issuer_of(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API, "kind": "ClusterIssuer", "metadata": {"name": "corporate"}, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        ({"ca": {"secretName": "gone"}}, "ErrGetKeyPair", 'secret "gone" not found'),
        (
            {"vault": {"server": "https://vault"}},
            "ErrInitIssuer",
            "simulates selfSigned, ca and acme, not vault",
        ),
        ({"acme": {"server": "https://x"}}, "InvalidConfig", "no solver is configured"),
        ({"acme": {"server": "https://x", "solvers": [{"dns01": {}}]}}, "InvalidSolver", "gatewayHTTPRoute"),
    ],
)
def test_a_broken_issuer_is_not_ready_and_its_certificates_wait(
    spec: dict[str, Any], reason: str, message: str, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path, *stack("corporate"), issuer_of(spec)).settle()
    assert cluster.ready("ClusterIssuer", "corporate", "")[:2] == ("False", reason)
    assert message in cluster.ready("ClusterIssuer", "corporate", "")[2]
    assert "is not ready" in cluster.ready("Certificate", "gateway-tls")[2]
    assert cluster.issued() is None


def test_a_certificate_that_is_no_authority_signs_nothing(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, *stack("own-ca")).settle()
    leaf = cluster.get("v1", "Secret", "gateway-tls", "gw")
    cluster.put({**leaf, "metadata": {"name": "leaf", "namespace": "cert-manager"}})
    cluster.put(issuer_of({"ca": {"secretName": "leaf"}}))
    cluster.settle()
    assert cluster.ready("ClusterIssuer", "corporate", "")[1] == "ErrInvalidKeyPair"


def test_another_host_gets_another_certificate_and_the_same_host_keeps_its_own(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, *stack("own-ca")).settle()
    first = cluster.issued()
    assert cluster.settle().issued() == first
    changed = stack("own-ca")[-1]
    changed["spec"]["dnsNames"], changed["metadata"]["generation"] = ["new.example.com"], 2
    cluster.put(changed)
    assert names(cluster.settle().issued()) == ["new.example.com"]


def test_a_condition_tells_the_generation_that_it_was_written_for(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, *stack("own-ca")).settle()
    item = cluster.objects["Certificate", "gw", "gateway-tls"]
    item["metadata"]["generation"] = 7
    cluster.settle()
    assert item["status"]["conditions"][0]["observedGeneration"] == 7


def test_a_deleted_secret_is_issued_anew(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, *stack("own-ca")).settle()
    first = cluster.issued()
    del cluster.objects["Secret", "gw", "gateway-tls"]
    assert cluster.settle().issued() not in (None, first)


def webhook(source: str) -> dict[str, Any]:
    meta = {"name": "validator", "annotations": {"cert-manager.io/inject-ca-from": source}}
    hooks = [{"clientConfig": {}}, {"clientConfig": {}}]
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    return {**kind, "metadata": meta, "webhooks": hooks}


def test_a_webhook_gets_the_authority_of_its_certificate_once_it_is_issued(tmp_path: Path) -> None:
    waiting = Cluster(tmp_path, *stack("corporate"), webhook("gw/gateway-tls")).settle()
    hooks = waiting.objects["ValidatingWebhookConfiguration", "", "validator"]["webhooks"]
    assert hooks == [{"clientConfig": {}}, {"clientConfig": {}}]
    cluster = Cluster(tmp_path, *stack("own-ca"), webhook("gw/gateway-tls")).settle()
    hooks = cluster.objects["ValidatingWebhookConfiguration", "", "validator"]["webhooks"]
    root = cluster.get("v1", "Secret", "own-ca", "gw")["data"]["tls.crt"]
    assert hooks == [{"clientConfig": {"caBundle": root}}] * 2


def test_the_authorities_survive_a_restart(tmp_path: Path) -> None:
    first = CertManager(Cluster(tmp_path), tmp_path, lambda: True)
    second = CertManager(Cluster(tmp_path), tmp_path, lambda: True)
    assert (first._ca, first._acme) == (second._ca, second._acme)
