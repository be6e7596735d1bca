"""What the rest of the web answers in a rehearsal: Hugging Face, and a mirror of every registry.

    web:
      models:
      - {name: "meta-llama/*", gated: true, approved: false}   # approved: the token's owner has the licence
      - {name: "acme/private", status: 404}
      images:
      - {name: "docker.io/acme/*", login: "user:password"}     # or status: 404
      tokens: [{status: 401}]                                  # Hugging Face refuses the token
    address: 192.0.2.10                                      # of this machine, as Amazon's checkip sees it

Everything that is not named exists and is public. Tokens and logins are never kept or written down.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from rehearsal.cloud.settings import Settings

_REVISION = re.compile(
    r"api/models/(?P<name>[^/]+/[^/]+)/(revision/(?P<revision>[^/]+)|(?P<check>auth-check))"
)
_MANIFEST = re.compile(r"v2/(?P<name>.+)/manifests/(?P<tag>[^/]+)")


@dataclass(frozen=True)
class Answer:
    """A status, a body of JSON, and headers."""

    status: int
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request: its path after the part's own prefix, its query, and its Authorization header."""

    path: str
    query: str
    authorization: str
    body: Any = None


def hugging_face(asked: Asked, settings: Settings) -> Answer:
    """Records and access of models, and whose a token is."""
    token = asked.authorization.removeprefix("Bearer ")
    refused = settings.web("tokens", "")
    if token and refused:
        return _error(int(refused.get("status", 401)), "Invalid credentials in Authorization header")
    if asked.path == "api/whoami-v2":
        return Answer(200, {"name": "rehearsal"}) if token else _error(401, "No token")
    found = _REVISION.fullmatch(asked.path)
    if found is None:
        return _error(404, "this simulated Hugging Face knows records of models only")
    entry = settings.web("models", found["name"])
    if status := entry.get("status"):
        return _error(int(status), "Repository not found", "RepoNotFound")
    if found["revision"] and found["revision"] in entry.get("lacks", ()):
        return _error(404, f"Invalid rev id: {found['revision']}", "RevisionNotFound")
    gated = bool(entry.get("gated"))
    if found["check"] and gated and not (token and entry.get("approved")):
        return _error(403 if token else 401, "Access to this model is restricted", "GatedRepo")
    return Answer(200, {"id": found["name"], "gated": "manual" if gated else False})


def registry(asked: Asked, settings: Settings) -> Answer:
    """A mirror as containerd asks one: the registry is in the query."""
    found = _MANIFEST.fullmatch(asked.path)
    if found is None:
        return Answer(404)
    host = parse_qs(asked.query).get("ns", [""])[0].replace("registry-1.docker.io", "docker.io")
    entry = settings.web("images", f"{host}/{found['name']}")
    if status := entry.get("status"):
        return Answer(int(status))
    login = entry.get("login")
    if login and asked.authorization != "Basic " + base64.b64encode(login.encode()).decode():
        return Answer(401, {}, {"WWW-Authenticate": 'Basic realm="simulated"'})
    return Answer(200, {"schemaVersion": 2, "manifests": []})


def own_address(_: Asked, settings: Settings) -> Answer:
    """Where this machine comes from: of the documentation's networks, and so never a real place."""
    return Answer(200, settings.own_address)


def _error(status: int, message: str, word: str = "") -> Answer:
    return Answer(status, {"error": message}, {"X-Error-Code": word} if word else {})


PARTS: Mapping[str, Callable[[Asked, Settings], Answer]] = {
    "huggingface": hugging_face,
    "registry": registry,
    "checkip": own_address,
}
