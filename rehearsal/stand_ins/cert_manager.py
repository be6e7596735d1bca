"""Stands in for cert-manager: issues certificates and injects their authority.

Every issuer signs with one authority of the rehearsal. Its admission webhook
accepts what the API server's own schema accepted.
"""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ops.kube import JSON_PATCH, Kube, Manifest
from rehearsal.cluster import certificates
from rehearsal.node.nodes import timestamp
from rehearsal.stand_ins.mirror import Mirror

API = "cert-manager.io/v1"
WEBHOOK = "cert-manager/cert-manager-webhook"
INJECT_FROM = "cert-manager.io/inject-ca-from"
INJECT_FROM_SECRET = "cert-manager.io/inject-ca-from-secret"
ADMISSION = "admissionregistration.k8s.io/v1"
# Where each injectable kind keeps its bundle: JSON pointers, one per webhook.
INJECTABLE: dict[str, Callable[[Manifest], list[str]]] = {
    "ValidatingWebhookConfiguration": lambda item: _webhook_pointers(item),
    "MutatingWebhookConfiguration": lambda item: _webhook_pointers(item),
    "CustomResourceDefinition": lambda item: _conversion_pointers(item),
}
WATCHED = (
    (API, "Issuer"),
    (API, "ClusterIssuer"),
    (API, "Certificate"),
    (ADMISSION, "ValidatingWebhookConfiguration"),
    (ADMISSION, "MutatingWebhookConfiguration"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
)


def _webhook_pointers(configuration: Manifest) -> list[str]:
    return [f"/webhooks/{i}/clientConfig/caBundle" for i in range(len(configuration.get("webhooks") or []))]


def _conversion_pointers(definition: Manifest) -> list[str]:
    conversion = definition["spec"].get("conversion") or {}
    return (
        ["/spec/conversion/webhook/clientConfig/caBundle"] if conversion.get("strategy") == "Webhook" else []
    )


class CertManager:
    """Issues for Certificates and injects bundles while `is_running` says so."""

    def __init__(self, kube: Kube, directory: Path, is_running: Callable[[], bool]):
        self._kube, self._is_running = kube, is_running
        self._ca = _authority(directory)
        self._objects = Mirror(kube, WATCHED)

    def serve_webhook(self) -> tuple[str, int]:
        """Start the admission webhook; returns its address."""
        pair = certificates.issue(
            self._ca, "cert-manager-webhook", names=("cert-manager-webhook.cert-manager.svc",)
        )
        context = _server_context(pair)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Admission)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return "127.0.0.1", server.server_address[1]

    def run(self, stop: threading.Event) -> None:
        """Act until told to stop."""
        self._objects.run(stop, self._act)

    def _act(self) -> None:
        if self._is_running():
            self.reconcile(self._objects)

    def reconcile(self, objects: Mirror) -> None:
        """Bring everything that cert-manager would to the state that it would be in."""
        for kind in ("Issuer", "ClusterIssuer"):
            for issuer in objects.of(kind):
                self._mark_ready(issuer, "issues with the rehearsal's authority")
        issued = objects.of("Certificate")
        for certificate in issued:
            self._issue(certificate)
        ready = {_reference(c) for c in issued if c.get("status", {}).get("conditions")}
        for kind, pointers in INJECTABLE.items():
            for item in objects.of(kind):
                self._inject(item, pointers(item), ready)

    def _issue(self, certificate: Manifest) -> None:
        spec, namespace = certificate["spec"], certificate["metadata"]["namespace"]
        names = (*spec.get("dnsNames", []), *spec.get("ipAddresses", []))
        if self._kube.get("v1", "Secret", spec["secretName"], namespace) is None:
            common = spec.get("commonName") or (names[0] if names else certificate["metadata"]["name"])
            pair = certificates.issue(self._ca, common[:64], names=names)
            content = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": self._ca.certificate}
            self._kube.create(_secret(namespace, spec["secretName"], content))
        self._mark_ready(certificate, "Certificate is up to date and has not expired")

    def _mark_ready(self, item: Manifest, message: str) -> None:
        if item.get("status", {}).get("conditions"):
            return
        condition = {"type": "Ready", "status": "True", "reason": "Ready", "message": message}
        status = {"conditions": [{**condition, "lastTransitionTime": timestamp()}]}
        meta = item["metadata"]
        self._kube.patch(
            API, item["kind"], meta["name"], meta.get("namespace"), {"status": status}, subresource="status"
        )

    def _inject(self, item: Manifest, pointers: list[str], ready: set[str]) -> None:
        bundle = self._bundle(item["metadata"].get("annotations") or {}, ready)
        patch = [
            {"op": "add", "path": p, "value": bundle} for p in pointers if bundle and _at(item, p) != bundle
        ]
        if patch:
            self._kube.patch(
                item["apiVersion"], item["kind"], item["metadata"]["name"], None, patch, JSON_PATCH
            )

    def _bundle(self, annotations: dict[str, str], ready: set[str]) -> str | None:
        """The bundle that an object's annotations ask for, once its certificate is issued."""
        if INJECT_FROM_SECRET in annotations or annotations.get(INJECT_FROM) in ready:
            return base64.b64encode(self._ca.certificate).decode()
        return None


def _reference(certificate: Manifest) -> str:
    return f"{certificate['metadata']['namespace']}/{certificate['metadata']['name']}"


def _authority(directory: Path) -> certificates.KeyPair:
    """The rehearsal's issuing authority, made once and kept so that a restart invalidates nothing."""
    files = directory / "issuer.crt", directory / "issuer.key"
    if not files[1].exists():
        pair = certificates.authority("rehearsal-cert-manager")
        for file, content in zip(files, (pair.certificate, pair.key), strict=True):
            file.touch(mode=0o600)
            file.write_bytes(content)
    return certificates.KeyPair(files[0].read_bytes(), files[1].read_bytes())


def _secret(namespace: str, name: str, content: dict[str, bytes]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"controller.cert-manager.io/fao": "true"},
        },
        "data": {k: base64.b64encode(v).decode() for k, v in content.items()},
    }


def _at(item: Any, pointer: str) -> Any:
    for part in pointer.strip("/").split("/"):
        item = item[int(part)] if isinstance(item, list) else (item or {}).get(part)
    return item


def _server_context(pair: certificates.KeyPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(pair.certificate + pair.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


class _Admission(http.server.BaseHTTPRequestHandler):
    """Answers every review with yes."""

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"uid": review["request"]["uid"], "allowed": True}
        body = json.dumps(
            {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": answer}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: every admission would be a line."""
