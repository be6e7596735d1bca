"""The cluster autoscaler, which sizes node groups by what pods ask for. GKE has one of its own."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.core import labels
from components.platform.release import ReleaseSpec

# Also the name of its namespace and of its account, which the cluster's component gives a role.
NAME = "cluster-autoscaler"
SYSTEM_POOL = "system"


@dataclass(frozen=True, kw_only=True)
class AutoscalerArgs:
    """The cluster whose node groups it sizes, and the region; leaves may be Outputs."""

    cluster: pulumi.Input[str]
    region: str


def releases(args: AutoscalerArgs | None) -> tuple[ReleaseSpec, ...]:
    """One release; None leaves its settings out, where only its name is asked for."""
    return (ReleaseSpec(name=NAME, namespace=NAME, values=_values(args) if args else {}),)


def _values(args: AutoscalerArgs) -> dict[str, object]:
    return {
        "cloudProvider": "aws",
        # Named, because pods do not reach the machine's metadata, where it would look.
        "awsRegion": args.region,
        # It finds groups by two tags, which node groups of EKS have from the start.
        "autoDiscovery": {"clusterName": args.cluster},
        "fullnameOverride": NAME,
        "rbac": {"serviceAccount": {"name": NAME}},
        # Not on nodes that it takes away.
        "nodeSelector": {labels.POOL: SYSTEM_POOL},
        "resources": {"requests": {"cpu": "100m", "memory": "300Mi"}, "limits": {"memory": "600Mi"}},
    }
