"""What Google's gateway controller makes in the project for a Gateway, and needs there.

    compute/forwardingRule, compute/address, compute/firewall, compute/networkEndpointGroup

are records like all others, with an `owner`, so a network, a subnet or a cluster that goes before the Gateway
leaves them behind or is refused. The state's `backend_services` say how healthy the endpoints are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rehearsal.cloud.machines import is_zone, region_of
from rehearsal.cloud.project import CLUSTER, FORWARDING_RULE, GROUP, Record, State
from rehearsal.cloud.settings import Settings

NETWORK, SUBNETWORK = "compute/network", "compute/subnetwork"
FIREWALL, ADDRESS = "compute/firewall", "compute/address"
CERTIFICATE = "certificatemanager/certificate"
PROXY_PURPOSE = "REGIONAL_MANAGED_PROXY"
# From where Google asks for health (cloud.google.com/load-balancing/docs/health-check-concepts).
PROBE_RANGES: Final = ("35.191.0.0/16", "130.211.0.0/22")
_LONGEST_NAME = 63

Records = dict[str, dict[str, Record]]
"""Records by kind and id."""


@dataclass(frozen=True)
class Cluster:
    """The cluster whose Gateway API is on. `network` and `subnetwork` are ids, `zone` that of its endpoints."""

    identity: str
    project: str
    region: str
    zone: str
    network: str
    subnetwork: str

    @property
    def prefix(self) -> str:
        """What the names of everything that belongs to its Gateways begin with."""
        return f"gkegw1-{_hash(self.identity, 4)}"


def has_gateway_api(inputs: Mapping[str, Any]) -> bool:
    """Whether a cluster with these inputs has Google's Gateway API."""
    return (inputs.get("gatewayApiConfig") or {}).get("channel") not in (None, "CHANNEL_DISABLED")


def cluster_of(state: State) -> Cluster | None:
    """The cluster with Google's Gateway API, if there is one."""
    for identity, record in state.of(CLUSTER).items():
        inputs = record["inputs"]
        if has_gateway_api(inputs):
            _, project, _, location, *_ = identity.split("/")
            return Cluster(
                identity,
                project,
                region_of(location),
                location if is_zone(location) else f"{location}-a",
                _id(state, NETWORK, inputs.get("network")),
                _id(state, SUBNETWORK, inputs.get("subnetwork")),
            )
    return None


def _id(state: State, kind: str, reference: Any) -> str:
    """The id of what an id, a self link or a name means; the reference itself where there is no such thing."""
    last = str(reference or "").rsplit("/", 1)[-1]
    return next((i for i in state.of(kind) if i.rsplit("/", 1)[-1] == last), str(reference or ""))


def proxy_only_subnet(state: State, cluster: Cluster) -> tuple[str, str] | None:
    """(id, range) of the subnet from which the region's proxies speak, in the cluster's network."""
    for identity, record in state.of(SUBNETWORK).items():
        inputs = record["inputs"]
        if (
            (inputs.get("purpose"), inputs.get("role")) == (PROXY_PURPOSE, "ACTIVE")
            and record["outputs"].get("region") == cluster.region
            and _id(state, NETWORK, inputs.get("network")) == cluster.network
        ):
            return identity, inputs["ipCidrRange"]
    return None


def resource_name(cluster: Cluster, *parts: str) -> str:
    """As Google names things of Gateways: what they are for, and a hash of that."""
    text = "-".join(parts)
    return f"{cluster.prefix}-{text}"[: _LONGEST_NAME - 13].rstrip("-") + f"-{_hash(text, 12)}"


def _hash(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def regional(cluster: Cluster, collection: str, name: str) -> str:
    """The id of something in the cluster's region."""
    return f"projects/{cluster.project}/regions/{cluster.region}/{collection}/{name}"


def group_of(cluster: Cluster, backend: str) -> str:
    """The id of the endpoint group of a backend service."""
    return f"projects/{cluster.project}/zones/{cluster.zone}/networkEndpointGroups/{backend}"


def records(
    cluster: Cluster,
    owner: str,
    address: str,
    internal: bool,
    proxies: tuple[str, str],
    backends: Iterable[str],
) -> Records:
    """Everything that a Gateway has in the project; `proxies` are id and range of the proxy-only subnet."""
    name = resource_name(cluster, *owner.split("/"))
    placed = {"network": cluster.network, "subnetwork": cluster.subnetwork}
    scheme = "INTERNAL_MANAGED" if internal else "EXTERNAL_MANAGED"
    rule = {**placed, "name": name, "proxyOnlySubnetwork": proxies[0], "loadBalancingScheme": scheme}
    # Google's addresses are of the project; here an address is one of loopback.
    reserved = {"name": name, "addressType": "INTERNAL" if internal else "EXTERNAL"}
    # Google has one for all Gateways of a network and region; here each has its own.
    wall = {
        "name": resource_name(cluster, "l7", *owner.split("/")),
        "network": cluster.network,
        "sourceRanges": [proxies[1], *PROBE_RANGES],
    }
    return {
        FORWARDING_RULE: {
            regional(cluster, "forwardingRules", name): _record(rule, owner, IPAddress=address)
        },
        ADDRESS: {regional(cluster, "addresses", name): _record(reserved, owner, address=address)},
        FIREWALL: {f"projects/{cluster.project}/global/firewalls/{wall['name']}": _record(wall, owner)},
        GROUP: {group_of(cluster, b): _record({**placed, "name": b}, owner) for b in backends},
    }


def _record(inputs: dict[str, Any], owner: str, **outputs: Any) -> Record:
    return {"inputs": inputs, "outputs": {**inputs, **outputs}, "owner": owner}


def owned(state: State, owner: str) -> Records:
    """What a Gateway has in the project now."""
    found: Records = {}
    for kind, identity, record in state.all():
        if record.get("owner") == owner:
            found.setdefault(kind, {})[identity] = {k: v for k, v in record.items() if k != "created"}
    return found


def keep(state: State, owner: str, wanted: Records, now: float) -> None:
    """Bring what a Gateway has to what it should have; nothing at all without `wanted`."""
    before = owned(state, owner)
    for kind, identity in [(k, i) for k, items in before.items() for i in items]:
        if identity not in wanted.get(kind, {}):
            del state.of(kind)[identity]
    for kind, items in wanted.items():
        for identity, record in items.items():
            created = state.of(kind).get(identity, {}).get("created", now)
            state.of(kind)[identity] = {**record, "created": created}


def addresses(state: State) -> dict[str, str]:
    """The address of each Gateway by owner."""
    rules = state.of(FORWARDING_RULE).values()
    return {r["owner"]: r["outputs"]["IPAddress"] for r in rules}


def certificate_domains(
    state: State, settings: Settings, cluster: Cluster, name: str
) -> tuple[str, ...] | None:
    """The names in a certificate of Certificate Manager, which a regional Gateway takes from its region only."""
    identity = f"projects/{cluster.project}/locations/{cluster.region}/certificates/{name}"
    record = state.of(CERTIFICATE).get(identity)
    if record is not None:
        return tuple(record["outputs"].get("sanDnsnames") or ())
    return settings.certificate(name, cluster.region)
