"""VPC networks: what Google makes of them, and what it refuses.

Fields whose change replaces: Google's provider, resource_compute_*.go.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator
from typing import Any

from rehearsal.providers.gcp.call import Call, google, path
from rehearsal.providers.gcp.kinds import Kind
from rehearsal.providers.gcp.values import (
    always,
    at,
    fields,
    labelled,
    link,
    number,
    project,
    region,
    time,
    token,
)
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import UNKNOWN, Properties

API = "compute.googleapis.com"
NETWORK = "compute/network"
SUBNETWORK = "compute/subnetwork"
FIREWALL = "compute/firewall"
PROXY_PURPOSES = ("REGIONAL_MANAGED_PROXY", "GLOBAL_MANAGED_PROXY")
_SMALLEST_PREFIX = 29


def ranges(inputs: Properties) -> Iterator[tuple[str, str]]:
    """(what, range) of every range that a subnet takes."""
    if inputs.get("ipCidrRange"):
        yield "primary", inputs["ipCidrRange"]
    for entry in inputs.get("secondaryIpRanges") or ():
        yield entry["rangeName"], entry["ipCidrRange"]


def _network(value: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(value)


def _ranges_are_valid(call: Call) -> None:
    """In a preview: addresses with host bits, or ranges too small."""
    for what, value in ranges(call.inputs):
        if value is UNKNOWN or value is None:
            continue
        try:
            net = _network(value)
        except ValueError as error:
            raise Refusal(f'"ip_cidr_range" ({what}) is not a valid CIDR range: {error}') from None
        if net.prefixlen > _SMALLEST_PREFIX:
            raise Refusal(f'"ip_cidr_range" ({what}) {value} is smaller than /{_SMALLEST_PREFIX}')


def _ranges_are_free(call: Call) -> None:
    """No overlap within the subnet, or with another one of the network."""
    own = [(what, _network(value)) for what, value in ranges(call.inputs)]
    for (first, one), (second, other) in itertools.combinations(own, 2):
        if one.overlaps(other):
            raise google(
                400, f"Invalid IPCidrRange: {one} ({first}) conflicts with {other} ({second})", "badRequest"
            )
    for name, record in _neighbours(call):
        for _, taken in ranges(record["inputs"]):
            clash = next((net for _, net in own if net.overlaps(_network(taken))), None)
            if clash:
                where = record["outputs"]["region"]
                raise google(
                    400,
                    f"Invalid IPCidrRange: {clash} conflicts with existing subnetwork '{name}' in region '{where}'.",
                    "invalid",
                )


def _neighbours(call: Call) -> Iterator[tuple[str, Any]]:
    """(name, record) of the other subnets of the network."""
    mine = call.find(NETWORK, call.inputs.get("network"))
    for identity, record in call.state.of(SUBNETWORK).items():
        theirs = call.find(NETWORK, record["inputs"].get("network"))
        if identity != call.identity and mine and theirs and mine[0] == theirs[0]:
            yield identity.rsplit("/", 1)[-1], record


def _one_active_proxy_subnet(call: Call) -> None:
    purpose = call.inputs.get("purpose")
    if purpose not in PROXY_PURPOSES:
        return
    if call.inputs.get("role") is None:
        raise google(
            400, "Invalid value for field 'resource.role': ''. Role must be set for this purpose.", "invalid"
        )
    if call.inputs.get("logConfig"):
        raise google(400, f"Flow logs are not supported for subnetworks with purpose {purpose}.", "invalid")
    for name, record in _neighbours(call):
        same = record["inputs"].get("purpose") == purpose and record["outputs"]["region"] == call.region
        if same and call.inputs["role"] == record["inputs"].get("role") == "ACTIVE":
            raise google(
                400,
                f"Invalid value for field 'resource.role': 'ACTIVE'. There is already an active subnetwork "
                f"'{name}' with purpose {purpose} in region '{call.region}' of this network.",
                "invalid",
            )


def _shrinks(field: str, state: Properties, wanted: Properties) -> bool:
    """A subnet's range grows in place, and only grows."""
    if field != "ipCidrRange" or wanted.get(field) in (None, UNKNOWN) or not state.get(field):
        return False
    return not _network(state[field]).subnet_of(_network(wanted[field]))


def _gateway(call: Call) -> str:
    return str(next(_network(call.inputs["ipCidrRange"]).hosts()))


def _allows_or_denies(call: Call) -> None:
    if bool(call.inputs.get("allows")) == bool(call.inputs.get("denies")):
        raise Refusal('one of "allow" and "deny" must be specified, and only one')


def _given_in_a_range(call: Call) -> str:
    """An address that nobody else has: of the documentation's networks, and so never a real one."""
    if call.inputs.get("addressType") == "INTERNAL":
        return f"10.255.{int(call.number(4)) % 250}.{int(call.number(6)) % 250 + 1}"
    return f"203.0.113.{int(call.number(6)) % 250 + 1}"


def _nat_addresses(call: Call) -> None:
    if call.inputs.get("natIpAllocateOption") == "MANUAL_ONLY" and not call.inputs.get("natIps"):
        raise google(
            400, "Invalid value for field 'natIps': MANUAL_ONLY needs at least one address.", "invalid"
        )


def _router_of_nat(call: Call) -> str:
    return f"{call.project}/{call.region}/{path(call.inputs['router']).rsplit('/', 1)[-1]}/{call.name}"


_ADDRESS_FORCES = fields(
    "address", "addressType", "description", "ipVersion", "ipCollection", "ipv6EndpointType", "name", "network",
    "networkTier", "prefixLength", "project", "purpose", "region", "subnetwork",
)  # fmt: skip

KINDS = (
    Kind(
        token="gcp:compute/network:Network",
        title="Network",
        identity=at("projects/{project}/global/networks/{name}"),
        api=API,
        defaults={"autoCreateSubnetworks": True, "deleteDefaultRoutesOnCreate": False},
        outputs={
            "project": project,
            "selfLink": link,
            "networkId": number,
            "numericId": number,
            "gatewayIpv4": always(""),
            "routingMode": always("REGIONAL"),
            "mtu": always(0),
            "internalIpv6Range": always(""),
            "networkFirewallPolicyEnforcementOrder": always("AFTER_CLASSIC_FIREWALL"),
            "bgpBestPathSelectionMode": always("LEGACY"),
            "bgpAlwaysCompareMed": always(False),
            "bgpInterRegionCost": always(""),
        },
        force_new=fields(
            "autoCreateSubnetworks",
            "description",
            "enableUlaInternalIpv6",
            "internalIpv6Range",
            "mtu",
            "name",
            "networkProfile",
            "project",
        ),
    ),
    Kind(
        token="gcp:compute/subnetwork:Subnetwork",
        title="Subnetwork",
        identity=at("projects/{project}/regions/{region}/subnetworks/{name}"),
        api=API,
        required=("network", "ipCidrRange"),
        outputs={
            "project": project,
            "region": region,
            "selfLink": link,
            "subnetworkId": number,
            "creationTimestamp": time,
            "fingerprint": token,
            "gatewayAddress": _gateway,
            "purpose": always("PRIVATE"),
            "privateIpv6GoogleAccess": always("DISABLE_GOOGLE_ACCESS"),
            "privateIpGoogleAccess": always(False),
            "stackType": always("IPV4_ONLY"),
            "secondaryIpRanges": always([]),
            "internalIpv6Prefix": always(""),
            "externalIpv6Prefix": always(""),
            "ipv6CidrRange": always(""),
            "ipv6GceEndpoint": always(""),
            "state": always("READY"),
        },
        force_new=fields(
            "description",
            "externalIpv6Prefix",
            "name",
            "network",
            "project",
            "purpose",
            "region",
            "reservedInternalRange",
        ),
        references={"network": NETWORK},
        plan=(_ranges_are_valid,),
        checks=(_ranges_are_free, _one_active_proxy_subnet),
        replaces=_shrinks,
    ),
    Kind(
        token="gcp:compute/router:Router",
        title="Router",
        identity=at("projects/{project}/regions/{region}/routers/{name}"),
        api=API,
        required=("network",),
        outputs={"project": project, "region": region, "selfLink": link, "creationTimestamp": time},
        force_new=fields("encryptedInterconnectRouter", "name", "network", "project", "region"),
        references={"network": NETWORK},
    ),
    Kind(
        token="gcp:compute/routerNat:RouterNat",
        title="RouterNat",
        identity=_router_of_nat,
        api=API,
        defaults={
            "icmpIdleTimeoutSec": 30,
            "tcpEstablishedIdleTimeoutSec": 1200,
            "tcpTransitoryIdleTimeoutSec": 30,
            "tcpTimeWaitTimeoutSec": 120,
            "udpIdleTimeoutSec": 30,
            "type": "PUBLIC",
        },
        outputs={
            "project": project,
            "region": region,
            "autoNetworkTier": always("PREMIUM"),
            "drainNatIps": always([]),
            "endpointTypes": always(["ENDPOINT_TYPE_VM"]),
            "enableDynamicPortAllocation": always(False),
            "enableEndpointIndependentMapping": always(False),
            "minPortsPerVm": always(64),
            "natIpAllocateOption": always("AUTO_ONLY"),
        },
        force_new=fields("endpointTypes", "initialNatIps", "name", "project", "region", "router", "type"),
        references={"router": "compute/router"},
        part_of="router",
        checks=(_nat_addresses,),
    ),
    Kind(
        token="gcp:compute/firewall:Firewall",
        title="Firewall",
        identity=at("projects/{project}/global/firewalls/{name}"),
        api=API,
        defaults={"priority": 1000},
        outputs={
            "project": project,
            "selfLink": link,
            "creationTimestamp": time,
            "direction": always("INGRESS"),
            "destinationRanges": always([]),
            "sourceRanges": always([]),
            "enableLogging": always(False),
        },
        force_new=fields("direction", "name", "network", "project"),
        references={"network": NETWORK},
        plan=(_allows_or_denies,),
    ),
    Kind(
        token="gcp:compute/address:Address",
        title="Address",
        identity=at("projects/{project}/regions/{region}/addresses/{name}"),
        api=API,
        defaults={"addressType": "EXTERNAL"},
        outputs={
            "project": project,
            "region": region,
            "selfLink": link,
            "creationTimestamp": time,
            "address": _given_in_a_range,
            "addressId": number,
            "labelFingerprint": token,
            "networkTier": always("PREMIUM"),
            "prefixLength": always(0),
            "purpose": always(""),
            "subnetwork": always(""),
            "users": always([]),
            **labelled(),
        },
        force_new=_ADDRESS_FORCES,
        references={"network": NETWORK, "subnetwork": SUBNETWORK},
    ),
    Kind(
        token="gcp:compute/globalAddress:GlobalAddress",
        title="GlobalAddress",
        identity=at("projects/{project}/global/addresses/{name}"),
        api=API,
        defaults={"addressType": "EXTERNAL"},
        outputs={
            "project": project,
            "selfLink": link,
            "creationTimestamp": time,
            "address": _given_in_a_range,
            "labelFingerprint": token,
            "prefixLength": always(0),
            **labelled(),
        },
        force_new=_ADDRESS_FORCES
        - {"ipCollection", "ipv6EndpointType", "networkTier", "region", "subnetwork"},
        references={"network": NETWORK},
    ),
)
