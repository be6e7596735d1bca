"""What there is to know before judging: the live objects and releases that the state speaks of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from components.core import labels
from ops import helm
from ops.kube import Kube, Manifest
from ops.recover.ownership import made_by_pulumi
from ops.state import ObjectRef, State

OURS = f"{labels.MANAGED_BY}=pulumi,{labels.PART_OF}=llm-platform"
"""Selects what this program puts into clusters, of whatever stack."""
PATIENCE = 60.0
"""Seconds to wait for an object that is on its way out."""
_POLL = 0.5


@dataclass(frozen=True)
class Facts:
    """The cluster's side, as far as the state needs it judged.

    `objects` holds the live object of each pending operation, None where there
    is none; `releases` the revisions of every Helm release that the state or a
    pending operation names; `strays` the objects with this program's labels
    that the state does not know. `unseen` says why the cluster was not looked at.
    """

    objects: Mapping[ObjectRef, Manifest | None] = field(default_factory=dict)
    releases: Mapping[tuple[str, str], tuple[helm.Revision, ...]] = field(default_factory=dict)
    strays: tuple[ObjectRef, ...] = ()
    unseen: str = ""


def needs_cluster(state: State) -> bool:
    """Whether any pending operation can be judged by looking into the cluster only."""
    return any(op.resource.package == "kubernetes" for op in state.pending)


def gather(state: State, kube: Kube, say: Callable[[str], None], patience: float = PATIENCE) -> Facts:
    """Look everything up; waits up to `patience` seconds for objects that are being deleted."""
    refs = {op.resource.object for op in state.pending} - {None}
    owned = {r.release for r in (*state.releases, *(op.resource for op in state.pending)) if r.is_release}
    return Facts(
        objects=_settled(kube, refs, say, patience),
        releases={name: helm.revisions(kube, *name) for name in sorted(owned)},
        strays=_strays(kube, state),
    )


def _settled(
    kube: Kube, refs: Iterable[ObjectRef], say: Callable[[str], None], patience: float
) -> dict[ObjectRef, Manifest | None]:
    deadline = time.monotonic() + patience
    found = {ref: _get(kube, ref) for ref in sorted(refs)}
    leaving = [ref for ref, live in found.items() if is_leaving(live)]
    if leaving and patience:
        say(f"waiting up to {patience:.0f} s until {', '.join(map(str, leaving))} is gone")
    while leaving and time.monotonic() < deadline:
        time.sleep(_POLL)
        found |= {ref: _get(kube, ref) for ref in leaving}
        leaving = [ref for ref in leaving if is_leaving(found[ref])]
    return found


def _get(kube: Kube, ref: ObjectRef) -> Manifest | None:
    # The provider writes to `default` what names no namespace; kinds without namespaces ignore it.
    return kube.get(ref.api_version, ref.kind, ref.name, ref.namespace or "default")


def is_leaving(live: Manifest | None) -> bool:
    """Whether the object is being deleted and only its finalizers hold it."""
    return live is not None and "deletionTimestamp" in live["metadata"]


def _strays(kube: Kube, state: State) -> tuple[ObjectRef, ...]:
    """Objects of the kinds that the stack uses, made by this program, and unknown to the state.

    What a controller made of ours carries our labels too, and names its owner.
    CRDs are shared between stacks and kept on purpose.
    """
    known = set(state.objects) | {op.resource.object for op in state.pending}
    kinds = {(ref.api_version, ref.kind) for ref in known if ref and ref.kind != "CustomResourceDefinition"}
    found = [
        (live, ObjectRef(api_version, kind, live["metadata"].get("namespace", ""), live["metadata"]["name"]))
        for api_version, kind in sorted(kinds)
        for live in kube.list(api_version, kind, selector=OURS)
    ]
    return tuple(
        ref
        for live, ref in found
        if ref not in known and made_by_pulumi(live) and not live["metadata"].get("ownerReferences")
    )
