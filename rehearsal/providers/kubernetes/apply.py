"""Create, update, read and delete of objects, with the official provider's refusals and retries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ops.kube import APPLY, JSON_PATCH, ApiError, Manifest
from rehearsal.providers.kubernetes.cluster import Cluster
from rehearsal.providers.kubernetes.diff import parse_path
from rehearsal.providers.kubernetes.objects import annotation, is_crd, meta

# A plain create uses this name, so that the first update knows the fields for its own.
CREATOR = "pulumi-kubernetes"
FORCE = "pulumi.com/patchForce"
_PROPAGATION = "pulumi.com/deletionPropagationPolicy"
_CLIENT_SIDE = (
    "before-first-apply",
    "pulumi-kubernetes",
    "pulumi-kubernetes.exe",
    "pulumi-resource-kubernetes",
)
_RETRIES = 5

EXISTS = """{0}

The resource already exists in the cluster. This can happen when:

  - a Pulumi resource was renamed: use an alias to keep its identity, or deleteBeforeReplace for a replacement
  - the object is somebody else's: use a Patch resource (for example NamespacePatch) to manage only some of its fields
  - the object is to be adopted: use `pulumi import`
  - overwriting is meant: set upsertExistingObjects on the provider"""


def create(
    cluster: Cluster,
    inputs: Manifest,
    manager: str,
    upsert: bool,
    preview: bool,
    retry: Callable[[str, float], bool],
) -> Manifest:
    """Create the object; tried again only where a namespace or a kind does not exist (yet).

    Everything else is final at once, also a webhook that does not answer.
    `retry` gets the reason and the seconds to sleep, and tells whether to go on.
    """
    for attempt in range(_RETRIES):
        try:
            return _create_once(cluster, inputs, manager, upsert, preview)
        except ApiError as error:
            again = error.code == 404 and not (preview and namespace_missing(error))
            if not again or not retry(f"Retry #{attempt}; creation failed: {error}", 2.0**attempt):
                raise
    return _create_once(cluster, inputs, manager, upsert, preview)


def _create_once(cluster: Cluster, inputs: Manifest, manager: str, upsert: bool, preview: bool) -> Manifest:
    dry_run = {"dryRun": "All"} if preview else {}
    if upsert:
        force = preview or annotation(inputs, FORCE) == "true"
        return _server_side_apply(cluster, inputs, manager, force, {**dry_run, "fieldValidation": "Warn"})
    path = cluster.path(inputs, named=False)
    try:
        return cluster.kube.request("POST", path, {"fieldManager": CREATOR, **dry_run}, inputs)
    except ApiError as error:
        if error.reason == "AlreadyExists":
            raise ApiError(error.code, error.reason, EXISTS.format(error), error.details) from None
        raise


def namespace_missing(error: ApiError) -> bool:
    """Whether the namespace, not the object's kind, is what does not exist."""
    return error.reason == "NotFound" and error.details.get("kind") == "namespaces"


def _server_side_apply(
    cluster: Cluster, body: Manifest, manager: str, force: bool, query: dict[str, str]
) -> Manifest:
    everything = {"fieldManager": manager, "force": str(force).lower(), **query}
    try:
        return cluster.kube.request("PATCH", cluster.path(body), everything, body, APPLY)
    except ApiError as error:
        if error.reason != "Conflict":
            raise
        text = (
            "server-side apply field conflict detected; see "
            "https://www.pulumi.com/registry/packages/kubernetes/how-to-guides/managing-resources-with-server-side-apply/\n"
            f'The resource managed by field manager "{manager}" had an apply conflict: {error}'
        )
        raise ApiError(error.code, error.reason, text, error.details) from None


def update(
    cluster: Cluster,
    inputs: Manifest,
    live: Manifest,
    manager: str,
    patch: bool,
    ignored: Iterable[str],
    preview: bool,
) -> Manifest:
    """Bring the `live` object to the program's inputs: by server-side apply, a CRD by replacing its content."""
    dry_run = {"dryRun": "All"} if preview else {}
    if is_crd(inputs):
        body = {**inputs, "metadata": {**meta(inputs), "resourceVersion": meta(live)["resourceVersion"]}}
        return cluster.kube.request("PUT", cluster.path(inputs), {"fieldManager": manager, **dry_run}, body)
    managed = meta(live).get("managedFields") or []
    client_side = any(f["operation"] == "Update" and f["manager"] in _CLIENT_SIDE[1:] for f in managed)
    force = annotation(inputs, FORCE) == "true" or not managed or (preview and client_side)
    if managed and not patch and not preview:
        live = _take_over(cluster, live, manager)
    body = _ignoring(inputs, live, manager, ignored)
    return _server_side_apply(cluster, body, manager, force, dry_run)


def _take_over(cluster: Cluster, live: Manifest, manager: str) -> Manifest:
    """Make fields of a plain create, or of kubectl, ours, so that applying them does not conflict."""
    entries = meta(live)["managedFields"]
    taken = [e for e in entries if not e.get("subresource") and _client_side(e)]
    if not taken:
        return live
    ours = [
        e
        for e in entries
        if e["manager"] == manager and e["operation"] == "Apply" and not e.get("subresource")
    ]
    fields: Manifest = {}
    for entry in (*ours, *taken):
        fields = _merged(fields, entry.get("fieldsV1") or {})
    rest = [entry for entry in entries if entry not in taken and entry not in ours]
    merged = {**taken[0], "manager": manager, "operation": "Apply", "fieldsV1": fields}
    patch = [
        {"op": "replace", "path": "/metadata/managedFields", "value": [*rest, merged]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": meta(live)["resourceVersion"]},
    ]
    return cluster.kube.request("PATCH", cluster.path(live), None, patch, JSON_PATCH)


def _client_side(entry: Manifest) -> bool:
    kubectl = entry["manager"].startswith("kubectl") and entry["operation"] in ("Apply", "Update")
    return kubectl or (entry["operation"] == "Update" and entry["manager"].startswith(_CLIENT_SIDE))


def _merged(left: Manifest, right: Manifest) -> Manifest:
    return left | {key: _merged(left.get(key, {}), value) for key, value in right.items()}


def _ignoring(inputs: Manifest, live: Manifest, manager: str, ignored: Iterable[str]) -> Manifest:
    """The inputs with ignored fields left to their other owner, or as they are."""
    for text in ignored:
        path = [str(part) for part in parse_path(text)]
        owners = {
            e["manager"]
            for e in meta(live).get("managedFields") or []
            if _owns(e.get("fieldsV1") or {}, path)
        }
        if owners and manager not in owners:
            inputs = _replaced(inputs, path, None)
        elif (value := _at(live, path)) is not None:
            inputs = _replaced(inputs, path, value)
    return inputs


def _owns(fields: Manifest, path: list[str]) -> bool:
    for part in path:
        if f"f:{part}" not in fields:
            return False
        fields = fields[f"f:{part}"]
    return True


def _at(value: Any, path: list[str]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _replaced(value: Any, path: list[str], new: Any) -> Any:
    if not isinstance(value, dict):
        return value
    rest = {key: item for key, item in value.items() if key != path[0]}
    if len(path) > 1:
        return {**rest, path[0]: _replaced(value.get(path[0], {}), path[1:], new)}
    return rest if new is None else {**rest, path[0]: new}


def relinquish(cluster: Cluster, live: Manifest, manager: str) -> None:
    """Give up all fields of a manager; what nobody else manages returns to its default."""
    bare = {key: live[key] for key in ("apiVersion", "kind")}
    bare["metadata"] = {key: meta(live)[key] for key in ("name", "namespace") if meta(live).get(key)}
    _server_side_apply(cluster, bare, manager, False, {})


def delete(cluster: Cluster, inputs: Manifest, live: Manifest) -> bool:
    """Ask for the object's deletion; False when it is, or its kind is, already gone."""
    policy = {"orphan": "Orphan", "background": "Background"}.get(
        annotation(inputs, _PROPAGATION).lower(), "Foreground"
    )
    try:
        cluster.kube.request("DELETE", cluster.path(live), None, {"propagationPolicy": policy})
    except ApiError as error:
        if error.code == 404:
            return False
        raise
    return True
