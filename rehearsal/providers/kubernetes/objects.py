"""Kubernetes objects as plain dicts: what they are, their secrets, and the state that the engine keeps of them.

State holds the live object, and under `__inputs` what the program asked for,
so that a later diff can tell the program's changes from the cluster's.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ops.kube import Manifest
from rehearsal.providers.values import Properties, Secret, has_secret, has_unknown, plain, words

INPUTS, API_VERSION, FIELD_MANAGER = "__inputs", "__initialApiVersion", "__fieldManager"
AUTONAMED = "pulumi.com/autonamed"
MANAGED_BY = "app.kubernetes.io/managed-by"

_BUILT_IN_GROUPS = frozenset(
    words("""
    core apps autoscaling batch extensions policy admissionregistration.k8s.io apiextensions.k8s.io
    apiregistration.k8s.io authentication.k8s.io authorization.k8s.io certificates.k8s.io coordination.k8s.io
    discovery.k8s.io events.k8s.io flowcontrol.apiserver.k8s.io networking.k8s.io node.k8s.io
    rbac.authorization.k8s.io resource.k8s.io scheduling.k8s.io storage.k8s.io storagemigration.k8s.io
    """)
)
_READ_ONLY = (
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields",
    "resourceVersion", "uid",
)  # fmt: skip
# Python and the like cannot name a property x-kubernetes-…, so the SDK says x_kubernetes_….
_UNDERSCORED = {
    f"x_kubernetes_{name}": f"x-kubernetes-{name.replace('_', '-')}"
    for name in (
        "embedded_resource", "int_or_string", "list_map_keys", "list_type", "map_type", "preserve_unknown_fields",
        "validations",
    )
}  # fmt: skip
_DASHED = {dashed: underscored for underscored, dashed in _UNDERSCORED.items()}


def group_kind(manifest: Manifest) -> tuple[str, str]:
    """(API group, kind); the core group is `core`."""
    group, slash, _ = str(manifest.get("apiVersion", "")).partition("/")
    return (group if slash else "core"), str(manifest.get("kind", ""))


def built_in(manifest: Manifest) -> bool:
    """Whether the kind comes with Kubernetes rather than from a CRD."""
    return group_kind(manifest)[0] in _BUILT_IN_GROUPS


def is_crd(manifest: Manifest) -> bool:
    """Whether this is a CustomResourceDefinition."""
    return group_kind(manifest) == ("apiextensions.k8s.io", "CustomResourceDefinition")


def is_patch(resource_type: str, manifest: Manifest) -> bool:
    """Whether the resource only manages some fields of an object, like `NamespacePatch`."""
    return resource_type.rsplit(":", 1)[-1] == f"{manifest.get('kind', '')}Patch"


def meta(manifest: Manifest) -> Manifest:
    """The object's metadata, empty when missing or unknown."""
    found = manifest.get("metadata")
    return found if isinstance(found, dict) else {}


def annotation(manifest: Manifest, key: str) -> str:
    """An annotation's value, "" when missing or unknown."""
    found = meta(manifest).get("annotations")
    value = found.get(key, "") if isinstance(found, dict) else ""
    return value if isinstance(value, str) else ""


def identity(manifest: Manifest) -> str:
    """The engine's id of an object: `namespace/name`, or `name`."""
    return "/".join(part for part in (meta(manifest).get("namespace"), meta(manifest).get("name")) if part)


def to_manifest(properties: Properties) -> Manifest:
    """The object behind the engine's properties: no secret marks, the API's own spelling."""
    return _renamed(plain(properties), _UNDERSCORED)


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    return [_renamed(item, names) for item in value] if isinstance(value, list) else value


def with_secrets(outs: Any, ins: Any) -> Any:
    """A copy of `outs` in which everything that is secret in `ins` is secret.

    Lists are secret as a whole when any part is, for servers reorder them; data
    of a Secret is secret whatever the program said.
    """
    if not isinstance(outs, dict):
        return outs
    if outs.get("kind") == "Secret":
        return {
            k: Secret(v) if k in ("data", "stringData") and not isinstance(v, Secret) else v
            for k, v in outs.items()
        }
    result = dict(outs)
    for key, value in ins.items() if isinstance(ins, dict) else ():
        if key not in result or isinstance(result[key], Secret):
            continue
        if isinstance(result[key], dict) and isinstance(value, dict):
            result[key] = with_secrets(result[key], value)
        elif has_secret(value):
            result[key] = Secret(result[key])
    return result


def to_state(
    inputs: Manifest, live: Manifest, given: Properties, manager: str, api_version: str
) -> Properties:
    """What the engine keeps of an object, with the secrets of the properties `given`."""
    return {
        **with_secrets(_renamed(live, _DASHED), given),
        INPUTS: with_secrets(_renamed(inputs, _DASHED), given),
        API_VERSION: api_version,
        FIELD_MANAGER: manager,
    }


def from_state(state: Properties) -> tuple[Manifest, Manifest]:
    """(inputs, live object) as stored by :func:`to_state`."""
    live = to_manifest(state)
    inputs = live.pop(INPUTS, {})
    live.pop(API_VERSION, None)
    live.pop(FIELD_MANAGER, None)
    return inputs, live


def pruned(source: Any, shape: Any) -> Any:
    """`source` reduced to the keys and list positions that `shape` has: the program's part of a live object."""
    if isinstance(source, dict) and isinstance(shape, dict):
        return {key: pruned(value, shape[key]) for key, value in source.items() if key in shape}
    if isinstance(source, list) and isinstance(shape, list):
        if not source or not shape or type(source[0]) is not type(shape[0]):
            return source if source and shape else []
        return [pruned(value, like) for value, like in zip(source, shape, strict=False)]
    return source


def normalised(manifest: Manifest) -> Manifest:
    """The object as the API server would hand it back, as far as spelling goes; so that diffs mean something."""
    result = dict(manifest)
    if not has_unknown(manifest) and built_in(manifest):
        if group_kind(manifest) == ("core", "Secret"):
            result = _normalised_secret(result)
        elif is_crd(manifest):
            result = {k: _without(v, preserveUnknownFields=False) for k, v in result.items() if k != "status"}
        else:
            result = _without_nulls(result)
    if isinstance(result.get("metadata"), dict):
        result["metadata"] = {k: v for k, v in result["metadata"].items() if k not in _READ_ONLY}
    return result


def _without(mapping: Any, **unwanted: Any) -> Any:
    if not isinstance(mapping, dict):
        return mapping
    return {k: v for k, v in mapping.items() if k not in unwanted or v != unwanted[k]}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _normalised_secret(manifest: Manifest) -> Manifest:
    strings = manifest.get("stringData") or {}
    data = {**(manifest.get("data") or {}), **{k: _base64(str(v).encode()) for k, v in strings.items()}}
    for key, value in data.items():
        try:
            data[key] = _base64(base64.b64decode(value, validate=False))
        except (binascii.Error, TypeError, ValueError):
            continue  # Not base64: the API server will say so in its own words.
    result = {key: value for key, value in manifest.items() if key not in ("stringData", "data")}
    return {**result, "data": data} if data else result


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
