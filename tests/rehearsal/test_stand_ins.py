"""The stand-ins judge as the controllers they stand for, and act only while those would run."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509

from rehearsal.stand_ins.cert_manager import CertManager
from rehearsal.stand_ins.gateway import GATEWAY_API, POOL_API, GatewayController
from rehearsal.stand_ins.mirror import Mirror


class Api:
    """Remembers what was written."""

    def __init__(self, objects=()):
        self.objects, self.created, self.patched = list(objects), [], {}

    def list(self, api_version, kind, *_, **__):
        return [o for o in self.objects if o["kind"] == kind]

    def get(self, api_version, kind, name, namespace=None):
        return next(
            (o for o in [*self.objects, *self.created] if (o["kind"], o["metadata"]["name"]) == (kind, name)),
            None,
        )

    def create(self, manifest):
        self.created.append(manifest)

    def apply(self, manifest, *_, **__):
        self.created.append(manifest)

    def patch(self, api_version, kind, name, namespace, body, *_, **__):
        self.patched[kind, name] = body


def item(api_version, kind, name, namespace="", spec=None, **meta):
    metadata = {"name": name, "generation": 1, **({"namespace": namespace} if namespace else {}), **meta}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec or {}}


GATEWAY = item(
    GATEWAY_API, "Gateway", "gw", "llm-gateway",
    {"gatewayClassName": "istio", "listeners": [{"name": "http", "allowedRoutes": {"namespaces": {
        "from": "Selector", "selector": {"matchLabels": {"models": "yes"}}}}}]},
)  # fmt: skip
POOL = item(POOL_API, "InferencePool", "pool", "models", {"endpointPickerRef": {"name": "epp"}})


def route(backend, namespace="models"):
    spec = {"parentRefs": [{"name": "gw", "namespace": "llm-gateway"}], "rules": [{"backendRefs": [backend]}]}
    return item(GATEWAY_API, "HTTPRoute", "route", namespace, spec)


def judged(*objects):
    """The statuses that the gateway stand-in writes for these objects."""
    api = Api()
    controller = GatewayController(api, lambda: True)
    namespaces = [
        item("v1", "Namespace", "models", labels={"models": "yes"}),
        item("v1", "Namespace", "other"),
    ]
    for o in [GATEWAY, *namespaces, *objects]:
        controller.objects.put(o)
    controller.reconcile()
    return api.patched


def verdict(patched, kind="HTTPRoute", name="route"):
    (parent,) = patched[kind, name]["status"]["parents"]
    return {c["type"]: (c["status"], c["reason"]) for c in parent["conditions"]}


V1_POOL = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "pool"}


def test_a_route_to_an_existing_pool_is_resolved():
    patched = judged(route(V1_POOL), POOL, item("v1", "Service", "epp", "models"))
    assert verdict(patched) == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
    assert verdict(patched, "InferencePool", "pool")["Accepted"] == ("True", "Accepted")


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (V1_POOL, "BackendNotFound"),
        ({"name": "service", "port": 80}, "BackendNotFound"),
        ({"group": "inference.networking.x-k8s.io", "kind": "InferencePool", "name": "pool"}, "InvalidKind"),
    ],
)
def test_a_route_to_a_missing_or_unknown_backend_is_not_resolved(backend, reason):
    assert verdict(judged(route(backend)))["ResolvedRefs"] == ("False", reason)


def test_a_route_from_a_namespace_that_the_listener_excludes_is_not_accepted():
    assert verdict(judged(route(V1_POOL, "other")))["Accepted"] == ("False", "NotAllowedByListeners")


def test_a_pool_without_its_endpoint_picker_is_not_resolved():
    patched = judged(route(V1_POOL), POOL)
    assert verdict(patched, "InferencePool", "pool")["ResolvedRefs"] == ("False", "InvalidExtensionRef")


def test_a_gateway_of_another_class_is_left_alone():
    foreign = {**GATEWAY, "spec": {**GATEWAY["spec"], "gatewayClassName": "nginx"}}
    assert ("Gateway", "gw") not in judged(foreign)


CERTIFICATE = {
    **item("cert-manager.io/v1", "Certificate", "serving", "kserve",
           {"secretName": "webhook-cert", "dnsNames": ["webhook.kserve.svc"]}),
}  # fmt: skip


def issuer(tmp_path, objects):
    api = Api(objects)
    mirror = Mirror(api, ())
    for o in objects:
        mirror.put(o)
    CertManager(api, tmp_path, lambda: True).reconcile(mirror)
    return api


def test_a_certificate_becomes_a_secret_for_its_names(tmp_path):
    api = issuer(tmp_path, [CERTIFICATE])
    (secret,) = api.created
    assert secret["metadata"]["name"] == "webhook-cert" and set(secret["data"]) == {
        "tls.crt",
        "tls.key",
        "ca.crt",
    }
    certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["webhook.kserve.svc"]


def test_a_bundle_is_injected_only_once_its_certificate_is_issued(tmp_path):
    webhook = item("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "validator")
    webhook["metadata"]["annotations"] = {"cert-manager.io/inject-ca-from": "kserve/serving"}
    webhook["webhooks"] = [{"clientConfig": {}}, {"clientConfig": {}}]
    assert ("ValidatingWebhookConfiguration", "validator") not in issuer(tmp_path, [webhook]).patched
    issued = {**CERTIFICATE, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    patch = issuer(tmp_path, [webhook, issued]).patched["ValidatingWebhookConfiguration", "validator"]
    assert [p["path"] for p in patch] == [f"/webhooks/{i}/clientConfig/caBundle" for i in (0, 1)]


def test_the_authority_survives_a_restart(tmp_path):
    first = CertManager(Api(), tmp_path, lambda: True)
    assert CertManager(Api(), tmp_path, lambda: True)._ca == first._ca
