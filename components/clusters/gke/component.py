"""A GKE cluster with TPU v6e, from its network to a handle on it.

The order of creation is that of needs, and destruction is its reverse. The Kubernetes provider comes
after the system pool, the way out and the firewall, never after a TPU pool: while Kubernetes objects
are deleted, their controllers still run, and Google's load balancers go with them.
"""

from __future__ import annotations

from functools import partial

import pulumi
import pulumi_gcp as gcp

from components.clusters.gke.args import GkeTpuClusterArgs, pools_of
from components.clusters.gke.control_plane import cluster_inputs
from components.clusters.gke.google import enable_apis, google_provider, node_account
from components.clusters.gke.kubeconfig import kubeconfig
from components.clusters.gke.network import Network, build_network
from components.clusters.gke.pools import GOOGLES_OWN, SYSTEM, accelerator_pool, system_pool, tpu_pool
from components.clusters.gke.secrets import read_secret
from components.clusters.handle import ClusterHandle
from components.clusters.provider import kubernetes_provider
from components.clusters.scope import Scope
from components.core.base import Component

# Google's slow days, an upgrade of the control plane among them, and a pool that waits for scarce machines.
CLUSTER_TIMES = {"create": "45m", "update": "90m", "delete": "45m"}
POOL_TIMES = {"create": "45m", "update": "60m", "delete": "45m"}


class GkeTpuCluster(Component):
    """`handle` is for the layers above; `kubeconfig` is a secret."""

    TOKEN = "llmp:index:GkeTpuCluster"

    def __init__(self, name: str, args: GkeTpuClusterArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        self._name, self._args = name, args
        google = google_provider(f"{name}-google", args, self.child())
        self._scope = Scope(name=name, parent=self, provider=google)
        apis = enable_apis(self._scope, args)
        account, roles = node_account(self._scope, args.project, apis)
        network = build_network(self._scope, args, apis["compute"], account.email)
        cluster = self._cluster(network, tuple(apis.values()))
        # Nodes without their roles report nothing, and without a way out they start nothing.
        before_nodes = (*roles, *network.needed)
        system = self._system_pool(cluster, account, before_nodes)
        pools = self._tpu_pools(cluster, account, before_nodes)
        self.kubeconfig = _kubeconfig_of(cluster, args.dns_endpoint)
        provider = kubernetes_provider(
            f"{name}-kubernetes",
            identifier=cluster.id,
            kubeconfig=self.kubeconfig,
            opts=self.child(depends_on=[system, *before_nodes]),
        )
        self.handle = ClusterHandle(
            provider=provider,
            cloud="gcp",
            accelerators={
                key: accelerator_pool(key, pool) for key, pool in sorted(args.accelerators.items())
            },
            description=f"GKE cluster in {args.zone} of project {args.project}",
            ready=(system, *pools),
            kubeconfig=self.kubeconfig,
            read_secret=partial(read_secret, provider=google),
        )
        self.register_outputs({"cluster": cluster.name, "zone": args.zone, "kubeconfig": self.kubeconfig})

    def _cluster(self, network: Network, apis: tuple[pulumi.Resource, ...]) -> gcp.container.Cluster:
        args = self._args
        return gcp.container.Cluster(
            self._name,
            project=args.project,
            network=network.id,
            subnetwork=network.subnet,
            **cluster_inputs(args),
            # Google's own lock says no in the middle of an `up`; Pulumi's in the preview, to replacements too.
            opts=self._scope.options(
                after=apis,
                protect=args.deletion_protection,
                additional_secret_outputs=["masterAuth"],
                **CLUSTER_TIMES,
            ),
        )

    def _system_pool(
        self,
        cluster: gcp.container.Cluster,
        account: gcp.serviceaccount.Account,
        after: tuple[pulumi.Resource, ...],
    ) -> pulumi.Resource:
        args = self._args
        return gcp.container.NodePool(
            f"{self._name}-{SYSTEM}",
            project=args.project,
            location=args.zone,
            cluster=cluster.id,
            **system_pool(args.system, account.email, args.labels),
            opts=self._scope.options(after=after, **POOL_TIMES),
        )

    def _tpu_pools(
        self,
        cluster: gcp.container.Cluster,
        account: gcp.serviceaccount.Account,
        after: tuple[pulumi.Resource, ...],
    ) -> tuple[pulumi.Resource, ...]:
        args = self._args
        return tuple(
            gcp.container.NodePool(
                f"{self._name}-{pool_name}",
                project=args.project,
                location=args.zone,
                cluster=cluster.id,
                **tpu_pool(key, pool, account.email, args.labels, args.awake),
                # Removed or replaced under its models it would take all replicas at once; the preview says no.
                opts=self._scope.options(
                    after=after,
                    ignore_changes=list(GOOGLES_OWN),
                    protect=args.deletion_protection and pool.used,
                    **POOL_TIMES,
                ),
            )
            for key, entry in sorted(args.accelerators.items())
            for pool_name, pool in pools_of(key, entry).items()
        )


def _kubeconfig_of(cluster: gcp.container.Cluster, dns: bool) -> pulumi.Output[str]:
    """By name where that is open, else by address with the cluster's own authority."""
    if dns:
        endpoint = cluster.control_plane_endpoints_config.apply(
            lambda config: config.dns_endpoint_config.endpoint
        )
        text = endpoint.apply(lambda server: kubeconfig(server, None))
    else:
        authority = cluster.master_auth.apply(lambda auth: auth.cluster_ca_certificate)
        text = pulumi.Output.all(cluster.endpoint, authority).apply(lambda known: kubeconfig(*known))
    return pulumi.Output.secret(text)
