"""Whom Amazon's S3 gives weights to, in the words of KServe's `kserve_storage` 0.20 (its storage_errors.py).

Which buckets there are, whose they are and what they hold is in the settings, as for `aws` (`aws.buckets`, see
rehearsal/cloud/aws_account.py); in which role a pod asks, and what that may do, in the account. It asks for the
bucket, then for the names in it. Of a store at another endpoint nothing is known: it has everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rehearsal.cloud import aws_roles
from rehearsal.cloud.node_groups import CLUSTER
from rehearsal.cloud.project import Project, State
from rehearsal.cloud.settings import Settings

SCHEME = "s3://"
# Variables of a container that name another store, and that hold a key of somebody else's.
ENDPOINT, KEY = "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"
NOBODY = "S3 authentication failed. Set AWS_ACCESS_KEY_ID/AWS_SECRET_ACCESS_KEY or use awsAnonymousCredential=true."
FORBIDDEN = "S3 error [403]: Forbidden"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A container that downloads: the namespace and the account of its pod, and the names of its variables."""

    namespace: str
    account: str
    variables: frozenset[str]


def refusal(uri: str, reader: Reader, rehearsal: Path) -> str:
    """Why a reader gets nothing from a uri of S3; "" where it gets all, and of uris of others."""
    if not uri.startswith(SCHEME) or ENDPOINT in reader.variables:
        return ""
    name, _, prefix = uri.removeprefix(SCHEME).partition("/")
    state, bucket = Project.of(rehearsal).read(), Settings.of(rehearsal).bucket(name)
    role = _role(state, reader)
    if role == "":
        return NOBODY
    if not bucket.get("exists", True):
        return f"S3 resource '{name}' not found."
    if bucket.get("foreign") or (role and not _may_read(state, role, name, prefix)):
        return FORBIDDEN
    held = bucket.get("holds")
    there = held is None or any(key.startswith(prefix) for key in held)
    return "" if there else f"Failed to fetch model. No model found in {prefix}."


def _role(state: State, reader: Reader) -> str | None:
    """The role that a reader on a cluster of the account acts in; None where it shows a key, or is elsewhere."""
    cluster = next(iter(state.of(CLUSTER)), None)
    if cluster is None or KEY in reader.variables:
        return None
    return aws_roles.pod_role(state, cluster, reader.namespace, reader.account)


def _may_read(state: State, role: str, bucket: str, prefix: str) -> bool:
    place = f"arn:aws:s3:::{bucket}"
    wanted = (("s3:ListBucket", place), ("s3:GetObject", f"{place}/{prefix}"))
    return all(aws_roles.allows(state, role, action, resource) for action, resource in wanted)
