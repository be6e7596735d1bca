"""One operation on one resource of Google's: where in the simulated project it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from rehearsal.cloud.machines import is_zone, region_of
from rehearsal.cloud.project import SERVICE, Record
from rehearsal.providers.cloud import call
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import Properties

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
class Call(call.Call):
    """An operation in progress in the simulated project."""

    PLACES: ClassVar[tuple[str, ...]] = ("project", "region", "location", "name")

    kind: Kind
    defaults: Defaults
    embedded: Embedded

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

    def labels(self, given: str) -> dict[str, str]:
        """The labels of the resource with those that the provider adds."""
        return {**self.defaults.labels, **(self.inputs.get(given) or {})}

    def means(self, reference: Any, identity: str, record: Record) -> bool:
        """Whether an id, a self link or a name is that of the resource."""
        return path(reference) in (identity, identity.rsplit("/", 1)[-1])

    def foreseen(self) -> Properties:
        """Where the resource goes, as far as the provider says it."""
        placed = {"project": self.defaults.project, "region": self.defaults.region}
        return {name: value for name, value in placed.items() if value}

    def enabled(self, service: str) -> bool:
        """Whether an API is on, and has been for long enough."""
        if service in self.settings.services:
            return True
        since = self.state.services.get(service)
        return since is not None and self.now - since >= self.settings.propagation(SERVICE)


def path(reference: Any) -> str:
    """A reference without the address of the API in front."""
    return _LINK.sub("", reference) if isinstance(reference, str) else ""
