"""What Google's answers mean for a stack's first `up`. Pure: needs and facts in, findings out."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ops.google import LOG_IN
from ops.preflight.google_facts import (
    CHEAP_TPU_QUOTA,
    TPU_QUOTA,
    Caller,
    Dimensions,
    Granted,
    Limits,
    Machine,
    SecretVersion,
)
from ops.preflight.google_needs import (
    DEFAULT_POOL_VCPUS,
    FAMILY,
    LATEST,
    GoogleNeeds,
    KeptSecret,
)
from ops.preflight.verdicts import Check, Finding, Unknown, advice, failed, passed, unseen
from stacks.config import StackConfig
from stacks.config.rules.gke import INFERENCE_POOL
from stacks.gke import NAME

UNLIMITED = -1
# Series that count with all others; most of the rest have a metric of their own, the newest a quota per family.
_SHARED_CPUS = frozenset({"E2", "N1", "F1", "G1"})
_ADD = "gcloud secrets versions add {secret.name} --project={secret.project} --data-file=FILE"
# The ways to a version where there is none: the first one comes with its secret, others have numbers of their own.
_FIRST = (
    "run: gcloud secrets create {secret.name} --project={secret.project} --data-file=FILE, or, where only its version "
    f"is missing: {_ADD}, or correct secrets.{{name}}"
)
_MAKE: Mapping[str, str] = {LATEST: _FIRST, "1": _FIRST}
_CHOOSE = (
    "run: gcloud secrets versions list {secret.name} --project={secret.project}, and correct secrets.{name}"
)
# By the state of a version that cannot be read.
_REVIVE: Mapping[str, str] = {
    "DISABLED": "run: gcloud secrets versions enable {number} --secret={secret.name} --project={secret.project}, or "
    "name another version in secrets.{name}",
    "DESTROYED": f"run: {_ADD}, and name the new version, or none, in secrets.{{name}}",
}
_ALLOW = (
    "run: gcloud secrets add-iam-policy-binding {secret.name} --project={secret.project} --member=WHO "
    "--role=roles/secretmanager.secretAccessor"
)
_DAYS = "Google answers within minutes for small numbers, and in days for TPUs"


def credentials(caller: Caller) -> Iterator[Finding]:
    if not caller.email:
        yield failed(f"{caller.origin}: the token is not valid, or no longer", f"run: {LOG_IN}")
    elif not caller.pulumi:
        yield failed(
            f"{caller.email}, by {caller.origin}; Pulumi and kubectl use the application default credentials, "
            "and there are none",
            f"run: {LOG_IN}",
        )
    else:
        yield passed(f"{caller.email}, by {caller.origin}")


def project(needs: GoogleNeeds, found: Mapping[str, Any] | None, caller: Caller) -> Iterator[Finding]:
    if found is None:
        yield failed(
            f"there is no project {needs.project} that {caller.email or 'the caller'} may see",
            f"correct cluster.project, or run: gcloud projects create {needs.project}",
        )
    elif found.get("state") != "ACTIVE":
        yield failed(
            f"{needs.project} is {found.get('state', 'in an unknown state')}",
            f"run: gcloud projects undelete {needs.project}",
        )
    else:
        yield passed(f"{needs.project} is active (number {str(found.get('name', '')).rpartition('/')[2]})")


def billing(needs: GoogleNeeds, found: Mapping[str, Any]) -> Iterator[Finding]:
    if found.get("billingEnabled"):
        yield passed(f"on, with {found.get('billingAccountName', 'an account')}")
    else:
        yield failed(
            "off: Google refuses everything that costs money",
            f"run: gcloud billing projects link {needs.project} --billing-account=ACCOUNT_ID",
        )


def first_apis(needs: GoogleNeeds, on: frozenset[str]) -> Iterator[Finding]:
    """Those whose answers `up` needs before it has switched others on."""
    off = [api for api in needs.first_apis if api not in on]
    if off:
        yield failed(f"{_listed(off)} must be on before `up`", _enable(off, needs.project))
    else:
        yield passed(_listed(needs.first_apis))


def apis(needs: GoogleNeeds, on: frozenset[str], granted: Granted) -> Iterator[Finding]:
    """Those that `up` switches on itself, if it may."""
    off = [api for api in needs.apis if api not in on]
    if off and "serviceusage.services.enable" not in granted.held:
        yield failed(f"{_listed(off)} are off, and you may not switch them on", _enable(off, needs.project))
        return
    later = f"; `up` switches on {_listed(off)}" if off else ""
    yield passed(f"{len(needs.apis) - len(off)} of {len(needs.apis)} are on{later}")


def _enable(names: Iterable[str], project_id: str) -> str:
    services = " ".join(f"{name}.googleapis.com" for name in names)
    return f"run: gcloud services enable {services} --project={project_id}"


def permissions(needs: GoogleNeeds, granted: Granted, wanted: Iterable[str], stack: str) -> Iterator[Finding]:
    """All of them: acting as the nodes' account, which `up` makes, is one of the project's here."""
    asked = sorted(set(wanted) - granted.unknown)
    lacking = [permission for permission in asked if permission not in granted.held]
    if lacking:
        role = f"projects/{needs.project}/roles/llmPlatformDeploy"
        yield failed(
            f"{len(lacking)} of {len(asked)} are missing: {_listed(lacking, 12)}",
            f"run: python -m ops preflight --stack {stack} --print-role deploy > deploy.yaml && gcloud iam roles "
            f"create llmPlatformDeploy --project={needs.project} --file=deploy.yaml, and give {role} to whoever "
            "runs `up` (docs/bootstrap-gcp.md)",
        )
    else:
        yield passed(f"all {len(asked)} that `up` and `destroy` use, acting as the nodes' account among them")
    if granted.unknown:
        yield unseen(
            f"Google does not know {_listed(sorted(granted.unknown))}",
            "tell the maintainers; the permission has another name now",
        )


# -- quotas ------------------------------------------------------------------------------------------------------


def tpu_quota(needs: GoogleNeeds, quotas: Mapping[str, Dimensions]) -> Iterator[Finding]:
    """Spot and flex-start spend their own quota first and then the family's, which the others need whole."""
    dear, cheap = needs.chips
    if not dear and not cheap:
        return
    own = limit_of(quotas[CHEAP_TPU_QUOTA], region=needs.region) if cheap else 0
    family = limit_of(quotas[TPU_QUOTA], region=needs.region, tpu_family=FAMILY)
    asked = dear + (0 if own == UNLIMITED else max(0, cheap - own))
    kinds = f"{dear} on demand or reserved" + (f", {cheap} spot or flex-start" if cheap else "")
    where = f"of {family_words(family)} for {FAMILY} in {needs.region}"
    spent = f", and {own} of the preemptible quota come first" if cheap and own != UNLIMITED else ""
    if family == UNLIMITED or asked <= family:
        yield passed(f"{asked} chips {where} ({kinds}{spent}); what others use in the project is not known")
        return
    quota, value, more = TPU_QUOTA, asked, f",tpu_family={FAMILY}"
    if cheap and not dear:
        quota, value, more = CHEAP_TPU_QUOTA, cheap, ""
    yield failed(
        f"{asked} chips {where} ({kinds}{spent}): pools would stay empty and pods Pending",
        f"{_quota_request(needs.project, quota, value, f'region={needs.region}{more}')} ({_DAYS}), or lower "
        "maxNodes",
    )


def family_words(limit: int) -> str:
    """A limit for people."""
    return "no limit" if limit == UNLIMITED else str(limit)


def limit_of(dimensions: Dimensions, **wanted: str) -> int:
    """The limit that counts: that of the entry which names most of the wanted dimensions and no other value.

    0 where there is none: a region that the list leaves out has nothing.
    """
    fitting = [
        (len(entry.get("dimensions") or {}), int((entry.get("details") or {}).get("value", 0)))
        for entry in dimensions
        if all(wanted.get(name) == value for name, value in (entry.get("dimensions") or {}).items())
        and _applies(entry.get("applicableLocations") or (), wanted["region"])
    ]
    return max(fitting, key=lambda entry: entry[0])[1] if fitting else 0


def _applies(locations: Iterable[str], region: str) -> bool:
    found = set(locations)
    return not found or region in found or "global" in found


def _quota_request(project_id: str, quota: str, value: float, dimensions: str) -> str:
    return (
        f"run: gcloud beta quotas preferences create --service=compute.googleapis.com --project={project_id} "
        f"--quota-id={quota} --preferred-value={value:.0f} --dimensions={dimensions}"
    )


def cpu_quota(
    needs: GoogleNeeds, regional: Limits, whole: Limits, machines: Mapping[tuple[str, str], Machine | None]
) -> Iterator[Finding]:
    """The system pool's; TPU machines are counted in chips."""
    name, count = needs.system
    machine = machines.get((needs.zone, name))
    if machine is None:
        return  # The check of offers says so.
    series = name.partition("-")[0].upper()
    metric = "CPUS" if series in _SHARED_CPUS else f"{series}_CPUS"
    if metric not in regional:
        yield unseen(
            f"machines of the series {series} have a quota of their own (CPUS-PER-VM-FAMILY), which is not read",
            f"look at it: gcloud beta quotas info list --service=compute.googleapis.com --project={needs.project}",
        )
        return
    amount = machine.vcpus * count + (DEFAULT_POOL_VCPUS if metric == "CPUS" else 0)
    why = f"{count} x {name}, one of them during upgrades"
    yield _within(metric, amount, regional, why, needs)
    if "CPUS_ALL_REGIONS" in whole:
        yield _within("CPUS_ALL_REGIONS", amount, whole, why, needs, region=False)


def disk_quota(needs: GoogleNeeds, regional: Limits) -> Iterator[Finding]:
    wanted = {
        "SSD_TOTAL_GB": (needs.system_disk_gib, "boot disks of the system pool"),
        "HDB_TOTAL_GB": (needs.tpu_disk_gib, "boot disks of the TPU pools"),
    }
    for metric, (amount, why) in wanted.items():
        if amount and metric in regional:
            yield _within(metric, amount, regional, why, needs)


def network_quota(needs: GoogleNeeds, regional: Limits, whole: Limits) -> Iterator[Finding]:
    subnets = 1 + ("proxyOnly" in needs.subnets)
    public = " and the gateway" if needs.addresses > 1 else ""
    if "IN_USE_ADDRESSES" in regional:
        yield _within("IN_USE_ADDRESSES", needs.addresses, regional, f"the way out{public}", needs)
    for metric, amount, why in (
        ("NETWORKS", 1, "the cluster's own"),
        ("SUBNETWORKS", subnets, "of the cluster's network"),
        ("ROUTERS", 1, "the way out"),
        ("FIREWALLS", needs.firewalls, "GKE's own, and ours for webhooks"),
    ):
        if metric in whole:
            yield _within(metric, amount, whole, why, needs, region=False)


def _within(
    metric: str, amount: float, limits: Limits, why: str, needs: GoogleNeeds, region: bool = True
) -> Finding:
    limit, usage = limits[metric]
    where = f" in {needs.region}" if region else " in the project"
    said = f"{amount:.0f} ({why}); {limit - usage:.0f} of {limit:.0f} are free{where}"
    quota = metric.replace("_", "-") + ("-per-project-region" if region else "-per-project")
    dimensions = f"region={needs.region}" if region else ""
    request = _quota_request(needs.project, quota, usage + amount, dimensions).removesuffix(" --dimensions=")
    if limit < 0 or amount <= limit - usage:
        return passed(said, metric)
    if amount <= limit:
        return unseen(f"{said}: enough only if this stack holds the others", f"if not, {request}", metric)
    return failed(f"{said}: Google refuses what comes last", request, metric)


# -- offers ------------------------------------------------------------------------------------------------------


def offers(needs: GoogleNeeds, machines: Mapping[tuple[str, str], Machine | None]) -> Iterator[Finding]:
    for what, pairs in needs.machines.items():
        absent = [f"{name} in {zone}" for zone, name in pairs if machines[zone, name] is None]
        if absent:
            yield failed(
                f"Google does not offer {_listed(absent)}",
                "choose another zone or machine type; "
                f"gcloud compute machine-types list --filter=name={pairs[0][1]} --project={needs.project} "
                "lists the zones that have it",
                what,
            )
        else:
            yield passed(_listed(sorted({f"{name} in {zone}" for zone, name in pairs})), what)


def reservations(
    needs: GoogleNeeds, found: Mapping[tuple[str, str], Mapping[str, Any] | None]
) -> Iterator[Finding]:
    for zone, name, nodes in needs.reservations:
        record = found[zone, name]
        if record is None:
            yield failed(
                f"there is none of this name in {zone}",
                "correct cluster.accelerators.*.reservation, or choose another capacity",
                name,
            )
        elif record.get("status") != "READY":
            yield failed(
                f"it is {record.get('status')} in {zone}",
                "wait until it is READY: "
                f"gcloud compute reservations describe {name} --zone={zone} --project={needs.project}",
                name,
            )
        else:
            yield _reserved(record, name, nodes)


def _reserved(record: Mapping[str, Any], name: str, nodes: int) -> Finding:
    held = record.get("specificReservation") or {}
    count, used = int(held.get("count", 0)), int(held.get("inUseCount", 0))
    if count and count < nodes:
        return failed(
            f"it holds {count} machines, and maxNodes is {nodes}",
            f"set maxNodes to {count}, or enlarge the reservation",
            name,
        )
    return passed(f"READY, {used} of {count} machines in use", name)


def release(needs: GoogleNeeds, offered: Mapping[str, Any]) -> Iterator[Finding]:
    channels = {entry["channel"]: entry for entry in offered.get("channels") or ()}
    channel = channels.get(needs.channel.upper())
    if channel is None:
        yield failed(
            f"{needs.zone} has no channel {needs.channel}",
            f"set cluster.releaseChannel to one of {_listed(name.lower() for name in channels)}",
        )
        return
    versions = channel.get("validVersions") or [channel["defaultVersion"]]
    fitting = [v for v in versions if _is(v, needs.version)]
    if not fitting:
        minors = sorted({".".join(v.split(".")[:2]) for v in versions})
        yield failed(
            f"version {needs.version} is not offered in channel {needs.channel} of {needs.zone}",
            f"set cluster.version to one of {_listed(minors)}, or remove it",
        )
        return
    chosen = channel["defaultVersion"] if needs.version is None else max(fitting, key=_numbers)
    if needs.google_gateway and _numbers(chosen) < INFERENCE_POOL:
        wanted = "{}.{}.{}-gke.{}".format(*INFERENCE_POOL)
        yield failed(
            f"{chosen} has no InferencePool, which Google's gateway needs from {wanted} on",
            "set cluster.version to a newer one, or cluster.releaseChannel to rapid",
        )
        return
    yield passed(f"{chosen} by channel {needs.channel}")


def _is(version: str, asked: str | None) -> bool:
    """Whether a full version is one that a configured one, such as `1.34`, stands for."""
    return asked is None or version == asked or version.startswith((f"{asked}.", f"{asked}-"))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version))


def ranges(needs: GoogleNeeds, subnets: tuple[Mapping[str, Any], ...]) -> Iterator[Finding]:
    """A network of its own may have any range; but networks that share addresses can never be connected."""
    clashes = [
        f"{what} ({wanted}) and {name} ({taken})"
        for what, wanted in needs.subnets.items()
        for name, taken in _taken(subnets)
        if ipaddress.IPv4Network(wanted).overlaps(ipaddress.IPv4Network(taken))
    ]
    if clashes:
        yield advice(
            f"share addresses: {_listed(clashes, 4)}",
            "choose other ranges under cluster.network now if these networks are ever to be connected (peering, "
            "VPN); they cannot be changed later without a new cluster",
        )
    else:
        yield passed(f"{_listed(f'{what} {net}' for what, net in needs.subnets.items())}: nobody else's")
    if needs.shared_proxy_subnet:
        yield _shared(needs, subnets)


def _taken(subnets: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(subnet, range) of every range in the project, but for those of this program's own networks."""
    for subnet in subnets:
        if str(subnet.get("network", "")).rsplit("/", 1)[-1].startswith(f"{NAME}-network"):
            continue
        yield subnet["name"], subnet["ipCidrRange"]
        for secondary in subnet.get("secondaryIpRanges") or ():
            yield subnet["name"], secondary["ipCidrRange"]


def _shared(needs: GoogleNeeds, subnets: Iterable[Mapping[str, Any]]) -> Finding:
    name = needs.shared_proxy_subnet or ""
    found = [
        s
        for s in subnets
        if s["name"] == name and str(s.get("region", "")).rsplit("/", 1)[-1] == needs.region
    ]
    if not found:
        return failed(
            f"there is no subnet of this name in {needs.region}",
            "correct cluster.network.sharedProxyOnlySubnet, or remove it for one of the cluster's own",
            name,
        )
    if (found[0].get("purpose"), found[0].get("role")) != ("REGIONAL_MANAGED_PROXY", "ACTIVE"):
        return failed(
            "it is no active proxy-only subnet: Google's gateway would never be programmed",
            "name one with purpose REGIONAL_MANAGED_PROXY and role ACTIVE",
            name,
        )
    return passed(f"{found[0]['ipCidrRange']}, active", name)


def secrets(
    config: StackConfig, needs: GoogleNeeds, found: Mapping[str, SecretVersion | Unknown | None]
) -> Iterator[Finding]:
    """Those of Secret Manager; their values are read by `up` alone."""
    given = config.secrets.given()
    for name, version in found.items():
        yield _kept(name, str(given[name]), needs.secrets[name], version)


def _kept(name: str, source: str, secret: KeptSecret, version: SecretVersion | Unknown | None) -> Finding:
    if isinstance(version, Unknown):
        return unseen(version.reason, version.fix, name)
    if version is None:
        fix = _MAKE.get(secret.version, _CHOOSE)
        return failed(
            f"there is no {secret.path} in Google Secret Manager", fix.format(secret=secret, name=name), name
        )
    if version.state != "ENABLED":
        fix = _REVIVE.get(version.state, _CHOOSE)
        return failed(
            f"version {version.number} of {source} is {version.state}, and cannot be read",
            fix.format(secret=secret, name=name, number=version.number),
            name,
        )
    if not version.readable:
        return failed(f"you may not read {source}, which `up` does", _ALLOW.format(secret=secret), name)
    return passed(f"{source}; its value is not read here", name)


def _listed(items: Iterable[str], most: int = 8) -> str:
    words = list(items)
    rest = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + rest


CHECKS = (
    Check("credentials", ("caller",), credentials),
    Check("project", ("needs", "project", "caller"), project),
    Check("billing", ("needs", "billing"), billing),
    Check("APIs before `up`", ("needs", "apis"), first_apis),
    Check("APIs of the stack", ("needs", "apis", "permissions"), apis),
    Check("permissions", ("needs", "permissions", "deployer", "stack"), permissions),
    Check("TPU quota", ("needs", "tpu_quotas"), tpu_quota),
    Check("CPU quota", ("needs", "region_quotas", "project_quotas", "machines"), cpu_quota),
    Check("disk quota", ("needs", "region_quotas"), disk_quota),
    Check("network quota", ("needs", "region_quotas", "project_quotas"), network_quota),
    Check("offered", ("needs", "machines"), offers),
    Check("reservation", ("needs", "reservations"), reservations),
    Check("GKE version", ("needs", "releases"), release),
    Check("address ranges", ("needs", "subnets"), ranges),
    Check("kept secret", ("config", "needs", "kept_secrets"), secrets),
)
