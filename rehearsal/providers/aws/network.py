"""VPCs: what Amazon makes of them, and what it refuses.

Fields whose change replaces: the AWS provider, internal/service/ec2/vpc_*.go and ec2_eip.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from rehearsal.cloud.aws_machines import region_of
from rehearsal.cloud.project import BALANCER, Record
from rehearsal.providers.aws.call import ApiError, Call
from rehearsal.providers.aws.kinds import arn, made_up, regional, tagged
from rehearsal.providers.cloud.kinds import Kind
from rehearsal.providers.cloud.values import always, at, fields
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import UNKNOWN

VPC, SUBNET, GROUP = "ec2/vpc", "ec2/subnet", "ec2/securityGroup"
TABLE, INTERNET, NAT, ADDRESS = "ec2/routeTable", "ec2/internetGateway", "ec2/natGateway", "ec2/eip"
_PREFIXES = (16, 28)
ADDRESS_QUOTA = "L-0263D0A3"


def _owner(call: Call) -> str:
    return call.account


def _attribute(prefix: str):
    """An id of something that comes with the resource."""
    return lambda call: f"{prefix}-0{call.token(16)}"


def _range_is_valid(call: Call) -> None:
    """In a preview: no range, or one of a size that there is not."""
    value = call.inputs.get("cidrBlock")
    if value in (None, UNKNOWN):
        return
    try:
        net = IPv4Network(value)
    except ValueError as error:
        raise Refusal(f'"cidr_block" ("{value}") is not a valid IPv4 CIDR block: {error}') from None
    if not _PREFIXES[0] <= net.prefixlen <= _PREFIXES[1]:
        raise Refusal(
            f'expected "cidr_block" to contain a network Value with between {_PREFIXES[0]} and {_PREFIXES[1]} '
            f"significant bits, got: {net.prefixlen}"
        )


def _others(call: Call, kind: str, **same: str) -> Iterator[tuple[str, Record]]:
    """Other resources of a kind with the same values of some inputs."""
    for identity, record in call.state.of(kind).items():
        if identity != call.identity and all(record["inputs"].get(n) == v for n, v in same.items()):
            yield identity, record


def _fits_its_network(call: Call) -> None:
    net = IPv4Network(call.inputs["cidrBlock"])
    found = call.find(VPC, call.inputs["vpcId"])
    if found and not net.subnet_of(IPv4Network(found[1]["inputs"]["cidrBlock"])):
        raise ApiError("InvalidSubnet.Range", f"The CIDR '{net}' is invalid.")
    for _, record in _others(call, SUBNET, vpcId=call.inputs["vpcId"]):
        if net.overlaps(IPv4Network(record["inputs"]["cidrBlock"])):
            raise ApiError("InvalidSubnet.Conflict", f"The CIDR '{net}' conflicts with another subnet")


def _zone_is_of_the_region(call: Call) -> None:
    zone = call.inputs.get("availabilityZone")
    if zone and region_of(zone) != call.region:
        raise ApiError(
            "InvalidParameterValue", f"Value ({zone}) for parameter availabilityZone is invalid. "
            f"Subnets can currently only be created in the following availability zones: {call.region}a, "
            f"{call.region}b, {call.region}c.",
        )  # fmt: skip


def _zone(call: Call) -> str:
    return f"{call.region}a"


def _addresses_left(call: Call) -> None:
    if call.record is None and len(call.state.of(ADDRESS)) >= call.settings.quota(ADDRESS_QUOTA, call.region):
        raise ApiError("AddressLimitExceeded", "The maximum number of addresses has been reached.")


def _public_address(call: Call) -> str:
    """Of the documentation's networks, and so never a real one."""
    return f"198.51.100.{int(call.number(6)) % 250 + 1}"


def _address_is_free(call: Call) -> None:
    for _, record in _others(call, NAT, allocationId=call.inputs.get("allocationId")):
        if record:
            raise ApiError(
                "Resource.AlreadyAssociated",
                f"Elastic IP address [{call.inputs['allocationId']}] is already associated",
            )


def _has_a_way_out(call: Call) -> None:
    """A NAT gateway fails for good in a network without an internet gateway."""
    subnet = call.find(SUBNET, call.inputs.get("subnetId"))
    vpc = subnet[1]["inputs"]["vpcId"] if subnet else ""
    if not any(record["inputs"].get("vpcId") == vpc for record in call.state.of(INTERNET).values()):
        raise Refusal(
            f"waiting for EC2 NAT Gateway ({call.identity}) create: unexpected state 'failed', wanted target "
            "'available'. last error: Gateway.NotAttached: Network "
            f"{vpc} has no Internet gateway attached"
        )


def _one_gateway(call: Call) -> None:
    for _, record in _others(call, INTERNET, vpcId=call.inputs.get("vpcId")):
        if record:
            raise ApiError(
                "InvalidParameterValue",
                f"Network {call.inputs['vpcId']} already has an internet gateway attached",
            )


def _no_public_addresses(call: Call) -> None:
    """A gateway stays while something in its network has a public address: NAT gateways, and load balancers."""
    vpc = (call.record or {}).get("inputs", {}).get("vpcId")
    subnets = {i for i, r in call.state.of(SUBNET).items() if r["inputs"]["vpcId"] == vpc}
    public = [r for r in call.state.of(NAT).values() if r["inputs"].get("subnetId") in subnets]
    public += [
        r
        for r in call.state.of(BALANCER).values()
        if r["inputs"]["vpcId"] == vpc and r["inputs"]["scheme"] == "internet-facing"
    ]
    if public:
        raise ApiError(
            "DependencyViolation",
            f"Network {vpc} has some mapped public address(es). Please unmap those public address(es) before "
            "detaching the gateway.",
        )


def _route_identity(call: Call) -> str:
    destination = call.inputs.get("destinationCidrBlock") or call.inputs.get("destinationIpv6CidrBlock") or ""
    return f"r-{call.inputs['routeTableId']}{int.from_bytes(str(destination).encode()) % 10**10}"


def _one_target(call: Call) -> None:
    targets = ("gatewayId", "natGatewayId", "vpcEndpointId", "transitGatewayId", "networkInterfaceId")
    if sum(call.inputs.get(name) is not None for name in targets) != 1:
        raise Refusal("one of `gateway_id,nat_gateway_id,vpc_endpoint_id,…` must be specified")


def _target_exists(call: Call) -> None:
    """What a route leads to may go before the route, but not come after it."""
    for field, kind, code in (("gatewayId", INTERNET, "Gateway"), ("natGatewayId", NAT, "NatGateway")):
        if call.inputs.get(field) and call.find(kind, call.inputs[field]) is None:
            raise ApiError(f"Invalid{code}ID.NotFound", f"The {field} '{call.inputs[field]}' does not exist")


def _one_association(call: Call) -> None:
    for _, record in _others(call, "ec2/routeTableAssociation", subnetId=call.inputs.get("subnetId")):
        if record:
            raise ApiError(
                "Resource.AlreadyAssociated",
                f"the specified association for route table {call.inputs['routeTableId']} conflicts with an existing "
                "association",
            )


def _known_service(call: Call) -> None:
    service = str(call.inputs.get("serviceName") or "")
    if not service.startswith(f"com.amazonaws.{call.region}."):
        raise ApiError("InvalidServiceName", f"The Vpc Endpoint Service '{service}' does not exist")


def _private_names(call: Call) -> None:
    """Names of an interface endpoint need DNS in the network."""
    found = call.find(VPC, call.inputs["vpcId"])
    inputs = found[1]["inputs"] if found else {}
    if call.inputs.get("privateDnsEnabled") and not (
        inputs.get("enableDnsSupport", True) and inputs.get("enableDnsHostnames")
    ):
        raise ApiError(
            "InvalidParameter",
            "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to true "
            f"for {call.inputs['vpcId']}",
        )


KINDS = (
    Kind(
        token="aws:ec2/vpc:Vpc",
        title="VPC",
        identity=made_up("vpc"),
        named="",
        autonamed=False,
        defaults={"enableDnsSupport": True, "instanceTenancy": "default"},
        outputs={
            **tagged(),
            "arn": arn("ec2", "vpc/{identity}"),
            "ownerId": _owner,
            "defaultNetworkAclId": _attribute("acl"),
            "defaultRouteTableId": _attribute("rtb"),
            "mainRouteTableId": _attribute("rtb"),
            "defaultSecurityGroupId": _attribute("sg"),
            "dhcpOptionsId": _attribute("dopt"),
            "enableDnsHostnames": always(False),
            "enableNetworkAddressUsageMetrics": always(False),
            "ipv6AssociationId": always(""),
            "ipv6CidrBlock": always(""),
            "ipv6CidrBlockNetworkBorderGroup": always(""),
        },
        force_new=fields("cidrBlock", "instanceTenancy", "ipv4IpamPoolId", "ipv4NetmaskLength", "region"),
        anew=fields("tagsAll"),
        plan=(_range_is_valid,),
    ),
    Kind(
        token="aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
        title="Default Security Group",
        identity=lambda call: call.state.of(VPC)[call.inputs["vpcId"]]["outputs"]["defaultSecurityGroupId"],
        named="",
        autonamed=False,
        outputs={
            **tagged(),
            "arn": arn("ec2", "security-group/{identity}"),
            "ownerId": _owner,
            "name": always("default"),
            "namePrefix": always(""),
            "description": always("default VPC security group"),
            "egress": always([]),
            "ingress": always([]),
        },
        force_new=fields("region", "vpcId"),
        anew=fields("tagsAll"),
        references={"vpcId": VPC},
        part_of="vpcId",
        adopts=True,
    ),
    Kind(
        token="aws:ec2/internetGateway:InternetGateway",
        title="Internet Gateway",
        identity=made_up("igw"),
        named="",
        autonamed=False,
        outputs={**tagged(), "arn": arn("ec2", "internet-gateway/{identity}"), "ownerId": _owner},
        force_new=fields("region"),
        anew=fields("tagsAll"),
        references={"vpcId": VPC},
        checks=(_one_gateway,),
        removal=(_no_public_addresses,),
    ),
    Kind(
        token="aws:ec2/routeTable:RouteTable",
        title="Route Table",
        identity=made_up("rtb"),
        named="",
        autonamed=False,
        outputs={
            **tagged(),
            "arn": arn("ec2", "route-table/{identity}"),
            "ownerId": _owner,
            "routes": always([]),
            "propagatingVgws": always([]),
        },
        force_new=fields("region", "vpcId"),
        anew=fields("tagsAll"),
        references={"vpcId": VPC},
    ),
    Kind(
        token="aws:ec2/route:Route",
        title="Route",
        identity=_route_identity,
        named="",
        autonamed=False,
        outputs={
            **regional(),
            "instanceId": always(""),
            "instanceOwnerId": always(""),
            "networkInterfaceId": always(""),
            "origin": always("CreateRoute"),
            "state": always("active"),
        },
        force_new=fields(
            "destinationCidrBlock",
            "destinationIpv6CidrBlock",
            "destinationPrefixListId",
            "region",
            "routeTableId",
        ),
        references={"routeTableId": TABLE},
        part_of="routeTableId",
        plan=(_one_target,),
        checks=(_target_exists,),
    ),
    Kind(
        token="aws:ec2/routeTableAssociation:RouteTableAssociation",
        title="Route Table Association",
        identity=made_up("rtbassoc"),
        named="",
        autonamed=False,
        outputs=regional(),
        force_new=fields("gatewayId", "region", "subnetId"),
        references={"routeTableId": TABLE, "subnetId": SUBNET},
        part_of="subnetId",
        checks=(_one_association,),
    ),
    Kind(
        token="aws:ec2/subnet:Subnet",
        title="Subnet",
        identity=made_up("subnet"),
        named="",
        autonamed=False,
        defaults={"mapPublicIpOnLaunch": False, "assignIpv6AddressOnCreation": False},
        outputs={
            **tagged(),
            "arn": arn("ec2", "subnet/{identity}"),
            "ownerId": _owner,
            "availabilityZone": _zone,
            "availabilityZoneId": lambda call: (
                f"use1-az{ord((call.inputs.get('availabilityZone') or _zone(call))[-1]) - 96}"
            ),
            "ipv6CidrBlockAssociationId": always(""),
            "privateDnsHostnameTypeOnLaunch": always("ip-name"),
            "enableDns64": always(False),
            "enableResourceNameDnsARecordOnLaunch": always(False),
            "enableResourceNameDnsAaaaRecordOnLaunch": always(False),
            "ipv6Native": always(False),
        },
        force_new=fields(
            "availabilityZone",
            "availabilityZoneId",
            "cidrBlock",
            "ipv6Native",
            "outpostArn",
            "region",
            "vpcId",
        ),
        anew=fields("tagsAll"),
        references={"vpcId": VPC},
        plan=(_range_is_valid,),
        checks=(_fits_its_network, _zone_is_of_the_region),
    ),
    Kind(
        token="aws:ec2/eip:Eip",
        title="EIP",
        identity=made_up("eipalloc"),
        named="",
        autonamed=False,
        outputs={
            **tagged(),
            "arn": arn("ec2", "elastic-ip/{identity}"),
            "allocationId": at("{identity}"),
            "publicIp": _public_address,
            "publicDns": lambda call: (
                f"ec2-{_public_address(call).replace('.', '-')}.compute-1.amazonaws.com"
            ),
            "networkBorderGroup": lambda call: call.region,
            "publicIpv4Pool": always("amazon"),
            "domain": always("vpc"),
            **dict.fromkeys(
                (
                    "associationId",
                    "carrierIp",
                    "customerOwnedIp",
                    "customerOwnedIpv4Pool",
                    "instance",
                    "networkInterface",
                    "privateDns",
                    "privateIp",
                    "ptrRecord",
                ),
                always(""),
            ),
        },
        force_new=fields("address", "domain", "networkBorderGroup", "publicIpv4Pool", "region"),
        anew=fields("tagsAll"),
        checks=(_addresses_left,),
    ),
    Kind(
        token="aws:ec2/natGateway:NatGateway",
        title="NAT Gateway",
        identity=made_up("nat"),
        named="",
        autonamed=False,
        defaults={"connectivityType": "public"},
        outputs={
            **tagged(),
            "associationId": _attribute("eipassoc"),
            "networkInterfaceId": _attribute("eni"),
            "privateIp": always("10.0.0.4"),
            "publicIp": lambda call: call.state.of(ADDRESS)[call.inputs["allocationId"]]["outputs"][
                "publicIp"
            ],
            "availabilityMode": always("zonal"),
            "secondaryPrivateIpAddressCount": always(0),
            "secondaryPrivateIpAddresses": always([]),
            "secondaryAllocationIds": always([]),
            "availabilityZoneAddresses": always([]),
            "regionalNatGatewayAddresses": always([]),
            "regionalNatGatewayAutoMode": always(""),
            "routeTableId": always(""),
            "autoProvisionZones": always(""),
            "autoScalingIps": always(""),
            "vpcId": lambda call: call.state.of(SUBNET)[call.inputs["subnetId"]]["inputs"]["vpcId"],
        },
        force_new=fields(
            "allocationId", "availabilityMode", "connectivityType", "privateIp", "region", "subnetId", "vpcId"
        ),
        anew=fields("tagsAll"),
        references={"allocationId": ADDRESS, "subnetId": SUBNET},
        checks=(_address_is_free, _has_a_way_out),
    ),
    Kind(
        token="aws:ec2/vpcEndpoint:VpcEndpoint",
        title="VPC Endpoint",
        identity=made_up("vpce"),
        named="",
        autonamed=False,
        defaults={"vpcEndpointType": "Gateway"},
        outputs={
            **tagged(),
            "arn": arn("ec2", "vpc-endpoint/{identity}"),
            "ownerId": _owner,
            "state": always("available"),
            "requesterManaged": always(False),
            "ipAddressType": always("ipv4"),
            "policy": always(
                '{"Statement":[{"Action":"*","Effect":"Allow","Principal":"*","Resource":"*"}]}'
            ),
            "prefixListId": _attribute("pl"),
            "privateDnsEnabled": always(False),
            "serviceRegion": lambda call: call.region,
            **dict.fromkeys(
                (
                    "cidrBlocks",
                    "dnsEntries",
                    "networkInterfaceIds",
                    "routeTableIds",
                    "securityGroupIds",
                    "subnetIds",
                    "subnetConfigurations",
                ),
                always([]),
            ),
            "dnsOptions": always({"dnsRecordIpType": "ipv4"}),
        },
        force_new=fields(
            "resourceConfigurationArn",
            "region",
            "serviceName",
            "serviceNetworkArn",
            "serviceRegion",
            "vpcEndpointType",
            "vpcId",
        ),
        anew=fields("tagsAll"),
        references={
            "vpcId": VPC,
            "subnetIds": SUBNET,
            "securityGroupIds": GROUP,
            "routeTableIds": TABLE,
        },
        checks=(_known_service, _private_names),
    ),
    Kind(
        token="aws:ec2/securityGroup:SecurityGroup",
        title="Security Group",
        identity=made_up("sg"),
        max_name=255,
        lower=False,
        defaults={"description": "Managed by Pulumi", "revokeRulesOnDelete": False},
        outputs={
            **tagged(),
            "arn": arn("ec2", "security-group/{identity}"),
            "ownerId": _owner,
            "namePrefix": always(""),
            "egress": always([]),
            "ingress": always([]),
        },
        force_new=fields("description", "name", "namePrefix", "region", "vpcId"),
        anew=fields("tagsAll"),
        references={"vpcId": VPC},
    ),
    Kind(
        token="aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        title="VPC Security Group Ingress Rule",
        identity=made_up("sgr"),
        named="",
        autonamed=False,
        outputs={
            **tagged(),
            "arn": arn("ec2", "security-group-rule/{identity}"),
            "securityGroupRuleId": at("{identity}"),
        },
        force_new=fields("region", "securityGroupId"),
        anew=fields("tagsAll"),
        references={"securityGroupId": GROUP},
        part_of="securityGroupId",
    ),
)
