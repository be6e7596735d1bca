"""What a simulated issuer signs, and how a Secret tells what it was issued for."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ops.kube import Manifest
from rehearsal.cluster import certificates
from rehearsal.cluster.certificates import KeyPair

# cert-manager 1.21: what it issues without a `duration`.
DAYS = 90
_UNITS = {"h": 3600, "m": 60, "s": 1}
_PREFIX = "cert-manager.io"


@dataclass(frozen=True)
class Request:
    """What a Certificate asks for; `names` are DNS names and addresses."""

    common_name: str
    names: tuple[str, ...]
    is_ca: bool
    lifetime: datetime.timedelta

    @classmethod
    def of(cls, certificate: Manifest) -> Request:
        """The request of a Certificate object."""
        spec = certificate["spec"]
        return cls(
            spec.get("commonName", ""),
            (*spec.get("dnsNames", ()), *spec.get("ipAddresses", ())),
            spec.get("isCA", False),
            _duration(spec["duration"]) if "duration" in spec else datetime.timedelta(days=DAYS),
        )


def _duration(text: str) -> datetime.timedelta:
    """Go's notation for durations: `2160h`, `1h30m`."""
    parts = re.findall(r"([0-9.]+)([hms])", text)
    return datetime.timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def sign(request: Request, authority: KeyPair | None) -> KeyPair:
    """A new key and its certificate, signed by the authority, or by itself where there is none."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, request.common_name)] if request.common_name else []
    )
    issuer, signer = subject, key
    if authority is not None:
        issuer = x509.load_pem_x509_certificate(authority.certificate).subject
        signer = serialization.load_pem_private_key(authority.key, None)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + request.lifetime)
        .add_extension(x509.BasicConstraints(ca=request.is_ca, path_length=None), critical=True)
    )
    if not request.is_ca:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(usage, critical=False)
    if request.names:
        names = x509.SubjectAlternativeName([_alternative(name) for name in request.names])
        builder = builder.add_extension(names, critical=not request.common_name)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signed = builder.sign(signer, hashes.SHA256())
    return KeyPair(signed.public_bytes(serialization.Encoding.PEM), pem)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def secret(certificate: Manifest, pair: KeyPair, authority: KeyPair | None) -> Manifest:
    """The Secret of an issued certificate: the chain, the key, and the authority's certificate."""
    # A root that clients already have is not part of the chain; what signs itself is its own root.
    root = pair if authority is None else authority
    content = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": root.certificate}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": certificate["spec"]["secretName"],
            "namespace": certificate["metadata"]["namespace"],
            "labels": {f"controller.{_PREFIX}/fao": "true"},
            "annotations": marks(certificate),
        },
        "data": {key: base64.b64encode(value).decode() for key, value in content.items()},
    }


def marks(certificate: Manifest) -> dict[str, str]:
    """The annotations by which a Secret is seen to be out of date, as the real controller writes them."""
    spec = certificate["spec"]
    reference = spec["issuerRef"]
    return {
        f"{_PREFIX}/certificate-name": certificate["metadata"]["name"],
        f"{_PREFIX}/issuer-name": reference["name"],
        f"{_PREFIX}/issuer-kind": reference.get("kind", "Issuer"),
        f"{_PREFIX}/issuer-group": reference.get("group", _PREFIX),
        f"{_PREFIX}/common-name": spec.get("commonName", ""),
        f"{_PREFIX}/alt-names": ",".join(spec.get("dnsNames", ())),
        f"{_PREFIX}/ip-sans": ",".join(spec.get("ipAddresses", ())),
    }


def pair_of(item: Manifest | None) -> KeyPair | None:
    """The certificate and key in a TLS Secret; None where one is missing."""
    data: dict[str, Any] = (item or {}).get("data") or {}
    if not data.get("tls.crt") or not data.get("tls.key"):
        return None
    return KeyPair(base64.b64decode(data["tls.crt"]), base64.b64decode(data["tls.key"]))


def is_authority(pair: KeyPair) -> bool:
    """Whether a certificate may sign others."""
    extensions = x509.load_pem_x509_certificate(pair.certificate).extensions
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def kept_authority(directory: Path, name: str, common_name: str) -> KeyPair:
    """An authority in two files of the directory, made once and kept so that a restart invalidates nothing."""
    files = directory / f"{name}.crt", directory / f"{name}.key"
    if not files[1].exists():
        pair = certificates.authority(common_name)
        for file, content in zip(files, (pair.certificate, pair.key), strict=True):
            file.touch(mode=0o600)
            file.write_bytes(content)
    return KeyPair(files[0].read_bytes(), files[1].read_bytes())
