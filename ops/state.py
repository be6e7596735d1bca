"""Reading a stack's exported state. Pure: dicts in, facts out.

The layout is that of `pulumi stack export`, deployment version 3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RELEASE = "kubernetes:helm.sh/v3:Release"
KUBERNETES_PROVIDER = "pulumi:providers:kubernetes"
_SIGNATURE = "4dabf18193072939515e22adb298388d"  # The key that marks a special value in Pulumi's wire format.


def is_secret(value: Any) -> bool:
    """Whether a value is one that the state keeps encrypted."""
    return isinstance(value, Mapping) and _SIGNATURE in value


def opened(value: Any) -> Any:
    """A secret's own value, where the state was exported with its secrets shown; any other value as it is."""
    return json.loads(value["plaintext"]) if is_secret(value) and "plaintext" in value else value


@dataclass(frozen=True, order=True)
class ObjectRef:
    """One object of a cluster; `namespace` is empty for those that have none."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @property
    def id(self) -> str:
        """The ID that Pulumi's Kubernetes provider gives the object."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


@dataclass(frozen=True)
class Resource:
    """One resource of the state, or the one that a pending operation is about."""

    raw: Mapping[str, Any] = field(hash=False)

    @property
    def urn(self) -> str:
        return str(self.raw["urn"])

    @property
    def type(self) -> str:
        return str(self.raw["type"])

    @property
    def name(self) -> str:
        """The logical name in the program."""
        return self.urn.rsplit("::", 1)[-1]

    @property
    def inputs(self) -> Mapping[str, Any]:
        return self.raw.get("inputs") or {}

    @property
    def outputs(self) -> Mapping[str, Any]:
        return self.raw.get("outputs") or {}

    @property
    def package(self) -> str:
        """The provider's package: `kubernetes`, `random`, …; `pulumi` for what the engine keeps itself."""
        return self.type.split(":", 1)[0] if self.raw.get("custom") else "pulumi"

    @property
    def is_release(self) -> bool:
        return self.type == RELEASE

    @property
    def is_patch(self) -> bool:
        """Whether it changes some fields of an object that it does not own."""
        return self.package == "kubernetes" and self.type.endswith("Patch")

    @property
    def release(self) -> tuple[str, str]:
        """Namespace and name of a Helm release."""
        return str(self.inputs.get("namespace") or "default"), str(self.inputs.get("name"))

    @property
    def object(self) -> ObjectRef | None:
        """The cluster object that it stands for; None for everything else."""
        metadata = self.inputs.get("metadata")
        if self.package != "kubernetes" or self.is_release or not isinstance(metadata, Mapping):
            return None
        if is_secret(metadata) or not isinstance(metadata.get("name"), str):
            return None
        _, group_version, kind = self.type.split(":", 2)
        api_version = self.inputs.get("apiVersion") or group_version.removeprefix("core/")
        kind = kind.removesuffix("Patch") if self.is_patch else kind
        return ObjectRef(str(api_version), kind, str(metadata.get("namespace") or ""), metadata["name"])

    def __str__(self) -> str:
        if self.is_release:
            return "Helm release " + "/".join(self.release)
        return str(self.object) if self.object else f"{self.type.rsplit(':', 1)[-1]} {self.name}"


@dataclass(frozen=True)
class Operation:
    """An operation that was begun and not recorded as ended: `creating`, `updating`, `deleting`, …"""

    type: str
    resource: Resource


@dataclass(frozen=True)
class State:
    """A stack's resources and pending operations."""

    resources: tuple[Resource, ...] = ()
    pending: tuple[Operation, ...] = ()

    @classmethod
    def parse(cls, exported: Mapping[str, Any] | None) -> State:
        """Read what `pulumi stack export` wrote; None (no such stack) reads as an empty state.

        Of several operations on one resource, left by several crashes, the last counts.
        """
        deployment = (exported or {}).get("deployment") or {}
        pending = {
            (entry["resource"]["urn"], bool(entry["resource"].get("delete"))): Operation(
                entry["type"], Resource(entry["resource"])
            )
            for entry in deployment.get("pending_operations") or ()
        }
        resources = tuple(Resource(raw) for raw in deployment.get("resources") or ())
        return cls(resources, tuple(pending.values()))

    @property
    def releases(self) -> tuple[Resource, ...]:
        return tuple(r for r in self.resources if r.is_release and not r.raw.get("delete"))

    @property
    def objects(self) -> dict[ObjectRef, Resource]:
        """The cluster objects that the stack keeps, patched ones not included."""
        return {
            r.object: r for r in self.resources if r.object and not r.is_patch and not r.raw.get("delete")
        }

    def keeps(self, ref: ObjectRef) -> bool:
        """Whether the state records the object as existing, and not as deleted to be created anew."""
        return ref in self.objects and not self.objects[ref].raw.get("pendingReplacement")

    def begun(self, resource: Resource) -> str:
        """A time before which no operation on `resource` can have begun: what it rests on came first."""
        provider = str(resource.raw.get("provider", "")).rpartition("::")[0]
        before = {provider, resource.raw.get("parent"), *(resource.raw.get("dependencies") or ())}
        return max((str(r.raw.get("created", "")) for r in self.resources if r.urn in before), default="")

    def holds(self, urn: str) -> bool:
        return any(r.urn == urn and not r.raw.get("delete") for r in self.resources)
