"""A small client of Google's REST APIs, with the user's own login.

    google = Google("my-project")
    google.get("compute", "projects/my-project/regions/europe-west4")

The token is the one that Pulumi's provider and the kubeconfig's plugin would act with, where there is one. Base
URLs are those of gcloud, and so are the variables that change them: CLOUDSDK_API_ENDPOINT_OVERRIDES_<SERVICE>.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3 import Retry

from ops.errors import OpsError

# As gcloud has them: some end in a version, so paths of those services have none.
BASES: Mapping[str, str] = {
    "cloudbilling": "https://cloudbilling.googleapis.com/",
    "cloudkms": "https://cloudkms.googleapis.com/",
    "cloudquotas": "https://cloudquotas.googleapis.com/",
    "cloudresourcemanager": "https://cloudresourcemanager.googleapis.com/",
    "compute": "https://compute.googleapis.com/compute/v1/",
    "container": "https://container.googleapis.com/",
    "oauth2": "https://oauth2.googleapis.com/",
    "secretmanager": "https://secretmanager.googleapis.com/",
    "serviceusage": "https://serviceusage.googleapis.com/",
    "storage": "https://storage.googleapis.com/storage/v1/",
}
OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_"
TOKEN_VARIABLE = "GOOGLE_OAUTH_ACCESS_TOKEN"
"""A token in this variable is what Pulumi's provider takes before anything else."""
# These count a request against the project that asks, which a user's login does not name by itself.
_ASKED_BY_PROJECT = frozenset({"cloudbilling", "cloudquotas", "cloudresourcemanager", "serviceusage"})
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TIMEOUTS = (10, 60)  # Seconds to connect, and between two pieces of an answer.
_PATIENCE = 60.0  # Seconds that gcloud may take.
# Everything that is asked here changes nothing, so it may be asked again.
_RETRIES = Retry(
    total=3, backoff_factor=0.3, status_forcelist={429, 500, 502, 503, 504},
    allowed_methods=None, raise_on_status=False,
)  # fmt: skip
LOG_IN = "gcloud auth application-default login"


class GoogleError(OpsError):
    """A refusal by Google.

    `code` is the HTTP status (0 when the service could not be reached), `reason` Google's word for it where it gives
    one, for example `SERVICE_DISABLED` or `IAM_PERMISSION_DENIED`, and `details` what belongs to the reason.
    """

    def __init__(self, code: int, reason: str, message: str, details: Mapping[str, str] | None = None):
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, dict(details or {})


@dataclass(frozen=True)
class Credential:
    """A token and where it is from; `pulumi` says whether Pulumi's provider would use the same login."""

    token: str = field(repr=False)
    origin: str = ""
    pulumi: bool = True


class _Bearer(AuthBase):
    """A bearer token; being an explicit choice, it also keeps `.netrc` out of the way."""

    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def credential(environ: Mapping[str, str] = os.environ) -> Credential:
    """The login of this machine; OpsError with how to log in where there is none."""
    if given := environ.get(TOKEN_VARIABLE, "").strip():
        return Credential(given, f"the variable {TOKEN_VARIABLE}")
    if shutil.which("gcloud", path=environ.get("PATH")) is None:
        raise OpsError(
            f"there is no `gcloud` on PATH and {TOKEN_VARIABLE} is not set, so Google cannot be asked: install the "
            "Google Cloud CLI (https://cloud.google.com/sdk/docs/install), then run: " + LOG_IN
        )
    said = ""
    for words, origin, pulumi in (
        (("auth", "application-default"), "the application default credentials", True),
        (("auth",), "gcloud's own login", False),
    ):
        token, said = _print_token(words, environ)
        if token:
            return Credential(token, origin, pulumi)
    raise OpsError(f"nobody is logged in to Google ({said}): run: {LOG_IN}")


def _print_token(words: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, str]:
    """(token, what gcloud said instead)."""
    command = ["gcloud", *words, "print-access-token"]
    try:
        answer = subprocess.run(
            command,
            env={**environ, "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"`{' '.join(command)}`: {error}"
    if answer.returncode:
        lines = answer.stderr.strip().splitlines()
        return "", lines[0] if lines else f"`{' '.join(command)}` failed"
    return answer.stdout.strip(), ""


def base(service: str, environ: Mapping[str, str] = os.environ) -> str:
    """Where a service answers, with a slash at the end. OpsError for an address that a token must not go to."""
    name = OVERRIDE + service.upper()
    url = environ.get(name) or BASES[service]
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise OpsError(f"{name} is {url}: a token is only sent by https. Correct the variable, or unset it")
    return url.rstrip("/") + "/"


class Google:
    """Google's APIs for one project, as the user who is logged in."""

    def __init__(self, project: str, environ: Mapping[str, str] = os.environ):
        self.project, self._environ = project, environ
        self._lock = Lock()
        self._session = requests.Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=_RETRIES, pool_maxsize=16))

    @cached_property
    def _credential(self) -> Credential:
        return credential(self._environ)

    @property
    def credential(self) -> Credential:
        """The login; OpsError where there is none."""
        with self._lock:
            return self._credential

    def get(self, service: str, path: str, **query: Any) -> dict[str, Any]:
        """The answer to one question. Raises GoogleError."""
        return self._send("GET", service, path, params=query)

    def post(
        self, service: str, path: str, body: Any = None, form: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The answer to a question that is asked with a body: JSON, or a form. Raises GoogleError.

        It is asked again when Google is busy, so it must not be one that changes something.
        """
        return self._send("POST", service, path, json=body, data=form)

    def pages(self, service: str, path: str, items: str, **query: Any) -> Iterator[Any]:
        """The entries under the key `items`, of all pages."""
        token = ""
        while True:
            page = self.get(service, path, **query, **({"pageToken": token} if token else {}))
            found = page.get(items) or ()
            yield from found.items() if isinstance(found, Mapping) else found
            token = page.get("nextPageToken") or ""
            if not token:
                return

    def _send(self, method: str, service: str, path: str, **given: Any) -> dict[str, Any]:
        url = base(service, self._environ) + path
        headers = {"X-Goog-User-Project": self.project} if service in _ASKED_BY_PROJECT else {}
        try:
            answer = self._session.request(
                method,
                url,
                headers=headers,
                auth=_Bearer(self.credential.token),
                timeout=_TIMEOUTS,
                allow_redirects=False,
                **given,
            )
        except requests.RequestException as error:
            host = urlsplit(url).netloc
            raise GoogleError(0, "Unreachable", f"{host} cannot be reached: {_cause(error)}") from None
        return _decoded(answer)


def _decoded(answer: requests.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        content = None
    if answer.status_code < 300 and isinstance(content, dict):
        return content
    raise refusal(answer.status_code, content, urlsplit(answer.url).netloc)


def refusal(code: int, content: Any, host: str) -> GoogleError:
    """The refusal in an answer: Google's error object, or whatever a proxy on the way wrote."""
    error = content.get("error") if isinstance(content, dict) else None
    if isinstance(error, str):  # OAuth's form
        return GoogleError(code, error, content.get("error_description") or error)
    if not isinstance(error, dict):
        return GoogleError(code, "", f"{host} answers {code}, and not as Google does: is a proxy in between?")
    for detail in error.get("details") or ():
        if str(detail.get("@type", "")).endswith("google.rpc.ErrorInfo"):
            return GoogleError(
                code, detail.get("reason", ""), error.get("message", ""), detail.get("metadata")
            )
    first = next(iter(error.get("errors") or ()), {})
    return GoogleError(code, first.get("reason") or error.get("status") or "", error.get("message") or "")


def _cause(error: BaseException) -> str:
    """The reason at the bottom of a stack of wrapped errors, which is all that people need."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error).rpartition("] ")[2] or type(error).__name__


@dataclass(frozen=True)
class Backend:
    """One endpoint behind a load balancer; `state` is Google's word: HEALTHY, UNHEALTHY, UNKNOWN."""

    service: str
    group: str
    address: str
    state: str


def backends(google: Google, region: str) -> list[Backend]:
    """The health of every endpoint of every regional backend service, as `get-health` of gcloud tells it."""
    root = f"projects/{google.project}/regions/{quote(region)}/backendServices"
    return [
        Backend(
            service["name"],
            entry["group"].rsplit("/", 1)[-1],
            health.get("ipAddress") or health.get("instance", "").rsplit("/", 1)[-1],
            health.get("healthState", "UNKNOWN"),
        )
        for service in google.pages("compute", root, "items")
        for entry in service.get("backends") or ()
        for health in google.post(
            "compute", f"{root}/{service['name']}/getHealth", {"group": entry["group"]}
        ).get("healthStatus", ())
    ]
