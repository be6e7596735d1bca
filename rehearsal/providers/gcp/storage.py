"""Buckets and secrets: as much as a state bucket and references to secrets need."""

from __future__ import annotations

from rehearsal.providers.gcp.call import Call, google
from rehearsal.providers.gcp.identity import iam_member
from rehearsal.providers.gcp.kinds import Kind
from rehearsal.providers.gcp.values import always, at, fields, labelled, number, project, time
from rehearsal.providers.server import Refusal

BUCKET = "storage/bucket"
SECRET = "secretmanager/secret"
_STORAGE, _SECRETS = "storage.googleapis.com", "secretmanager.googleapis.com"


def _version_number(call: Call) -> str:
    """Versions of a secret count from one."""
    identity, secret = call.find(SECRET, call.inputs["secret"]) or ("", {})
    return str(secret.get("versions", 0) + 1) if identity else "1"


def _version_name(call: Call) -> str:
    return f"{call.inputs['secret']}/versions/{_version_number(call)}"


def _count_version(call: Call) -> None:
    found = call.find(SECRET, call.inputs["secret"])
    if found:
        found[1]["versions"] = found[1].get("versions", 0) + 1


def _unprotected(call: Call) -> None:
    if call.record and call.record["inputs"].get("deletionProtection"):
        raise Refusal(
            "cannot destroy secret without setting deletion_protection=false and running `pulumi up`"
        )


def _is_global_name(call: Call) -> None:
    name = call.inputs.get("name")
    if isinstance(name, str) and (len(name) < 3 or "google" in name or name.startswith("goog")):
        raise google(400, f"Invalid bucket name: '{name}'", "invalid")


KINDS = (
    Kind(
        token="gcp:storage/bucket:Bucket",
        title="Bucket",
        identity=at("{name}"),
        api=_STORAGE,
        defaults={"forceDestroy": False, "storageClass": "STANDARD"},
        outputs={
            "project": project,
            "projectNumber": number,
            "publicAccessPrevention": always("inherited"),
            "rpo": always("DEFAULT"),
            "selfLink": lambda call: f"https://www.googleapis.com/storage/v1/b/{call.name}",
            "softDeletePolicy": always({"retentionDurationSeconds": 604800}),
            "timeCreated": time,
            "uniformBucketLevelAccess": always(False),
            "updated": time,
            "url": lambda call: f"gs://{call.name}",
            **labelled(),
        },
        force_new=fields(
            "customPlacementConfig",
            "enableObjectRetention",
            "hierarchicalNamespace",
            "location",
            "name",
            "project",
        ),
        checks=(_is_global_name,),
    ),
    iam_member(
        "gcp:storage/bucketIAMMember:BucketIAMMember",
        "IAM policy for storage bucket",
        _STORAGE,
        "bucket",
        {"bucket": BUCKET},
    ),
    Kind(
        token="gcp:secretmanager/secret:Secret",
        title="Secret",
        identity=at("projects/{project}/secrets/{secretId}"),
        api=_SECRETS,
        named="secretId",
        max_name=255,
        outputs={
            "project": project,
            "createTime": time,
            "name": at("projects/{project}/secrets/{secretId}"),
            "expireTime": always(""),
            "effectiveAnnotations": lambda call: dict(call.inputs.get("annotations") or {}),
            **labelled(),
        },
        force_new=fields("project", "replication", "secretId"),
        removal=(_unprotected,),
    ),
    Kind(
        token="gcp:secretmanager/secretVersion:SecretVersion",
        title="SecretVersion",
        identity=_version_name,
        api=_SECRETS,
        named="",
        autonamed=False,
        defaults={"enabled": True, "isSecretDataBase64": False},
        outputs={
            "createTime": time,
            "destroyTime": always(""),
            "name": _version_name,
            "version": _version_number,
        },
        force_new=fields("isSecretDataBase64", "secret", "secretData"),
        references={"secret": SECRET},
        part_of="secret",
        sensitive=("secretData",),
        made=_count_version,
    ),
    iam_member(
        "gcp:secretmanager/secretIamMember:SecretIamMember",
        "IAM policy for secret",
        _SECRETS,
        "secretId",
        {"secretId": SECRET},
    ),
)
