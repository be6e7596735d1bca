"""Certificate Manager: as much as TLS on Google's gateway needs; certificates are never issued."""

from __future__ import annotations

from rehearsal.providers.gcp.call import Call
from rehearsal.providers.gcp.kinds import Kind
from rehearsal.providers.gcp.values import always, at, fields, labelled, project, time

API = "certificatemanager.googleapis.com"
MAP = "certificatemanager/certificateMap"
CERTIFICATE = "certificatemanager/certificate"


def _id(what: str) -> str:
    return f"projects/{{project}}/locations/{{location}}/{what}/{{name}}"


def _challenge(call: Call) -> list[dict[str, str]]:
    name, data = (
        f"_acme-challenge.{call.inputs['domain']}.",
        f"{call.token()}.authorize.certificatemanager.goog.",
    )
    return [{"name": name, "type": "CNAME", "data": data}]


KINDS = (
    Kind(
        token="gcp:certificatemanager/certificate:Certificate",
        title="Certificate",
        identity=at(_id("certificates")),
        api=API,
        defaults={"location": "global", "scope": "DEFAULT"},
        outputs={
            "project": project,
            "sanDnsnames": lambda call: list((call.inputs.get("managed") or {}).get("domains") or ()),
            **labelled(),
        },
        force_new=fields("location", "managed", "name", "project", "scope"),
        sensitive=("selfManaged",),
    ),
    Kind(
        token="gcp:certificatemanager/certificateMap:CertificateMap",
        title="CertificateMap",
        identity=at("projects/{project}/locations/global/certificateMaps/{name}"),
        api=API,
        outputs={
            "project": project,
            "createTime": time,
            "updateTime": time,
            "gclbTargets": always([]),
            **labelled(),
        },
        force_new=fields("name", "project"),
    ),
    Kind(
        token="gcp:certificatemanager/certificateMapEntry:CertificateMapEntry",
        title="CertificateMapEntry",
        identity=at("projects/{project}/locations/global/certificateMaps/{map}/certificateMapEntries/{name}"),
        api=API,
        outputs={
            "project": project,
            "createTime": time,
            "updateTime": time,
            "state": always("ACTIVE"),
            **labelled(),
        },
        force_new=fields("hostname", "map", "matcher", "name", "project"),
        references={"map": MAP},
    ),
    Kind(
        token="gcp:certificatemanager/dnsAuthorization:DnsAuthorization",
        title="DnsAuthorization",
        identity=at(_id("dnsAuthorizations")),
        api=API,
        defaults={"location": "global"},
        outputs={
            "project": project,
            "type": always("FIXED_RECORD"),
            "dnsResourceRecords": _challenge,
            **labelled(),
        },
        force_new=fields("domain", "location", "name", "project", "type"),
    ),
)
