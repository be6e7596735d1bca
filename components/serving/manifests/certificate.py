"""The gateway's certificate and who issues it. Pure.

    letsencrypt, letsencrypt-staging   an ACME Issuer; the challenge is answered by the gateway's own HTTP listener
    own-ca                             a root of the stack's own, trusted by whoever imports it
    anything else                      a ClusterIssuer that the cluster's owner made

The Certificate is an object of its own: cert-manager's annotation on the Gateway would make one as well, but
nobody could wait for it, and its fields could not be chosen.

What waits for what (istiod of 1.31, `reportGatewayStatus` and `buildListener` in
pilot/pkg/config/kube/gateway): a listener whose Secret is missing is `ResolvedRefs: False` and gets no
configuration, but the Gateway is `Programmed`, its other listeners serve and routes are accepted. So the
Gateway never waits for the Secret, and the certificate may always wait for the Gateway, as it must
where a challenge comes through it (a ClusterIssuer of somebody else may do the same).

Google's gateway is the other way round: it is not programmed at all while a Secret is missing (cert-manager/google-cas-issuer
issue 262), so there the Gateway waits for the certificate, and a challenge that comes through it can never be answered.
The configuration refuses the two ACME issuers there; an issuer that asks DNS instead, and the own root, work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from components.core import labels
from components.core.manifest import Manifest, manifest

API = "cert-manager.io/v1"
NAME = "gateway-tls"
OWN_CA = "own-ca"
# https://letsencrypt.org/docs/acme-protocol-updates and /docs/staging-environment: the staging one has generous
# limits and a root that nobody trusts.
ACME_SERVERS = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
# The listener that answers challenges; it belongs to the redirect otherwise.
CHALLENGE_SECTION = "http"
# Ten years for the root, so that clients import it once; cert-manager renews the leaf after two of its three months.
_ROOT_HOURS, _LEAF_HOURS, _RENEW_HOURS = "87600h", "2160h", "720h"
# Small, fast, and taken by every client of the last ten years. A new key with every renewal.
_PRIVATE_KEY = {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"}
# A root keeps its key: with a new one, every client would have to import it again.
_ROOT_KEY = {**_PRIVATE_KEY, "rotationPolicy": "Never"}


@dataclass(frozen=True, kw_only=True)
class CertificateSpec:
    """The certificate of one gateway.

    `gateway` and `namespace` name the Gateway, `host` is what the certificate is for,
    `issuer` one of the names above, `secret` the Secret that cert-manager fills. `email` is told
    by Let's Encrypt about trouble with the account; None is allowed there.
    """

    gateway: str
    namespace: str
    host: str
    issuer: str
    email: str | None = None
    secret: str = NAME


def makes_issuer(issuer: str) -> bool:
    """Whether the issuer is made here; any other name is a ClusterIssuer of the cluster's owner."""
    return issuer in _ISSUERS


def certificate(spec: CertificateSpec) -> tuple[tuple[str, Manifest], ...]:
    """(role, object) in the order of creation; each is awaited until cert-manager calls it Ready."""
    made = _ISSUERS.get(spec.issuer)
    return (*(made(spec) if made else ()), ("certificate", _leaf(spec)))


def _acme(spec: CertificateSpec) -> tuple[tuple[str, Manifest], ...]:
    parent = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "name": spec.gateway,
        "namespace": spec.namespace,
        "sectionName": CHALLENGE_SECTION,
    }
    acme = {
        "server": ACME_SERVERS[spec.issuer],
        "email": spec.email,
        # One account for each server: the staging one knows nothing of the other.
        "privateKeySecretRef": {"name": f"{spec.issuer}-account"},
        "solvers": [{"http01": {"gatewayHTTPRoute": {"parentRefs": [parent]}}}],
    }
    return (("issuer", _issuer(spec, spec.issuer, acme=acme)),)


def _own(spec: CertificateSpec) -> tuple[tuple[str, Manifest], ...]:
    """A root that signs itself, its certificate, and the issuer that signs with it."""
    start = f"{OWN_CA}-start"
    root = {
        "isCA": True,
        "commonName": f"{spec.gateway} {spec.namespace}"[:64],
        "secretName": OWN_CA,
        "duration": _ROOT_HOURS,
        "privateKey": _ROOT_KEY,
        "usages": ["cert sign", "crl sign", "digital signature"],
        "issuerRef": _reference("Issuer", start),
    }
    return (
        ("issuer-start", _issuer(spec, start, selfSigned={})),
        ("root", _object(spec, "Certificate", OWN_CA, root)),
        ("issuer", _issuer(spec, OWN_CA, ca={"secretName": OWN_CA})),
    )


# The issuers that are made here. An existing ClusterIssuer is not in the table.
_ISSUERS: dict[str, Callable[[CertificateSpec], tuple[tuple[str, Manifest], ...]]] = {
    **dict.fromkeys(ACME_SERVERS, _acme),
    OWN_CA: _own,
}


def _leaf(spec: CertificateSpec) -> Manifest:
    kind = "Issuer" if makes_issuer(spec.issuer) else "ClusterIssuer"
    body = {
        "secretName": spec.secret,
        # In names only: browsers ignore the common name, and it has 64 characters at most.
        "dnsNames": [spec.host],
        "duration": _LEAF_HOURS,
        "renewBefore": _RENEW_HOURS,
        "privateKey": _PRIVATE_KEY,
        "usages": ["digital signature", "server auth"],
        "issuerRef": _reference(kind, spec.issuer),
    }
    return _object(spec, "Certificate", NAME, body)


def _issuer(spec: CertificateSpec, name: str, **body: object) -> Manifest:
    return _object(spec, "Issuer", name, body)


def _object(spec: CertificateSpec, kind: str, name: str, body: dict) -> Manifest:
    return manifest(
        API,
        kind,
        name,
        spec.namespace,
        labels=labels.common("certificate"),
        annotations={labels.WAIT_FOR: "condition=Ready"},
        spec=body,
    )


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"group": "cert-manager.io", "kind": kind, "name": name}
