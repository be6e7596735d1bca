"""Who may open a connection to whom, by NetworkPolicy v1. Pure: live objects in, verdicts out.

The semantics are those of the API (https://kubernetes.io/docs/concepts/services-networking/network-policies and
the comments of k8s.io/api/networking/v1):

- a pod is isolated for a direction as soon as one policy of its namespace selects it and names that direction;
  `policyTypes` that are left out mean Ingress, and Egress too where the policy has egress rules
- what is allowed is the union of the rules of all policies; there is no order and no denial
- a connection needs the consent of both ends: egress of the source and ingress of the destination
- a rule without peers means everybody, without ports every port; a rule list that is empty allows nothing
- `namespaceSelector` and `podSelector` in one peer must both hold; `podSelector` alone means the policy's namespace; an
  empty selector selects everything
- `ipBlock` is meant for addresses outside the cluster; here, as in most network plugins that rewrite nothing, it is
  compared with a pod's address as well
- a named port is the number that the destination's containers give to that name

Not judged: traffic of a pod to itself and of its own node, which always pass; host-network pods, which
plugins treat in different ways; answers, which follow the connection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Manifest = dict[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Direction = Literal["Ingress", "Egress"]
_SIDES: dict[Direction, tuple[str, str]] = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod as policies see it. `ports` are its containers' named ports: (protocol, name) to number."""

    name: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, item: Manifest) -> Pod:
        """The pod of a live object; native sidecars have ports as well."""
        spec = item["spec"]
        ports = {
            (port.get("protocol", "TCP"), port["name"]): port["containerPort"]
            for container in (*spec.get("initContainers", ()), *spec.get("containers", ()))
            for port in container.get("ports", ())
            if "name" in port
        }
        meta = item["metadata"]
        return cls(
            name=meta["name"],
            namespace=meta["namespace"],
            labels=meta.get("labels") or {},
            address=(item.get("status") or {}).get("podIP"),
            ports=ports,
        )


@dataclass(frozen=True)
class External:
    """An address that belongs to no pod, or a block of them, of which every one is meant."""

    address: str


Peer = Pod | External


@dataclass(frozen=True)
class Verdict:
    """Whether a connection is allowed, and by what.

    `by` names the policies that allow it, as `namespace/name`, or that isolate the end that
    refuses it. It is empty where no policy speaks. `refused` is the direction that refuses.
    """

    allowed: bool
    by: tuple[str, ...] = ()
    refused: Direction | None = None

    def __bool__(self) -> bool:
        return self.allowed


class Reachability:
    """Judges connections by the NetworkPolicies and Namespaces of a cluster."""

    def __init__(self, policies: Iterable[Manifest], namespaces: Iterable[Manifest]):
        self._policies = tuple(policies)
        self._namespaces = {n["metadata"]["name"]: n["metadata"].get("labels") or {} for n in namespaces}

    def allowed(self, source: Peer, destination: Peer, port: int | str, protocol: str = "TCP") -> Verdict:
        """Whether `source` may connect to a port, given by number or by the destination's name for it.

        Raises ValueError for a name that the destination does not have.
        """
        number = _number(destination, port, protocol)
        egress = self._consent("Egress", source, destination, destination, number, protocol)
        if not egress:
            return egress
        ingress = self._consent("Ingress", destination, source, destination, number, protocol)
        return Verdict(True, (*egress.by, *ingress.by)) if ingress else ingress

    def _consent(
        self, direction: Direction, own: Peer, other: Peer, destination: Peer, port: int, protocol: str
    ) -> Verdict:
        """Whether one end of a connection agrees."""
        isolating = [p for p in self._policies if self._isolates(p, own, direction)]
        allowing = [
            policy
            for policy in isolating
            if any(
                self._peer_matches(policy, rule, direction, other)
                and _port_matches(rule, destination, port, protocol)
                for rule in policy["spec"].get(_SIDES[direction][0]) or ()
            )
        ]
        if allowing or not isolating:
            return Verdict(True, tuple(map(_name, allowing)))
        return Verdict(False, tuple(map(_name, isolating)), direction)

    def _isolates(self, policy: Manifest, own: Peer, direction: Direction) -> bool:
        return (
            isinstance(own, Pod)
            and policy["metadata"]["namespace"] == own.namespace
            and direction in _directions(policy["spec"])
            and selects(policy["spec"].get("podSelector") or {}, own.labels)
        )

    def _peer_matches(self, policy: Manifest, rule: Manifest, direction: Direction, other: Peer) -> bool:
        peers = rule.get(_SIDES[direction][1])
        if not peers:
            return True
        return any(self._matches(peer, policy["metadata"]["namespace"], other) for peer in peers)

    def _matches(self, peer: Manifest, home: str, other: Peer) -> bool:
        if "ipBlock" in peer:
            return _in_block(peer["ipBlock"], other.address)
        if not isinstance(other, Pod):
            return False
        spaces = peer.get("namespaceSelector")
        if spaces is None:
            near = other.namespace == home
        else:
            near = selects(spaces, self._namespaces.get(other.namespace, {}))
        return near and selects(peer.get("podSelector") or {}, other.labels)


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects these labels. Raises ValueError for an operator that does not exist."""
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or ()
    return wanted.items() <= labels.items() and all(_holds(e, labels) for e in expressions)


def _holds(expression: Manifest, labels: Mapping[str, str]) -> bool:
    key, operator = expression["key"], expression["operator"]
    values = expression.get("values") or ()
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        # A pod without the label is not in the set either.
        return key not in labels or labels[key] not in values
    if operator in ("Exists", "DoesNotExist"):
        return (key in labels) == (operator == "Exists")
    raise ValueError(f"{operator} is no operator of a label selector: use In, NotIn, Exists or DoesNotExist")


def _directions(spec: Manifest) -> Iterator[Direction]:
    types = spec.get("policyTypes")
    if types:
        yield from types
        return
    yield "Ingress"
    if spec.get("egress"):
        yield "Egress"


def _in_block(block: Manifest, address: str | None) -> bool:
    if address is None:
        return False
    found = ipaddress.ip_network(address)
    return _within(found, ipaddress.ip_network(block["cidr"])) and not any(
        found.overlaps(ipaddress.ip_network(hole)) for hole in block.get("except") or ()
    )


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _port_matches(rule: Manifest, destination: Peer, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any(_covers(entry, destination, port, protocol) for entry in ports)


def _covers(entry: Manifest, destination: Peer, port: int, protocol: str) -> bool:
    if entry.get("protocol", "TCP") != protocol:
        return False
    first = entry.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        # A name is looked up in the pod that is connected to, so an address outside has none.
        return isinstance(destination, Pod) and destination.ports.get((protocol, first)) == port
    return first <= port <= entry.get("endPort", first)


def _number(destination: Peer, port: int | str, protocol: str) -> int:
    if isinstance(port, int):
        return port
    number = destination.ports.get((protocol, port)) if isinstance(destination, Pod) else None
    if number is None:
        raise ValueError(f"{destination} has no {protocol} port named {port}")
    return number


def _name(policy: Manifest) -> str:
    return f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"
