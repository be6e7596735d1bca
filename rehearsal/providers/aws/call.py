"""One operation on one resource of Amazon's: where in the simulated account it stands."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rehearsal.cloud.project import Record
from rehearsal.providers.cloud import call
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import Properties

ACCOUNT = "000000000000"


class ApiError(Refusal):
    """A refusal of one of Amazon's services, as the provider shows it."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")


@dataclass(frozen=True)
class Defaults:
    """The provider's own configuration: where resources go, who pays, and the tags that all of them get."""

    region: str = ""
    account: str = ACCOUNT
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any], account: str) -> Defaults:
        """From the provider's inputs and the account of its credentials; Refusal where that is not allowed."""
        allowed = [str(item) for item in settings.get("allowedAccountIds") or ()]
        mine = account or next(iter(allowed), ACCOUNT)
        if allowed and mine not in allowed:
            raise Refusal(f"AWS account ID not allowed: {mine}")
        tags = (settings.get("defaultTags") or {}).get("tags") or {}
        return cls(str(settings.get("region") or ""), mine, dict(tags))


@dataclass
class Call(call.Call):
    """An operation in progress in the simulated account."""

    PLACES: ClassVar[tuple[str, ...]] = ("account", "region", "name", "identity")

    defaults: Defaults

    @property
    def account(self) -> str:
        """Id of the account."""
        return self.defaults.account

    @property
    def region(self) -> str:
        """The region, the resource's own or the provider's."""
        region = self.inputs.get("region") or self.defaults.region
        if not region:
            raise Refusal("Missing region configuration: set aws:region, or region in the provider")
        return str(region)

    @property
    def identity(self) -> str:
        """Its id, made up once."""
        if not self.stored:
            self.stored = self.kind.identity(self)
        return self.stored

    def fresh(self, prefix: str) -> str:
        """An id that nothing in the account ever had."""
        self.state.serial += 1
        return f"{prefix}-0{hashlib.sha256(f'{prefix} {self.state.serial}'.encode()).hexdigest()[:16]}"

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the resource with those that the provider adds."""
        return {**self.defaults.tags, **(self.inputs.get("tags") or {})}

    def means(self, reference: Any, identity: str, record: Record) -> bool:
        """Whether an id or an ARN is that of the resource."""
        return bool(reference) and reference in (identity, record.get("outputs", {}).get("arn"))

    def foreseen(self) -> Properties:
        """The region and all tags, as far as the provider says them."""
        region = {"region": self.defaults.region} if self.defaults.region else {}
        return {**region, "tagsAll": self.tags}
