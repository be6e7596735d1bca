"""The builders of the gateway's certificate."""

from __future__ import annotations

import itertools
from typing import Any

import pulumi
import pytest

from components.clusters.objects import KubernetesObject
from components.core import labels
from components.core.manifest import manifest
from components.platform import cert_manager
from components.platform.crds import GATEWAY_API
from components.serving.certificate import GatewayCertificate, GatewayCertificateArgs
from components.serving.manifests import certificate as manifests
from components.serving.manifests.certificate import CertificateSpec, certificate
from components.serving.manifests.gateway import GatewaySpec, gateway
from tests.support.recorder import record

NAMES = ("letsencrypt", "letsencrypt-staging", "own-ca", "corporate")


def spec(issuer: str, **fields: Any) -> CertificateSpec:
    return CertificateSpec(gateway="door", namespace="gw", host="llm.example.com", issuer=issuer, **fields)


def objects(issuer: str, **fields: Any) -> dict[str, dict[str, Any]]:
    return dict(certificate(spec(issuer, **fields)))


@pytest.mark.parametrize("issuer", NAMES)
def test_the_secret_is_the_one_that_the_gateway_s_listener_names(issuer: str) -> None:
    leaf = objects(issuer)["certificate"]
    door = GatewaySpec(
        name="door", namespace="gw", class_name="istio", internal=False, cloud="other",
        host="llm.example.com", tls_secret=manifests.NAME,
    )  # fmt: skip
    (listener,) = (x for x in gateway(door)["spec"]["listeners"] if x["protocol"] == "HTTPS")
    assert listener["tls"]["certificateRefs"][0]["name"] == leaf["spec"]["secretName"]
    assert leaf["metadata"]["namespace"] == "gw" and leaf["spec"]["dnsNames"] == ["llm.example.com"]


@pytest.mark.parametrize("issuer", NAMES)
def test_every_object_is_awaited_and_refers_only_to_what_came_before(issuer: str) -> None:
    there = {("ClusterIssuer", "corporate")}
    for item in objects(issuer).values():
        assert item["metadata"]["annotations"][labels.WAIT_FOR] == "condition=Ready"
        reference = item["spec"].get("issuerRef")
        assert reference is None or (reference["kind"], reference["name"]) in there
        secret = (item["spec"].get("ca") or {}).get("secretName")
        assert secret is None or ("Secret", secret) in there
        there |= {(item["kind"], item["metadata"]["name"]), ("Secret", item["spec"].get("secretName"))}


def test_a_challenge_comes_through_the_plain_listener_of_our_own_gateway() -> None:
    (solver,) = objects("letsencrypt")["issuer"]["spec"]["acme"]["solvers"]
    (parent,) = solver["http01"]["gatewayHTTPRoute"]["parentRefs"]
    assert (parent["namespace"], parent["name"], parent["sectionName"]) == ("gw", "door", "http")


def test_the_staging_account_is_another_one() -> None:
    servers = {
        name: objects(name)["issuer"]["spec"]["acme"] for name in ("letsencrypt", "letsencrypt-staging")
    }
    accounts = {acme["privateKeySecretRef"]["name"] for acme in servers.values()}
    assert len(accounts) == 2 and "staging" in servers["letsencrypt-staging"]["server"]
    assert "staging" not in servers["letsencrypt"]["server"]


def test_the_contact_of_an_account_may_be_left_out() -> None:
    assert "email" not in objects("letsencrypt")["issuer"]["spec"]["acme"]
    assert objects("letsencrypt", email="a@b.c")["issuer"]["spec"]["acme"]["email"] == "a@b.c"


def test_somebody_else_s_issuer_is_used_and_never_made() -> None:
    made = objects("corporate")
    assert list(made) == ["certificate"]
    assert made["certificate"]["spec"]["issuerRef"]["kind"] == "ClusterIssuer"


def test_a_root_keeps_its_key_and_a_leaf_changes_it() -> None:
    made = objects("own-ca")
    assert made["root"]["spec"]["isCA"] and made["root"]["spec"]["privateKey"]["rotationPolicy"] == "Never"
    assert made["certificate"]["spec"]["privateKey"]["rotationPolicy"] == "Always"


def test_a_long_gateway_name_still_fits_a_common_name() -> None:
    long = CertificateSpec(gateway="g" * 60, namespace="n" * 60, host="llm.example.com", issuer="own-ca")
    assert len(dict(certificate(long))["root"]["spec"]["commonName"]) <= 64


def test_cert_manager_answers_challenges_and_starts_after_the_gateway_api() -> None:
    (release,) = cert_manager.releases()
    assert release.values["config"]["gatewayAPI"]["enabled"] is True
    assert GATEWAY_API in release.needs


def test_each_object_is_created_when_what_it_needs_is_ready_and_has_time_for_it() -> None:
    def program() -> None:
        door = KubernetesObject("door", manifest("v1", "Namespace", "gw"), pulumi.ResourceOptions())
        GatewayCertificate("certificate", GatewayCertificateArgs(spec=spec("own-ca"), after=(door,)))

    recording = record(program)
    order = ["door", *(f"certificate-{role}" for role in ("issuer-start", "root", "issuer", "certificate"))]
    for earlier, later in itertools.pairwise(order):
        assert recording.named(earlier).urn in recording.before(recording.named(later))
    assert recording.named("certificate-certificate").timeouts["create"]
