"""A stack's state written by hand, in the shape of `pulumi stack export`, and the objects that belong to it."""

from __future__ import annotations

from typing import Any

import pytest

from ops.state import Operation, Resource, State

STACK, PROJECT = "dev", "llm-platform"
LABELS = {"llmp.dev/stack": STACK, "app.kubernetes.io/name": "web"}
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:abc"}


class Sample:
    """Builders of state entries and of live objects; every one of them is plain data."""

    labels, secret = LABELS, SECRET

    @staticmethod
    def urn(kind: str, name: str) -> str:
        return f"urn:pulumi:{STACK}::{PROJECT}::{kind}::{name}"

    def resource(
        self, kind: str, name: str, inputs: dict[str, Any] | None = None, **fields: Any
    ) -> dict[str, Any]:
        entry = {"urn": self.urn(kind, name), "custom": True, "type": kind, "inputs": inputs or {}}
        return {**entry, **fields}

    def object(
        self, kind: str = "kubernetes:core/v1:ConfigMap", name: str = "web", **fields: Any
    ) -> dict[str, Any]:
        """A state entry of an object in namespace `llm`; kubernetes:<group/version>:<Kind> as the engine has it."""
        _, group_version, plain = kind.split(":", 2)
        metadata = {"name": name, "namespace": "llm", "labels": dict(LABELS)}
        inputs = {
            "apiVersion": group_version.removeprefix("core/"),
            "kind": plain.removesuffix("Patch"),
            "metadata": metadata,
        }
        return self.resource(kind, name, {**inputs, **fields.pop("inputs", {})}, **fields)

    def release(
        self, name: str = "cert-manager", chart: str = "cert-manager", **fields: Any
    ) -> dict[str, Any]:
        inputs = {"name": name, "namespace": name, "chart": chart, "values": {"token": SECRET}}
        return self.resource("kubernetes:helm.sh/v3:Release", name, inputs, **fields)

    def live(
        self, entry: dict[str, Any], manager: str = "pulumi-kubernetes", **metadata: Any
    ) -> dict[str, Any]:
        """The object as the cluster has it after our provider created it."""
        managed = [{"manager": manager, "operation": "Update"}]
        inputs = entry["inputs"]
        return {**inputs, "metadata": {**inputs["metadata"], "managedFields": managed, **metadata}}

    @staticmethod
    def exported(
        resources: list[dict[str, Any]], pending: list[tuple[str, dict[str, Any]]] | None = None
    ) -> dict[str, Any]:
        operations = [{"type": kind, "resource": entry} for kind, entry in pending or ()]
        deployment = {"manifest": {}, "resources": resources, "pending_operations": operations}
        return {"version": 3, "deployment": deployment}

    def state(
        self, resources: list[dict[str, Any]], pending: list[tuple[str, dict[str, Any]]] | None = None
    ) -> State:
        return State.parse(self.exported(resources, pending))

    @staticmethod
    def operation(kind: str, entry: dict[str, Any]) -> Operation:
        return Operation(kind, Resource(entry))


@pytest.fixture
def sample() -> Sample:
    return Sample()
