"""A cluster that somebody else made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi

from components.clusters.handle import AcceleratorPool, ClusterHandle
from components.clusters.provider import kubernetes_provider
from components.core.base import Component


@dataclass(frozen=True, kw_only=True)
class ExistingClusterArgs:
    """How to reach the cluster, and which accelerator nodes it has.

    `context` is a context of the kubeconfig; `kubeconfig` its path, None for where kubectl looks.
    """

    context: str
    kubeconfig: str | None = None
    accelerators: Mapping[str, AcceleratorPool] = field(default_factory=dict)


class ExistingCluster(Component):
    """A handle on a cluster; creates nothing in it."""

    TOKEN = "llmp:index:ExistingCluster"

    def __init__(self, name: str, args: ExistingClusterArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        provider = kubernetes_provider(
            f"{name}-kubernetes",
            identifier=f"existing/{args.context}",
            context=args.context,
            kubeconfig=args.kubeconfig,
            opts=self.child(),
        )
        self.handle = ClusterHandle(
            provider=provider,
            cloud="other",
            accelerators=args.accelerators,
            description=f"existing cluster, context {args.context}",
        )
        self.register_outputs({"context": args.context})
