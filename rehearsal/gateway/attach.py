"""Which route attaches to which listener, and which backends exist.

As in istiod's `pilot/pkg/config/kube/gateway`: a route is attached where it names the Gateway, the listener takes
its namespace, and their host names meet.
"""

from __future__ import annotations

from collections.abc import Iterator

from rehearsal.gateway.objects import Manifest, Objects, key, labels, selects

POOL_GROUP = "inference.networking.k8s.io"
BACKENDS = (("", "Service"), (POOL_GROUP, "InferencePool"))


def parents(route: Manifest, gateway: Manifest) -> list[Manifest]:
    """The route's references to a Gateway, if they name a listener that it has."""
    namespace, listeners = route["metadata"]["namespace"], gateway["spec"]["listeners"]
    return [
        p
        for p in route["spec"].get("parentRefs", [])
        if p.get("kind", "Gateway") == "Gateway"
        and (p.get("namespace", namespace), p["name"]) == key(gateway)
        and any(_names(p, listener) for listener in listeners)
    ]


def _names(parent: Manifest, listener: Manifest) -> bool:
    """Whether a reference means this listener; without a name or port it means all."""
    return parent.get("sectionName", listener["name"]) == listener["name"] and (
        parent.get("port", listener.get("port")) == listener.get("port")
    )


def takes(objects: Objects, gateway: Manifest, listener: Manifest, namespace: str) -> bool:
    """Whether a listener takes routes from a namespace."""
    rule = (listener.get("allowedRoutes") or {}).get("namespaces") or {}
    home = objects.get("Namespace", namespace) or {"metadata": {}}
    verdicts = {
        "All": lambda: True,
        "Same": lambda: namespace == gateway["metadata"]["namespace"],
        "None": lambda: False,
        "Selector": lambda: selects(gateway, rule.get("selector") or {}, labels(home)),
    }
    return verdicts[rule.get("from", "Same")]()


def allowed(objects: Objects, route: Manifest, gateway: Manifest, parent: Manifest) -> bool:
    """Whether any listener that a reference means takes the route's namespace."""
    namespace = route["metadata"]["namespace"]
    return any(
        _names(parent, listener) and takes(objects, gateway, listener, namespace)
        for listener in gateway["spec"]["listeners"]
    )


def attached(objects: Objects, gateway: Manifest, listener: Manifest) -> Iterator[tuple[Manifest, list[str]]]:
    """Every route of a listener, with the host names that it serves there (`*` for any)."""
    for route in objects.of("HTTPRoute"):
        namespace = route["metadata"]["namespace"]
        if not any(_names(p, listener) for p in parents(route, gateway)):
            continue
        if takes(objects, gateway, listener, namespace):
            wanted = route["spec"].get("hostnames") or ["*"]
            met = [m for h in wanted if (m := meet(listener.get("hostname") or "*", h))]
            if met:
                yield route, list(dict.fromkeys(met))


def meet(a: str, b: str) -> str | None:
    """The more specific of two host names if one covers the other; lower case, as Istio writes them."""
    a, b = a.lower(), b.lower()
    if _covers(a, b):
        return b
    return a if _covers(b, a) else None


def _covers(pattern: str, name: str) -> bool:
    return pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))


def backends(route: Manifest) -> list[Manifest]:
    """Every backend of a route."""
    return [b for rule in route["spec"].get("rules") or [] for b in rule.get("backendRefs") or []]


def backend_kind(backend: Manifest) -> tuple[str, str]:
    """A backend's group and kind, with their defaults."""
    return backend.get("group", ""), backend.get("kind", "Service")


def backend_namespace(route: Manifest, backend: Manifest) -> str:
    """Where a backend lives."""
    return str(backend.get("namespace") or route["metadata"]["namespace"])


def problem(objects: Objects, route: Manifest, backend: Manifest) -> tuple[str, str] | None:
    """Why a backend cannot be used, as (reason, message); None if it can."""
    group, kind = backend_kind(backend)
    namespace = backend_namespace(route, backend)
    if (group, kind) not in BACKENDS:
        return "InvalidKind", f"referencing unsupported backendRef: group {group!r} kind {kind!r}"
    if namespace != route["metadata"]["namespace"]:
        # Rehearsed without ReferenceGrants, none of which this platform makes.
        return (
            "RefNotPermitted",
            f"backendRef {backend['name']}/{namespace} not accessible (no ReferenceGrant)",
        )
    if objects.get(kind, backend["name"], namespace) is None:
        return "BackendNotFound", f"backend({backend['name']}.{namespace}) not found"
    return None


def pools(route: Manifest) -> set[tuple[str, str]]:
    """Namespace and name of every pool that a route sends requests to."""
    return {
        (backend_namespace(route, b), b["name"])
        for b in backends(route)
        if backend_kind(b) == (POOL_GROUP, "InferencePool")
    }
