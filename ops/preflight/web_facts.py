"""Whether what pods will download can be had: weights of Hugging Face, images of registries, with the stack's secrets.

Hugging Face's address is HF_ENDPOINT's, as for its own library. Registries can stand behind a mirror that
LLMP_REGISTRY_MIRROR names, which is asked as containerd asks its mirrors: the registry in the query `ns`. The address
that this machine has on the internet is told by Amazon, or by what LLMP_CHECKIP names.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from components.core.accelerators import ACCELERATORS
from ops.artifacts.sources import split_reference
from ops.errors import OpsError
from ops.preflight.site import Site
from ops.preflight.verdicts import Collector
from stacks.config import StackConfig

HUGGING_FACE = "https://huggingface.co"
MIRROR = "LLMP_REGISTRY_MIRROR"
CHECKIP, CHECKIP_VARIABLE = "https://checkip.amazonaws.com/", "LLMP_CHECKIP"
_TIMEOUTS = (10, 30)
_ACCEPT = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1", "docker.distribution.manifest.list.v2", "oci.image.manifest.v1",
        "docker.distribution.manifest.v2",
    )
)  # fmt: skip
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
# Docker writes its hub in this way into a login file.
_HUB_LOGINS = ("https://index.docker.io/v1/", "docker.io", "index.docker.io")
_HUB = "registry-1.docker.io"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Weights:
    """A model of Hugging Face: the HTTP status and Hugging Face's error word of its record and of the access to it."""

    repository: str
    revision: str
    record: int
    access: int
    word: str = ""


@dataclass(frozen=True)
class Token:
    """The Hugging Face token: whose it is, or the status with which it was refused. None is set: status 0."""

    owner: str
    status: int


@dataclass(frozen=True)
class Image:
    """An image as its registry answers: 200 is there. `login` says whether the pull secret has one for it."""

    reference: str
    status: int
    login: bool
    fault: str = ""


class _Header(AuthBase):
    """One Authorization header, or none; being an explicit choice, it also keeps `.netrc` out of the way."""

    def __init__(self, value: str = ""):
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value:
            request.headers["Authorization"] = self._value
        return request


def models_of(config: StackConfig) -> dict[str, tuple[str, str]]:
    """(repository, revision) of the models that come from Hugging Face, by name."""
    sources = {name: model.origin for name, model in config.models.items()}
    found = {name: uri for name, uri in sources.items() if uri.startswith("hf://")}
    split = {name: uri.removeprefix("hf://").partition(":") for name, uri in sorted(found.items())}
    return {name: (repository, revision or "main") for name, (repository, _, revision) in split.items()}


def images_of(config: StackConfig, locked: Mapping[str, Any]) -> dict[str, str]:
    """Images that the stack runs beside those that charts bring: reference by what it is for."""
    found = {"kubectl": locked["kubectl"].pinned}
    for name, model in sorted(config.models.items()):
        accelerator = ACCELERATORS[config.cluster.accelerators[model.accelerator].shape().accelerator]
        found[f"engine of {name}"] = model.image or locked[accelerator.image_key].pinned
        if model.uri.startswith("oci://"):
            found[f"weights of {name}"] = model.uri.removeprefix("oci://")
        if model.routing != "none":
            found["endpoint pickers"] = locked["endpoint-picker"].pinned
        if model.fill:
            found["what fills claims"] = locked["storage-initializer"].pinned
    if config.access is not None:
        found |= {"rate limits": locked["ratelimit"].pinned, "their store": locked["valkey"].pinned}
    return found


def hugging_face_token(site: Site) -> Token:
    """Whose the token of the stack is."""
    token = site.secret("hfToken")
    if not token:
        return Token("", 0)
    answer = _hugging_face(site, "api/whoami-v2", token)
    return Token(_json(answer).get("name", ""), answer.status_code)


def weights(site: Site) -> Mapping[str, Weights]:
    """By model, with the stack's token where it has one."""
    wanted = models_of(site.config)
    if not wanted:
        return {}
    token = site.secret("hfToken") or ""
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda entry: _weights(site, token, *entry), wanted.values())
        return dict(zip(wanted, found, strict=True))


def _weights(site: Site, token: str, repository: str, revision: str) -> Weights:
    record = _hugging_face(site, f"api/models/{repository}/revision/{revision}", token)
    access = _hugging_face(site, f"api/models/{repository}/auth-check", token)
    words = [answer.headers.get("X-Error-Code", "") for answer in (access, record)]
    return Weights(
        repository, revision, record.status_code, access.status_code, next(filter(None, words), "")
    )


def _hugging_face(site: Site, path: str, token: str) -> requests.Response:
    base = (site.environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
    return _get(f"{base}/{path}", f"Bearer {token}" if token else "")


def images(site: Site) -> Mapping[str, Image]:
    """By what each is for, with the logins of the pull secret."""
    logins = logins_of(site.secret("pullSecret"))
    wanted = images_of(site.config, site.locked.images)
    mirror = site.environ.get(MIRROR, "").rstrip("/")
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda reference: _image(reference, logins, mirror), wanted.values())
        return dict(zip(wanted, found, strict=True))


def logins_of(pull_secret: str | None) -> dict[str, str]:
    """`user:password` in base64 by registry, of a Docker config JSON. OpsError without its content if it is none."""
    if not pull_secret:
        return {}
    try:
        entries = json.loads(pull_secret)["auths"]
        return {_registry(name): _login(entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OpsError(
            "the secret pullSecret is not a Docker config JSON with auths, so the nodes could not pull the images: "
            "run: pulumi config set --secret llm-platform:pullSecret < config.json"
        ) from None


def _login(entry: Mapping[str, str]) -> str:
    given = f"{entry.get('username', '')}:{entry.get('password', '')}"
    return entry.get("auth") or base64.b64encode(given.encode()).decode()


def _registry(name: str) -> str:
    return _HUB if name in _HUB_LOGINS else name.removeprefix("https://").split("/", 1)[0]


def _image(reference: str, logins: Mapping[str, str], mirror: str) -> Image:
    tagged, _, digest = reference.partition("@")
    registry, repository, tag = split_reference(tagged)
    login = logins.get(registry, "")
    host = mirror or f"{'http' if urlsplit(f'//{registry}').hostname in _LOOPBACK else 'https'}://{registry}"
    url = f"{host}/v2/{repository}/manifests/{digest or tag}" + (f"?ns={registry}" if mirror else "")
    try:
        answer = _manifest(url, login)
    except OpsError as error:
        return Image(reference, 0, bool(login), str(error))
    return Image(reference, answer.status_code, bool(login))


def _manifest(url: str, login: str) -> requests.Response:
    """Registries ask for a token even for what is public; a login is shown only to whom the challenge names."""
    asked = partial(_get, accept=_ACCEPT)
    answer = asked(url, "")
    if answer.status_code != 401:
        return answer
    challenge = answer.headers.get("WWW-Authenticate", "")
    fields = dict(_CHALLENGE.findall(challenge))
    basic = f"Basic {login}" if login else ""
    if challenge.lower().startswith("basic ") and basic:
        return asked(url, basic)
    if not challenge.lower().startswith("bearer ") or "realm" not in fields:
        return answer
    realm = fields.pop("realm")
    scope = {name: value for name, value in fields.items() if name in ("service", "scope")}
    given = _get(realm, basic, params=scope)
    if given.status_code != 200:
        return given
    content = _json(given)
    return asked(url, f"Bearer {content.get('token') or content.get('access_token') or ''}")


def _get(
    url: str, authorization: str, accept: str = "*/*", params: Mapping[str, str] | None = None
) -> requests.Response:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise OpsError(f"{url} is not https, and a token is only sent by it")
    try:
        return requests.get(
            url, params=params, headers={"Accept": accept}, auth=_Header(authorization), timeout=_TIMEOUTS
        )
    except requests.RequestException as error:
        cause: BaseException = error
        while inner := cause.__cause__ or cause.__context__:
            cause = inner
        raise OpsError(f"{parts.netloc} cannot be reached: {str(cause).rpartition('] ')[2]}") from None


def own_address(site: Site) -> str:
    """The address by which this machine is known on the internet. OpsError where nobody tells it."""
    answer = _get(site.environ.get(CHECKIP_VARIABLE) or CHECKIP, "")
    try:
        return str(ipaddress.ip_address(answer.text.strip()))
    except ValueError:
        raise OpsError(
            f"{CHECKIP} does not tell this machine's address (it answers {answer.status_code})"
        ) from None


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


COLLECTORS: Mapping[str, Collector] = {
    "token": hugging_face_token,
    "weights": weights,
    "images": images,
}
