"""Stores that speak S3's protocol: how downloads reach them, and who they are there. Pure.

What KServe 0.20 does with credentials is read in `pkg/credentials` of its source: of each Secret in the `secrets` of
a pod's account it takes the keys below, whose names its charts set, and the settings from the Secret's annotations.
In `kserve_storage.py` the download reads the variables below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.core import labels
from components.core.manifest import Manifest, manifest

SECRET = "s3-credentials"
ACCESS_KEY, SECRET_KEY = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
_SETTING = "serving.kserve.io/s3-"
SCHEME = "s3://"


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store of S3's protocol, for the weights whose uri begins with s3://.

    `endpoint` is its URL, None for AWS's own S3. `secret` names a Secret with an access key in the namespace of the pods;
    `pod_identity` says that EKS gives them a role instead. `path_style` puts the bucket into the path. A store with
    private addresses is at `port` in the `networks`, or in pods of `namespace`.
    """

    endpoint: str | None = None
    region: str | None = None
    path_style: bool = True
    secret: str | None = None
    pod_identity: bool = False
    port: int = 443
    networks: tuple[str, ...] = ()
    namespace: str | None = None


def bucket_of(uri: str) -> str:
    """The bucket of an s3:// uri."""
    return uri.removeprefix(SCHEME).partition("/")[0]


def keys_secret(namespace: str, store: Store, access_key: Any, secret_key: Any) -> Manifest:
    """The access key of a store and, for KServe, where the store is. The keys may be Outputs."""
    return manifest(
        "v1",
        "Secret",
        SECRET,
        namespace,
        labels=labels.common("models"),
        annotations={f"{_SETTING}{name}": value for name, value in _settings(store).items()},
        type="Opaque",
        stringData={ACCESS_KEY: access_key, SECRET_KEY: secret_key},
    )


def _settings(store: Store) -> dict[str, str]:
    """KServe's annotations; it tells from the endpoint's scheme whether to encrypt."""
    given = {
        "endpoint": store.endpoint,
        "region": store.region,
        "usevirtualbucket": None if store.path_style else "true",
    }
    return {name: value for name, value in given.items() if value is not None}


def environment(store: Store) -> list[dict[str, Any]]:
    """Variables of a container that downloads: where the store is, and its keys by reference."""
    given = {
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_DEFAULT_REGION": store.region,
        "S3_USER_VIRTUAL_BUCKET": None if store.path_style else "true",
    }
    plain = [{"name": name, "value": value} for name, value in given.items() if value is not None]
    return plain + (
        [_reference(name, store.secret) for name in (ACCESS_KEY, SECRET_KEY)] if store.secret else []
    )


def _reference(name: str, secret: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}}
