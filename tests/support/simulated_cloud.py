"""A simulated cloud in this process: a plugin's servicer, called as the engine calls it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pulumi.runtime.proto import provider_pb2

from rehearsal.providers.cloud.provider import CloudPlugin
from rehearsal.providers.values import Properties, from_struct, plain, to_struct

Manifest = dict[str, Any]


class FakeKube:
    """As much of an API server as nodes, pods and events need."""

    def __init__(self, pool_label: str) -> None:
        self.pool_label = pool_label
        self.objects: dict[tuple[str, str, str], Manifest] = {}
        self._applied: dict[tuple[str, str, str], dict[str, Manifest]] = {}

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = "", fields: str = ""
    ) -> list[Manifest]:
        """Objects of a kind by label equality and by the node that pods are on."""
        wanted = dict(pair.split("=") for pair in selector.split(",") if pair)
        node = fields.removeprefix("spec.nodeName=")
        return [
            item
            for (found, _, _), item in self.objects.items()
            if found == kind
            and wanted.items() <= item["metadata"].get("labels", {}).items()
            and (not node or item["spec"].get("nodeName") == node)
        ]

    def apply(self, manifest: Manifest, manager: str, force: bool = False) -> None:
        """Write the object as all managers together want it, keeping its status."""
        key = self._key(manifest)
        self._applied.setdefault(key, {})[manager] = manifest
        item: Manifest = {"status": self.objects.get(key, {}).get("status", {})}
        for wanted in self._applied[key].values():
            item = merged(item, wanted)
        self.objects[key] = item

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        return self.objects.get((kind, namespace or "", name))

    def create(self, manifest: Manifest) -> None:
        self.objects[self._key(manifest)] = manifest

    def patch(self, api_version, kind, name, namespace, body, subresource="") -> None:
        """A merge patch in place."""
        item = self.objects[kind, namespace or "", name]
        item.update(merged(item, body))
        if "metadata" in body:
            item["metadata"].update(body["metadata"])

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        for known in (self.objects, self._applied):
            known.pop((kind, namespace or "", name), None)

    def nodes(self, pool: str = "") -> list[Manifest]:
        """The nodes, or those of one pool."""
        return self.list("v1", "Node", selector=f"{self.pool_label}={pool}" if pool else "")

    def events(self) -> list[tuple[str, str]]:
        """(reason, message) of every event."""
        return [(e["reason"], e["message"]) for e in self.list("v1", "Event")]

    @staticmethod
    def _key(manifest: Manifest) -> tuple[str, str, str]:
        meta = manifest["metadata"]
        return manifest["kind"], meta.get("namespace", ""), meta["name"]


def merged(old: Any, new: Any) -> Any:
    """One value laid over another, as a merge patch does it."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{name: merged(old.get(name), value) for name, value in new.items()}}


@dataclass(frozen=True)
class Made:
    """A resource as the engine remembers it."""

    urn: str
    identity: str
    inputs: Properties
    outputs: Properties


@dataclass(frozen=True)
class Difference:
    """What a diff says."""

    changed: set[str]
    replaces: set[str]
    old_first: bool


class Failed(Exception):
    """The inputs were refused in the check, which a preview makes as well."""


class Cloud:
    """A simulated cloud in `root`; `types` are its resource types by the tests' short names."""

    types: ClassVar[Mapping[str, str]]
    config_namespace: ClassVar[str]

    def __init__(self, root: Path, plugin: CloudPlugin, kube: FakeKube, settings: Mapping[str, Any]):
        self.root, self.plugin, self.kube = root, plugin, kube
        self.settings: dict[str, Any] = {}
        self.set(**settings)

    def set(self, **settings: Any) -> None:
        """Change the settings file."""
        self.settings |= settings
        (self.root / "cloud").mkdir(exist_ok=True)
        (self.root / "cloud" / "settings.yaml").write_text(yaml.safe_dump(self.settings))

    def configure(self, **variables: str) -> None:
        """The provider's configuration."""
        given = {f"{self.config_namespace}:config:{name}": value for name, value in variables.items()}
        self.plugin.Configure(provider_pb2.ConfigureRequest(variables=given), None)

    def urn(self, kind: str, name: str) -> str:
        """The URN of a resource."""
        return f"urn:pulumi:test::test::{self.types[kind]}::{name}"

    def _short(self, token: str) -> str:
        return next(short for short, type_ in self.types.items() if type_ == token)

    def check(self, kind: str, name: str, inputs: Properties, olds: Properties | None = None) -> Properties:
        """The inputs with defaults and name; Failed with all reasons."""
        request = provider_pb2.CheckRequest(
            urn=self.urn(kind, name), olds=to_struct(olds or {}), news=to_struct(inputs), randomSeed=b"seed"
        )
        answer = self.plugin.Check(request, None)
        if answer.failures:
            raise Failed("; ".join(f"{f.property}: {f.reason}" for f in answer.failures))
        return from_struct(answer.inputs)

    def foresee(self, kind: str, name: str, inputs: Properties) -> Properties:
        """The outputs of a preview."""
        checked = self.check(kind, name, inputs)
        request = provider_pb2.CreateRequest(
            urn=self.urn(kind, name), properties=to_struct(checked), preview=True
        )
        return from_struct(self.plugin.Create(request, None).properties)

    def create(self, kind: str, resource: str, /, timeout: float = 0, **inputs: Any) -> Made:
        """Check and create."""
        checked = self.check(kind, resource, inputs)
        request = provider_pb2.CreateRequest(
            urn=self.urn(kind, resource), properties=to_struct(checked), timeout=timeout
        )
        answer = self.plugin.Create(request, None)
        return Made(self.urn(kind, resource), answer.id, checked, from_struct(answer.properties))

    def diff(self, made: Made, ignore: tuple[str, ...] = (), **inputs: Any) -> Difference:
        """What the engine would be told about new inputs."""
        _, kind, name = made.urn.rsplit("::", 2)
        news = self.check(self._short(kind), name, inputs, made.inputs)
        request = provider_pb2.DiffRequest(
            urn=made.urn,
            id=made.identity,
            olds=to_struct(made.outputs),
            old_inputs=to_struct(made.inputs),
            news=to_struct(news),
            ignoreChanges=ignore,
        )
        answer = self.plugin.Diff(request, None)
        assert set(answer.detailedDiff) == set(answer.diffs)
        return Difference(set(answer.diffs), set(answer.replaces), answer.deleteBeforeReplace)

    def update(self, made: Made, **inputs: Any) -> Made:
        """Check and update in place."""
        _, kind, name = made.urn.rsplit("::", 2)
        news = self.check(self._short(kind), name, inputs, made.inputs)
        request = provider_pb2.UpdateRequest(
            urn=made.urn,
            id=made.identity,
            olds=to_struct(made.outputs),
            old_inputs=to_struct(made.inputs),
            news=to_struct(news),
        )
        answer = self.plugin.Update(request, None)
        return Made(made.urn, made.identity, news, from_struct(answer.properties))

    def read(self, made: Made) -> Made | None:
        """A refresh; None where the resource is gone."""
        request = provider_pb2.ReadRequest(
            urn=made.urn,
            id=made.identity,
            properties=to_struct(made.outputs),
            inputs=to_struct(made.inputs),
        )
        answer = self.plugin.Read(request, None)
        if not answer.id:
            return None
        return Made(made.urn, answer.id, from_struct(answer.inputs), from_struct(answer.properties))

    def delete(self, made: Made) -> None:
        """Delete."""
        request = provider_pb2.DeleteRequest(
            urn=made.urn, id=made.identity, properties=to_struct(made.outputs)
        )
        self.plugin.Delete(request, None)


def outputs(made: Made) -> Properties:
    """Plain outputs."""
    return plain(made.outputs)


def strip(inputs: Properties) -> Properties:
    """Inputs without the plugin's own marks."""
    return {name: value for name, value in inputs.items() if not name.startswith("__")}
