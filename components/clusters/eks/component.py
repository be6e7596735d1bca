"""An EKS cluster with NVIDIA GPUs, from its network to a handle on it.

The order of creation is that of needs, and destruction is its reverse. The Kubernetes provider comes after the
system nodes, their add-ons and the ways out, never after a GPU pool: while Kubernetes objects are deleted, their
controllers still run, and AWS's load balancers and volumes go with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pulumi
import pulumi_aws as aws

from components.clusters.eks import amazon, nodes
from components.clusters.eks.addons import AFTER_NODES, BEFORE_NODES, addons, pod_identities
from components.clusters.eks.args import EksGpuClusterArgs, GpuPoolArgs, pool_name, pools_of
from components.clusters.eks.control_plane import (
    ADMIN_POLICY,
    KEY_DELETION_DAYS,
    LOG_RETENTION_DAYS,
    VIEW_POLICY,
    cluster_inputs,
)
from components.clusters.eks.kubeconfig import kubeconfig
from components.clusters.eks.network import Network, build_network
from components.clusters.eks.secrets import read_secret
from components.clusters.handle import ClusterHandle
from components.clusters.provider import kubernetes_provider
from components.clusters.scope import Scope
from components.core.base import Component

CLUSTER_TIMES = {"create": "45m", "update": "90m", "delete": "45m"}
POOL_TIMES = {"create": "45m", "update": "90m", "delete": "45m"}
CLUSTER_POLICIES = ("AmazonEKSClusterPolicy",)
# The least that nodes work with. What pods do in AWS, they do in roles of their own.
NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly")
# In camelCase: a path in snake_case would ignore nothing and say nothing.
AUTOSCALERS_OWN = "scalingConfig.desiredSize"


class EksGpuCluster(Component):
    """`handle` is for the layers above; `kubeconfig` is a secret."""

    TOKEN = "llmp:index:EksGpuCluster"

    def __init__(self, name: str, args: EksGpuClusterArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        self._name, self._args = name, args
        amazons = amazon.amazon_provider(f"{name}-amazon", args, self.child())
        self._scope = Scope(name=name, parent=self, provider=amazons)
        network = build_network(self._scope, args)
        cluster = self._cluster(network)
        entries = self._entries(cluster)
        machines = amazon.role(self._scope, "nodes", amazon.MACHINES, NODE_POLICIES)
        first = addons(self._scope, cluster, BEFORE_NODES, ())
        # Nodes without their roles never join, and without a way out they start nothing.
        before_nodes = (*network.needed, *machines.ready, *first)
        system = self._system_group(cluster, machines, network, before_nodes)
        second = addons(self._scope, cluster, AFTER_NODES, (system,))
        identities = pod_identities(self._scope, args, cluster)
        groups = [
            resource
            for key, entry in sorted(args.accelerators.items())
            for pool in pools_of(key, entry).values()
            for resource in self._gpu_group(key, pool, cluster, machines, network, before_nodes)
        ]
        self.kubeconfig = _kubeconfig_of(cluster, args.region)
        provider = kubernetes_provider(
            f"{name}-kubernetes",
            identifier=cluster.arn,
            kubeconfig=self.kubeconfig,
            opts=self.child(depends_on=[system, *before_nodes, *second, *entries, *identities]),
        )
        self.handle = ClusterHandle(
            provider=provider,
            cloud="aws",
            accelerators={
                key: nodes.accelerator_pool(key, pool) for key, pool in sorted(args.accelerators.items())
            },
            description=f"EKS cluster in {args.region}",
            ready=(system, *second, *groups),
            kubeconfig=self.kubeconfig,
            name=cluster.name,
            read_secret=partial(read_secret, provider=amazons),
        )
        self.register_outputs({"cluster": cluster.name, "region": args.region, "kubeconfig": self.kubeconfig})

    def _cluster(self, network: Network) -> aws.eks.Cluster:
        scope, args = self._scope, self._args
        key = aws.kms.Key(
            f"{self._name}-secrets",
            description="Secrets of an EKS cluster of llm-platform",
            enable_key_rotation=True,
            deletion_window_in_days=KEY_DELETION_DAYS,
            opts=scope.options(),
        )
        role = amazon.role(scope, "control-plane", amazon.CLUSTERS, CLUSTER_POLICIES)
        name = amazon.unique_name(scope)
        # Ours before EKS makes it: that one would keep logs for ever, and stay when the cluster goes.
        logs = aws.cloudwatch.LogGroup(
            f"{self._name}-logs",
            name=pulumi.Output.concat("/aws/eks/", name, "/cluster"),
            retention_in_days=LOG_RETENTION_DAYS,
            opts=scope.options(),
        )
        subnets = [*network.private.values(), *network.public.values()]
        return aws.eks.Cluster(
            self._name,
            name=name,
            **cluster_inputs(args, role.arn, subnets, key.arn),
            # AWS's own lock says no in the middle of an `up`; Pulumi's in the preview, to replacements too. The role
            # must be able to clean up to the end.
            opts=scope.options(after=[logs, *role.ready], protect=args.deletion_protection, **CLUSTER_TIMES),
        )

    def _entries(self, cluster: aws.eks.Cluster) -> tuple[pulumi.Resource, ...]:
        """Who may do what in the cluster, beside whoever created it."""
        args = self._args
        wanted = [
            *((arn, "admin", ADMIN_POLICY) for arn in args.admin_roles),
            *((arn, "viewer", VIEW_POLICY) for arn in args.viewer_roles),
        ]
        made: list[pulumi.Resource] = []
        for arn, kind, policy in wanted:
            name = f"{self._name}-{kind}-{arn.rsplit('/', 1)[-1]}"
            entry = aws.eks.AccessEntry(
                name, cluster_name=cluster.name, principal_arn=arn, opts=self._scope.options()
            )
            allowed = aws.eks.AccessPolicyAssociation(
                f"{name}-policy",
                cluster_name=cluster.name,
                principal_arn=arn,
                policy_arn=policy,
                access_scope={"type": "cluster"},
                opts=self._scope.options(after=[entry]),
            )
            made += [entry, allowed]
        return tuple(made)

    def _system_group(
        self,
        cluster: aws.eks.Cluster,
        machines: amazon.Role,
        network: Network,
        after: Sequence[pulumi.Resource],
    ) -> aws.eks.NodeGroup:
        inputs = nodes.system_group(self._args.system)
        template = nodes.system_template(self._args.tags)
        subnets = list(network.private.values())
        # Whatever may grow is the autoscaler's: EKS marks every group for it.
        system = self._args.system
        ignore = [AUTOSCALERS_OWN] if system.max_nodes > system.nodes else None
        return self._group(nodes.SYSTEM, inputs, template, subnets, cluster, machines, after, ignore)

    def _gpu_group(
        self,
        key: str,
        pool: GpuPoolArgs,
        cluster: aws.eks.Cluster,
        machines: amazon.Role,
        network: Network,
        after: Sequence[pulumi.Resource],
    ) -> list[pulumi.Resource]:
        """A node group, which models use or have left, and the tags by which it can be scaled from zero."""
        name = pool_name(key, pool.capacity)
        group = self._group(
            name,
            nodes.gpu_group(key, pool, self._args.awake),
            nodes.gpu_template(pool, self._args.tags),
            [network.private[pool.zone]],
            cluster,
            machines,
            after,
            ignore=[AUTOSCALERS_OWN] if nodes.autoscaled(pool, self._args.awake) else None,
            # Removed or replaced under its models it would take all replicas at once; the preview says no.
            protect=self._args.deletion_protection and pool.used,
        )
        scaling = group.resources.apply(lambda made: made[0].autoscaling_groups[0].name)
        tags = [
            aws.autoscaling.Tag(
                f"{self._name}-{name}-{tag.removeprefix(nodes.TEMPLATE + '/')}",
                autoscaling_group_name=scaling,
                tag={"key": tag, "value": value, "propagate_at_launch": False},
                opts=self._scope.options(),
            )
            for tag, value in sorted(nodes.group_tags(key, pool).items())
        ]
        return [group, *tags]

    def _group(
        self,
        name: str,
        inputs: dict[str, Any],
        template: dict[str, Any],
        subnets: list[pulumi.Output[str]],
        cluster: aws.eks.Cluster,
        machines: amazon.Role,
        after: Sequence[pulumi.Resource],
        ignore: list[str] | None = None,
        protect: bool = False,
    ) -> aws.eks.NodeGroup:
        launch = aws.ec2.LaunchTemplate(f"{self._name}-{name}", **template, opts=self._scope.options())
        return aws.eks.NodeGroup(
            f"{self._name}-{name}",
            cluster_name=cluster.name,
            node_role_arn=machines.arn,
            subnet_ids=subnets,
            # By number: "$Latest" would differ from what AWS answers, in every preview.
            launch_template={"id": launch.id, "version": launch.latest_version.apply(str)},
            **inputs,
            opts=self._scope.options(after=after, ignore_changes=ignore, protect=protect, **POOL_TIMES),
        )


def _kubeconfig_of(cluster: aws.eks.Cluster, region: str) -> pulumi.Output[str]:
    authority = cluster.certificate_authority.apply(lambda known: known.data)
    known = pulumi.Output.all(cluster.name, cluster.endpoint, authority)
    text = known.apply(lambda values: kubeconfig(values[0], region, values[1], values[2]))
    return pulumi.Output.secret(text)
