"""Scalars with a meaning: every value in a stack file has one of these types, never a bare string."""

from __future__ import annotations

import ipaddress
import re
from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from stacks.config.buckets import FIX as BUCKET_FIX
from stacks.config.buckets import bucket_fault
from stacks.config.errors import refusal

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_TENANT = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HOST = re.compile(r"(?=.{4,253}$)([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_FACTORS = {
    "m": 1e-3,
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_TOPOLOGY = re.compile(r"[1-9][0-9]*(x[1-9][0-9]*){1,2}")
_HUGGING_FACE = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")
_IMAGE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
# Tags that their publishers move; found as a whole word inside a tag as well (`v0.15-latest`).
_MOVING_TAGS = frozenset(
    {"latest", "nightly", "main", "master", "edge", "head", "canary", "stable", "rolling"}
)
# What LLMInferenceService of KServe 0.20 loads; gs:// and https:// are refused by its controller.
MODEL_SCHEMES = ("hf", "s3", "pvc", "oci")


def dns_label(value: str) -> str:
    """A name that Kubernetes takes for a Service: RFC 1035, 63 characters."""
    if not DNS_LABEL.fullmatch(value):
        raise refusal(
            f'"{value}" is not a DNS label',
            "Kubernetes refuses objects of that name",
            "start with a lower-case letter, go on with letters, digits and inner hyphens, 63 at most",
        )
    return value


def tenant_name(value: str) -> str:
    """A name that is safe in counters, metrics and generated tables: no dot, underscore, colon or quote."""
    if not _TENANT.fullmatch(value):
        raise refusal(
            f'"{value}" cannot name a tenant or tier',
            "dots, underscores, quotes and capitals would let two names share one counter",
            "use lower-case letters, digits and hyphens, 63 characters at most",
        )
    return value


def host_name(value: str) -> str:
    """A full DNS name in lower case."""
    if not _HOST.fullmatch(value):
        raise refusal(
            f'"{value}" is not a full host name',
            "no certificate could be issued for it and no route would match",
            "write a name such as llm.example.com, in lower case, without scheme, port, path or wildcard",
        )
    return value


def quantity(value: str) -> str:
    """A Kubernetes quantity above zero."""
    found = _QUANTITY.fullmatch(value)
    if not found or not float(found[1]):
        raise refusal(
            f'"{value}" is not a quantity above zero',
            "the API server refuses the pod",
            "write a number with an optional unit, for example 4, 500m, 16Gi",
        )
    return value


def quantity_value(value: str) -> float:
    """The quantity in its base unit: cores or bytes."""
    found = _QUANTITY.fullmatch(value)
    if not found:
        raise ValueError(f'"{value}" is not a quantity such as 4, 500m or 16Gi')
    return float(found[1]) * _FACTORS[found[2] or ""]


def pinned_image(value: str) -> str:
    """An image reference whose content cannot change: an exact tag, a digest, or both."""
    found = _IMAGE.fullmatch(value)
    if not found:
        raise refusal(
            f'"{value}" is not an image reference',
            "the node could not pull it",
            "write registry/repository:tag or registry/repository@sha256:<64 hex digits>",
        )
    tag, digest = found["tag"], found["digest"]
    moving = _MOVING_TAGS.intersection(re.split(r"[-._]", (tag or "").lower()))
    if digest or (tag and not moving):
        return value
    wrong = f'the tag "{tag}" is moved by its publisher' if tag else f'"{value}" has neither tag nor digest'
    raise refusal(
        wrong,
        "two replicas, or the same replica after a restart, could run different code",
        "pin an exact version (image:v1.2.3) or a digest (image@sha256:…)",
    )


def cidr(value: str) -> str:
    """An IPv4 network in CIDR notation, without host bits."""
    try:
        ipaddress.IPv4Network(value)
    except ValueError:
        raise refusal(
            f'"{value}" is not an IPv4 network', "the cloud refuses it", _network_hint(value)
        ) from None
    if "/" not in value:
        raise refusal(
            f'"{value}" has no prefix length', "the cloud refuses it", f"write {value}/32 for one address"
        )
    return value


def _network_hint(value: str) -> str:
    try:
        return f"write {ipaddress.IPv4Network(value, strict=False)}, the network without host bits"
    except ValueError:
        return "write an address and a prefix length, for example 10.0.0.0/20"


def tpu_topology(value: str) -> str:
    """The shape of a TPU slice in chips, for example `2x2`."""
    if not _TOPOLOGY.fullmatch(value):
        raise refusal(
            f'"{value}" is not a topology',
            "no node pool can be made of it",
            "write the chips per dimension, for example 2x2",
        )
    return value


def model_uri(value: str) -> str:
    """Where the weights are, in a form that KServe's LLMInferenceService loads."""
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in MODEL_SCHEMES:
        raise refusal(
            f'"{value}" cannot be loaded by KServe',
            "the model service would never become Ready (unsupported schema)",
            "use hf://owner/model, s3://bucket/path, pvc://claim/path or oci://registry/image:tag",
        )
    if scheme == "oci":
        pinned_image(rest)
        return value
    wrong = _uri_fault(scheme, rest)
    if wrong:
        raise refusal(f'"{value}": {wrong[0]}', "the weights could not be loaded", wrong[1])
    return value


def _uri_fault(scheme: str, rest: str) -> tuple[str, str] | None:
    head = rest.split("/", 1)[0]
    if scheme == "hf" and not _HUGGING_FACE.fullmatch(rest):
        return (
            "a Hugging Face model is named owner/model",
            "write hf://owner/model or hf://owner/model:revision",
        )
    if scheme == "s3" and (fault := bucket_fault(head)):
        return f'S3 has no bucket "{head}": {fault}', BUCKET_FIX
    if scheme == "pvc" and not DNS_LABEL.fullmatch(head):
        return f'"{head}" is not the name of a claim', "write pvc://claim or pvc://claim/path"
    return None


def time_zone(value: str) -> str:
    """A zone of the IANA database."""
    # Imported here: reading the database costs more than the rest of this module.
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise refusal(
            f'"{value}" is not a time zone',
            "the schedule could not tell when to wake",
            "use a name of the IANA database, for example Europe/Berlin or UTC",
        ) from None
    return value


def iso_date(value: str) -> str:
    """A day as YYYY-MM-DD."""
    try:
        if date.fromisoformat(value).isoformat() == value:
            return value
    except ValueError:
        pass
    raise refusal(
        f'"{value}" is not a date',
        "the holiday would be missed",
        'write it in quotes as "2026-12-25" (YAML turns an unquoted date into a time stamp)',
    )


def number_as_text(value: Any) -> Any:
    """Lets `cpu: 4` stand for `cpu: "4"`, as Kubernetes does."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def date_as_text(value: Any) -> Any:
    """YAML readers that know dates hand over `datetime.date` for an unquoted one."""
    return value.isoformat() if isinstance(value, date) else value


def _checked(check: Any, pattern: str | None = None, **schema: Any) -> Any:
    shape = {"type": "string", **({"pattern": f"^{pattern}$"} if pattern else {}), **schema}
    return Annotated[str, AfterValidator(check), WithJsonSchema(shape)]


DnsLabel = _checked(dns_label, DNS_LABEL.pattern, title="DNS label")
TenantName = _checked(tenant_name, _TENANT.pattern, title="tenant-safe name")
HostName = _checked(host_name, title="host name")
PinnedImage = _checked(pinned_image, title="pinned image")
Cidr = _checked(cidr, r"[0-9.]+/[0-9]{1,2}", title="IPv4 network")
TpuTopology = _checked(tpu_topology, _TOPOLOGY.pattern, title="TPU topology")
ModelUri = _checked(model_uri, rf"({'|'.join(MODEL_SCHEMES)})://.+", title="model URI")
TimeZone = _checked(time_zone, title="time zone")
IsoDate = Annotated[
    str,
    BeforeValidator(date_as_text),
    AfterValidator(iso_date),
    WithJsonSchema({"type": "string", "format": "date", "title": "date"}),
]
Quantity = Annotated[
    str,
    BeforeValidator(number_as_text),
    AfterValidator(quantity),
    WithJsonSchema({"type": ["string", "number"], "title": "quantity"}),
]
Text = Annotated[str, StringConstraints(min_length=1)]
Reason = Annotated[
    str,
    StringConstraints(min_length=10),
    WithJsonSchema({"type": "string", "minLength": 10, "title": "reason in words"}),
]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def sequence(item: Any) -> Any:
    """A list in YAML, a tuple in Python, because configuration is frozen."""
    return Annotated[tuple[item, ...], Field(strict=False)]
