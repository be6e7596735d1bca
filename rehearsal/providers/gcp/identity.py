"""Enabled APIs, service accounts and who may do what."""

from __future__ import annotations

import re

from rehearsal.cloud.project import SERVICE
from rehearsal.providers.cloud.kinds import Value
from rehearsal.providers.gcp.call import Call, google
from rehearsal.providers.gcp.kinds import Kind
from rehearsal.providers.gcp.values import always, at, fields, number, project, token
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import UNKNOWN

ACCOUNT = "serviceaccount/account"
IAM = "iam.googleapis.com"
_ACCOUNT_ID = re.compile(r"[a-z]([-a-z0-9]{4,28}[a-z0-9])")
_MEMBER = re.compile(
    r"(allUsers|allAuthenticatedUsers|(user|serviceAccount|group|domain|principal|principalSet|deleted|"
    r"projectOwner|projectEditor|projectViewer):.+)"
)
_ROLE = re.compile(r"roles/.+|(projects|organizations)/[^/]+/roles/.+")


def email_domain(project_id: str) -> str:
    """What follows the @ in the address of a project's own service account."""
    return f"{project_id}.iam.gserviceaccount.com"


def require_account(call: Call, email: str) -> None:
    """Refuse a service account of this project that does not exist, or that others cannot see yet."""
    if not email.endswith(f"@{email_domain(call.project)}"):
        return
    if call.find(ACCOUNT, email) is None:
        raise google(400, f"Service account {email} does not exist.", "badRequest")


def _email(call: Call) -> str:
    return f"{call.inputs['accountId']}@{email_domain(call.project)}"


def _account_id(call: Call) -> None:
    given = call.inputs.get("accountId")
    if given is not UNKNOWN and not (isinstance(given, str) and _ACCOUNT_ID.fullmatch(given)):
        raise Refusal(f'"account_id" ("{given}") must match the regex "^[a-z](?:[-a-z0-9]{{4,28}}[a-z0-9])$"')


def _who_and_what(call: Call) -> None:
    member, role = call.inputs.get("member"), call.inputs.get("role")
    if isinstance(member, str) and not _MEMBER.fullmatch(member):
        raise Refusal(
            f'invalid value for member (IAM members must have one of the known prefixes): "{member}"'
        )
    if isinstance(role, str) and not _ROLE.fullmatch(role):
        raise Refusal(f'"{role}" is not a valid role name; predefined roles start with roles/')


def _member_exists(call: Call) -> None:
    kind, _, email = call.inputs["member"].partition(":")
    if kind == "serviceAccount" and "[" not in email:
        require_account(call, email)


def _enable(call: Call) -> None:
    call.state.services.setdefault(call.inputs["service"], call.now)


def _disable(call: Call) -> None:
    if call.inputs.get("disableOnDestroy"):
        call.state.services.pop(call.inputs["service"], None)


def iam_member(
    type_: str, title: str, api: str, target: str, references: dict[str, str] | None = None
) -> Kind:
    """The row of an additive grant on `target`, a field name; everything about it replaces."""

    def identity(call: Call) -> str:
        where = call.project if target == "project" else call.inputs[target]
        return f"{where}/{call.inputs['role']}/{call.inputs['member']}"

    outputs: dict[str, Value] = {"etag": token}
    return Kind(
        token=type_,
        title=title,
        identity=identity,
        api=api,
        named="",
        autonamed=False,
        outputs=outputs | ({"project": project} if "secretId" in (references or {}) else {}),
        force_new=fields("condition", "member", "role", target),
        references=references or {},
        part_of=next(iter(references or {}), ""),
        plan=(_who_and_what,),
        checks=(_member_exists,),
        adopts=True,
    )


KINDS = (
    Kind(
        token="gcp:projects/service:Service",
        title="Project Service",
        identity=at("{project}/{service}"),
        api="",
        named="service",
        autonamed=False,
        outputs={"project": project},
        force_new=fields("project", "service"),
        adopts=True,
        made=_enable,
        removed=_disable,
    ),
    Kind(
        token="gcp:serviceaccount/account:Account",
        title="service account",
        identity=lambda call: f"projects/{call.project}/serviceAccounts/{_email(call)}",
        api=IAM,
        named="accountId",
        max_name=30,
        defaults={"disabled": False},
        outputs={
            "project": project,
            "email": _email,
            "member": lambda call: f"serviceAccount:{_email(call)}",
            "name": lambda call: call.identity,
            "uniqueId": number,
            "displayName": always(""),
        },
        force_new=fields("accountId", "project"),
        plan=(_account_id,),
    ),
    iam_member(
        "gcp:projects/iAMMember:IAMMember",
        "IAM policy for project",
        "cloudresourcemanager.googleapis.com",
        "project",
    ),
    iam_member(
        "gcp:serviceaccount/iAMMember:IAMMember",
        "IAM policy for service account",
        IAM,
        "serviceAccountId",
        {"serviceAccountId": ACCOUNT},
    ),
)
assert KINDS[0].module == SERVICE
