"""What the simulated account answers to questions of `aws`: what `python -m ops preflight` and people ask.

It shows what `project.json` has and `settings.yaml` says: the same quotas, offers and versions that the simulated
provider refuses by. Without settings the account is as docs/bootstrap-aws.md leaves it: the caller acts in a role that
may do everything, quotas are ample, every bucket that is asked for is there and has the weights. `aws` in the settings
changes that:

    aws:
      account: "123456789012"
      caller: arn:aws:sts::123456789012:assumed-role/deploy/me
      login: expired                        # or: none
      cli: 2.31.2                           # the command's own version
      lacks: ["ec2:Describe*", iam:PassRole]            # actions that the caller may not do
      regions: {eu-south-2: not-opted-in}
      zones: {us-east-1e: {id: use1-az3, state: available}}     # beside three per region
      roles: [admin]                        # IAM roles that somebody has made; AWSServiceRole… are those of services
      defaults: [L-DB2E81BA]                # quotas that nobody has asked to raise, so that only AWS's default is told
      vpcs: [{name: office, cidr: 10.0.0.0/16}]
      addresses: 4                          # of others, as all that follows
      gateways: 4
      natGateways: {us-east-1a: 4}
      instances: [{type: g6.xlarge, count: 2, spot: true}]
      reservations: [{id: cr-0123456789abcdef0, type: g6.4xlarge, zone: us-east-1a, count: 2, free: 1, state: active}]
      buckets: [{name: llm-models, exists: false}]      # or region, foreign: true, versioning, private, holds: [prefix]
      keys: [{name: "alias/*", state: Disabled}]
      deleted: {prod/hf-token: "2026-12-01T00:00:00Z"}  # secrets that are marked for deletion

Refusals are in AWS's words. It only reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from rehearsal.cloud import aws_machines, aws_roles, node_groups
from rehearsal.cloud.aws_machines import region_of
from rehearsal.cloud.aws_secrets import is_elsewhere, name_of
from rehearsal.cloud.project import State
from rehearsal.cloud.settings import Settings

Flags = Mapping[str, Sequence[str]]
ACCOUNT = "000000000000"
HOME = "us-east-1"
REGIONS = (
    "ap-northeast-1", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1", "eu-north-1",
    "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
)  # fmt: skip
# A zone's id is not its letter: EKS has no control planes in the third place of the first region.
_PLACES = {"a": 1, "b": 2, "c": 4}
_DIRECTIONS = {
    "northeast": "ne", "southeast": "se", "northwest": "nw", "southwest": "sw", "north": "n", "south": "s",
    "east": "e", "west": "w", "central": "c",
}  # fmt: skip
DEFAULT_VPC = {"name": "", "cidr": "172.31.0.0/16"}
VERSIONS_OUT_OF_SUPPORT = ("1.29", "1.30")
SUPPORT_UNTIL = "2027-06-30T00:00:00Z"
# What AWS gives new accounts where nobody has asked for more.
DEFAULTS = {
    "L-DB2E81BA": 0,
    "L-3819A6DF": 0,
    "L-1216C47A": 5,
    "L-0263D0A3": 5,
    "L-F678F1CE": 5,
    "L-A4707A72": 5,
}
_DEFAULT = 5
# How services call a permission that is missing, and what they say of it.
_WHY = "because no identity-based policy allows the {action} action"
_ON_ALL = "User: {caller} is not authorized to perform: {action} " + _WHY
_ON_ONE = "User: {caller} is not authorized to perform: {action} on resource: {resource} " + _WHY
_DENIALS = {
    "ec2": ("UnauthorizedOperation", f"You are not authorized to perform this operation. {_ON_ALL}"),
    "iam": ("AccessDenied", _ON_ONE),
    "s3": ("AccessDenied", _ON_ONE),
}
_DENIAL = ("AccessDeniedException", _ON_ALL)


class Refused(Exception):
    """A refusal in the words of one of AWS's services."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Question:
    """One question: who asks what in which region, and what there is. `account` is that of the caller's credentials."""

    region: str
    flags: Flags
    state: State
    settings: Settings
    account: str

    def one(self, name: str) -> str:
        """The value of a flag that has one."""
        return self.flags[name][0]

    def filtered(self, flag: str, name: str) -> frozenset[str] | None:
        """The values of the filter `name`; None where nobody asks for any."""
        for text in self.flags.get(flag, ()):
            parts = dict(part.split("=", 1) for part in text.split(",", 1))
            if parts.get("Name") == name:
                return frozenset(parts["Values"].split(","))
        return None

    @property
    def caller(self) -> str:
        """The ARN of the session."""
        given = self.settings.aws.get("caller")
        return str(given or f"arn:aws:sts::{self.account}:assumed-role/rehearsal/rehearsal")

    def given(self, name: str) -> Any:
        """What the settings say of the account."""
        return self.settings.aws.get(name) or ()

    def may(self, action: str) -> bool:
        """Whether the caller may do something."""
        return not any(fnmatch(action, pattern) for pattern in self.given("lacks"))

    def require(self, action: str, resource: str = "*") -> None:
        """Refuse a caller who may not."""
        if self.may(action):
            return
        code, words = _DENIALS.get(action.partition(":")[0], _DENIAL)
        raise Refused(code, words.format(caller=self.caller, action=action, resource=resource))


# -- who asks ------------------------------------------------------------------------------------------------------


def _identity(question: Question) -> Any:
    return {"UserId": "AROAREHEARSAL:rehearsal", "Account": question.account, "Arn": question.caller}


def _role(question: Question) -> Any:
    name = question.one("role-name")
    own = question.caller.split("/")[1] if ":assumed-role/" in question.caller else ""
    made = name in question.given("roles") or name in question.state.of(aws_roles.ROLE)
    if name != own and not made:
        raise Refused("NoSuchEntity", f"The role with name {name} cannot be found.")
    return {"Role": {"Path": "/", "RoleName": name, "Arn": f"arn:aws:iam::{question.account}:role/{name}"}}


def _simulate(question: Question) -> Any:
    resource = question.flags.get("resource-arns", ["*"])[0]
    context = dict(map(_entry, question.flags.get("context-entries", ())))
    allowed = frozenset(_allowed(question, resource, context))
    return {
        "EvaluationResults": [
            {
                "EvalActionName": action,
                "EvalResourceName": resource,
                "EvalDecision": "allowed" if action in allowed and question.may(action) else "implicitDeny",
                "MatchedStatements": [],
                "MissingContextValues": [],
            }
            for action in question.flags["action-names"]
        ],
        "IsTruncated": False,
    }


def _entry(text: str) -> tuple[str, str]:
    parts = dict(part.split("=", 1) for part in text.split(","))
    return parts["ContextKeyName"], parts["ContextKeyValues"]


def _allowed(question: Question, resource: str, context: Mapping[str, str]) -> Iterator[str]:
    """By the policy of docs/bootstrap-aws.md, which is all that the caller has; what is not known meets no condition."""
    # It knows the whole configuration, which other questions should not wait for.
    from ops.preflight import aws_permissions

    policy = json.loads(aws_permissions.document("deploy", question.account, question.region))
    for statement in policy["Statement"]:
        met = all(context.get(key) in values for key, values in _conditions(statement))
        if met and fnmatch(resource, statement["Resource"]):
            yield from statement["Action"]


def _conditions(statement: Mapping[str, Any]) -> Iterable[tuple[str, Sequence[str]]]:
    return (statement.get("Condition") or {}).get("StringEquals", {}).items()


# -- places and offers ---------------------------------------------------------------------------------------------


def opted(settings: Settings) -> dict[str, str]:
    """Every region, and whether the account has it."""
    return {**dict.fromkeys(REGIONS, "opt-in-not-required"), **(settings.aws.get("regions") or {})}


def _regions(question: Question) -> Any:
    everything = "all-regions" in question.flags
    return {
        "Regions": [
            {"RegionName": name, "Endpoint": f"ec2.{name}.amazonaws.com", "OptInStatus": state}
            for name, state in sorted(opted(question.settings).items())
            if everything or state != "not-opted-in"
        ]
    }


def _zone_ids(question: Question) -> dict[str, dict[str, str]]:
    area, *direction, number = question.region.split("-")
    short = area + "".join(_DIRECTIONS.get(word, word) for word in direction) + number
    usual = {
        f"{question.region}{letter}": {"id": f"{short}-az{place}", "state": "available"}
        for letter, place in _PLACES.items()
    }
    more = question.settings.aws.get("zones") or {}
    return usual | {name: zone for name, zone in more.items() if region_of(name) == question.region}


def _zones(question: Question) -> Any:
    return {
        "AvailabilityZones": [
            {
                "ZoneName": name,
                "ZoneId": zone["id"],
                "State": zone.get("state", "available"),
                "RegionName": question.region,
            }
            for name, zone in sorted(_zone_ids(question).items())
        ]
    }


def _offerings(question: Question) -> Any:
    types = question.filtered("filters", "instance-type") or ()
    return {
        "InstanceTypeOfferings": [
            {"InstanceType": name, "LocationType": "availability-zone", "Location": zone}
            for name in sorted(types)
            for zone in sorted(_zone_ids(question))
            if question.settings.offered(name, zone, aws_machines.find(name) is not None)
        ]
    }


def _types(question: Question) -> Any:
    found = map(aws_machines.find, sorted(question.filtered("filters", "instance-type") or ()))
    return {
        "InstanceTypes": [
            {
                "InstanceType": machine.name,
                "VCpuInfo": {"DefaultVCpus": machine.vcpus, "DefaultThreadsPerCore": 2},
                "MemoryInfo": {"SizeInMiB": machine.memory_gib * 1024},
            }
            for machine in found
            if machine is not None
        ]
    }


def _reservations(question: Question) -> Any:
    (wanted,) = question.flags["capacity-reservation-ids"]
    for entry in question.given("reservations"):
        if entry["id"] == wanted and region_of(entry["zone"]) == question.region:
            count = int(entry.get("count", 1))
            return {
                "CapacityReservations": [
                    {
                        "CapacityReservationId": wanted,
                        "InstanceType": entry["type"],
                        "AvailabilityZone": entry["zone"],
                        "TotalInstanceCount": count,
                        "AvailableInstanceCount": int(entry.get("free", count)),
                        "State": entry.get("state", "active"),
                        "InstanceMatchCriteria": "targeted",
                    }
                ]
            }
    raise Refused(
        "InvalidCapacityReservationId.NotFound", f"The capacity reservation ID '{wanted}' was not found"
    )


def _versions(question: Question) -> Any:
    offered = question.settings.eks_versions
    default = offered[len(offered) // 2]
    current = [
        {
            "clusterVersion": name,
            "defaultVersion": name == default,
            "versionStatus": "STANDARD_SUPPORT",
            "endOfStandardSupportDate": SUPPORT_UNTIL,
        }
        for name in offered
    ]
    former = [
        {"clusterVersion": name, "defaultVersion": False, "versionStatus": "EXTENDED_SUPPORT"}
        for name in VERSIONS_OUT_OF_SUPPORT
        if name not in offered
    ]
    return {"clusterVersions": [*reversed(current), *reversed(former)]}


# -- quotas and what counts against them ---------------------------------------------------------------------------


def _quota(question: Question) -> Any:
    code = question.one("quota-code")
    if code in question.given("defaults"):
        raise Refused(
            "NoSuchResourceException", "The request failed because the specified quota does not exist."
        )
    return _limit(question, question.settings.quota(code, question.region))


def _default_quota(question: Question) -> Any:
    return _limit(question, DEFAULTS.get(question.one("quota-code"), _DEFAULT))


def _limit(question: Question, value: int) -> Any:
    names = {"ServiceCode": question.one("service-code"), "QuotaCode": question.one("quota-code")}
    return {"Quota": {**names, "Value": float(value), "Adjustable": True, "GlobalQuota": False}}


def _instances(question: Question) -> Any:
    running = [
        (group.instance.name, group.capacity == "spot")
        for group in node_groups.all_groups(question.state)
        if group.region == question.region
        for _ in range(group.size)
    ]
    for entry in question.given("instances"):
        running += [(entry["type"], bool(entry.get("spot")))] * int(entry.get("count", 1))
    return {"Reservations": [{"Instances": [_instance(*one)]} for one in running]}


def _instance(name: str, spot: bool) -> dict[str, Any]:
    machine = aws_machines.find(name)
    cores = {"CoreCount": (machine.vcpus if machine else 0) // 2, "ThreadsPerCore": 2}
    bought = {"InstanceLifecycle": "spot"} if spot else {}
    return {"InstanceType": name, "State": {"Name": "running"}, "CpuOptions": cores, **bought}


def _vpcs(question: Question) -> Any:
    others = [DEFAULT_VPC, *question.given("vpcs")]
    own = [
        {"name": (record["inputs"].get("tags") or {}).get("Name", ""), "cidr": record["inputs"]["cidrBlock"]}
        for record in _here(question, "ec2/vpc")
    ]
    return {"Vpcs": [_vpc(f"vpc-{index:017x}", vpc) for index, vpc in enumerate((*others, *own), 1)]}


def _vpc(identity: str, entry: Mapping[str, str]) -> dict[str, Any]:
    tags = [{"Key": "Name", "Value": entry["name"]}] if entry["name"] else []
    blocks = [{"CidrBlock": entry["cidr"], "CidrBlockState": {"State": "associated"}}]
    return {"VpcId": identity, "CidrBlock": entry["cidr"], "CidrBlockAssociationSet": blocks, "Tags": tags}


def _here(question: Question, kind: str) -> Iterable[dict[str, Any]]:
    records = question.state.of(kind).values()
    return [
        record for record in records if record["outputs"].get("region", question.region) == question.region
    ]


def _addresses(question: Question) -> Any:
    count = int(question.given("addresses") or 0) + len(list(_here(question, "ec2/eip")))
    return {
        "Addresses": [{"AllocationId": f"eipalloc-{index:017x}", "Domain": "vpc"} for index in range(count)]
    }


def _gateways(question: Question) -> Any:
    # The default VPC has one.
    count = 1 + int(question.given("gateways") or 0) + len(list(_here(question, "ec2/internetGateway")))
    return {"InternetGateways": [{"InternetGatewayId": f"igw-{index:017x}"} for index in range(count)]}


def _nats(question: Question) -> Any:
    others = [
        f"subnet-of-{zone}"
        for zone, n in (question.given("natGateways") or {}).items()
        for _ in range(int(n))
    ]
    own = [record["inputs"]["subnetId"] for record in _here(question, "ec2/natGateway")]
    return {"NatGateways": [{"SubnetId": subnet, "State": "available"} for subnet in (*others, *own)]}


def _subnets(question: Question) -> Any:
    others = {f"subnet-of-{zone}": zone for zone in (question.given("natGateways") or {})}
    own = {
        identity: record["outputs"]["availabilityZone"]
        for identity, record in question.state.of(node_groups.SUBNET).items()
    }
    return {
        "Subnets": [
            {"SubnetId": i, "AvailabilityZone": zone} for i, zone in sorted({**others, **own}.items())
        ]
    }


# -- storage, keys, secrets ----------------------------------------------------------------------------------------


def _bucket(question: Question) -> Mapping[str, Any]:
    """What is known of the bucket; everybody's existence is not told to strangers."""
    name = question.one("bucket")
    entry = question.settings.bucket(name)
    if not entry.get("exists", True):
        raise Refused("NoSuchBucket", "The specified bucket does not exist")
    if entry.get("foreign"):
        raise Refused("AccessDenied", "Access Denied")
    return entry


def _head(question: Question) -> Any:
    """A question that is answered without a body: the service's word is the status."""
    try:
        question.require("s3:ListBucket")
        return {"BucketRegion": _bucket(question).get("region", question.region)}
    except Refused as refused:
        missing = refused.code == "NoSuchBucket"
        raise Refused("404" if missing else "403", "Not Found" if missing else "Forbidden") from None


def _location(question: Question) -> Any:
    region = _bucket(question).get("region", question.region)
    return {"LocationConstraint": None if region == HOME else region}


def _versioning(question: Question) -> Any:
    return {"Status": "Enabled"} if _bucket(question).get("versioning", True) else {}


def _public(question: Question) -> Any:
    if not _bucket(question).get("private", True):
        raise Refused(
            "NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"
        )
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    return {"PublicAccessBlockConfiguration": dict.fromkeys(names, True)}


def _objects(question: Question) -> Any:
    prefix = question.one("prefix")
    held = _bucket(question).get("holds")
    there = held is None or any(key.startswith(prefix) for key in held)
    return {"Contents": [{"Key": f"{prefix}config.json", "Size": 1}]} if there else {}


def _key(question: Question) -> Any:
    name = question.one("key-id")
    entry = next((e for e in question.given("keys") if fnmatch(name, e["name"])), {})
    if not entry.get("exists", True):
        raise Refused(
            "NotFoundException",
            f"Alias arn:aws:kms:{question.region}:{question.account}:{name} is not found.",
        )
    state = entry.get("state", "Enabled")
    return {
        "KeyMetadata": {
            "KeyId": name,
            "Enabled": state == "Enabled",
            "KeyState": state,
            "KeyUsage": "ENCRYPT_DECRYPT",
        }
    }


def _secret(question: Question) -> Any:
    asked = question.one("secret-id")
    name = name_of(asked)
    there = question.settings.secret(name, region=question.region) is not None
    if not there or is_elsewhere(asked, question.region):
        raise Refused("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
    gone = (question.settings.aws.get("deleted") or {}).get(name)
    return {"Name": name, **({"DeletedDate": gone} if gone else {})}


@dataclass(frozen=True)
class Command:
    """How a question is answered, the action that it is, and the flags that it takes; those of `needs` it must have."""

    answer: Callable[[Question], Any]
    action: str = ""
    flags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


COMMANDS: Mapping[tuple[str, str], Command] = {
    ("sts", "get-caller-identity"): Command(_identity),
    ("iam", "get-role"): Command(_role, "iam:GetRole", needs=("role-name",)),
    ("iam", "simulate-principal-policy"): Command(
        _simulate, "iam:SimulatePrincipalPolicy", ("context-entries", "resource-arns"),
        ("policy-source-arn", "action-names"),
    ),
    ("ec2", "describe-regions"): Command(_regions, "ec2:DescribeRegions", ("all-regions", "region-names")),
    ("ec2", "describe-availability-zones"): Command(_zones, "ec2:DescribeAvailabilityZones"),
    ("ec2", "describe-instance-type-offerings"): Command(
        _offerings, "ec2:DescribeInstanceTypeOfferings", ("location-type", "filters")
    ),
    ("ec2", "describe-instance-types"): Command(_types, "ec2:DescribeInstanceTypes", ("filters",)),
    ("ec2", "describe-capacity-reservations"): Command(
        _reservations, "ec2:DescribeCapacityReservations", ("capacity-reservation-ids",)
    ),
    ("ec2", "describe-instances"): Command(_instances, "ec2:DescribeInstances", ("filters",)),
    ("ec2", "describe-vpcs"): Command(_vpcs, "ec2:DescribeVpcs"),
    ("ec2", "describe-addresses"): Command(_addresses, "ec2:DescribeAddresses"),
    ("ec2", "describe-internet-gateways"): Command(_gateways, "ec2:DescribeInternetGateways"),
    ("ec2", "describe-nat-gateways"): Command(_nats, "ec2:DescribeNatGateways", ("filter",)),
    ("ec2", "describe-subnets"): Command(_subnets, "ec2:DescribeSubnets"),
    ("eks", "describe-cluster-versions"): Command(_versions, "eks:DescribeClusterVersions"),
    ("service-quotas", "get-service-quota"): Command(
        _quota, "servicequotas:GetServiceQuota", needs=("service-code", "quota-code")
    ),
    ("service-quotas", "get-aws-default-service-quota"): Command(
        _default_quota, "servicequotas:GetAWSDefaultServiceQuota", needs=("service-code", "quota-code")
    ),
    ("s3api", "head-bucket"): Command(_head, "", needs=("bucket",)),
    ("s3api", "get-bucket-location"): Command(_location, "s3:GetBucketLocation", needs=("bucket",)),
    ("s3api", "get-bucket-versioning"): Command(_versioning, "s3:GetBucketVersioning", needs=("bucket",)),
    ("s3api", "get-public-access-block"): Command(_public, "s3:GetBucketPublicAccessBlock", needs=("bucket",)),
    ("s3api", "list-objects-v2"): Command(_objects, "s3:ListBucket", ("prefix", "max-keys"), ("bucket",)),
    ("kms", "describe-key"): Command(_key, "kms:DescribeKey", needs=("key-id",)),
    ("secretsmanager", "describe-secret"): Command(_secret, "secretsmanager:DescribeSecret", needs=("secret-id",)),
}  # fmt: skip


def answer(words: tuple[str, str], question: Question) -> Any:
    """The answer to a question. Refused as AWS refuses."""
    command, login = COMMANDS[words], question.settings.aws.get("login")
    state = opted(question.settings).get(question.region, "opt-in-not-required")
    if login == "expired" or (state == "not-opted-in" and words[0] == "sts"):
        raise Refused("ExpiredToken" if login else "InvalidClientTokenId", "The security token included in the request "
                      + ("is expired" if login else "is invalid"))  # fmt: skip
    if state == "not-opted-in":
        raise Refused("AuthFailure", "AWS was not able to validate the provided access credentials")
    if command.action:
        question.require(command.action)
    return command.answer(question)
