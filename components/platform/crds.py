"""Custom resource definitions of APIs that several parties share. Pure.

They are applied as Patch resources and kept on destroy (docs/adr/0003): an installed definition is shared
with its owner, and deleting one would delete every object of its kind. For that reason only
kinds that are safe to share and keep pass through here.
"""

from __future__ import annotations

from collections.abc import Iterable

from components.core import labels
from components.core.manifest import Manifest, deep_merge

# Names in the lock file.
GATEWAY_API = "gateway-api"
INFERENCE_EXTENSION = "gateway-api-inference-extension"

SHARED_KINDS = frozenset({"CustomResourceDefinition"})
# Gateway API's bundle carries an admission policy that forbids everybody in the cluster to install older or
# experimental definitions. That is the cluster owner's decision, and server-side apply protects ours already.
LEFT_OUT_KINDS = frozenset({"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"})


def shared_definitions(name: str, objects: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """The definitions of a bundle, ready to apply and awaited until the API server serves them.

    Raises ValueError for a kind that nobody has judged yet.
    """
    wanted = []
    for item in objects:
        kind = item["kind"]
        if kind in LEFT_OUT_KINDS:
            continue
        if kind not in SHARED_KINDS:
            raise ValueError(
                f"manifest {name}: {kind} {item['metadata']['name']} would be applied over other owners' objects and "
                f"kept on destroy. Decide in components/platform/crds.py whether that is safe for this kind."
            )
        wanted.append(_awaited(item))
    return tuple(wanted)


def _awaited(definition: Manifest) -> Manifest:
    metadata = {key: value for key, value in definition["metadata"].items() if key != "creationTimestamp"}
    waiting = {"annotations": {labels.WAIT_FOR: "condition=Established"}}
    return {
        "apiVersion": definition["apiVersion"],
        "kind": definition["kind"],
        "metadata": deep_merge(metadata, waiting),
        "spec": definition["spec"],
    }
