"""Stands in for cert-manager: judges issuers, issues certificates and injects their authority.

Issuers of the types selfSigned, ca and acme are judged as strictly as the real one judges them
(rehearsal/stand_ins/issuers.py); ACME is simulated by an authority of the rehearsal that nobody trusts.
CertificateRequests, Orders and Challenges are left out, and so is renewal. Its admission webhook
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
from rehearsal.stand_ins import signing
from rehearsal.stand_ins.issuers import GATEWAY, Issuers, Refusal, Verdict, find_issuer
from rehearsal.stand_ins.mirror import Mirror

API = "cert-manager.io/v1"
WEBHOOK = "cert-manager/cert-manager-webhook"
INJECT_FROM = "cert-manager.io/inject-ca-from"
INJECT_FROM_SECRET = "cert-manager.io/inject-ca-from-secret"
ADMISSION = "admissionregistration.k8s.io/v1"
MANAGER = "rehearsal-cert-manager"
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
    ("gateway.networking.k8s.io/v1", GATEWAY),
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
        self._ca = signing.kept_authority(directory, "issuer", "rehearsal-cert-manager")
        self._objects = Mirror(kube, WATCHED)
        self._acme = signing.kept_authority(directory, "acme", "simulated Let's Encrypt, trusted by nobody")

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
        judge = Issuers(self._kube, self._acme, lambda name, home: objects.get(GATEWAY, name, home))
        issuers = [*objects.of("Issuer"), *objects.of("ClusterIssuer")]
        for issuer in issuers:
            verdict = judge.verdict(issuer)
            self._keep_account(issuer, verdict)
            self._write(issuer, verdict)
        issued = objects.of("Certificate")
        for certificate in issued:
            self._write(certificate, self._issue(certificate, issuers, judge))
        bundles = {_reference(c): self._authority_of(c) for c in issued if _is_ready(c)}
        for kind, pointers in INJECTABLE.items():
            for item in objects.of(kind):
                self._inject(item, pointers(item), bundles)

    def _issue(self, certificate: Manifest, issuers: list[Manifest], judge: Issuers) -> Verdict:
        """Fill the Secret of a certificate if its issuer would, and say how it stands."""
        if self._is_current(certificate):
            return Verdict(True, "Ready", "Certificate is up to date and has not expired")
        reference = certificate["spec"]["issuerRef"]
        name = f"{reference.get('kind', 'Issuer')} {reference['name']}"
        issuer = find_issuer(certificate, issuers)
        if issuer is None:
            return _waiting(f"{name} does not exist (IssuerNotFound)")
        verdict = judge.verdict(issuer)
        if not verdict.ready:
            return _waiting(f"{name} is not ready ({verdict.reason}: {verdict.message})")
        try:
            authority = judge.signer(issuer, certificate)
        except Refusal as refusal:
            return _waiting(str(refusal))
        pair = signing.sign(signing.Request.of(certificate), authority)
        self._kube.apply(signing.secret(certificate, pair, authority), MANAGER, force=True)
        return Verdict(True, "Ready", "Certificate is up to date and has not expired")

    def _is_current(self, certificate: Manifest) -> bool:
        """Whether the Secret is there and was issued for what the Certificate says now."""
        home = certificate["metadata"]["namespace"]
        secret = self._kube.get("v1", "Secret", certificate["spec"]["secretName"], home)
        if secret is None or signing.pair_of(secret) is None:
            return False
        return signing.marks(certificate).items() <= (secret["metadata"].get("annotations") or {}).items()

    def _keep_account(self, issuer: Manifest, verdict: Verdict) -> None:
        """The Secret with the key of an ACME account, which the real one makes when it registers."""
        acme = issuer["spec"].get("acme")
        if acme is None or not verdict.ready:
            return
        name = acme["privateKeySecretRef"]["name"]
        home = issuer["metadata"].get("namespace", WEBHOOK.split("/")[0])
        if self._kube.get("v1", "Secret", name, home) is None:
            key = base64.b64encode(certificates.signing_key()).decode()
            meta = {"name": name, "namespace": home}
            account = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"tls.key": key}}
            self._kube.apply(account, MANAGER)

    def _write(self, item: Manifest, verdict: Verdict) -> None:
        """Set the Ready condition where it is another, or was for another generation."""
        meta = item["metadata"]
        condition = {
            "type": "Ready",
            "status": str(verdict.ready),
            "reason": verdict.reason,
            "message": verdict.message,
            "observedGeneration": meta.get("generation", 1),
        }
        old = _ready(item)
        if {key: old.get(key) for key in condition} == condition:
            return
        # The time of the last change from or to ready, as everywhere in Kubernetes.
        since = old.get("lastTransitionTime") if old.get("status") == condition["status"] else None
        status = {"conditions": [{**condition, "lastTransitionTime": since or timestamp()}]}
        self._kube.patch(
            API, item["kind"], meta["name"], meta.get("namespace"), {"status": status}, subresource="status"
        )

    def _authority_of(self, certificate: Manifest) -> str | None:
        """The bundle of a ready certificate: the authority in its Secret, base64."""
        home = certificate["metadata"]["namespace"]
        secret = self._kube.get("v1", "Secret", certificate["spec"]["secretName"], home) or {}
        return (secret.get("data") or {}).get("ca.crt")

    def _inject(self, item: Manifest, pointers: list[str], bundles: dict[str, str | None]) -> None:
        bundle = self._bundle(item["metadata"].get("annotations") or {}, bundles)
        patch = [
            {"op": "add", "path": p, "value": bundle} for p in pointers if bundle and _at(item, p) != bundle
        ]
        if patch:
            self._kube.patch(
                item["apiVersion"], item["kind"], item["metadata"]["name"], None, patch, JSON_PATCH
            )

    def _bundle(self, annotations: dict[str, str], bundles: dict[str, str | None]) -> str | None:
        """The bundle that an object's annotations ask for, once its certificate is issued."""
        if INJECT_FROM_SECRET in annotations:
            # cert-manager's own webhook, which is served here and has the rehearsal's certificate.
            return base64.b64encode(self._ca.certificate).decode()
        return bundles.get(annotations.get(INJECT_FROM, ""))


def _reference(certificate: Manifest) -> str:
    return f"{certificate['metadata']['namespace']}/{certificate['metadata']['name']}"


def _ready(item: Manifest) -> Manifest:
    """The Ready condition of an object, empty where it has none."""
    conditions = (item.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == "Ready"), {})


def _is_ready(item: Manifest) -> bool:
    return _ready(item).get("status") == "True"


def _waiting(why: str) -> Verdict:
    """Not issued. The real one tells the reason in the CertificateRequest, which is left out here."""
    return Verdict(False, "DoesNotExist", f"Issuing certificate as Secret does not exist: {why}")


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
