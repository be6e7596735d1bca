"""Reading Kubernetes objects: their keys, their age, and refusals that name what is not understood."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

Manifest = dict[str, Any]

CLUSTER_DOMAIN = "cluster.local"
# Where istiod runs; its policies and filters apply to every namespace.
ROOT_NAMESPACE = "istio-system"


class Unsupported(Exception):
    """An object asks for something that is not rehearsed; the message names the object and the field."""

    def __init__(self, item: Manifest, what: str):
        super().__init__(f"{describe(item)}: {what}")


class Objects(Protocol):
    """The live objects, for example a `Mirror`."""

    def of(self, kind: str) -> list[Manifest]:
        """All objects of a kind."""

    def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """One object, or None."""


def describe(item: Manifest) -> str:
    """An object as people write it: kind and namespace/name."""
    meta = item["metadata"]
    return f"{item['kind']} {meta.get('namespace', '')}/{meta['name']}"


def key(item: Manifest) -> tuple[str, str]:
    """An object's namespace and name."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def age(item: Manifest) -> tuple[str, str, str]:
    """Sorts objects as Istio does where order matters: the oldest first, then by namespace and name."""
    return item["metadata"].get("creationTimestamp", ""), *key(item)


def labels(item: Manifest) -> dict[str, str]:
    """An object's labels."""
    return item["metadata"].get("labels") or {}


def host(service: str, namespace: str) -> str:
    """The name of a Service in the cluster's DNS."""
    return f"{service}.{namespace}.svc.{CLUSTER_DOMAIN}"


def cluster_name(service_host: str, port: int) -> str:
    """Istio's name of the Envoy cluster for a Service's port."""
    return f"outbound|{port}||{service_host}"


def only(item: Manifest, value: Mapping[str, Any], where: str, known: Collection[str]) -> None:
    """Refuse a field of `value` that is set and not known; empty values count as unset."""
    for name, field in value.items():
        if name not in known and field not in (None, "", [], {}, False):
            raise Unsupported(item, f"{where}.{name} is not rehearsed")


def one_of(item: Manifest, value: Any, where: str, known: Collection[Any]) -> None:
    """Refuse a value that is not among the known ones."""
    if value not in known:
        choices = ", ".join(str(k) for k in known)
        raise Unsupported(item, f"{where} is {value!r}; rehearsed are: {choices}")


def selects(item: Manifest, selector: Mapping[str, Any], have: Mapping[str, str]) -> bool:
    """Whether a label selector (matchLabels and matchExpressions) matches some labels."""
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    expressions: Iterable[Mapping[str, Any]] = selector.get("matchExpressions") or ()
    return wanted.items() <= have.items() and all(_expression(item, e, have) for e in expressions)


def _expression(item: Manifest, expression: Mapping[str, Any], have: Mapping[str, str]) -> bool:
    name, values = expression["key"], expression.get("values") or ()
    verdicts = {
        "In": have.get(name) in values,
        "NotIn": have.get(name) not in values,
        "Exists": name in have,
        "DoesNotExist": name not in have,
    }
    one_of(item, expression["operator"], "matchExpressions.operator", verdicts)
    return verdicts[expression["operator"]]
