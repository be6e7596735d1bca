"""A small dynamic client for any Kubernetes API server.

Built on the official client's connection layer, so every kubeconfig that
kubectl can use works here too, exec plugins included. Objects are plain dicts
in the API's own spelling; refusals are :class:`ApiError` with the server's
reason, so callers branch on `NotFound` or `AlreadyExists`, never on text.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes.client import CoreV1Api
from kubernetes.client.api_client import ApiClient
from kubernetes.config import new_client_from_config, new_client_from_config_dict
from kubernetes.stream import portforward

from ops.errors import OpsError

Manifest = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"

# "Too many requests" asks to come back, for example while a new definition's storage is prepared. Nothing else is
# repeated here: only the caller knows whether that is safe.
BUSY = urllib3.Retry(
    total=None, connect=0, read=0, redirect=0, other=0, status=10,
    status_forcelist={429}, allowed_methods=None, raise_on_status=False,
)  # fmt: skip


class ApiError(OpsError):
    """A refusal by the API server.

    `code` is the HTTP status (0 when the server could not be reached) and
    `reason` the `metav1.Status` reason, for example `NotFound`.
    """

    def __init__(self, code: int, reason: str, message: str, details: Manifest | None = None):
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details = details or {}


class UnknownKind(ApiError):
    """The API server serves no such apiVersion and kind (no CRD, or not yet)."""

    def __init__(self, api_version: str, kind: str):
        super().__init__(404, "NoMatch", f'no matches for kind "{kind}" in version "{api_version}"')


@dataclass(frozen=True)
class ResourceKind:
    """Where one kind is served: `plural` in the path, and whether it is namespaced."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
        root = "/api/v1" if self.api_version == "v1" else f"/apis/{self.api_version}"
        scope = f"/namespaces/{quote(namespace)}" if self.namespaced and namespace else ""
        leaf = f"/{quote(name)}" if name else ""
        return f"{root}{scope}/{self.plural}{leaf}" + (f"/{subresource}" if subresource else "")


def _client(kubeconfig: Path | Mapping[str, Any] | None, context: str | None) -> ApiClient:
    if isinstance(kubeconfig, Mapping):
        # Content stays in memory: a file, however short its life, is one that a crash leaves behind.
        return new_client_from_config_dict(dict(kubeconfig), context, persist_config=False)
    return new_client_from_config(config_file=str(kubeconfig) if kubeconfig else None, context=context)


def _error(response: urllib3.BaseHTTPResponse) -> ApiError:
    """The refusal in an answer: a `metav1.Status`, or whatever a proxy on the way wrote."""
    text = (response.data or b"").decode(errors="replace")
    try:
        status = json.loads(text)
    except ValueError:
        status = {}
    message = status.get("message") or f"HTTP {response.status} {response.reason}: {text[:500]}"
    return ApiError(response.status, status.get("reason", ""), message, status.get("details") or {})


class Kube:
    """One API server, addressed through a kubeconfig (a file, or its content) and a context."""

    def __init__(self, kubeconfig: Path | Mapping[str, Any] | None = None, context: str | None = None):
        self._api = _client(kubeconfig, context)
        self._kinds: dict[str, dict[str, ResourceKind]] = {}
        self._lock = threading.Lock()

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._api.configuration.host)

    def request(
        self,
        method: str,
        path: str,
        query: Manifest | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float = 30,
    ) -> Any:
        """Send one request and return the decoded JSON body (text when it is not JSON)."""
        response = self._send(method, path, query, body, content_type, timeout)
        text = response.data.decode()
        try:
            return json.loads(text)
        except ValueError:
            return text

    def _send(self, method, path, query, body, content_type, timeout, stream=False):
        headers = {"Accept": "application/json", "Content-Type": content_type}
        self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self.server + path + ("?" + urlencode(query) if query else "")
        pool = self._api.rest_client.pool_manager
        try:
            response = pool.request(
                method,
                url,
                headers=headers,
                body=None if body is None else json.dumps(body),
                timeout=urllib3.Timeout(connect=5, read=timeout),
                retries=BUSY,
                preload_content=not stream,
            )
        except urllib3.exceptions.HTTPError as failure:
            raise ApiError(0, "Unreachable", f"{self.server} cannot be reached: {failure}") from None
        if response.status >= 400:
            raise _error(response)
        return response

    def forwarded(self, pod: str, namespace: str, port: int, timeout: float) -> socket.socket:
        """A connection to a port inside a pod, as of `kubectl port-forward`; ApiException where it is refused."""
        ask = CoreV1Api(self._api).connect_get_namespaced_pod_portforward
        line = portforward(ask, pod, namespace, ports=str(port), _request_timeout=timeout)
        # A wrapper that refuses one option only; TLS needs the socket itself.
        return line.socket(port)._socket

    def kind(self, api_version: str, kind: str) -> ResourceKind:
        """Look a kind up by discovery; asks the server again for kinds not seen so far."""
        known = self._kinds.get(api_version, {})
        if kind not in known:
            known = self._discover(api_version)
        if kind not in known:
            raise UnknownKind(api_version, kind)
        return known[kind]

    def _discover(self, api_version: str) -> dict[str, ResourceKind]:
        path = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
        try:
            served = self.request("GET", path)["resources"]
        except ApiError as error:
            if error.code != 404:
                raise
            served = []
        found = {
            r["kind"]: ResourceKind(api_version, r["kind"], r["name"], r["namespaced"])
            for r in served
            if "/" not in r["name"]
        }
        with self._lock:
            self._kinds[api_version] = found
        return found

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Read one object, or None where it (or its kind) does not exist."""
        try:
            return self.request("GET", self.kind(api_version, kind).path(namespace, name))
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = "", fields: str = ""
    ) -> list[Manifest]:
        """Read all objects of a kind, with apiVersion and kind filled in on each."""
        query = {k: v for k, v in (("labelSelector", selector), ("fieldSelector", fields)) if v}
        try:
            answer = self.request("GET", self.kind(api_version, kind).path(namespace), query)
        except ApiError as error:
            if error.code == 404:
                return []
            raise
        return [{"apiVersion": api_version, "kind": kind, **item} for item in answer["items"]]

    def log(self, namespace: str, pod: str, container: str, lines: int, previous: bool = False) -> list[str]:
        """The last lines that a container has written, or that its life before has."""
        path = f"{self.kind('v1', 'Pod').path(namespace, pod)}/log"
        query = {
            "container": container,
            "tailLines": str(lines),
            **({"previous": "true"} if previous else {}),
        }
        response = self._send("GET", path, query, None, "application/json", 30)
        return response.data.decode(errors="replace").splitlines()

    def create(self, manifest: Manifest, **query: str) -> Manifest:
        """Create an object; an existing one is an `AlreadyExists` refusal."""
        kind, meta = self._of(manifest)
        return self.request("POST", kind.path(meta.get("namespace")), query, manifest)

    def apply(
        self, manifest: Manifest, manager: str, force: bool = False, subresource: str = "", **query: str
    ) -> Manifest:
        """Server-side apply as field manager `manager`."""
        kind, meta = self._of(manifest)
        query = {"fieldManager": manager, "force": str(force).lower(), **query}
        path = kind.path(meta.get("namespace"), meta["name"], subresource)
        return self.request("PATCH", path, query, manifest, APPLY)

    def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None,
        body: Any,
        content_type: str = MERGE,
        subresource: str = "",
    ) -> Manifest:
        """Patch one object, by default with a JSON merge patch."""
        path = self.kind(api_version, kind).path(namespace, name, subresource)
        return self.request("PATCH", path, None, body, content_type)

    def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None = None,
        propagation: str = "Background",
    ) -> None:
        """Delete one object; one that is already gone is fine."""
        try:
            path = self.kind(api_version, kind).path(namespace, name)
            self.request("DELETE", path, None, {"propagationPolicy": propagation})
        except ApiError as error:
            if error.code != 404:
                raise

    def watch(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        timeout: int = 300,
        since: str = "",
        fields: str = "",
    ) -> Iterator[tuple[str, Manifest]]:
        """Yield (event, object) from now on, or from resourceVersion `since`, for `timeout` seconds."""
        query = {"watch": "true", "timeoutSeconds": str(timeout), "allowWatchBookmarks": "true"}
        query |= {k: v for k, v in (("resourceVersion", since), ("fieldSelector", fields)) if v}
        path = self.kind(api_version, kind).path(namespace)
        response = self._send("GET", path, query, None, "application/json", timeout + 30, stream=True)
        try:
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(status.get("code", 0), status.get("reason", ""), status.get("message", ""))
                yield event["type"], event["object"]
        except urllib3.exceptions.HTTPError as failure:
            raise ApiError(0, "Unreachable", f"the watch on {kind} broke: {failure}") from None
        finally:
            response.close()

    def follow(self, api_version: str, kind: str, stop: threading.Event) -> Iterator[tuple[str, Manifest]]:
        """List, then watch, for ever: every object once as ADDED, then each change.

        Survives a restarted API server and a CRD that does not exist yet; after
        a break the list is read again, with a DELETED for what vanished meanwhile.
        """
        seen: dict[str, Manifest] = {}
        while not stop.is_set():
            try:
                resource = self.kind(api_version, kind)
                answer = self.request("GET", resource.path(None))
                now = {
                    i["metadata"]["uid"]: {"apiVersion": api_version, "kind": kind, **i}
                    for i in answer["items"]
                }
                yield from (("DELETED", gone) for uid, gone in list(seen.items()) if uid not in now)
                for uid, item in now.items():
                    old = seen.get(uid)
                    if (
                        old is None
                        or old["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]
                    ):
                        yield ("MODIFIED" if old else "ADDED"), item
                seen = now
                since = answer["metadata"]["resourceVersion"]
                for event, item in self.watch(api_version, kind, timeout=600, since=since):
                    if stop.is_set():
                        return
                    if event == "BOOKMARK":
                        continue
                    uid = item["metadata"]["uid"]
                    if event == "DELETED":
                        seen.pop(uid, None)
                    else:
                        seen[uid] = item
                    yield event, item
            except ApiError as error:
                # A missing CRD, an expired resourceVersion or a restarted server: list again.
                stop.wait(0.3 if error.reason == "NoMatch" else 0.5)

    def wait(self, check, timeout: float, what: str) -> Any:
        """Call `check` until it returns something true; TimeoutError naming `what` otherwise."""
        deadline = time.monotonic() + timeout
        while True:
            if result := check():
                return result
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {timeout:.0f} s")
            time.sleep(0.2)

    def _of(self, manifest: Manifest) -> tuple[ResourceKind, Manifest]:
        return self.kind(manifest["apiVersion"], manifest["kind"]), manifest["metadata"]


def _lines(response) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(65536, decode_content=True):
        rest += chunk
        *whole, rest = rest.split(b"\n")
        yield from (line for line in whole if line.strip())
