"""Scraping and alerts, for the monitoring system that the cluster has."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.clusters.objects import KubernetesObject
from components.core.base import Component
from components.serving.manifests import monitoring as manifests
from components.serving.manifests.monitoring import MonitoringSpec


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    """`after` are the namespaces of the gateway and of the models; the system itself is the cluster owner's."""

    spec: MonitoringSpec
    after: tuple[pulumi.Resource, ...] = ()


class Monitoring(Component):
    """Monitors, rules, and the account that reads what is not open to everybody."""

    TOKEN = "llmp:index:Monitoring"

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        for chain in manifests.objects(args.spec):
            after = args.after
            for role, item in chain:
                made = KubernetesObject(f"{name}-{role}", item, self.child(depends_on=list(after)))
                after = (*args.after, made)
        self.register_outputs({"system": args.spec.system})
