"""Google's REST APIs for the simulated project, on loopback: what `python -m ops preflight` and `verify` ask.

    python -m rehearsal.cloud.google_api

It shows what `project.json` has and `settings.yaml` says: the same quotas, offers and versions that the simulated
provider refuses by. Without settings the project is as docs/bootstrap-gcp.md leaves it: billing on, the APIs of
that page on, the caller an owner. `account` in the settings changes that:

    account:
      email: me@example.com
      expired: true                     # the token is refused
      project: false                    # there is no such project, or the caller may not see it
      billing: false
      lacks: ["iam.*", container.clusters.create]     # permissions that the caller has not
      unknown: [compute.no.such]        # permissions whose names Google refuses
      subnets: [{name: office, network: office, ipCidrRange: 10.0.0.0/16, region: europe-west4}]
      reservations: [{name: r1, zone: europe-west4-a, status: READY, count: 2}]
      buckets: [{name: state, versioning: true, uniform: true, private: true}]

Of the secrets in the settings it tells the versions, not the values; a `state` there is DISABLED or DESTROYED.
What it does not know it refuses by name. It only reads.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ops.google import OVERRIDE
from rehearsal.cloud import google_secrets, machines, releases, web
from rehearsal.cloud.pools import CHIPS, PREEMPTIBLE_CHIPS, all_pools
from rehearsal.cloud.project import SERVICE, Project, State
from rehearsal.cloud.settings import PLENTY, Settings
from rehearsal.cloud.web import Answer, Asked
from rehearsal.providers.guard import start_or_exit

TOKEN = "simulated"
NUMBER = "123456789012"
# Those that docs/bootstrap-gcp.md switches on; a test compares them with the page.
BOOTSTRAPPED = (
    "cloudbilling", "cloudkms", "cloudquotas", "cloudresourcemanager", "compute", "container", "iam", "serviceusage",
    "storage",
)  # fmt: skip
FAMILIES = {"tpus-per-tpu-family": CHIPS, "preemptible-tpu-v6e": PREEMPTIBLE_CHIPS}
# Kinds of records that count against the project's quotas.
COUNTED = {
    "NETWORKS": "compute/network", "SUBNETWORKS": "compute/subnetwork", "ROUTERS": "compute/router",
    "FIREWALLS": "compute/firewall",
}  # fmt: skip
REGIONAL = (
    "CPUS",
    "N2_CPUS",
    "N2D_CPUS",
    "C3_CPUS",
    "T2D_CPUS",
    "SSD_TOTAL_GB",
    "HDB_TOTAL_GB",
    "IN_USE_ADDRESSES",
)
# As gcloud writes base URLs: some end in a version.
_VERSIONS = {"compute": "compute/v1/", "storage": "storage/v1/"}
_SERVICES = (
    "cloudbilling", "cloudkms", "cloudquotas", "cloudresourcemanager", "compute", "container", "oauth2",
    "secretmanager", "serviceusage", "storage",
)  # fmt: skip
_ADDRESS = "api.json"


class Refused(Exception):
    """An answer that is a refusal, in Google's shape."""

    def __init__(self, code: int, message: str, reason: str = "", **metadata: str):
        super().__init__(message)
        self.code, self.reason, self.metadata = code, reason, metadata

    def body(self) -> dict[str, Any]:
        """Google's error object."""
        words = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": self.reason,
            "domain": "googleapis.com",
            "metadata": self.metadata,
        }
        status = words.get(self.code, "UNKNOWN")
        details = [info] if self.reason else []
        return {"error": {"code": self.code, "message": str(self), "status": status, "details": details}}


@dataclass(frozen=True)
class Question:
    """One request to Google: who asks what of which project, and what there is."""

    service: str
    path: str
    match: Mapping[str, str]
    body: Any
    state: State
    settings: Settings

    @property
    def project(self) -> str:
        return self.match["project"]

    def has(self, permission: str) -> bool:
        """Whether the caller has a permission."""
        return not any(fnmatch(permission, pattern) for pattern in self.settings.account.get("lacks", ()))

    def require(self, permission: str) -> None:
        """Refuse a caller who has it not."""
        if not self.has(permission):
            raise Refused(
                403,
                f"Required '{permission}' permission for '{self.path}'",
                "IAM_PERMISSION_DENIED",
                permission=permission,
            )

    @property
    def enabled(self) -> frozenset[str]:
        """Short names of the APIs that are on."""
        given = self.settings.services or tuple(f"{name}.googleapis.com" for name in BOOTSTRAPPED)
        now = time.time()
        grown = {
            name for name, since in self.state.services.items()
            if now - since >= self.settings.propagation(SERVICE)
        }  # fmt: skip
        return frozenset(name.removesuffix(".googleapis.com") for name in {*given, *grown})


# -- the project ---------------------------------------------------------------------------------------------------


def _project(question: Question) -> Any:
    question.require("resourcemanager.projects.get")
    return {"name": f"projects/{NUMBER}", "projectId": question.project, "state": "ACTIVE"}


def _test_permissions(question: Question) -> Any:
    asked = list((question.body or {}).get("permissions") or ())
    for name in asked:
        if name in question.settings.account.get("unknown", ()):
            raise Refused(400, f"Permission {name} is not valid for this resource.")
    return {"permissions": [name for name in asked if question.has(name)]}


def _services(question: Question) -> Any:
    question.require("serviceusage.services.list")
    names = sorted(question.enabled)
    root = f"projects/{NUMBER}/services"
    return {"services": [{"name": f"{root}/{name}.googleapis.com", "state": "ENABLED"} for name in names]}


def _billing(question: Question) -> Any:
    on = question.settings.account.get("billing", True)
    account = {"billingAccountName": "billingAccounts/012345-6789AB-CDEF01"} if on else {}
    return {"projectId": question.project, "billingEnabled": on, **account}


def _token(question: Question) -> Any:
    account = question.settings.account
    if account.get("expired") or (question.body or {}).get("access_token") != TOKEN:
        return Answer(400, {"error": "invalid_token", "error_description": "Invalid Value"})
    return {"email": account.get("email", "you@rehearsal.invalid"), "expires_in": "3599"}


# -- quotas and offers ---------------------------------------------------------------------------------------------


def _quota_info(question: Question) -> Any:
    question.require("cloudquotas.quotas.get")
    metric = FAMILIES.get(question.match["quota"].removesuffix("-per-project-region").lower())
    if metric is None:
        raise Refused(404, f"Quota {question.match['quota']} not found.")
    family = {"tpu_family": "CT6E"} if metric == CHIPS else {}
    regions = sorted({machines.region_of(zone) for zone in machines.V6E_ZONES})
    limits = {region: question.settings.quota(metric, region) for region in regions}
    return {
        "quotaId": question.match["quota"],
        "dimensionsInfos": [
            {
                "dimensions": {"region": region, **family},
                "details": {"value": str(limit)},
                "applicableLocations": [region],
            }
            for region, limit in limits.items()
        ],
    }


def _compute_project(question: Question) -> Any:
    question.require("compute.projects.get")
    used = {metric: len(question.state.of(kind)) for metric, kind in COUNTED.items()}
    used["CPUS_ALL_REGIONS"] = sum(cpus for _, cpus in _cpus(question.state))
    return {"name": question.project, "quotas": [_quota(question, m, "", n) for m, n in used.items()]}


def _region(question: Question) -> Any:
    question.require("compute.regions.get")
    region = question.match["region"]
    used = dict.fromkeys(REGIONAL, 0)
    used["CPUS"] = sum(cpus for place, cpus in _cpus(question.state) if place == region)
    return {"name": region, "quotas": [_quota(question, m, region, n) for m, n in used.items()]}


def _quota(question: Question, metric: str, region: str, used: int) -> dict[str, Any]:
    return {"metric": metric, "limit": float(question.settings.quota(metric, region)), "usage": float(used)}


def _cpus(state: State) -> Iterator[tuple[str, int]]:
    """(region, vCPUs) of every pool without TPUs."""
    for pool in all_pools(state):
        if not pool.machine.chips:
            yield pool.region, pool.machine.vcpus * pool.size


def _machine_type(question: Question) -> Any:
    question.require("compute.machineTypes.get")
    zone, name = question.match["zone"], question.match["name"]
    machine = machines.find(name)
    if machine is None or not question.settings.offered(name, zone, machines.catalogued(machine, zone)):
        raise Refused(404, f"The resource '{question.path}' was not found")
    return {
        "name": name,
        "zone": zone,
        "guestCpus": machine.vcpus,
        "memoryMb": int(machine.memory_gib * 1024),
    }


def _reservation(question: Question) -> Any:
    question.require("compute.reservations.get")
    wanted = (question.match["zone"], question.match["name"])
    for entry in question.settings.account.get("reservations", ()):
        if (entry["zone"], entry["name"]) == wanted:
            held = {"count": str(entry.get("count", PLENTY)), "inUseCount": "0"}
            return {
                "name": entry["name"],
                "status": entry.get("status", "READY"),
                "specificReservation": held,
            }
    raise Refused(404, f"The resource '{question.path}' was not found")


def _server_config(question: Question) -> Any:
    question.require("container.clusters.list")
    versions = [releases.full(minor) for minor in question.settings.versions]
    middle = versions[len(versions) // 2]
    channels = {"RAPID": versions[-1], "REGULAR": middle, "STABLE": versions[0], "EXTENDED": middle}
    return {
        "defaultClusterVersion": middle,
        "validMasterVersions": versions[::-1],
        "channels": [
            {"channel": name, "defaultVersion": default, "validVersions": versions[::-1]}
            for name, default in channels.items()
        ],
    }


# -- networks and load balancers -----------------------------------------------------------------------------------


def _subnetworks(question: Question) -> Any:
    question.require("compute.subnetworks.list")
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in question.settings.account.get("subnets", ()):
        found.setdefault(entry["region"], []).append(dict(entry))
    for identity, record in question.state.of("compute/subnetwork").items():
        kept = {name: value for name, value in record["inputs"].items() if value is not None}
        region = record["outputs"].get("region") or kept.get("region", "")
        found.setdefault(region, []).append({**kept, "name": identity.rsplit("/", 1)[-1], "region": region})
    return {"items": {f"regions/{region}": {"subnetworks": subnets} for region, subnets in found.items()}}


def _backend_services(question: Question) -> Any:
    question.require("compute.backendServices.list")
    return {
        "items": [
            {"name": name, "backends": [{"group": group} for group in _groups(service)]}
            for name, service in sorted(question.state.backend_services.items())
            if service["region"] == question.match["region"]
        ]
    }


def _groups(service: Mapping[str, Any]) -> list[str]:
    return sorted({backend["group"] for backend in service["backends"]})


def _health(question: Question) -> Any:
    question.require("compute.backendServices.get")
    service = question.state.backend_services.get(question.match["name"])
    if service is None or service["region"] != question.match["region"]:
        raise Refused(404, f"The resource '{question.path}' was not found")
    group = (question.body or {}).get("group", "")
    alike = [b for b in service["backends"] if b["group"].rsplit("/", 1)[-1] == group.rsplit("/", 1)[-1]]
    return {
        "healthStatus": [
            {
                "instance": backend.get("instance", ""),
                "healthState": backend["healthState"],
                **({"ipAddress": backend["address"]} if backend.get("address") else {}),
            }
            for backend in alike
        ]
    }


def _bucket(question: Question) -> Any:
    for entry in question.settings.account.get("buckets", ()):
        if entry["name"] == question.match["name"]:
            uniform = {"enabled": bool(entry.get("uniform"))}
            prevention = "enforced" if entry.get("private") else "inherited"
            access = {"uniformBucketLevelAccess": uniform, "publicAccessPrevention": prevention}
            return {
                "name": entry["name"],
                "versioning": {"enabled": bool(entry.get("versioning"))},
                "iamConfiguration": access,
            }
    raise Refused(404, "The specified bucket does not exist.")


def _secret_version(question: Question) -> Any:
    question.require("secretmanager.versions.get")
    secret, asked = question.match["secret"], question.match["version"]
    found = google_secrets.version(question.settings, f"projects/{question.project}/secrets/{secret}", asked)
    # Google answers with the project's number, whatever it was asked by.
    name = f"projects/{NUMBER}/secrets/{secret}"
    if found is None:
        raise Refused(404, google_secrets.not_found(name, asked))
    return {
        "name": f"{name}/versions/{found.number}",
        "createTime": "2026-01-01T00:00:00Z",
        "state": found.state,
    }


_P = "(?P<project>[^/:]+)"
_PLACE = f"projects/{_P}"
_REGION = f"{_PLACE}/regions/(?P<region>[^/]+)"
_ZONE = f"{_PLACE}/zones/(?P<zone>[^/]+)"
Route = tuple[str, str, str, Callable[[Question], Any]]
"""Service, method, pattern of the path, and what answers."""
ROUTES: tuple[Route, ...] = (
    ("oauth2", "POST", "tokeninfo", _token),
    ("cloudresourcemanager", "GET", f"v3/{_PLACE}", _project),
    ("cloudresourcemanager", "POST", f"v3/{_PLACE}:testIamPermissions", _test_permissions),
    ("serviceusage", "GET", f"v1/{_PLACE}/services", _services),
    ("cloudbilling", "GET", f"v1/{_PLACE}/billingInfo", _billing),
    (
        "cloudquotas", "GET",
        f"v1/{_PLACE}/locations/global/services/compute.googleapis.com/quotaInfos/(?P<quota>[^/]+)", _quota_info,
    ),
    ("compute", "GET", _PLACE, _compute_project),
    ("compute", "GET", _REGION, _region),
    ("compute", "GET", f"{_ZONE}/machineTypes/(?P<name>[^/]+)", _machine_type),
    ("compute", "GET", f"{_ZONE}/reservations/(?P<name>[^/]+)", _reservation),
    ("compute", "GET", f"{_PLACE}/aggregated/subnetworks", _subnetworks),
    ("compute", "GET", f"{_REGION}/backendServices", _backend_services),
    ("compute", "POST", f"{_REGION}/backendServices/(?P<name>[^/]+)/getHealth", _health),
    ("container", "GET", f"v1/{_PLACE}/locations/(?P<zone>[^/]+)/serverConfig", _server_config),
    ("secretmanager", "POST", f"v1/{_PLACE}/secrets/(?P<secret>[^/:]+):testIamPermissions", _test_permissions),
    (
        "secretmanager", "GET",
        f"v1/{_PLACE}/secrets/(?P<secret>[^/:]+)/versions/(?P<version>[0-9]+|latest)", _secret_version,
    ),
    ("storage", "GET", "b/(?P<name>[^/]+)", _bucket),
)  # fmt: skip


def answer(
    method: str, service: str, path: str, authorization: str, body: Any, root: Path
) -> tuple[int, Any]:
    """(status, JSON) as Google answers for the rehearsal in `root`."""
    settings, state = Settings.of(root), Project.of(root).read()
    try:
        _authenticated(service, authorization, settings)
        for wanted, verb, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, path)
            if (wanted, verb) == (service, method) and match:
                question = Question(service, path, match.groupdict(), body, state, settings)
                _served(question)
                given = handler(question)
                return (given.status, given.body) if isinstance(given, Answer) else (200, given)
        raise Refused(404, f"this simulated Google has no {method} {path} in {service}")
    except Refused as refusal:
        return refusal.code, refusal.body()


def _authenticated(service: str, authorization: str, settings: Settings) -> None:
    if service == "oauth2":
        return
    if authorization != f"Bearer {TOKEN}" or settings.account.get("expired"):
        raise Refused(401, "Request had invalid authentication credentials.", "ACCESS_TOKEN_EXPIRED")


def _served(question: Question) -> None:
    """The project must be there for the caller, and the API on in it."""
    if question.service == "oauth2":
        return
    if "project" in question.match and not question.settings.account.get("project", True):
        name = question.match["project"]
        raise Refused(403, f"The caller does not have permission, or projects/{name} does not exist")
    if question.service not in question.enabled:
        service = f"{question.service}.googleapis.com"
        raise Refused(
            403,
            f"{service} has not been used in project {NUMBER} before or it is disabled.",
            "SERVICE_DISABLED",
            service=service,
            consumer=f"projects/{NUMBER}",
        )


# -- the server ----------------------------------------------------------------------------------------------------


def environment(address: str) -> dict[str, str]:
    """The variables that send questions to the server at `address`, each documented by whoever reads it."""
    overrides = {f"{OVERRIDE}{s.upper()}": f"{address}/{s}/{_VERSIONS.get(s, '')}" for s in _SERVICES}
    return {
        **overrides,
        "HF_ENDPOINT": f"{address}/huggingface",
        "LLMP_REGISTRY_MIRROR": f"{address}/registry",
        "LLMP_CHECKIP": f"{address}/checkip/",
    }


def address(root: Path) -> str | None:
    """Where the server of a rehearsal listens, or None where none was started."""
    try:
        return str(json.loads((root / "cloud" / _ADDRESS).read_text())["address"])
    except (OSError, ValueError, KeyError):
        return None


def forget(root: Path) -> None:
    """Drop the address of a server that has ended."""
    (root / "cloud" / _ADDRESS).unlink(missing_ok=True)


def server(root: Path) -> ThreadingHTTPServer:
    """A server of its own for the rehearsal in `root`, on a free port of loopback; the caller runs and closes it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def log_message(self, *_: object) -> None:
            """Silent: what is asked may carry a token."""

        def _answer(self, method: str) -> None:
            parts = urlsplit(self.path)
            part, _, path = unquote(parts.path).lstrip("/").partition("/")
            path = path.removeprefix(_VERSIONS.get(part, ""))
            authorization, body = self.headers.get("Authorization", ""), self._body()
            if part in web.PARTS:
                given = web.PARTS[part](Asked(path, parts.query, authorization, body), Settings.of(root))
            else:
                given = Answer(*answer(method, part, path, authorization, body, root))
            self._send(given)

        def _body(self) -> Any:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            if "form" in self.headers.get("Content-Type", ""):
                return {name: values[0] for name, values in parse_qs(text).items()}
            return json.loads(text) if text else None

        def _send(self, given: Answer) -> None:
            content = (given.body if isinstance(given.body, str) else json.dumps(given.body)).encode()
            self.send_response(given.status)
            headers = {
                **given.headers,
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@contextmanager
def running(root: Path) -> Iterator[str]:
    """A server in this process, for tests; its address."""
    made = server(root)
    # It looks this often whether it is to end, and every test waits for that.
    thread = Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}"
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def main() -> int:
    """Serve until ended, and say where in the rehearsal's directory."""
    root = start_or_exit(os.environ)
    made = server(root)
    file = root / "cloud" / _ADDRESS
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"address": f"http://127.0.0.1:{made.server_port}"}))
    fresh.replace(file)
    made.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
