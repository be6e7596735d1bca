"""One operation on one resource: what it was given, and where in the simulated project it stands."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rehearsal.cloud.machines import is_zone, region_of
from rehearsal.cloud.project import SERVICE, Record, State
from rehearsal.cloud.settings import Settings
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import UNKNOWN, Properties

if TYPE_CHECKING:
    from rehearsal.providers.gcp.embedded import Embedded
    from rehearsal.providers.gcp.kinds import Kind

_LINK = re.compile(r"https://[a-z.]*googleapis\.com/[a-z]+/[a-z0-9]+/")


def google(status: int, message: str, reason: str) -> Refusal:
    """A refusal as Google's API client words it."""
    return Refusal(f"googleapi: Error {status}: {message}, {reason}")


@dataclass(frozen=True)
class Defaults:
    """Where resources go that do not say it: the provider's own configuration."""

    project: str = ""
    region: str = ""
    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Defaults:
        """From the provider's inputs; the region follows from the zone."""
        zone = settings.get("zone") or ""
        labels = dict(settings.get("defaultLabels") or {})
        if str(settings.get("addPulumiAttributionLabel", "true")).lower() != "false":
            labels["goog-pulumi-provisioned"] = "true"
        region = settings.get("region") or (region_of(zone) if isinstance(zone, str) and zone else "")
        return cls(settings.get("project") or "", region, zone, labels)


@dataclass
class Call:
    """An operation in progress.

    `inputs` are plain, `record` is the resource as it was and `stored` its id, if it was there before;
    `olds` are the outputs that the engine last heard of.
    """

    kind: Kind
    inputs: Properties
    defaults: Defaults
    settings: Settings
    embedded: Embedded
    state: State = field(default_factory=State)
    now: float = 0.0
    record: Record | None = None
    stored: str = ""
    olds: Properties = field(default_factory=dict)

    # -- where -------------------------------------------------------------------------------------

    @property
    def project(self) -> str:
        """Id of the project."""
        project = self.inputs.get("project") or self.defaults.project
        if not project:
            raise Refusal("project: required field is not set. Set it in this resource or gcp:project.")
        return project

    @property
    def region(self) -> str:
        """The region, the location's where there is one."""
        given = self.inputs.get("region") or region_of(self.inputs.get("location") or "")
        return self._placed(given or self.defaults.region, "region")

    @property
    def location(self) -> str:
        """The zone or region of the resource."""
        given = self.inputs.get("location") or self.defaults.zone or self.defaults.region
        return self._placed(given, "location")

    def _placed(self, value: Any, what: str) -> Any:
        if not value:
            raise Refusal(
                f"Cannot determine {what}: set in this resource, or set provider-level 'region' or 'zone' config."
            )
        return value

    @property
    def zonal(self) -> bool:
        """Whether the location is a zone."""
        return is_zone(self.location)

    @property
    def name(self) -> str:
        """The resource's name, or the field that is its name."""
        return str(self.inputs.get(self.kind.named) or "")

    @property
    def identity(self) -> str:
        """Its id, as the provider stores it."""
        return self.stored or self.kind.identity(self)

    # -- values that Google makes up -----------------------------------------------------------------

    def number(self, digits: int = 19) -> str:
        """A number that stays the same for a resource."""
        return str(int(hashlib.sha256(self.identity.encode()).hexdigest(), 16))[:digits]

    def token(self, length: int = 12) -> str:
        """Letters and digits that stay the same for a resource."""
        return hashlib.sha256(f"token {self.identity}".encode()).hexdigest()[:length]

    @property
    def time(self) -> str:
        """When it was made, RFC 3339."""
        created = (self.record or {}).get("created", self.now)
        return datetime.datetime.fromtimestamp(created, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def labels(self, given: str) -> dict[str, str]:
        """The labels of the resource with those that the provider adds."""
        return {**self.defaults.labels, **(self.inputs.get(given) or {})}

    # -- what else there is ----------------------------------------------------------------------------

    def find(self, kind: str, reference: Any) -> tuple[str, Record] | None:
        """(id, record) of a resource that is named by id, self link or name; None if others cannot see it."""
        identity = path(reference)
        for candidate, record in self.state.of(kind).items():
            if identity in (candidate, candidate.rsplit("/", 1)[-1]) and self.visible(kind, record):
                return candidate, record
        return None

    def visible(self, kind: str, record: Record) -> bool:
        """Whether a resource has reached every part of Google by now."""
        return self.now - record["created"] >= self.settings.propagation(kind)

    def enabled(self, service: str) -> bool:
        """Whether an API is on, and has been for long enough."""
        if service in self.settings.services:
            return True
        since = self.state.services.get(service)
        return since is not None and self.now - since >= self.settings.propagation(SERVICE)


def path(reference: Any) -> str:
    """A reference without the address of the API in front."""
    return _LINK.sub("", reference) if isinstance(reference, str) else ""


def known(value: Any) -> bool:
    """Whether a preview knows the value."""
    return value is not UNKNOWN
