"""Keys as the gateway reads them: compact JSON Web Tokens, signed with ECDSA P-256 (ES256). Pure.

RFC 7515 (the compact form), 7518 (ES256 signatures are r and s, 32 bytes each,
where every signer here answers in DER), 7519 (claims), 7638 (key ids).
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ops.errors import OpsError

_COORDINATE = 32
"""Bytes of a coordinate of P-256, and of each half of a signature."""

Jwk = dict[str, str]
"""The public half of a signing key: `kty`, `crv`, `x` and `y`, as the stack's configuration has it."""


def encode(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk_of(public: Any) -> Jwk:
    """The JSON Web Key of a public key; :class:`OpsError` for one that is not of P-256."""
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        kind = getattr(getattr(public, "curve", None), "name", type(public).__name__)
        raise OpsError(
            f"the signing key is of type {kind}, but the gateway verifies ES256 only: "
            "make an ECDSA key on P-256 (Google: ec-sign-p256-sha256, AWS: ECC_NIST_P256)"
        )
    numbers = public.public_numbers()
    x, y = (encode(n.to_bytes(_COORDINATE, "big")) for n in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """The key id that a key has by itself (RFC 7638, SHA-256): 43 characters."""
    text = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return encode(hashlib.sha256(text.encode()).digest())


def new_id() -> str:
    """The id of a new key: 128 random bits.

    It begins with a letter, so that no command line takes it for an option and no YAML reader for a number.
    """
    while not (identity := encode(secrets.token_bytes(16)))[0].isalpha():
        pass
    return identity


def issue(claims: Mapping[str, Any], kid: str, public: Any, sign: Callable[[bytes], bytes]) -> str:
    """A signed key. `sign` answers with a DER signature, which is verified with `public` before it is used."""
    header = {"alg": "ES256", "typ": "JWT", "kid": kid}
    message = ".".join(encode(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    signature = sign(message.encode())
    try:
        public.verify(signature, message.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(signature)
    except (InvalidSignature, ValueError):
        raise OpsError(
            f"the signer's signature does not fit its public key {kid}, so every gateway would refuse the key: "
            "look whether the signer still holds the same key (another version in the KMS?)"
        ) from None
    return f"{message}.{encode(r.to_bytes(_COORDINATE, 'big') + s.to_bytes(_COORDINATE, 'big'))}"
