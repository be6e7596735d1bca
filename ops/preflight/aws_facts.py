"""What AWS answers: one small collector per fact. Nothing here changes anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ops.aws import DENIED, Aws, AwsError, Identity
from ops.preflight import aws_permissions
from ops.preflight.aws_needs import GPU, GPU_SPOT, QUOTAS, STANDARD, AwsNeeds, Quota, aws_needs, quota_of
from ops.preflight.aws_permissions import SERVICE_ROLES, SPOT_ROLE, Statement
from ops.preflight.site import Site
from ops.preflight.verdicts import Collector
from ops.preflight.web_facts import own_address

# Regions are told by any that is always on.
_HOME = "us-east-1"
_MISSING = frozenset(
    {
        "NoSuchEntity", "NoSuchBucket", "404", "InvalidCapacityReservationId.NotFound", "ResourceNotFoundException",
    }
)  # fmt: skip
# AWS takes some 6,000 characters of names in one question.
_ACTIONS_AT_ONCE = 60
_LOGINS = (
    ("AWS_ACCESS_KEY_ID", "the variables AWS_ACCESS_KEY_ID and so on"),
    ("AWS_PROFILE", "the profile of AWS_PROFILE"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "a web identity"),
)


@dataclass(frozen=True)
class Caller:
    """Who asks. `principal` is the ARN of the user or role, with its path; "" where it could not be had."""

    identity: Identity
    principal: str
    origin: str


@dataclass(frozen=True)
class Granted:
    """What a simulation of the caller's policies says: the actions that are `lacking`, and AWS's word for each.

    `refused` is why there is no simulation.
    """

    asked: int = 0
    lacking: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""


@dataclass(frozen=True)
class Used:
    """What the account has in the region: vCPUs by the code of their quota, and numbers of things.

    `nats` are NAT gateways by zone, `vpcs` (name, ranges).
    """

    vcpus: Mapping[str, int]
    addresses: int
    gateways: int
    nats: Mapping[str, int]
    vpcs: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Bucket:
    """The bucket of weights: where it is, and which models find nothing at their uri. `refused` is AWS's word."""

    region: str = ""
    empty: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Version:
    """A Kubernetes version as EKS offers it; `until` is the end of its standard support, a date or ""."""

    name: str
    default: bool
    status: str
    until: str


def caller(site: Site) -> Caller:
    """Asks AWS whose the credentials are; wrong ones are refused."""
    identity = site.aws.identity
    origin = next(
        (words for name, words in _LOGINS if site.environ.get(name)), "the default profile or machine role"
    )
    return Caller(identity, _principal(site.aws, identity), origin)


def _principal(aws: Aws, identity: Identity) -> str:
    """A session does not tell the path of its role, which is part of its ARN."""
    if identity.kind != "role":
        return identity.arn if identity.kind == "user" else ""
    try:
        return str(aws.call("iam", "get-role", role_name=identity.name)["Role"]["Arn"])
    except AwsError as error:
        if error.code not in DENIED:
            raise
        return "" if identity.name.startswith("AWSReservedSSO_") else identity.principal


def regions(site: Site) -> Mapping[str, str]:
    """Every region, and whether the account has it: `opt-in-not-required`, `opted-in` or `not-opted-in`."""
    found = site.aws.call("ec2", "describe-regions", region=_HOME, all_regions=True)
    return {entry["RegionName"]: entry.get("OptInStatus", "") for entry in found.get("Regions") or ()}


def zones(site: Site) -> Mapping[str, tuple[str, str]]:
    """(id, state) of the region's zones by name. A zone's id is the same place for every account, its name is not."""
    found = site.aws.call("ec2", "describe-availability-zones").get("AvailabilityZones") or ()
    return {zone["ZoneName"]: (zone.get("ZoneId", ""), zone.get("State", "")) for zone in found}


def offers(site: Site) -> frozenset[tuple[str, str]]:
    """(zone, instance type) of those that are asked for and offered."""
    found = site.aws.call(
        "ec2", "describe-instance-type-offerings", location_type="availability-zone",
        filters=f"Name=instance-type,Values={','.join(_types(aws_needs(site.config)))}",
    )  # fmt: skip
    offered = found.get("InstanceTypeOfferings") or ()
    return frozenset((entry["Location"], entry["InstanceType"]) for entry in offered)


def vcpus(site: Site) -> Mapping[str, int]:
    """vCPUs by instance type; without what the region does not know."""
    names = ",".join(_types(aws_needs(site.config)))
    found = site.aws.call("ec2", "describe-instance-types", filters=f"Name=instance-type,Values={names}")
    return {t["InstanceType"]: int(t["VCpuInfo"]["DefaultVCpus"]) for t in found.get("InstanceTypes") or ()}


def _types(needs: AwsNeeds) -> list[str]:
    return sorted({name for pairs in needs.machines.values() for _, name in pairs})


def quotas(site: Site) -> Mapping[str, float]:
    """The limits in force, by code; AWS's default where nobody has ever asked for more."""
    return {quota.code: _limit(site.aws, quota) for quota in QUOTAS}


def _limit(aws: Aws, quota: Quota) -> float:
    codes = {"service_code": quota.service, "quota_code": quota.code}
    try:
        found = aws.call("service-quotas", "get-service-quota", **codes)
    except AwsError as error:
        if error.code != "NoSuchResourceException":
            raise
        found = aws.call("service-quotas", "get-aws-default-service-quota", **codes)
    return float(found["Quota"]["Value"])


def used(site: Site) -> Used:
    """What counts against the quotas."""
    aws = site.aws
    vpcs = aws.call("ec2", "describe-vpcs").get("Vpcs") or ()
    return Used(
        vcpus=_running(aws),
        addresses=len(aws.call("ec2", "describe-addresses").get("Addresses") or ()),
        gateways=len(aws.call("ec2", "describe-internet-gateways").get("InternetGateways") or ()),
        nats=_nats(aws),
        vpcs=tuple((_name(vpc), _ranges(vpc)) for vpc in vpcs),
    )


def _running(aws: Aws) -> dict[str, int]:
    """vCPUs of machines that run, by quota; machines of other families are left out."""
    found = aws.call(
        "ec2", "describe-instances", filters="Name=instance-state-name,Values=pending,running"
    )  # fmt: skip
    total: Counter[str] = Counter()
    for reservation in found.get("Reservations") or ():
        for instance in reservation.get("Instances") or ():
            if code := _code(instance["InstanceType"], instance.get("InstanceLifecycle") == "spot"):
                cpu = instance.get("CpuOptions") or {}
                total[code] += int(cpu.get("CoreCount", 0)) * int(cpu.get("ThreadsPerCore", 1))
    return dict(total)


def _code(instance_type: str, spot: bool) -> str | None:
    quota = quota_of(instance_type)
    if quota is GPU:
        return (GPU_SPOT if spot else GPU).code
    # Spot machines of the other families are none of ours.
    return STANDARD.code if quota is STANDARD and not spot else None


def _nats(aws: Aws) -> dict[str, int]:
    found = aws.call("ec2", "describe-nat-gateways", filter="Name=state,Values=pending,available")
    zones = {
        s["SubnetId"]: s["AvailabilityZone"] for s in aws.call("ec2", "describe-subnets").get("Subnets") or ()
    }
    homes = (zones.get(gateway.get("SubnetId", "")) for gateway in found.get("NatGateways") or ())
    return dict(Counter(zone for zone in homes if zone))


def _name(vpc: Mapping[str, Any]) -> str:
    tags = {tag["Key"]: tag["Value"] for tag in vpc.get("Tags") or ()}
    return tags.get("Name") or str(vpc["VpcId"])


def _ranges(vpc: Mapping[str, Any]) -> tuple[str, ...]:
    more = (a["CidrBlock"] for a in vpc.get("CidrBlockAssociationSet") or ())
    return tuple(sorted({vpc["CidrBlock"], *more}))


def reservations(site: Site) -> Mapping[str, Mapping[str, Any] | None]:
    """Capacity reservations by id; None where the region has none of that id."""
    found: dict[str, Mapping[str, Any] | None] = {}
    for name in sorted({p.reservation for p in aws_needs(site.config).pools.values() if p.reservation}):
        try:
            answer = site.aws.call("ec2", "describe-capacity-reservations", capacity_reservation_ids=name)
            found[name] = next(iter(answer.get("CapacityReservations") or ()), None)
        except AwsError as error:
            if error.code not in _MISSING:
                raise
            found[name] = None
    return found


def versions(site: Site) -> tuple[Version, ...]:
    """The Kubernetes versions that EKS offers."""
    found = site.aws.call("eks", "describe-cluster-versions").get("clusterVersions") or ()
    return tuple(
        Version(
            entry["clusterVersion"],
            bool(entry.get("defaultVersion")),
            # The older field is spelt in its own way.
            str(entry.get("versionStatus") or entry.get("status") or "").upper().replace("-", "_"),
            _day(entry.get("endOfStandardSupportDate")),
        )
        for entry in found
    )


def _day(value: object) -> str:
    """The first major version of the command writes seconds, the second text."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).date().isoformat()
    return str(value or "")[:10]


def roles(site: Site) -> Mapping[str, bool | None]:
    """Whether each role that gets access to the cluster is there; None for those of other accounts."""
    account = site.aws.identity.account
    wanted = {arn for arns in aws_needs(site.config).roles.values() for arn in arns}
    return {arn: _exists(site.aws, arn) if f"::{account}:" in arn else None for arn in sorted(wanted)}


def service_roles(site: Site) -> Mapping[str, bool]:
    """Whether the roles are there that AWS's services act in."""
    names = (*SERVICE_ROLES, *((SPOT_ROLE,) if aws_needs(site.config).spot else ()))
    return {name: _exists(site.aws, name) for name in names}


def _exists(aws: Aws, role: str) -> bool:
    try:
        aws.call("iam", "get-role", role_name=role.rpartition("/")[2])
    except AwsError as error:
        if error.code in _MISSING:
            return False
        raise
    return True


def permissions(site: Site) -> Granted:
    """The deployer's policy, tried out for the caller: on the resources and under the conditions that it names."""
    identity = site.aws.identity
    principal = _principal(site.aws, identity)
    if not principal:
        return Granted(refused=f"a {identity.kind} session like {identity.arn} does not tell its policies")
    wanted = aws_permissions.statements("deploy", identity.account, site.aws.region)
    try:
        lacking = {a: w for s in wanted for a, w in _simulated(site.aws, principal, s).items()}
    except AwsError as error:
        if error.code not in DENIED:
            raise
        return Granted(refused=f"you lack {error.details.get('permission', 'iam:SimulatePrincipalPolicy')}")
    return Granted(sum(len(s.actions) for s in wanted), lacking)


def _simulated(aws: Aws, principal: str, statement: Statement) -> dict[str, str]:
    """The actions of a statement that the principal may not do."""
    # The region is known of every request, whatever conditions the statement has.
    values = {"aws:RequestedRegion": aws.region, **{k: v[0] for k, v in statement.condition.items()}}
    context = [
        f"ContextKeyName={key},ContextKeyValues={value},ContextKeyType=string"
        for key, value in sorted(values.items())
    ]
    lacking: dict[str, str] = {}
    for start in range(0, len(statement.actions), _ACTIONS_AT_ONCE):
        answer = aws.call(
            "iam", "simulate-principal-policy", policy_source_arn=principal, resource_arns=statement.sample,
            action_names=statement.actions[start : start + _ACTIONS_AT_ONCE], context_entries=context,
        )  # fmt: skip
        lacking |= aws_permissions.lacking(answer["EvaluationResults"])
    return lacking


def bucket(site: Site) -> Bucket | None:
    """The bucket of weights; None where the stack has none."""
    needs = aws_needs(site.config)
    if needs.bucket is None:
        return None
    try:
        site.aws.call("s3api", "head-bucket", bucket=needs.bucket)
    except AwsError as error:
        if error.code not in DENIED | _MISSING:
            raise
        return Bucket(refused=error.code)
    where = site.aws.call("s3api", "get-bucket-location", bucket=needs.bucket).get("LocationConstraint")
    empty = [model for model, prefix in needs.weights.items() if not _keys(site.aws, needs.bucket, prefix)]
    # The first region has no name there, and the first of Europe an old one.
    return Bucket({None: _HOME, "EU": "eu-west-1"}.get(where, str(where)), tuple(empty))


def _keys(aws: Aws, name: str, prefix: str) -> Sequence[Any]:
    return (
        aws.call("s3api", "list-objects-v2", bucket=name, prefix=prefix, max_keys="1").get("Contents") or ()
    )


def secrets(site: Site) -> Mapping[str, str | None]:
    """Secrets of Secrets Manager that the stack refers to: "" is there, None is not, else the day that it goes.

    Their values are not read.
    """
    referred = {name: source.aws_secrets_manager for name, source in site.config.secrets.given().items()}
    return {name: _secret(site.aws, secret) for name, secret in sorted(referred.items()) if secret}


def _secret(aws: Aws, name: str) -> str | None:
    try:
        return _day(aws.call("secretsmanager", "describe-secret", secret_id=name).get("DeletedDate"))
    except AwsError as error:
        if error.code in _MISSING:
            return None
        raise


COLLECTORS: Mapping[str, Collector] = {
    "needs": lambda site: aws_needs(site.config),
    "caller": caller,
    "regions": regions,
    "zones": zones,
    "offers": offers,
    "vcpus": vcpus,
    "quotas": quotas,
    "used": used,
    "reservations": reservations,
    "versions": versions,
    "roles": roles,
    "service_roles": service_roles,
    "permissions": permissions,
    "bucket": bucket,
    "kept_secrets": secrets,
    "own_address": own_address,
    "cli": lambda site: site.aws.version,
}
