"""LeaderWorkerSet: models that span several machines."""

from __future__ import annotations

from components.platform.release import ReleaseSpec

NAME = "lws"


def releases() -> tuple[ReleaseSpec, ...]:
    """One release; it makes its own webhook certificates. Its CRD is never deleted by Helm."""
    return (ReleaseSpec(name=NAME, namespace="lws-system", keeps=("leaderworkerset.x-k8s.io",)),)
