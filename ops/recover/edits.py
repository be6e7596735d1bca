"""Changes to an exported state. Pure: the deployment goes in, a changed copy comes out.

Every edit leaves the next `pulumi up` with work it can do by itself. Pending
operations need no edit of their own: the CLI drops all of them whenever a
state is imported.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ops.state import RELEASE, Resource

Deployment = dict[str, Any]
_INTERRUPTED = "interrupted while {}; to be completed by the next update"


@dataclass(frozen=True)
class Clear:
    """Drop the pending operation and change nothing else."""

    resource: Resource

    def apply(self, deployment: Deployment) -> None:
        """Nothing to do: importing the state drops it."""


@dataclass(frozen=True)
class Adopt:
    """Record a resource that was created, as the provider itself records one that is not ready yet.

    Such a resource has `initErrors`, which makes the next update continue it
    by an update instead of creating it again. Its outputs are its own inputs:
    enough for the provider to find the object, and no secret more than the
    state holds already. `reread` has the engine read it from the provider
    instead, for what cannot be looked up here.
    """

    resource: Resource
    id: str
    field_manager: str = ""
    reread: bool = False

    def apply(self, deployment: Deployment) -> None:
        entry = {**copy.deepcopy(dict(self.resource.raw)), "id": self.id}
        entry["outputs"] = self._outputs(entry.get("inputs") or {})
        _interrupt(entry, "creating", self.reread)
        _place(deployment["resources"], entry)

    def _outputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if self.resource.package != "kubernetes" or self.resource.type == RELEASE:
            return copy.deepcopy(inputs)
        extra = {"__fieldManager": self.field_manager} if self.field_manager else {}
        own = {"__inputs": copy.deepcopy(inputs), "__initialApiVersion": inputs.get("apiVersion"), **extra}
        return {**copy.deepcopy(inputs), **own}


@dataclass(frozen=True)
class Retry:
    """Have the next update repeat this resource's update, even if its inputs are back to what they were."""

    resource: Resource
    reread: bool = False

    def apply(self, deployment: Deployment) -> None:
        for entry in _entries(deployment, self.resource):
            _interrupt(entry, "updating", self.reread)


@dataclass(frozen=True)
class Forget:
    """Take out a resource that is gone, and every reference to it; it is created where still wanted."""

    resource: Resource

    def apply(self, deployment: Deployment) -> None:
        gone = _entries(deployment, self.resource)
        deployment["resources"] = [r for r in deployment["resources"] if not any(r is g for g in gone)]
        urn = self.resource.urn
        if any(r["urn"] == urn for r in deployment["resources"]):
            return
        for entry in deployment["resources"]:
            _drop_references(entry, urn, self.resource.raw.get("parent"))


Edit = Clear | Adopt | Retry | Forget


@dataclass(frozen=True)
class EditState:
    """All edits of one run, applied together."""

    edits: tuple[Edit, ...] = field(default=())

    def apply(self, exported: dict[str, Any]) -> dict[str, Any]:
        """A changed copy of what `pulumi stack export` wrote."""
        changed = copy.deepcopy(exported)
        for edit in self.edits:
            edit.apply(changed["deployment"])
        changed["deployment"].pop("pending_operations", None)
        return changed


def _entries(deployment: Deployment, resource: Resource) -> list[dict[str, Any]]:
    old = bool(resource.raw.get("delete"))
    return [r for r in deployment["resources"] if r["urn"] == resource.urn and bool(r.get("delete")) == old]


def _interrupt(entry: dict[str, Any], doing: str, reread: bool) -> None:
    if reread:
        entry["refreshBeforeUpdate"] = True
    elif not entry.get("initErrors"):
        entry["initErrors"] = [_INTERRUPTED.format(doing)]


def _place(resources: list[dict[str, Any]], entry: dict[str, Any]) -> None:
    """Put `entry` where the engine would: in place of what it replaces, else at the end.

    Whatever it depends on was recorded before it was begun. Of a replaced
    resource that was not deleted first, the old one is left to be deleted.
    """
    at = next((i for i, r in enumerate(resources) if r["urn"] == entry["urn"] and not r.get("delete")), None)
    if at is None:
        resources.append(entry)
        return
    replaced, resources[at] = resources[at], entry
    if not replaced.get("pendingReplacement"):
        resources.append({**replaced, "delete": True})


def _drop_references(entry: dict[str, Any], urn: str, parent: str | None) -> None:
    if entry.get("parent") == urn:
        entry["parent"] = parent
    for key in ("dependencies", "replaceWith"):
        if urn in entry.get(key, ()):
            entry[key] = [other for other in entry[key] if other != urn]
    if entry.get("deletedWith") == urn:
        del entry["deletedWith"]
    by_property: dict[str, Iterable[str]] = entry.get("propertyDependencies") or {}
    for key, urns in by_property.items():
        by_property[key] = [other for other in urns or () if other != urn]
