"""What Google's gateway controller writes into the statuses of Gateways, routes, pools and policies. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ops.kube import Manifest
from rehearsal.gateway import attach, google_rules
from rehearsal.gateway.objects import Objects, key
from rehearsal.stand_ins.statuses import condition

CONTROLLER = "networking.gke.io/gateway"
HEALTHY = "networking.gke.io/GatewayHealthy"
GROUP = "gateway.networking.k8s.io"

Found = Callable[[str, str], Manifest | None]
"""Finds a Secret by name and namespace."""


def gateway_status(
    objects: Objects, gateway: Manifest, address: str, error: str, secret: Found
) -> dict[str, Any]:
    """A Gateway's status; it has an `address` once it was programmed, and an `error` keeps it as it is."""
    programmed: tuple[Any, ...] = (True,) if address else (False, "Invalid", error)
    healthy: tuple[Any, ...] = (False, "Error", error) if error else (True, "Healthy")
    status: dict[str, Any] = {
        "conditions": [
            condition(gateway, "Accepted", True),
            condition(gateway, "Programmed", *programmed),
            condition(gateway, HEALTHY, *healthy),
        ],
        "listeners": [
            {
                "name": listener["name"],
                "attachedRoutes": len(list(attach.attached(objects, gateway, listener))),
                "supportedKinds": [{"group": GROUP, "kind": "HTTPRoute"}],
                "conditions": [
                    condition(gateway, "Accepted", True),
                    condition(gateway, "Programmed", *programmed),
                    condition(gateway, "ResolvedRefs", *_certificates(gateway, listener, secret)),
                ],
            }
            for listener in gateway["spec"]["listeners"]
        ],
    }
    return {**status, "addresses": [{"type": "IPAddress", "value": address}]} if address else status


def _certificates(gateway: Manifest, listener: Manifest, secret: Found) -> tuple[Any, ...]:
    home = gateway["metadata"]["namespace"]
    for reference in (listener.get("tls") or {}).get("certificateRefs") or []:
        if secret(reference["name"], home) is None:
            message = f"Error GWCER102: Secret {home}/{reference['name']} not found."
            return False, "InvalidCertificateRef", message
    return (True,)


def route_parent(objects: Objects, route: Manifest, gateway: Manifest, parent: Manifest) -> dict[str, Any]:
    """What a route's status says of one of its references to a Gateway."""
    verdicts = dict(google_rules.conditions(google_rules.fault(objects, route)))
    if not attach.allowed(objects, route, gateway, parent):
        verdicts["Accepted"] = (False, "NotAllowedByListeners", "")
    return {
        "parentRef": parent,
        "controllerName": CONTROLLER,
        "conditions": [condition(route, kind, *verdict) for kind, verdict in verdicts.items()],
    }


def pool_parent(objects: Objects, pool: Manifest, gateway: Manifest) -> dict[str, Any]:
    """What a pool's status says of a Gateway that leads to it."""
    namespace, name = key(gateway)
    picker = pool["spec"]["endpointPickerRef"]["name"]
    found = objects.get("Service", picker, pool["metadata"]["namespace"]) is not None
    problem = () if found else ("InvalidExtensionRef", f"service {picker} not found")
    return {
        "parentRef": {"group": GROUP, "kind": "Gateway", "namespace": namespace, "name": name},
        "controllerName": CONTROLLER,
        "conditions": [condition(pool, "Accepted", True), condition(pool, "ResolvedRefs", found, *problem)],
    }


def policy_status(policy: Manifest, counts: bool) -> dict[str, Any]:
    """The status of a policy whose target a Gateway leads to; one of several for it counts."""
    verdict = (True,) if counts else (False, "Conflicted", "an older policy has the same target")
    return {"conditions": [condition(policy, "Attached", *verdict)]}
