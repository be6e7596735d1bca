"""Fetching charts, manifests and images' digests from where they are published, over plain HTTPS.

Charts come from an index (`<repository>/index.yaml`) or from an OCI registry,
images' digests from a registry. Registries ask for a token even for what is
public; it is got as their challenge says (distribution-spec, "Bearer").
Registries on this machine's loopback are spoken to without TLS, as usual.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import yaml
from requests.auth import AuthBase

from components.platform.lock import LockedChart, LockedImage, LockedManifest

_TIMEOUTS = (10, 120)  # Seconds to connect, and between two pieces of an answer.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Indexes are megabytes.
_CHART_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_DOCKER_HUB = "registry-1.docker.io"


class Unavailable(Exception):
    """Something could not be fetched; the message says from where and why."""


class Altered(Exception):
    """What was fetched is not what its own source says it is."""


class _Token(AuthBase):
    """A bearer token; being an explicit choice, it also keeps `.netrc` out of the way."""

    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def sha256(content: bytes) -> str:
    """The digest of some content, as lock files and registries write it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Sources:
    """The web, as far as the lock file's entries are in it."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._tokens: dict[str, str] = {}
        self._indexes: dict[str, Mapping[str, Any]] = {}

    def digest(self, locked: LockedChart | LockedManifest | LockedImage) -> str:
        """The digest to lock: of the file, or of an image's manifest. Raises Unavailable or Altered."""
        if isinstance(locked, LockedImage):
            return self._image(locked)
        return sha256(self.fetch(locked))

    def fetch(self, locked: LockedChart | LockedManifest) -> bytes:
        """The content of a chart's archive or of a manifest. Raises Unavailable or Altered."""
        if isinstance(locked, LockedManifest):
            return self._get(locked.url).content
        return (
            self._oci_chart(locked) if locked.repository.startswith("oci://") else self._indexed_chart(locked)
        )

    def _indexed_chart(self, locked: LockedChart) -> bytes:
        base = locked.repository.rstrip("/") + "/"
        if base not in self._indexes:
            self._indexes[base] = _decoded(self._get(base + "index.yaml"))
        versions = self._indexes[base].get("entries", {}).get(locked.chart, [])
        entry = next((v for v in versions if str(v["version"]) == locked.version), None)
        if entry is None:
            raise Unavailable(f"{base}index.yaml has no {locked.chart} {locked.version}")
        url = urljoin(base, entry["urls"][0])
        content = self._get(url).content
        stated = str(entry.get("digest") or "").removeprefix("sha256:")
        if stated and sha256(content) != f"sha256:{stated}":
            raise Altered(f"{url} has {sha256(content)}, but {base}index.yaml says sha256:{stated}")
        return content

    def _oci_chart(self, locked: LockedChart) -> bytes:
        registry, _, repository = locked.repository.removeprefix("oci://").partition("/")
        path = f"{repository}/{locked.chart}"
        tag = locked.version.replace("+", "_")  # Tags know no plus; Helm writes it so.
        manifest = _decoded(self._registry(registry, path, f"manifests/{tag}"))
        layer = next((x for x in manifest.get("layers", ()) if x.get("mediaType") == _CHART_LAYER), None)
        if layer is None:
            raise Unavailable(f"{locked.repository}/{locked.chart}:{tag} is not a Helm chart")
        content = self._registry(registry, path, f"blobs/{layer['digest']}").content
        if sha256(content) != layer["digest"]:
            raise Altered(f"{registry}/{path} has {sha256(content)}, but its manifest says {layer['digest']}")
        return content

    def _image(self, locked: LockedImage) -> str:
        registry, repository, tag = split_reference(locked.reference)
        answer = self._registry(registry, repository, f"manifests/{tag}")
        stated = answer.headers.get("Docker-Content-Digest")
        if stated and stated != sha256(answer.content):
            raise Altered(f"{locked.reference} has {sha256(answer.content)}, but its registry says {stated}")
        return sha256(answer.content)

    def _registry(self, registry: str, repository: str, what: str) -> requests.Response:
        scheme = (
            "http" if urlsplit(f"//{registry}").hostname in ("localhost", "127.0.0.1", "::1") else "https"
        )
        url = f"{scheme}://{registry}/v2/{repository}/{what}"
        key = f"{registry}/{repository}"
        answer = self._send(url, self._tokens.get(key, ""))
        if answer.status_code == 401:
            self._tokens[key] = self._token(answer, url)
            answer = self._send(url, self._tokens[key])
        return _good(answer, url)

    def _token(self, refused: requests.Response, url: str) -> str:
        challenge = refused.headers.get("WWW-Authenticate", "")
        fields = dict(_CHALLENGE.findall(challenge))
        if not challenge.lower().startswith("bearer ") or "realm" not in fields:
            raise Unavailable(
                f"{url} is not public: it asks for {challenge.partition(' ')[0] or 'credentials'}"
            )
        realm = fields.pop("realm")
        answer = self._get(
            realm, params={k: v for k, v in fields.items() if k in ("service", "scope")}
        ).json()
        return str(answer.get("token") or answer.get("access_token") or "")

    def _get(self, url: str, params: Mapping[str, str] | None = None) -> requests.Response:
        return _good(self._send(url, "", params), url)

    def _send(self, url: str, token: str, params: Mapping[str, str] | None = None) -> requests.Response:
        if not url.startswith("https://") and not _is_here(url):
            raise Unavailable(f"{url} is not https")
        try:
            headers = {"Accept": ", ".join(_MANIFESTS) if "/manifests/" in url else "*/*"}
            return self._session.get(
                url, params=params, headers=headers, auth=_Token(token), timeout=_TIMEOUTS
            )
        except requests.RequestException as error:
            raise Unavailable(f"{urlsplit(url).netloc or url} cannot be reached: {_cause(error)}") from None


def split_reference(reference: str) -> tuple[str, str, str]:
    """(registry, repository, tag) of an image's reference, with Docker Hub's abbreviations written out."""
    name, _, tag = reference.rpartition(":")
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return (_DOCKER_HUB if first == "docker.io" else first), rest, tag
    return _DOCKER_HUB, name if slash else f"library/{name}", tag


def _is_here(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def _decoded(answer: requests.Response) -> Mapping[str, Any]:
    """An answer in YAML or in JSON, which is YAML too."""
    try:
        content = yaml.load(answer.content, Loader=_LOADER)
    except yaml.YAMLError:
        content = None
    if not isinstance(content, Mapping):
        raise Unavailable(
            f"{answer.url} does not answer as it should: is there a proxy in between that wants a login?"
        )
    return content


def _good(answer: requests.Response, url: str) -> requests.Response:
    if answer.status_code >= 400:
        raise Unavailable(f"{url} answers {answer.status_code} {answer.reason}".rstrip())
    return answer


def _cause(error: BaseException) -> str:
    """The reason at the bottom of a stack of wrapped errors, which is all that people need."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    text = str(error)
    return text.rpartition("] ")[2] or type(error).__name__
