"""What Google answers: one small collector per fact."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ops.google import Google, GoogleError
from ops.preflight import google_permissions
from ops.preflight.google_needs import SECRET_API, KeptSecret, google_needs
from ops.preflight.site import Site, explain
from ops.preflight.verdicts import Collector, Unknown

TPU_QUOTA = "TPUS-PER-TPU-FAMILY-per-project-region"
CHEAP_TPU_QUOTA = "PREEMPTIBLE-TPU-V6E-per-project-region"
# Google takes no more in one question.
_PERMISSIONS_AT_ONCE = 100
_READ_SECRET = "secretmanager.versions.access"
_OFF = ("SERVICE_DISABLED", "accessNotConfigured")


@dataclass(frozen=True)
class Caller:
    """Who asks: an e-mail address where the token tells it. `pulumi` says whether Pulumi acts as the same."""

    email: str
    origin: str
    pulumi: bool


@dataclass(frozen=True)
class Machine:
    """A machine type as a zone offers it."""

    vcpus: int


@dataclass(frozen=True)
class Granted:
    """Permissions that the caller has, of those asked for, and those that Google does not know."""

    held: frozenset[str]
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SecretVersion:
    """A version of a secret: its number, and Google's word for its state: ENABLED, DISABLED or DESTROYED.

    `readable` says whether the caller has the right to read its value.
    """

    number: str
    state: str
    readable: bool


Limits = Mapping[str, tuple[float, float]]
"""(limit, usage) by Compute Engine's metric."""
Dimensions = tuple[Mapping[str, Any], ...]
"""A quota's limits, as Cloud Quotas' `dimensionsInfos` has them."""


def caller(site: Site) -> Caller:
    """Asks Google whose the token is; one that is no longer valid is refused."""
    google = site.google
    token = google.credential
    try:
        told = google.post("oauth2", "tokeninfo", form={"access_token": token.token})
    except GoogleError as error:
        if error.code == 400:
            return Caller("", token.origin, token.pulumi)
        raise
    return Caller(told.get("email") or told.get("sub") or "an unnamed account", token.origin, token.pulumi)


def project(site: Site) -> Mapping[str, Any] | None:
    """The project's own record; None where there is none, or the caller may not know that there is one."""
    try:
        return site.google.get("cloudresourcemanager", f"v3/projects/{site.google.project}")
    except GoogleError as error:
        if error.code == 404 or (error.code == 403 and error.reason != "SERVICE_DISABLED"):
            return None
        raise


def billing(site: Site) -> Mapping[str, Any]:
    return site.google.get("cloudbilling", f"v1/projects/{site.google.project}/billingInfo")


def apis(site: Site) -> frozenset[str]:
    """Short names of the APIs that are on."""
    found = site.google.pages(
        "serviceusage",
        f"v1/projects/{site.google.project}/services",
        "services",
        filter="state:ENABLED",
        pageSize=200,
    )
    names = (str(entry["name"]).rsplit("/", 1)[-1] for entry in found)
    return frozenset(name.removesuffix(".googleapis.com") for name in names)


def first_apis(site: Site) -> frozenset[str]:
    """As :func:`apis`; where Service Usage or the Resource Manager itself is off, without it."""
    try:
        return apis(site)
    except GoogleError as error:
        if error.reason in _OFF:
            return frozenset()
        raise


def permissions(site: Site) -> Granted:
    """Which of the deployer's permissions the caller has in the project."""
    needs = google_needs(site.config)
    held, unknown = held_of(
        site.google,
        "cloudresourcemanager",
        f"v3/projects/{site.google.project}:testIamPermissions",
        google_permissions.deploy(needs.google_gateway),
    )
    return Granted(held, unknown)


def held_of(
    google: Google, service: str, path: str, wanted: Iterable[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """(held, unknown to Google) of `wanted`, which the service is asked at `path`.

    One that Google does not know spoils a whole question.
    """
    asked, held, unknown = sorted(wanted), set(), set()
    while asked:
        some = asked[:_PERMISSIONS_AT_ONCE]
        try:
            held |= set(google.post(service, path, {"permissions": some}).get("permissions", ()))
        except GoogleError as error:
            named = {p for p in some if re.search(rf"(?<![\w.]){re.escape(p)}(?![\w.]*\w)", error.message)}
            if error.code != 400 or not named:
                raise
            unknown |= named
            asked = [p for p in asked if p not in named]
            continue
        asked = asked[_PERMISSIONS_AT_ONCE:]
    return frozenset(held), frozenset(unknown)


def region_quotas(site: Site) -> Limits:
    needs = google_needs(site.config)
    return _limits(
        site.google.get("compute", f"projects/{site.google.project}/regions/{needs.region}").get("quotas")
    )


def project_quotas(site: Site) -> Limits:
    return _limits(site.google.get("compute", f"projects/{site.google.project}").get("quotas"))


def _limits(quotas: Iterable[Mapping[str, Any]] | None) -> Limits:
    return {q["metric"]: (float(q.get("limit", 0)), float(q.get("usage", 0))) for q in quotas or ()}


def tpu_quotas(site: Site) -> Mapping[str, Dimensions]:
    """The limits of both kinds of TPU quota. `gcloud compute regions describe` does not have them."""
    root = f"v1/projects/{site.google.project}/locations/global/services/compute.googleapis.com/quotaInfos"
    return {
        quota: tuple(site.google.get("cloudquotas", f"{root}/{quota}").get("dimensionsInfos") or ())
        for quota in (TPU_QUOTA, CHEAP_TPU_QUOTA)
    }


def machines(site: Site) -> Mapping[tuple[str, str], Machine | None]:
    """(zone, machine type) -> the machine, or None where the zone does not offer it, or there is no such zone."""
    wanted = {pair for pairs in google_needs(site.config).machines.values() for pair in pairs}
    return {(zone, name): _machine(site.google, zone, name) for zone, name in sorted(wanted)}


def _machine(google: Google, zone: str, name: str) -> Machine | None:
    try:
        found = google.get("compute", f"projects/{google.project}/zones/{zone}/machineTypes/{name}")
    except GoogleError as error:
        if error.code == 404:
            return None
        raise
    return Machine(int(found["guestCpus"]))


def reservations(site: Site) -> Mapping[tuple[str, str], Mapping[str, Any] | None]:
    """(zone, name) -> a reservation's record, or None where there is none."""
    found: dict[tuple[str, str], Mapping[str, Any] | None] = {}
    for zone, name, _ in google_needs(site.config).reservations:
        path = f"projects/{site.google.project}/zones/{zone}/reservations/{name}"
        try:
            found[zone, name] = site.google.get("compute", path)
        except GoogleError as error:
            if error.code != 404:
                raise
            found[zone, name] = None
    return found


def releases(site: Site) -> Mapping[str, Any]:
    """The versions that the zone offers, by channel."""
    zone = google_needs(site.config).zone
    return site.google.get("container", f"v1/projects/{site.google.project}/locations/{zone}/serverConfig")


def subnets(site: Site) -> tuple[Mapping[str, Any], ...]:
    """Every subnet of the project."""
    found = site.google.pages(
        "compute", f"projects/{site.google.project}/aggregated/subnetworks", "items", maxResults=500
    )
    return tuple(subnet for _, scope in found for subnet in scope.get("subnetworks") or ())


def secrets(site: Site) -> Mapping[str, SecretVersion | Unknown | None]:
    """The versions of Secret Manager that the stack refers to; None where there is none. Their values are not read.

    Unknown where another project does not let the caller look; GoogleError where the cluster's own does not.
    """
    return {name: _version(site, secret) for name, secret in google_needs(site.config).secrets.items()}


def _version(site: Site, secret: KeptSecret) -> SecretVersion | Unknown | None:
    try:
        found = site.google.get(SECRET_API, f"v1/{secret.path}")
        # Of the secret, not of the project: a right may be given for one secret alone.
        held, _ = held_of(site.google, SECRET_API, f"v1/{secret.resource}:testIamPermissions", [_READ_SECRET])
    except GoogleError as error:
        if error.code == 404:
            return None
        if error.code == 403 and secret.project != site.google.project:
            return _hidden(secret, error)
        raise
    return SecretVersion(
        str(found["name"]).rpartition("/")[2], str(found.get("state", "")), _READ_SECRET in held
    )


def _hidden(secret: KeptSecret, error: GoogleError) -> Unknown:
    """The roles that this command prints are of the cluster's project, so they would not help."""
    found, project = explain(error), f"--project={secret.project}"
    if error.reason in _OFF:
        return replace(found, fix=f"{found.fix} {project}")
    return replace(
        found,
        fix=f"run: gcloud secrets add-iam-policy-binding {secret.name} {project} --member=WHO "
        "--role=roles/secretmanager.viewer, or correct the reference: what is not there is refused alike",
    )


COLLECTORS: Mapping[str, Collector] = {
    "needs": lambda site: google_needs(site.config),
    "deployer": lambda site: google_permissions.deploy(site.config.gateway.kind == "gke"),
    "caller": caller,
    "project": project,
    "billing": billing,
    "apis": first_apis,
    "permissions": permissions,
    "region_quotas": region_quotas,
    "project_quotas": project_quotas,
    "tpu_quotas": tpu_quotas,
    "machines": machines,
    "reservations": reservations,
    "releases": releases,
    "subnets": subnets,
    "kept_secrets": secrets,
}
