"""Where weights are kept: a volume claim that is filled once, and a store that speaks S3's protocol."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, StringConstraints, WithJsonSchema

from stacks.config.base import Strict, entry
from stacks.config.errors import refusal
from stacks.config.types import Cidr, DnsLabel, ModelUri, Quantity, sequence

# What is not fetched into a claim: the second set of weights that many repositories carry (one file for the publisher's
# own loader beside shards in Hugging Face's format), and formats that vLLM does not load or loads last.
LEFT_OUT = (
    "consolidated*",
    "original/*",
    "*.bin",
    "*.pth",
    "*.pt",
    "*.gguf",
    "*.h5",
    "*.msgpack",
    "*.onnx",
    "*.onnx_data",
)
# Of Services of the cluster, which are reached without leaving it.
IN_CLUSTER = (".svc", ".svc.cluster.local")
_SERVICE = re.compile(r"{0}\.({0})\.svc(\.cluster\.local)?".format("[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"))


def _downloadable(value: str) -> str:
    if not value.startswith(("hf://", "s3://")):
        raise refusal(
            f'"{value}" is nothing that can be downloaded into a claim',
            "the claim would stay empty",
            "use hf://owner/model[:revision] or s3://bucket/path",
        )
    return value


def _endpoint(value: str) -> str:
    """A URL of a scheme, a host and perhaps a port."""
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or parts.username:
        raise refusal(
            f'"{value}" is not the address of a store',
            "the weights could not be loaded",
            "write https://host or https://host:port, without path, bucket and credentials",
        )
    if parts.scheme == "http" and not host.endswith(IN_CLUSTER):
        raise refusal(
            f"{value} is reached without encryption",
            "whoever is on the way could read the weights, or replace them",
            "use https://; http:// is for Services of the cluster alone (http://name.namespace.svc:port)",
        )
    if host.rstrip(".").endswith(IN_CLUSTER) and not _SERVICE.fullmatch(host):
        raise refusal(
            f"{host} is not the name of a Service of the cluster",
            "its namespace could not be told, and no NetworkPolicy would let the downloads in there",
            "write name.namespace.svc or name.namespace.svc.cluster.local, without a dot at the end",
        )
    return value.rstrip("/")


WeightsSource = Annotated[ModelUri, AfterValidator(_downloadable)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Endpoint = Annotated[
    str,
    AfterValidator(_endpoint),
    WithJsonSchema({"type": "string", "title": "URL", "pattern": "^https?://"}),
]


class ClaimFill(Strict):
    """A job that downloads one set of weights into the claim, once, before the model starts."""

    source: WeightsSource = entry("Weights: hf://owner/model[:revision] or s3://bucket/path.", alias="from")
    include: sequence(Pattern) = entry("Only files that match one of these patterns, for example *.json.", ())
    exclude: sequence(Pattern) = entry(
        "No file that matches one of these. The default leaves out second sets of the same weights.", LEFT_OUT
    )
    budget_seconds: int = entry(
        "Time for the download; `up` fails after it. 48 GB at 10 MB/s take 4,800 s.",
        7200,
        ge=60,
        le=43200,
        unit="seconds",
    )


class ModelClaim(Strict):
    """The volume claim that a pvc:// uri names, made by this stack.

    The volume goes with the stack, or with this entry: what was filled can be filled again.
    """

    size: Quantity = entry("Size of the volume.", unit="bytes")
    storage_class: DnsLabel | None = entry("StorageClass.", None, derived="the cluster's default class")
    shared: bool = entry(
        "Several nodes mount it at once (ReadWriteMany), as a network file system can; else one node does.",
        False,
    )
    fill: ClaimFill | None = entry(
        "What to fill it with.", None, derived="nothing: somebody else writes the weights"
    )


class S3Storage(Strict):
    """A store of one's own that speaks S3's protocol; every s3:// uri of the stack is in it.

    Its keys are the secrets s3AccessKeyId and s3SecretAccessKey, unless `existingSecret` names a Secret.
    """

    endpoint: Endpoint = entry("Address of the store: https://host[:port].")
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")] = entry(
        "Region that requests are signed for; most stores take any.", "us-east-1"
    )
    path_style: bool = entry(
        "The bucket is in the path of a request (https://host/bucket), else in its host (https://bucket.host).",
        True,
    )
    existing_secret: DnsLabel | None = entry(
        "Secret that somebody else keeps in every namespace of models, with the keys AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY.",
        None,
        derived="a Secret of the stack's own",
    )
    networks: sequence(Cidr) = entry(
        "Address blocks of a store with private addresses outside of the cluster; pods reach nothing else there.",
        (),
    )

    @property
    def port(self) -> int:
        """The port that it listens at."""
        parts = urlsplit(self.endpoint)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def namespace(self) -> str | None:
        """The namespace of a store that is a Service of the cluster; None for any other."""
        service = _SERVICE.fullmatch(urlsplit(self.endpoint).hostname or "")
        return service[1] if service else None

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address of a store that is named by it; None for any other."""
        try:
            return ip_address(urlsplit(self.endpoint).hostname or "")
        except ValueError:
            return None


class Storage(Strict):
    """Stores of weights beside those that the clouds have."""

    s3: S3Storage = entry("A store that speaks S3's protocol.")
