"""What AWS's answers mean for a stack's first `up`. Pure: needs and facts in, findings out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from components.clusters.eks.kubeconfig import COMMAND
from ops.aws import INSTALL
from ops.preflight.aws_facts import Bucket, Caller, Granted, Used, Version
from ops.preflight.aws_needs import (
    ADDRESSES,
    GPU,
    GPU_SPOT,
    INTERNET_GATEWAYS,
    NATS,
    VPCS,
    AwsNeeds,
    Pool,
    Quota,
    quota_of,
)
from ops.preflight.aws_permissions import SERVICE_ROLES, SPOT, SPOT_ROLE
from ops.preflight.existing_checks import NEWEST, OLDEST
from ops.preflight.verdicts import Check, Finding, advice, failed, passed, unseen
from stacks.config import StackConfig
from stacks.eks import NAME

_PAGE = "docs/bootstrap-aws.md"
# The first releases of both major versions whose token is of the kind that the kubeconfig asks for
# (aws/aws-cli#6940, May 2022).
_OLDEST_CLI: Mapping[int, tuple[int, ...]] = {1: (1, 24, 0), 2: (2, 7, 0)}
# Zones in which EKS has no control planes
# (https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html, read in November 2026).
_NO_CONTROL_PLANE = frozenset({"use1-az3", "usw1-az2", "cac1-az3"})
# Regions of China and the public sector are worlds of their own, with other names of policies.
_OTHER_PARTITIONS = ("cn-", "us-gov-", "us-iso", "eu-isoe", "eusc-")
_DAYS = "AWS answers small requests within hours, those for GPUs in days"


def credentials(needs: AwsNeeds, caller: Caller) -> Iterator[Finding]:
    """One identity for Pulumi's provider, the kubeconfig and this command: all take what AWS's chain finds."""
    who = f"{caller.identity.arn}, by {caller.origin}"
    if needs.account and caller.identity.account != needs.account:
        yield failed(
            f"{who}: account {caller.identity.account}, and cluster.accountId allows {needs.account} only",
            "log in to that account (AWS_PROFILE chooses a profile), or correct cluster.accountId",
        )
    elif caller.identity.kind == "root":
        yield advice(
            f"{who}: the account's root may do everything, and nothing limits it",
            f"act in a role that has just what this stack needs ({_PAGE})",
        )
    else:
        yield passed(f"{who}; the provider and the kubeconfig act as the same, and assume no other role")


def region(needs: AwsNeeds, found: Mapping[str, str]) -> Iterator[Finding]:
    if needs.region.startswith(_OTHER_PARTITIONS):
        yield failed(
            f"{needs.region} is in a partition of its own, where AWS's policies have other names",
            "choose a region of the partition aws",
        )
    elif needs.region not in found:
        yield failed(f"AWS has no region {needs.region}", "correct cluster.region")
    elif found[needs.region] == "not-opted-in":
        yield failed(
            f"{needs.region} is not switched on for this account",
            f"run: aws account enable-region --region-name {needs.region} (it takes minutes to hours)",
        )
    else:
        yield passed(f"{needs.region} is on")


def zones(needs: AwsNeeds, found: Mapping[str, tuple[str, str]]) -> Iterator[Finding]:
    absent = [zone for zone in needs.zones if zone not in found]
    if absent:
        yield failed(
            f"{needs.region} has no {_listed(absent)} for this account",
            f"set cluster.zones to some of {_listed(sorted(found))}",
        )
    for zone in (zone for zone in needs.zones if zone in found):
        identity, state = found[zone]
        if identity in _NO_CONTROL_PLANE:
            yield failed(
                f"{zone} is {identity}, where EKS has no control planes: it refuses the cluster",
                "choose other zones in cluster.zones",
                zone,
            )
        elif state != "available":
            yield advice(f"its state is {state}", "wait, or choose another zone", zone)
        else:
            yield passed(f"{identity}, available", zone)


def permissions(needs: AwsNeeds, granted: Granted, stack: str) -> Iterator[Finding]:
    """All of them, on resources that are called as ours would be."""
    if granted.refused:
        yield advice(
            f"not asked: {granted.refused}",
            "have somebody run this command who may iam:SimulatePrincipalPolicy, or compare your policies with: "
            f"python -m ops preflight --stack {stack} --print-role deploy",
        )
    elif granted.lacking:
        words = sorted(f"{action} ({word})" for action, word in granted.lacking.items())
        yield failed(
            f"{len(words)} of {granted.asked} are missing: {_listed(words, 12)}",
            f"run: python -m ops preflight --stack {stack} --print-role deploy > deploy.json && aws iam create-policy "
            "--policy-name llm-platform-deploy --policy-document file://deploy.json, and attach it to whoever runs "
            f"`up` ({_PAGE}); an explicitDeny is a policy of the organisation's or a boundary",
        )
    else:
        yield passed(f"all {granted.asked} that `up` and `destroy` use")


def service_roles(found: Mapping[str, bool], granted: Granted) -> Iterator[Finding]:
    services = {**SERVICE_ROLES, SPOT_ROLE: SPOT}
    for name, there in found.items():
        if there:
            yield passed("there", name)
        elif "iam:CreateServiceLinkedRole" in granted.lacking:
            yield failed(
                f"{services[name]} has no role in this account, and you may not let it make one",
                f"run: aws iam create-service-linked-role --aws-service-name {services[name]}",
                name,
            )
        else:
            yield passed(f"{services[name]} makes it at its first use", name)


def access(needs: AwsNeeds, caller: Caller, found: Mapping[str, bool | None]) -> Iterator[Finding]:
    """Who may use the cluster beside whoever makes it."""
    mine = {caller.principal, caller.identity.principal}
    for field, arns in needs.roles.items():
        for arn in arns:
            where = f"cluster.{field}"
            if found[arn] is False:
                yield failed(f"there is no role {arn}: EKS refuses its entry", f"correct {where}", where)
            elif arn in mine:
                yield failed(
                    f"{arn} makes the cluster and is its administrator by that: a second entry is refused",
                    f"remove it from {where}, or run `up` in another role",
                    where,
                )
            else:
                known = "there" if found[arn] else "of another account, which is not looked at"
                yield passed(f"{arn} is {known}", where)
    if not needs.roles["adminRoles"]:
        yield advice(
            f"only {caller.principal or caller.identity.arn} will be an administrator of the cluster: `up` in another "
            "role could change nothing in it",
            "run `up` in the same role always, or name the others in cluster.adminRoles",
            "cluster.adminRoles",
        )


def api_server(needs: AwsNeeds, own: str) -> Iterator[Finding]:
    """From outside of its VPC only the public endpoint answers, and `up` makes that VPC."""
    if not needs.public_cidrs:
        yield failed(
            "cluster.endpoint.publicCidrs is empty: the API server answers inside of the new VPC only, so that `up` "
            "could install nothing in the cluster",
            f"add this machine's network: cluster.endpoint.publicCidrs: [{own}/32]",
        )
    elif not any(ipaddress.ip_address(own) in ipaddress.ip_network(net) for net in needs.public_cidrs):
        yield failed(
            f"this machine comes from {own}, and only {_listed(needs.public_cidrs)} may reach the API server",
            f"add {own}/32 to cluster.endpoint.publicCidrs, or run `up` from there",
        )
    else:
        yield passed(f"this machine, {own}, is in {_listed(needs.public_cidrs)}")


# -- quotas --------------------------------------------------------------------------------------------------------


def gpu_quota(
    needs: AwsNeeds, limits: Mapping[str, float], vcpus: Mapping[str, int], found: Used
) -> Iterator[Finding]:
    """Counted in vCPUs, with every pool at its largest. A reservation's machines count since it was made."""
    for quota, kind in ((GPU, "on-demand"), (GPU_SPOT, "spot")):
        pools = [p for p in needs.pools.values() if p.capacity == kind and p.instance_type in vcpus]
        if pools:
            why = ", ".join(f"{p.max_nodes} x {p.instance_type}" for p in pools)
            amount = sum(_vcpus(pool, vcpus) for pool in pools)
            yield _within(
                quota, amount, found.vcpus.get(quota.code, 0), limits, why, needs, "or lower maxNodes"
            )


def _vcpus(pool: Pool, vcpus: Mapping[str, int]) -> int:
    return pool.max_nodes * vcpus[pool.instance_type]


def system_quota(
    needs: AwsNeeds, limits: Mapping[str, float], vcpus: Mapping[str, int], found: Used
) -> Iterator[Finding]:
    """The system pool's machines, and those that stand beside them during an upgrade."""
    name, count = needs.system
    if name not in vcpus:
        return  # The check of offers says so.
    quota = quota_of(name)
    if quota is None:
        yield unseen(
            f"machines like {name} have a quota of their own, which is not read",
            f"look at it: aws service-quotas list-service-quotas --service-code ec2 --region {needs.region}",
        )
        return
    usage = found.vcpus.get(quota.code, 0)
    yield _within(quota, vcpus[name] * count, usage, limits, f"{count} x {name}", needs)
    # EKS adds up to two machines per zone before it takes old ones away.
    grown = vcpus[name] * (count + 2 * len(needs.zones))
    if vcpus[name] * count <= limits[quota.code] - usage < grown:
        yield advice(
            f"{grown} while the system pool is upgraded, when EKS adds up to two machines per zone",
            _request(quota, usage + grown, needs.region),
            "upgrades",
        )


def network_quota(needs: AwsNeeds, limits: Mapping[str, float], found: Used) -> Iterator[Finding]:
    ways = "one way out" if len(needs.nats) == 1 else f"{len(needs.nats)} ways out"
    yield _within(ADDRESSES, len(needs.nats), found.addresses, limits, ways, needs)
    yield _within(VPCS, 1, len(found.vpcs), limits, "the cluster's own", needs)
    yield _within(INTERNET_GATEWAYS, 1, found.gateways, limits, "the VPC's", needs)
    fullest = max(needs.nats, key=lambda zone: found.nats.get(zone, 0))
    yield _within(NATS, 1, found.nats.get(fullest, 0), limits, f"in {fullest}", needs)


def _within(
    quota: Quota,
    amount: float,
    usage: float,
    limits: Mapping[str, float],
    why: str,
    needs: AwsNeeds,
    other: str = "",
) -> Finding:
    limit = limits[quota.code]
    said = f"{amount:.0f} ({why}); {max(0, limit - usage):.0f} of {limit:.0f} are free in {needs.region}"
    request = _request(quota, usage + amount, needs.region) + (f", {other}" if other else "")
    if amount <= limit - usage:
        return passed(said, quota.title)
    if amount <= limit:
        return unseen(
            f"{said}: enough only if this stack holds the others", f"if not, {request}", quota.title
        )
    return failed(f"{said}: AWS refuses what comes last", request, quota.title)


def _request(quota: Quota, value: float, region_name: str) -> str:
    return (
        f"run: aws service-quotas request-service-quota-increase --service-code {quota.service} --quota-code "
        f"{quota.code} --desired-value {value:.0f} --region {region_name} ({_DAYS})"
    )


# -- offers --------------------------------------------------------------------------------------------------------


def offers(needs: AwsNeeds, found: frozenset[tuple[str, str]]) -> Iterator[Finding]:
    for what, pairs in needs.machines.items():
        absent = [f"{name} in {zone}" for zone, name in pairs if (zone, name) not in found]
        if absent:
            yield failed(
                f"AWS does not offer {_listed(absent)}",
                "choose another zone or instance type; aws ec2 describe-instance-type-offerings --location-type "
                f"availability-zone --filters Name=instance-type,Values={pairs[0][1]} --region {needs.region} lists "
                "the zones that have it",
                what,
            )
        else:
            yield passed(_listed(f"{name} in {zone}" for zone, name in pairs), what)


def reservations(needs: AwsNeeds, found: Mapping[str, Mapping[str, Any] | None]) -> Iterator[Finding]:
    for name, pool in needs.pools.items():
        if pool.reservation:
            yield _reserved(name, pool, found[pool.reservation])


def _reserved(name: str, pool: Pool, record: Mapping[str, Any] | None) -> Finding:
    what = f"{pool.reservation} of pool {name}"
    if record is None:
        return failed(
            "there is none of this id in the region", "correct cluster.accelerators.*.reservation.id", what
        )
    is_now = (record.get("InstanceType"), record.get("AvailabilityZone"))
    if is_now != (pool.instance_type, pool.zone):
        return failed(
            f"it is of {is_now[0]} in {is_now[1]}, and the pool of {pool.instance_type} in {pool.zone}: no machine "
            "would start in it",
            "make the pool's instanceType and zone the reservation's",
            what,
        )
    if record.get("State") != "active":
        return failed(f"it is {record.get('State')}", "name one that is active", what)
    total, free = int(record.get("TotalInstanceCount", 0)), int(record.get("AvailableInstanceCount", 0))
    if total < pool.max_nodes:
        return failed(
            f"it holds {total} machines, and maxNodes is {pool.max_nodes}",
            f"set maxNodes to {total}, or run: aws ec2 modify-capacity-reservation --capacity-reservation-id "
            f"{pool.reservation} --instance-count {pool.max_nodes}",
            what,
        )
    if free < pool.max_nodes:
        return unseen(
            f"{free} of {total} machines are free, and maxNodes is {pool.max_nodes}: enough only if this stack holds "
            "the others",
            "if not, free some, or lower maxNodes",
            what,
        )
    return passed(f"active, {free} of {total} machines free", what)


def version(needs: AwsNeeds, found: tuple[Version, ...]) -> Iterator[Finding]:
    """One in standard support: at its end AWS upgrades the cluster, since extended support is off (it costs more)."""
    good = [v.name for v in found if v.status == "STANDARD_SUPPORT" and _supported(v.name)]
    chosen = next((v for v in found if (v.name == needs.version if needs.version else v.default)), None)
    fix = f"set cluster.version to one of {_listed(sorted(good, key=_numbers))}"
    if chosen is None:
        wanted = f"EKS does not offer {needs.version}" if needs.version else "EKS names no default version"
        yield failed(wanted, fix)
    elif chosen.status != "STANDARD_SUPPORT":
        word = chosen.status.lower().replace("_", " ")
        yield failed(f"{chosen.name} is in {word}: EKS makes no cluster with standard support of it", fix)
    elif not _supported(chosen.name):
        least, most = (".".join(map(str, v)) for v in (OLDEST, NEWEST))
        yield failed(f"{chosen.name}, and the operators work with {least} to {most}", fix)
    else:
        whose = "as configured" if needs.version else "EKS's default"
        until = f", in standard support until {chosen.until}" if chosen.until else ""
        yield passed(f"{chosen.name}, {whose}{until}")


def _supported(name: str) -> bool:
    return OLDEST <= _numbers(name) <= NEWEST


def ranges(needs: AwsNeeds, found: Used) -> Iterator[Finding]:
    """A VPC of its own may have any range; but networks that share addresses can never be connected."""
    clashes = [
        f"{what} ({wanted}) and {name} ({taken})"
        for what, wanted in needs.ranges.items()
        for name, blocks in found.vpcs
        for taken in blocks
        if not name.startswith(f"{NAME}-network")
        and ipaddress.IPv4Network(wanted).overlaps(ipaddress.IPv4Network(taken))
    ]
    if clashes:
        yield advice(
            f"share addresses: {_listed(clashes, 4)}",
            "choose cluster.vpcCidr and cluster.services anew now if these networks are ever to be connected (peering, "
            "VPN); they cannot be changed later without a new cluster",
        )
    else:
        yield passed(f"{_listed(f'{what} {net}' for what, net in needs.ranges.items())}: nobody else's")


def bucket(needs: AwsNeeds, found: Bucket | None) -> Iterator[Finding]:
    """The models' weights. The pods read them in a role of their own, with a policy for this bucket."""
    if found is None:
        return
    if found.refused in ("403", "AccessDenied"):
        yield unseen(
            "you may not look into it; the pods have a role of their own, which a bucket of another account must let in",
            "see to it that it is there, and holds the weights",
            needs.bucket or "",
        )
    elif found.refused:
        yield failed(
            "there is no such bucket, so no weights: pods would fail to start",
            "correct cluster.bucket, or run: aws s3api create-bucket, and put the weights there",
            needs.bucket or "",
        )
    else:
        yield from _bucket(needs, found)


def _bucket(needs: AwsNeeds, found: Bucket) -> Iterator[Finding]:
    if found.region == needs.region:
        yield passed(f"in {found.region}", needs.bucket or "")
    else:
        yield advice(
            f"it is in {found.region}, and the nodes in {needs.region}: every start of a model is slow and billed by "
            "the gigabyte",
            f"copy it into a bucket of {needs.region}",
            needs.bucket or "",
        )
    for model in found.empty:
        yield failed(
            f"there is nothing at s3://{needs.bucket}/{needs.weights[model]}: its pods would fail to start",
            "put the weights there, or correct the model's uri",
            f"weights of {model}",
        )


def secrets(config: StackConfig, found: Mapping[str, str | None]) -> Iterator[Finding]:
    """Those of Secrets Manager; their values are read by `up` alone."""
    for name, state in found.items():
        source = config.secrets.given()[name]
        if state is None:
            make = f"run: aws secretsmanager create-secret --name {source.name} --secret-string file://FILE"
            look = "run: aws secretsmanager list-secrets"
            yield failed(
                f"there is no {source} in the cluster's region",
                # A new secret would get another ARN, which nobody can foresee.
                f"{look if source.region else make}, or correct secrets.{name}",
                name,
            )
        elif state:
            yield failed(
                f"{source} is marked for deletion on {state}, and cannot be read",
                f"run: aws secretsmanager restore-secret --secret-id {source.name}",
                name,
            )
        else:
            yield passed(f"{source}; its value is not read here", name)


def command(cli: str) -> Iterator[Finding]:
    """The kubeconfig runs it for every token."""
    numbers = _numbers(cli)
    oldest = _OLDEST_CLI.get(numbers[0], (numbers[0],))
    if numbers < oldest:
        yield failed(
            f"{cli} writes tokens of a kind that the kubeconfig does not take; {'.'.join(map(str, oldest))} is the first "
            "that does not",
            f"update it: {INSTALL}",
            COMMAND,
        )
    else:
        yield passed(cli, COMMAND)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def _listed(items: Iterable[str], most: int = 8) -> str:
    words = list(items)
    rest = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + rest


CHECKS = (
    Check("credentials", ("needs", "caller"), credentials),
    Check("AWS CLI", ("cli",), command),
    Check("region", ("needs", "regions"), region),
    Check("zone", ("needs", "zones"), zones),
    Check("permissions", ("needs", "permissions", "stack"), permissions),
    Check("service role", ("service_roles", "permissions"), service_roles),
    Check("cluster access", ("needs", "caller", "roles"), access),
    Check("API server", ("needs", "own_address"), api_server),
    Check("GPU quota", ("needs", "quotas", "vcpus", "used"), gpu_quota),
    Check("system quota", ("needs", "quotas", "vcpus", "used"), system_quota),
    Check("network quota", ("needs", "quotas", "used"), network_quota),
    Check("offered", ("needs", "offers"), offers),
    Check("reservation", ("needs", "reservations"), reservations),
    Check("Kubernetes version", ("needs", "versions"), version),
    Check("address ranges", ("needs", "used"), ranges),
    Check("bucket", ("needs", "bucket"), bucket),
    Check("kept secret", ("config", "kept_secrets"), secrets),
)
