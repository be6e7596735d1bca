"""A stack's state by hand, in the shape of `pulumi stack export`, and the objects that belong to it."""

from __future__ import annotations

import base64
import gzip
import json
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
        """A state entry of an object in namespace `llm`; `kind` is kubernetes:<group/version>:<Kind>."""
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

    @staticmethod
    def revision(
        status: str, version: int = 1, manifest: str = "", name: str = "cert-manager"
    ) -> dict[str, Any]:
        """The Secret in which Helm keeps a revision of a release."""
        chart = {"metadata": {"name": name, "version": "v1.21.1"}}
        packed = gzip.compress(json.dumps({"chart": chart, "manifest": manifest}).encode())
        labels = {"owner": "helm", "name": name, "status": status, "version": str(version)}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "helm.sh/release.v1",
            "metadata": {
                "name": f"sh.helm.release.v1.{name}.v{version}",
                "namespace": name,
                "labels": labels,
            },
            "data": {"release": base64.b64encode(base64.b64encode(packed)).decode()},
        }

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


class FakeCluster:
    """As much of `ops.kube.Kube` as reading, listing and deleting needs, over a list of objects."""

    def __init__(self, *objects: dict[str, Any]):
        self.objects = list(objects)

    def get(
        self, api_version: str, kind: str, name: str, namespace: str | None = None
    ) -> dict[str, Any] | None:
        found = (o for o in self._of(api_version, kind) if _key(o, namespace) == (namespace, name))
        return next(found, None)

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = ""
    ) -> list[Any]:
        wanted = dict(part.split("=") for part in selector.split(",") if part).items()
        return [
            o
            for o in self._of(api_version, kind)
            if namespace in (None, o["metadata"].get("namespace"))
            and wanted <= (o["metadata"].get("labels") or {}).items()
        ]

    def log(self, namespace: str, pod: str, container: str, lines: int, previous: bool = False) -> list[str]:
        """What the pod has under `log`, which no real one has."""
        found = self.get("v1", "Pod", pod, namespace) or {}
        return found.get("log", [])[-lines:]

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        gone = self.get(api_version, kind, name, namespace)
        if gone is not None and not gone["metadata"].get("finalizers"):
            self.objects.remove(gone)

    def _of(self, api_version: str, kind: str) -> list[Any]:
        return [o for o in self.objects if (o["apiVersion"], o["kind"]) == (api_version, kind)]


def _key(item: dict[str, Any], namespace: str | None) -> tuple[str | None, str]:
    """As the API server: an object without a namespace is found whatever namespace is asked for."""
    return item["metadata"].get("namespace", namespace), item["metadata"]["name"]


@pytest.fixture
def fake_cluster() -> type[FakeCluster]:
    return FakeCluster
