"""Diff: what changed between the object as last seen and the program, and whether it needs a new object."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from pulumi.runtime.proto import provider_pb2

from ops.kube import ApiError, Manifest
from rehearsal.providers.kubernetes.awaiting.pods import job_complete
from rehearsal.providers.kubernetes.awaiting.progress import Look
from rehearsal.providers.kubernetes.cluster import Cluster
from rehearsal.providers.kubernetes.objects import (
    AUTONAMED,
    annotation,
    built_in,
    from_state,
    group_kind,
    is_patch,
    meta,
    normalised,
    pruned,
    to_manifest,
)
from rehearsal.providers.server import Urn, changes
from rehearsal.providers.values import UNKNOWN, Properties, words

Path = tuple[str | int, ...]
ADD, ADD_REPLACE, DELETE, DELETE_REPLACE, UPDATE, UPDATE_REPLACE = range(6)  # provider_pb2.PropertyDiff.Kind

_SELECTOR = ("spec.selector",)
_CONTAINER = words("""args command env image imagePullPolicy lifecycle livenessProbe ports readinessProbe resources securityContext
    stdin stdinOnce terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts workingDir""")
_POD = words("""affinity automountServiceAccountToken dnsConfig dnsPolicy enableServiceLinks hostAliases hostIPC hostNetwork
    hostPID hostname imagePullSecrets nodeName nodeSelector overhead preemptionPolicy priority priorityClassName
    readinessGates restartPolicy runtimeClassName schedulerName securityContext serviceAccount serviceAccountName
    shareProcessNamespace subdomain terminationGracePeriodSeconds volumes""")
_VOLUME = words("""awsElasticBlockStore azureDisk azureFile cephfs cinder csi fc flexVolume flocker gcePersistentDisk glusterfs
    hostPath iscsi local nfs photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos vsphereVolume""")

# Properties whose change needs a new object; of other kinds only the name and the namespace.
_REPLACING: dict[tuple[str, str], tuple[str, ...]] = {
    ("apps", "DaemonSet"): _SELECTOR,
    ("apps", "Deployment"): _SELECTOR,
    ("apps", "StatefulSet"): (
        *_SELECTOR, "spec.podManagementPolicy", "spec.revisionHistoryLimit", "spec.serviceName", "spec.volumeClaimTemplates",
    ),
    ("batch", "Job"): (*_SELECTOR, "spec.completions", "spec.parallelism", "spec.template"),
    ("core", "PersistentVolume"): tuple(f"spec.{field}" for field in _VOLUME),
    ("core", "PersistentVolumeClaim"): (*_SELECTOR, "spec.accessModes", "spec.storageClassName", "spec.volumeName"),
    ("core", "Pod"): (
        *(f"spec.{field}" for field in _POD),
        *(f"spec.{where}.*.{field}" for where in ("containers", "initContainers") for field in _CONTAINER),
    ),
    ("core", "ResourceQuota"): ("spec.scopes",),
    ("core", "Service"): ("spec.clusterIP",),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): ("roleRef",),
    ("rbac.authorization.k8s.io", "RoleBinding"): ("roleRef",),
    ("storage.k8s.io", "StorageClass"): ("parameters", "provisioner"),
}  # fmt: skip
_IDENTITY = ("metadata.name", "metadata.namespace")
# On a Job: one that is not complete now is replaced, whatever else is the same.
REPLACE_UNREADY = "pulumi.com/replaceUnready"

# Optional fields in which an empty value says something else than none at all, so the API server stores it.
_MEANT_WHEN_EMPTY = frozenset(
    words("""
    activeDeadlineSeconds allocateLoadBalancerNodePorts allowPrivilegeEscalation automountServiceAccountToken backoffLimit
    blockOwnerDeletion completions controller defaultMode enableServiceLinks fsGroup hostUsers immutable ingressClassName
    maxSurge maxUnavailable minAvailable minReplicas mode optional parallelism partition preemptionPolicy privileged
    progressDeadlineSeconds readOnlyRootFilesystem replicas revisionHistoryLimit runAsGroup runAsNonRoot runAsUser
    setHostnameAsFQDN shareProcessNamespace storageClassName suspend terminationGracePeriodSeconds tolerationSeconds
    ttlSecondsAfterFinished
    """)
)

# Under these keys the API server rewrites numbers: 0.5 becomes 500m, 1024Mi becomes 1Gi.
_QUANTITY_MAPS = {
    "requests",
    "limits",
    "hard",
    "capacity",
    "default",
    "defaultRequest",
    "min",
    "max",
    "overhead",
    "podFixed",
}
_QUANTITY_FIELDS = {"sizeLimit", "divisor", "averageValue"}
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(m|[kMGTPE]|[KMGTPE]i|)")
_FACTORS = {"": 1, "m": Decimal("0.001"), "k": 1000} | {
    unit + i: base**power for i, base in (("", 1000), ("i", 1024)) for power, unit in enumerate("KMGTPE", 1)
}


@dataclass(frozen=True)
class Change:
    """One difference; `kind` is the protocol's number."""

    path: Path
    kind: int
    value: Any


def diff(cluster: Cluster, urn: Urn, state: Properties, news: Properties, ignored: Iterable[str]) -> Any:
    """The protocol's answer for one object."""
    old_inputs, live = from_state(state)
    old_inputs, inputs = normalised(old_inputs), normalised(to_manifest(news))
    before = _comparable(cluster, pruned(live, old_inputs), inputs, live)
    after = _comparable(cluster, inputs, inputs, live)
    if built_in(after):
        after = _without_defaults(after, before)
    skipped = [parse_path(text) for text in ignored]
    forcing = [tuple(path.split(".")) for path in _replacing(cluster, urn, inputs)]
    found = [
        Change(c.path, c.kind + 1 if forces_replacement(c, forcing) else c.kind, c.value)
        for c in compare(before, after, quantities=built_in(after))
        if not any(_contains(path, c.path) for path in skipped)
    ]
    replaces = [
        spelled(c.path) for c in found if c.kind % 2 or (c.kind == DELETE and c.path == ("metadata",))
    ]
    if _is_unready(cluster, inputs):
        replaces.append(f'.metadata.annotations["{REPLACE_UNREADY}"]')
    name = meta(after).get("name")
    in_place = (name, meta(after).get("namespace", "")) == (
        meta(live).get("name"),
        meta(live).get("namespace", ""),
    )
    return provider_pb2.DiffResponse(
        changes=changes(bool(found or replaces)),
        replaces=replaces,
        # A fixed name can only be taken again after the old object has gone.
        deleteBeforeReplace=bool(replaces)
        and bool(name)
        and annotation(after, AUTONAMED) != "true"
        and in_place,
        detailedDiff=detailed(found),
        hasDetailedDiff=True,
    )


def _is_unready(cluster: Cluster, inputs: Manifest) -> bool:
    """Whether it is a Job to be replaced for this alone; where it cannot be read, it is not."""
    if inputs.get("kind") != "Job" or annotation(inputs, REPLACE_UNREADY) != "true" or cluster.unreachable:
        return False
    try:
        live = cluster.kube.get(
            inputs["apiVersion"], "Job", meta(inputs)["name"], meta(inputs).get("namespace")
        )
    except (ApiError, KeyError):
        return False
    return live is not None and not job_complete(Look(cluster.kube, live)).ready


def detailed(found: Iterable[Change]) -> dict[str, Any]:
    """The protocol's form of changes."""
    return {
        spelled(c.path): provider_pb2.PropertyDiff(kind=c.kind, inputDiff=c.kind in (DELETE, DELETE_REPLACE))
        for c in found
    }


def _comparable(cluster: Cluster, manifest: Manifest, inputs: Manifest, live: Manifest) -> Manifest:
    """Without differences that mean nothing: an implied namespace or kind, a version left from client-side apply."""
    metadata = {
        key: value for key, value in meta(manifest).items() if key not in ("namespace", "resourceVersion")
    }
    if cluster.namespaced(inputs):
        metadata["namespace"] = meta(manifest).get("namespace") or "default"
    if meta(inputs).get("name") and manifest is not inputs:
        metadata["name"] = meta(live).get("name")
    result = {"apiVersion": inputs.get("apiVersion"), "kind": inputs.get("kind"), **manifest}
    return result if manifest.get("metadata") is UNKNOWN else {**result, "metadata": metadata}


def _without_defaults(new: Any, live: Any) -> Any:
    """Drop empty values (false, 0, "", [], {}) that the API server does not store, so that they are no changes."""
    if isinstance(new, dict):
        live = live if isinstance(live, dict) else {}
        return {
            key: _without_defaults(value, live.get(key))
            for key, value in new.items()
            if value or key in live or key in _MEANT_WHEN_EMPTY
        }
    if isinstance(new, list) and isinstance(live, list):
        pairs = itertools.zip_longest(new, live[: len(new)])
        return [_without_defaults(value, like) if like is not None else value for value, like in pairs]
    return new


def _replacing(cluster: Cluster, urn: Urn, inputs: Manifest) -> tuple[str, ...]:
    which = group_kind(inputs)
    if is_patch(urn.type, inputs) or not built_in(inputs):
        return _IDENTITY
    immutable = inputs.get("immutable") is True
    if which == ("core", "Secret"):
        frozen = immutable or not cluster.settings.secret_mutable
        return (*_IDENTITY, "type", *(("stringData", "data") if frozen else ()))
    if which == ("core", "ConfigMap"):
        frozen = immutable or not cluster.settings.config_map_mutable
        return (*_IDENTITY, *(("binaryData", "data") if frozen else ()))
    return _IDENTITY + _REPLACING.get(which, ())


def compare(old: Any, new: Any, path: Path = (), quantities: bool = False) -> Iterator[Change]:
    """All changes that lead from `old` to `new`, as deep as both have the same shape."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _compare_part(old, new, key, key in old, key in new, path, quantities)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            yield from _compare_part(old, new, index, index < len(old), index < len(new), path, quantities)
    elif old != new and not (quantities and _is_quantity(path) and _same_quantity(old, new)):
        yield Change(path, DELETE if new is None else UPDATE, new)


def _compare_part(
    old: Any, new: Any, key: Any, in_old: bool, in_new: bool, path: Path, quantities: bool
) -> Iterator[Change]:
    if in_old and in_new:
        yield from compare(old[key], new[key], (*path, key), quantities)
    elif in_new:
        yield Change((*path, key), DELETE if new[key] is None else ADD, new[key])
    else:
        yield Change((*path, key), DELETE, None)


def _is_quantity(path: Path) -> bool:
    return path[-1] in _QUANTITY_FIELDS or (len(path) > 1 and path[-2] in _QUANTITY_MAPS)


def _same_quantity(old: Any, new: Any) -> bool:
    amounts = [quantity(value) for value in (old, new)]
    return amounts[0] is not None and amounts[0] == amounts[1]


def quantity(value: Any) -> Decimal | None:
    """A Kubernetes quantity as a number; None for anything else."""
    match = _QUANTITY.fullmatch(str(value))
    try:
        return Decimal(match[1]) * _FACTORS[match[2]] if match else None
    except InvalidOperation:
        return None


def forces_replacement(change: Change, forcing: Iterable[tuple[str, ...]]) -> bool:
    """Whether the change touches, or contains, one of the properties; `*` stands for any position."""
    for wanted in forcing:
        shared = min(len(wanted), len(change.path))
        if all(w in ("*", p) for w, p in zip(wanted[:shared], change.path[:shared], strict=True)) and _has(
            change.value, wanted[shared:]
        ):
            return True
    return False


def _has(value: Any, rest: tuple[str, ...]) -> bool:
    if not rest:
        return True
    if rest[0] == "*":
        return isinstance(value, list) and any(_has(item, rest[1:]) for item in value)
    return isinstance(value, dict) and rest[0] in value and _has(value[rest[0]], rest[1:])


def spelled(path: Path) -> str:
    """A path in the engine's notation, for example `spec.ports[0].name` or `data["a.b"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.search(r'[."\[\]]', part):
            text += '["' + part.replace('"', '\\"') + '"]'
        else:
            text += f".{part}" if text else part
    return text


def parse_path(text: str) -> Path:
    """The opposite of :func:`spelled`; `[*]` stands for any position."""
    parts: list[str | int] = []
    for match in re.finditer(r'\["((?:\\"|[^"])*)"\]|\[(\d+|\*)\]|([^.\[\]]+)', text):
        quoted, index, name = match.groups()
        if index is not None:
            parts.append("*" if index == "*" else int(index))
        else:
            parts.append(name if name is not None else quoted.replace('\\"', '"'))
    return tuple(parts)


def _contains(outer: Path, inner: Path) -> bool:
    return len(outer) <= len(inner) and all(o in ("*", i) for o, i in zip(outer, inner, strict=False))
