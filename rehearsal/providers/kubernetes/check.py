"""Check: complete the program's inputs with a name and a namespace, refuse what can never work."""

from __future__ import annotations

import random
from typing import Any

from ops.kube import Manifest
from rehearsal.providers.kubernetes.cluster import Cluster
from rehearsal.providers.kubernetes.objects import (
    AUTONAMED,
    MANAGED_BY,
    annotation,
    built_in,
    is_crd,
    is_patch,
    meta,
    normalised,
    to_manifest,
    with_secrets,
)
from rehearsal.providers.server import Refusal, Urn
from rehearsal.providers.values import UNKNOWN, Properties

_DISABLED = 2  # CheckRequest.AutonamingOptions.Mode.DISABLE


def check(
    cluster: Cluster, urn: Urn, olds: Properties, news: Properties, seed: bytes, autonaming: Any
) -> Properties:
    """The inputs that Diff, Create and Update will get."""
    before, inputs = to_manifest(olds), normalised(to_manifest(news))
    if str(inputs.get("kind", "")).endswith("List") and built_in(inputs):
        raise Refusal("list resources cannot be created directly; use the resources in the list instead")
    if is_patch(urn.type, inputs) and not meta(inputs).get("name"):
        raise Refusal("patch resources require the `.metadata.name` field to be set")
    inputs = _named(urn, before, inputs, seed, autonaming)
    labels = meta(inputs).get("labels") or {}
    if labels is not UNKNOWN and (meta(before).get("labels") or {}).get(MANAGED_BY) == "pulumi":
        inputs = _with(inputs, labels={**labels, MANAGED_BY: "pulumi"})
    if meta(inputs).get("generateName") and not meta(inputs).get("name"):
        raise Refusal(
            "the `.metadata.generateName` field is not supported with server-side apply; set a name or none"
        )
    known = isinstance(inputs.get("metadata"), dict)
    if (
        known
        and cluster.default_namespace
        and not meta(inputs).get("namespace")
        and cluster.namespaced(inputs)
    ):
        inputs = _with(inputs, namespace=cluster.default_namespace)
    if cluster.settings.reject_unknown and not cluster.unreachable and not cluster.serves(inputs):
        raise Refusal(
            f"the API server knows no {inputs.get('apiVersion')} {inputs.get('kind')}, and unknown kinds are rejected"
        )
    if is_crd(inputs):
        cluster.learn(inputs)
    return with_secrets(inputs, news)


def _named(urn: Urn, before: Manifest, inputs: Manifest, seed: bytes, autonaming: Any) -> Manifest:
    if inputs.get("metadata") is UNKNOWN or meta(inputs).get("name") or meta(inputs).get("generateName"):
        return inputs
    if before:
        name = meta(before).get("name") if annotation(before, AUTONAMED) == "true" else None
    else:
        name = _new_name(urn, seed, autonaming)
    if name is None:
        return inputs
    annotations = meta(inputs).get("annotations") or {}
    marked = annotations if annotations is UNKNOWN else {**annotations, AUTONAMED: "true"}
    return _with(inputs, name=name, annotations=marked)


def _new_name(urn: Urn, seed: bytes, autonaming: Any) -> str:
    if autonaming is not None and autonaming.mode == _DISABLED:
        raise Refusal("autonaming is disabled, so the resource requires the .metadata.name field to be set")
    if autonaming is not None and autonaming.proposed_name:
        return autonaming.proposed_name
    return f"{urn.name}-{suffix(seed)}"


def suffix(seed: bytes = b"") -> str:
    """Eight random hexadecimal digits, the same ones for the same seed."""
    return f"{(random.Random(seed) if seed else random.SystemRandom()).getrandbits(32):08x}"


def _with(manifest: Manifest, **fields: Any) -> Manifest:
    return {**manifest, "metadata": {**meta(manifest), **fields}}
