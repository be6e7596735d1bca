"""Stands in for istiod: accepts Gateways, routes and inference pools.

It sets the statuses that KServe and `pulumi up` wait for, and judges references
as istiod does: a backend that does not exist leaves `ResolvedRefs` False.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from ops.kube import Kube, Manifest
from rehearsal.node.nodes import timestamp
from rehearsal.stand_ins.mirror import Mirror

GATEWAY_API = "gateway.networking.k8s.io/v1"
POOL_API = "inference.networking.k8s.io/v1"
CONTROLLER = "istio.io/gateway-controller"
CLASS = "istio"
MANAGER = "rehearsal-istiod"
ADDRESS = "127.0.0.1"
WATCHED = (
    (GATEWAY_API, "GatewayClass"),
    (GATEWAY_API, "Gateway"),
    (GATEWAY_API, "HTTPRoute"),
    (POOL_API, "InferencePool"),
    ("v1", "Service"),
    ("v1", "Namespace"),
)


class GatewayController:
    """Writes statuses while `is_running` says that istiod's pod is Ready."""

    def __init__(self, kube: Kube, is_running: Callable[[], bool]):
        self._kube, self._is_running = kube, is_running
        self.objects = Mirror(kube, WATCHED)

    def run(self, stop: threading.Event) -> None:
        """Act until told to stop."""
        self.objects.run(stop, self._act)

    def _act(self) -> None:
        if self._is_running():
            self.reconcile()

    def reconcile(self) -> None:
        """Write every status that differs from what it should be."""
        self._accept_class()
        gateways = [g for g in self.objects.of("Gateway") if g["spec"]["gatewayClassName"] == CLASS]
        routes = self.objects.of("HTTPRoute")
        attached = {_key(g): [r for r in routes if self._parents(r, g)] for g in gateways}
        for gateway in gateways:
            self._write(gateway, self._gateway_status(gateway, len(attached[_key(gateway)])))
        for route in routes:
            mine = [g for g in gateways if route in attached[_key(g)]]
            parents = [self._route_parent(route, g, p) for g in mine for p in self._parents(route, g)]
            if parents:
                self._write(route, {"parents": parents})
        for pool in self.objects.of("InferencePool"):
            users = [g for g in gateways if any(self._uses(r, pool) for r in attached[_key(g)])]
            if users:
                self._write(pool, {"parents": [self._pool_parent(pool, g) for g in users]})

    def _accept_class(self) -> None:
        item = self.objects.get("GatewayClass", CLASS)
        if item is None:
            self._kube.apply(
                {
                    "apiVersion": GATEWAY_API,
                    "kind": "GatewayClass",
                    "metadata": {"name": CLASS},
                    "spec": {"controllerName": CONTROLLER},
                },
                MANAGER,
            )
            return
        self._write(item, {"conditions": [_condition(item, "Accepted", True)]})

    def _gateway_status(self, gateway: Manifest, routes: int) -> dict[str, Any]:
        listeners = [
            {
                "name": listener["name"],
                "attachedRoutes": routes,
                "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
                "conditions": [
                    _condition(gateway, t, True) for t in ("Accepted", "Programmed", "ResolvedRefs")
                ],
            }
            for listener in gateway["spec"]["listeners"]
        ]
        return {
            "addresses": [{"type": "IPAddress", "value": ADDRESS}],
            "conditions": [_condition(gateway, t, True) for t in ("Accepted", "Programmed")],
            "listeners": listeners,
        }

    def _parents(self, route: Manifest, gateway: Manifest) -> list[Manifest]:
        """The route's references to a gateway."""
        namespace = route["metadata"]["namespace"]
        return [
            p
            for p in route["spec"].get("parentRefs", [])
            if (p.get("namespace", namespace), p["name"]) == _key(gateway)
            and any(p.get("sectionName", x["name"]) == x["name"] for x in gateway["spec"]["listeners"])
        ]

    def _allowed(self, route: Manifest, gateway: Manifest, section: str | None) -> bool:
        """Whether a listener of the gateway takes routes from the route's namespace."""
        namespace = route["metadata"]["namespace"]
        home = self.objects.get("Namespace", namespace) or {"metadata": {}}
        labels = home["metadata"].get("labels") or {}
        for listener in gateway["spec"]["listeners"]:
            if section not in (None, listener["name"]):
                continue
            rule = (listener.get("allowedRoutes") or {}).get("namespaces") or {}
            wanted = (rule.get("selector") or {}).get("matchLabels") or {}
            allowed = {
                "All": True,
                "Same": namespace == gateway["metadata"]["namespace"],
                "Selector": wanted.items() <= labels.items(),
            }
            if allowed[rule.get("from", "Same")]:
                return True
        return False

    def _route_parent(self, route: Manifest, gateway: Manifest, parent: Manifest) -> dict[str, Any]:
        accepted = self._allowed(route, gateway, parent.get("sectionName"))
        problem = next((p for p in (self._problem(route, b) for b in _backends(route)) if p), None)
        return {
            "parentRef": parent,
            "controllerName": CONTROLLER,
            "conditions": [
                _condition(route, "Accepted", accepted, "" if accepted else "NotAllowedByListeners"),
                _condition(route, "ResolvedRefs", problem is None, *(problem or ())),
            ],
        }

    def _problem(self, route: Manifest, backend: Manifest) -> tuple[str, str] | None:
        """Why a backend cannot be used, as (reason, message)."""
        group, kind = backend.get("group", ""), backend.get("kind", "Service")
        namespace = backend.get("namespace", route["metadata"]["namespace"])
        if (group, kind) not in (("", "Service"), ("inference.networking.k8s.io", "InferencePool")):
            return "InvalidKind", f"referencing unsupported backendRef: group {group!r} kind {kind!r}"
        if self.objects.get(kind, backend["name"], namespace) is None:
            return "BackendNotFound", f"backend({backend['name']}.{namespace}) not found"
        return None

    def _uses(self, route: Manifest, pool: Manifest) -> bool:
        return any(
            b.get("kind") == "InferencePool"
            and (b.get("namespace", route["metadata"]["namespace"]), b["name"]) == _key(pool)
            for b in _backends(route)
        )

    def _pool_parent(self, pool: Manifest, gateway: Manifest) -> dict[str, Any]:
        namespace, name = _key(gateway)
        reference = {
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "namespace": namespace,
            "name": name,
        }
        picker = pool["spec"]["endpointPickerRef"]["name"]
        found = self.objects.get("Service", picker, pool["metadata"]["namespace"]) is not None
        problem = () if found else ("InvalidExtensionRef", f"service {picker} not found")
        return {
            "parentRef": reference,
            "controllerName": CONTROLLER,
            "conditions": [
                _condition(pool, "Accepted", True),
                _condition(pool, "ResolvedRefs", found, *problem),
            ],
        }

    def _write(self, item: Manifest, status: dict[str, Any]) -> None:
        """Patch the status where it differs from the live one in anything but times."""
        live = item.get("status") or {}
        if all(_timeless(live.get(k)) == _timeless(v) for k, v in status.items()):
            return
        meta = item["metadata"]
        self._kube.patch(
            item["apiVersion"], item["kind"], meta["name"], meta.get("namespace"), {"status": status},
            subresource="status",
        )  # fmt: skip


def _key(item: Manifest) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _backends(route: Manifest) -> Iterable[Manifest]:
    return [b for rule in route["spec"].get("rules", []) for b in rule.get("backendRefs", [])]


def _condition(item: Manifest, kind: str, true: bool, reason: str = "", message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if true else "False",
        "reason": reason or kind,
        "message": message,
        "observedGeneration": item["metadata"]["generation"],
        "lastTransitionTime": timestamp(),
    }


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k != "lastTransitionTime"}
    return [_timeless(v) for v in value] if isinstance(value, list) else value
