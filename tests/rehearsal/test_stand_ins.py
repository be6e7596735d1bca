"""The stand-ins judge as the controllers they stand for, and act only while those would run."""

from __future__ import annotations

import pytest

from rehearsal.stand_ins.gateway import GATEWAY_API, POOL_API, GatewayController


class Api:
    """Remembers what was written."""

    def __init__(self, objects=()):
        self.objects, self.created, self.patched = list(objects), [], {}

    def list(self, api_version, kind, *_, **__):
        return [o for o in self.objects if o["kind"] == kind]

    def get(self, api_version, kind, name, namespace=None):
        return next(
            (o for o in [*self.objects, *self.created] if (o["kind"], o["metadata"]["name"]) == (kind, name)),
            None,
        )

    def create(self, manifest):
        self.created.append(manifest)

    def apply(self, manifest, *_, **__):
        self.created.append(manifest)

    def patch(self, api_version, kind, name, namespace, body, *_, **__):
        self.patched[kind, name] = body


def item(api_version, kind, name, namespace="", spec=None, **meta):
    metadata = {"name": name, "generation": 1, **({"namespace": namespace} if namespace else {}), **meta}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec or {}}


GATEWAY = item(
    GATEWAY_API, "Gateway", "gw", "llm-gateway",
    {"gatewayClassName": "istio", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"models": "yes"}}}}}]},
)  # fmt: skip
POOL = item(POOL_API, "InferencePool", "pool", "models", {"endpointPickerRef": {"name": "epp"}})


def route(backend, namespace="models"):
    spec = {"parentRefs": [{"name": "gw", "namespace": "llm-gateway"}], "rules": [{"backendRefs": [backend]}]}
    return item(GATEWAY_API, "HTTPRoute", "route", namespace, spec)


@pytest.fixture
def judged(tmp_path):
    """What tells the statuses that the gateway stand-in writes for some objects."""
    return lambda *objects: statuses(tmp_path, *objects)


def statuses(root, *objects):
    api = Api()
    controller = GatewayController(api, lambda: True, lambda *_: [], root)
    namespaces = [
        item("v1", "Namespace", "models", labels={"models": "yes"}),
        item("v1", "Namespace", "other"),
    ]
    for o in [GATEWAY, *namespaces, *objects]:
        controller.objects.put(o)
    controller.reconcile()
    return api.patched


def verdict(patched, kind="HTTPRoute", name="route"):
    (parent,) = patched[kind, name]["status"]["parents"]
    return {c["type"]: (c["status"], c["reason"]) for c in parent["conditions"]}


V1_POOL = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "pool"}


def test_a_route_to_an_existing_pool_is_resolved(judged):
    patched = judged(route(V1_POOL), POOL, item("v1", "Service", "epp", "models"))
    assert verdict(patched) == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
    assert verdict(patched, "InferencePool", "pool")["Accepted"] == ("True", "Accepted")


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (V1_POOL, "BackendNotFound"),
        ({"name": "service", "port": 80}, "BackendNotFound"),
        ({"group": "inference.networking.x-k8s.io", "kind": "InferencePool", "name": "pool"}, "InvalidKind"),
    ],
)
def test_a_route_to_a_missing_or_unknown_backend_is_not_resolved(judged, backend, reason):
    assert verdict(judged(route(backend)))["ResolvedRefs"] == ("False", reason)


def test_a_route_from_a_namespace_that_the_listener_excludes_is_not_accepted(judged):
    assert verdict(judged(route(V1_POOL, "other")))["Accepted"] == ("False", "NotAllowedByListeners")


def test_a_pool_without_its_endpoint_picker_is_not_resolved(judged):
    patched = judged(route(V1_POOL), POOL)
    assert verdict(patched, "InferencePool", "pool")["ResolvedRefs"] == ("False", "InvalidExtensionRef")


def test_a_gateway_of_another_class_is_left_alone(judged):
    foreign = {**GATEWAY, "spec": {**GATEWAY["spec"], "gatewayClassName": "nginx"}}
    assert ("Gateway", "gw") not in judged(foreign)
