"""What Google's gateway controller takes of a route, and in which words it refuses. Pure.

Sources, read in 2026-08 to 2026-11: docs.cloud.google.com/kubernetes-engine/docs/how-to/gatewayclass-capabilities for
what is supported; for the words and for what the page leaves open, reports from clusters: timeouts (kserve/kserve
#5311), paths that are regular expressions, `ReplaceFullPath`, methods, and a port in a redirect. One route that it
refuses keeps it from programming any other of the same Gateway. Where nobody quotes the words, they are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rehearsal.gateway import attach
from rehearsal.gateway.objects import Manifest, Objects, key

FILTERS = (
    "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "RequestMirror", "URLRewrite",
)  # fmt: skip
POOL = (attach.POOL_GROUP, "InferencePool")
# The group before v1, whose pools GKE's controller does not know.
OLD_POOL_GROUP = "inference.networking.x-k8s.io"


@dataclass(frozen=True)
class Fault:
    """Why a route is refused: the condition that says so, its reason, and Google's message."""

    condition: str
    reason: str
    message: str


def fault(objects: Objects, route: Manifest) -> Fault | None:
    """The first thing that is wrong with a route, or None."""
    for rule in route["spec"].get("rules") or []:
        for check in CHECKS:
            if problem := next(iter(check(rule)), None):
                return Fault("Accepted", "UnsupportedValue", _misconfigured(route, problem))
    for backend in attach.backends(route):
        if found := _reference(objects, route, backend):
            return found
    return None


def _misconfigured(route: Manifest, problem: str) -> str:
    return f'Error GWCER104: HTTPRoute "{"/".join(key(route))}" is misconfigured, err: {problem}'


def _timeouts(rule: Manifest) -> Iterator[str]:
    if rule.get("timeouts"):
        yield "Timeouts are not supported."


def _unsupported_fields(rule: Manifest) -> Iterator[str]:
    for name in ("retry", "sessionPersistence"):
        if rule.get(name):
            yield f"{name} is not supported."


def _paths(rule: Manifest) -> Iterator[str]:
    for match in rule.get("matches") or []:
        path = match.get("path") or {}
        if path.get("type") == "RegularExpression":
            yield f"Paths must start with a '/' character {path.get('value')!r}".replace("'^", '"^')
        if match.get("method"):
            yield f"method match {match['method']} is not supported."


def _headers(rule: Manifest) -> Iterator[str]:
    for match in rule.get("matches") or []:
        for header in match.get("headers") or []:
            if header.get("type", "Exact") != "Exact":
                yield f"header match type {header['type']} is not supported."


def _filters(rule: Manifest) -> Iterator[str]:
    for item in rule.get("filters") or []:
        if item["type"] not in FILTERS:
            yield f"filter type {item['type']} is not supported."
        for backend in rule.get("backendRefs") or []:
            if backend.get("filters"):
                yield "filters of a backendRef are not supported."


def _rewrites(rule: Manifest) -> Iterator[str]:
    for item in rule.get("filters") or []:
        if ((item.get("urlRewrite") or {}).get("path") or {}).get("type") == "ReplaceFullPath":
            yield "URLRewrite path type ReplaceFullPath is not supported."
        if (item.get("requestRedirect") or {}).get("port"):
            yield "RequestRedirect port is not supported."


CHECKS: tuple[Callable[[Manifest], Iterator[str]], ...] = (
    _timeouts, _unsupported_fields, _paths, _headers, _filters, _rewrites,
)  # fmt: skip


def _reference(objects: Objects, route: Manifest, backend: Manifest) -> Fault | None:
    """What is wrong with a backend; the kind of pools before v1 is one that Google does not know."""
    problem = attach.problem(objects, route, backend)
    if problem is None:
        return _pool(objects, route, backend) if attach.backend_kind(backend) == POOL else None
    reason, message = problem
    if reason == "BackendNotFound":
        what = {"Service": "services"}.get(backend.get("kind", "Service"), "inferencepools")
        name = f"{attach.backend_namespace(route, backend)}/{backend['name']}"
        message = _misconfigured(route, f"Error GWCER102: {what} {name} not found")
    return Fault("ResolvedRefs", reason, message)


def _pool(objects: Objects, route: Manifest, backend: Manifest) -> Fault | None:
    """A pool is of use with its picker only."""
    namespace = attach.backend_namespace(route, backend)
    pool = objects.get("InferencePool", backend["name"], namespace) or {"spec": {}}
    picker = (pool["spec"].get("endpointPickerRef") or {}).get("name", "")
    if objects.get("Service", picker, namespace):
        return None
    problem = f"Error GWCER102: services {namespace}/{picker} not found"
    return Fault("ResolvedRefs", "BackendNotFound", _misconfigured(route, problem))


def conditions(found: Fault | None) -> Mapping[str, tuple[bool, str, str]]:
    """A route's conditions by type: (true or not, reason, message)."""
    verdicts = {name: (True, name, "") for name in ("Accepted", "ResolvedRefs")}
    return verdicts if found is None else {**verdicts, found.condition: (False, found.reason, found.message)}
