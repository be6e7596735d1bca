"""One operation on one resource: what it was given, and what else there is in the simulated cloud."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from rehearsal.cloud.project import Record, State
from rehearsal.cloud.settings import Settings
from rehearsal.providers.cloud.embedded import Embedded
from rehearsal.providers.values import Properties

if TYPE_CHECKING:
    from rehearsal.providers.cloud.kinds import Kind


@dataclass
class Call:
    """An operation in progress.

    `inputs` are plain, `record` is the resource as it was and `stored` its id, if it was there before;
    `olds` are the outputs that the engine last heard of. `defaults` are the provider's own.
    """

    # The words in templates of ids that are properties of the call; others are inputs.
    PLACES: ClassVar[tuple[str, ...]] = ("name",)

    kind: Kind
    inputs: Properties
    defaults: Any
    settings: Settings
    embedded: Embedded
    state: State = field(default_factory=State)
    now: float = 0.0
    record: Record | None = None
    stored: str = ""
    olds: Properties = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The resource's name, or the field that is its name."""
        return str(self.inputs.get(self.kind.named) or "")

    @property
    def identity(self) -> str:
        """Its id, as the provider stores it."""
        return self.stored or self.kind.identity(self)

    def foreseen(self) -> Properties:
        """Outputs that follow from the provider's configuration, so that a preview knows them."""
        return {}

    # -- values that a cloud makes up ------------------------------------------------------------------

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

    # -- what else there is ----------------------------------------------------------------------------

    def find(self, kind: str, reference: Any) -> tuple[str, Record] | None:
        """(id, record) of a resource that a reference names; None if others cannot see it."""
        for candidate, record in self.state.of(kind).items():
            if self.means(reference, candidate, record) and self.visible(kind, record):
                return candidate, record
        return None

    def means(self, reference: Any, identity: str, record: Record) -> bool:
        """Whether a reference names the resource."""
        return reference == identity

    def visible(self, kind: str, record: Record) -> bool:
        """Whether a resource has reached every part of the cloud by now."""
        return self.now - record["created"] >= self.settings.propagation(kind)
