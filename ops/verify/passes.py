"""Keys that verification asks with: signed for reserved tenants, worth nothing after some minutes.

They are not in the ledger, which is a record of what was given to somebody: these never leave this process.
"""

from __future__ import annotations

import base64
import json
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from components.serving.manifests import verification
from components.serving.manifests.access import ISSUER
from ops.errors import OpsError
from ops.keys import tokens
from ops.keys.keyring import current_signer
from ops.keys.ledger import Ledger
from ops.keys.settings import Settings
from ops.verify.verdicts import Unchecked

LIFE = 300
"""Seconds that a key is valid: as long as a verification takes at most."""
_RENEWED = 200.0
_PAST = 3600
"""Seconds since an expired key's end: beyond any clock's error and the minute that Envoy allows."""


@dataclass(frozen=True)
class Mint:
    """What signs: the key id, its public half, and the signer's answer in DER."""

    kid: str
    public: Any
    sign: Callable[[bytes], bytes]


@dataclass
class Passes:
    """Keys for one gateway.

    `mint` is None where the signing key cannot be reached, for the reason in `lacking`; `given` is a
    key that the user supplied. `reserved` says whether the gateway's tables have the reserved tenants, `asked`
    whether the gateway asks for keys at all.
    """

    audience: str
    asked: bool = True
    reserved: bool = True
    mint: Mint | None = None
    lacking: str = ""
    given: str | None = None
    _kept: dict[str, tuple[float, str]] = field(default_factory=dict)

    def general(self) -> str | None:
        """A key for all questions that are not about keys; None where the gateway asks for none."""
        if not self.asked:
            return None
        return self.given or self.of(verification.LOAD)

    def of(self, tenant: str) -> str:
        """A key of a reserved tenant, the same one for some minutes. Raises Unchecked where none can be made."""
        made, key = self._kept.get(tenant, (0.0, ""))
        if not key or time.monotonic() - made > _RENEWED:
            key = self.new(tenant)
            self._kept[tenant] = (time.monotonic(), key)
        return key

    def new(self, tenant: str, **claims: Any) -> str:
        """A new key of a reserved tenant, with other claims where they are given. Raises Unchecked."""
        if self.mint is None:
            raise Unchecked(
                f"no key can be signed here ({self.lacking})",
                "run it where the signing key can be reached, or give a key with --key-file",
            )
        if not self.reserved:
            raise Unchecked(
                "the stack keeps no tenants for verification (access.verification is false)",
                "set it to true and run `pulumi up`, or give a key with --key-file",
            )
        return tokens.issue(self._claims(tenant) | claims, self.mint.kid, self.mint.public, self.mint.sign)

    def expired(self) -> str:
        """A key that was valid once."""
        now = int(time.time())
        return self.new(verification.LOAD, iat=now - 2 * _PAST, exp=now - _PAST)

    def forged(self, kid: str) -> str:
        """A key that says all the right things, signed by somebody else."""
        private = ec.generate_private_key(ec.SECP256R1())
        claims = self._claims(verification.LOAD)
        return tokens.issue(
            claims, kid, private.public_key(), lambda text: private.sign(text, ec.ECDSA(hashes.SHA256()))
        )

    def _claims(self, tenant: str) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": ISSUER,
            "aud": self.audience,
            "sub": tenant,
            "jti": tokens.new_id(),
            "iat": now,
            "exp": now + LIFE,
        }


def identity(key: str | None) -> str | None:
    """The id of a key, as the access log has it; None for no key."""
    if key is None:
        return None
    try:
        payload = key.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"])
    except (IndexError, ValueError, KeyError, TypeError):
        raise OpsError("the key that was given is not one of this platform: it has no id") from None


def passes(settings: Settings, arguments: Namespace, given: str | None) -> Passes:
    """The keys that can be had: signed as `ops keys issue` does it, or the one that was given."""
    access = settings.access
    if access is None:
        return Passes(settings.audience, asked=False)
    found = Passes(settings.audience, reserved=access.verification, given=given)
    try:
        settings.signed  # noqa: B018 - raises for keys that nobody signs
        ledger = Ledger(arguments.project, arguments.stack)
        kid, public, signer = current_signer(arguments.signer, access, ledger)
    except OpsError as error:
        found.lacking = str(error)
        return found
    found.mint = Mint(kid, public, signer.sign)
    return found
