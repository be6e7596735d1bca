"""Who may use the models, and how much."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from components.serving.manifests import verification
from stacks.config.base import Strict, entry
from stacks.config.errors import refusal
from stacks.config.types import DnsLabel, TenantName, sequence

# One generated table per stack must stay below the size of an object in etcd.
MAX_TENANTS = 1000
# Envoy's rate limit service counts in unsigned 32-bit numbers.
MAX_LIMIT = 2**32 - 1

KeyId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
Coordinate = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
# Prices travel to the gateway in millionths.
Multiplier = Annotated[float, Field(ge=1e-6, le=1000, allow_inf_nan=False)]
# The curve P-256: y^2 = x^3 - 3x + B modulo P (SEC 2, secp256r1).
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def _not_reserved(tenants: dict[str, Tenant]) -> dict[str, Tenant]:
    for name in tenants:
        if verification.is_reserved(name):
            raise refusal(
                f'"{name}" begins with {verification.PREFIX}, which is reserved',
                "it could take the place of a tenant that `python -m ops verify` asks as",
                "use another name",
            )
    return tenants


def _not_too_many(tenants: dict[str, Tenant]) -> dict[str, Tenant]:
    if len(tenants) > MAX_TENANTS:
        raise refusal(
            f"{len(tenants)} tenants are more than {MAX_TENANTS}",
            "the gateway's tables would exceed what one Kubernetes object can hold",
            "spread the tenants over several stacks",
        )
    return tenants


class Tier(Strict):
    """A budget per tenant and minute. 0 refuses every request."""

    tokens_per_minute: int | None = entry(
        "Prompt and completion tokens.", None, ge=0, le=MAX_LIMIT, unit="tokens per minute"
    )
    requests_per_minute: int | None = entry("Requests.", None, ge=0, le=MAX_LIMIT, unit="requests per minute")


class Tenant(Strict):
    """Somebody with keys."""

    tier: TenantName = entry("Tier of the tenant.")
    models: sequence(DnsLabel) | None = entry("Models that the tenant may use.", None, derived="all models")


class PublicKey(Strict):
    """The public half of a signing key (ECDSA P-256) as a JSON Web Key; the private half stays out."""

    kty: Literal["EC"] = entry("Key type.", "EC")
    crv: Literal["P-256"] = entry("Curve.", "P-256")
    x: Coordinate = entry("First coordinate, base64url.")
    y: Coordinate = entry("Second coordinate, base64url.")

    @model_validator(mode="after")
    def _on_the_curve(self) -> PublicKey:
        x, y = (int.from_bytes(base64.urlsafe_b64decode(c + "=")) for c in (self.x, self.y))
        if max(x, y) >= _P or (y * y - (x**3 - 3 * x + _B)) % _P:
            raise refusal(
                "x and y are no point of the curve P-256",
                "the gateway would refuse its whole configuration, and answer nobody",
                "copy the key again, or make one: python -m ops keys init",
            )
        return self


class Access(Strict):
    """API keys, tiers and limits. Without this section the gateway asks for no key."""

    tiers: Annotated[dict[TenantName, Tier], Field(min_length=1)] = entry("Budgets by name.")
    tenants: Annotated[
        dict[TenantName, Tenant], AfterValidator(_not_reserved), AfterValidator(_not_too_many)
    ] = entry("Tenants by name, 1,000 at most; any number of keys each.", factory=dict)
    limit_by: Literal["tokens", "requests"] = entry("What is counted.", "tokens")
    keys: Literal["signed", "opaque"] = entry(
        "signed: the gateway verifies them itself; opaque: Authorino looks them up.", "signed"
    )
    public_keys: dict[KeyId, PublicKey] = entry(
        "Keys that signatures are verified with, by key id.", factory=dict
    )
    revoked: sequence(KeyId) = entry("Ids of keys that are no longer valid.", ())
    key_days: int = entry("Life of a new key.", 90, ge=1, le=366, unit="days")
    multipliers: dict[DnsLabel, Multiplier] = entry("Price of a model's tokens relative to 1.", factory=dict)
    failure_mode: Literal["closed", "open"] = entry(
        "What happens while the limits cannot be checked: requests are refused, or pass uncounted.", "closed"
    )
    shadow: bool = entry(
        "Count and report, but refuse nobody for the limit. Unknown tenants are still refused.", False
    )
    verification: bool = entry(
        "Keep a tenant per tier for `python -m ops verify`, to which only the signing key opens.", True
    )

    @property
    def reserved(self) -> tuple[str, ...]:
        """The tenants that are kept for `python -m ops verify`."""
        return tuple(verification.tenants(self.tiers, "")) if self.verification else ()
