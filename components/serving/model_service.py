"""One model: its identity, its network paths, its routes, and the service that KServe runs."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.clusters.objects import KubernetesObject, KubernetesPatch
from components.core.base import Component
from components.core.manifest import Manifest, revision
from components.serving.handle import GatewayHandle, NamespaceHandle
from components.serving.manifests import cache as caches
from components.serving.manifests import gateway as routes
from components.serving.manifests import google, network_policy
from components.serving.manifests import llm_service as service
from components.serving.manifests.destination_rule import destination_rules
from components.serving.manifests.gateway import RouteSpec
from components.serving.manifests.google import BackendSpec
from components.serving.manifests.llm_service import ModelSpec
from components.serving.manifests.network_policy import Peer, PolicySpec


@dataclass(frozen=True, kw_only=True)
class ModelServiceArgs:
    """`tls` says whether KServe's pods speak TLS; `monitoring` are the pods that scrape metrics.

    `request_timeout_seconds` is the gateway's.
    """

    spec: ModelSpec
    gateway: GatewayHandle
    namespace: NamespaceHandle
    tls: bool
    monitoring: Peer | None = None
    request_timeout_seconds: int = 600
    after: tuple[pulumi.Resource, ...] = ()


class ModelService(Component):
    """A model behind the gateway. Done when KServe calls it Ready and every replica runs this configuration."""

    TOKEN = "llmp:index:ModelService"

    def __init__(self, name: str, args: ModelServiceArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        self._name, self._args = name, args
        route = self._route_spec()
        around = [
            self._define(role, item)
            for role, item in (*self._paths(), *self._pod_needs(), *self._routes(route))
        ]
        self._define_service(route, around)
        self.url = args.gateway.url.apply(lambda url: f"{url}{route.prefix}/v1")
        self.register_outputs({"url": self.url})

    def _define(self, role: str, item: Manifest) -> pulumi.Resource:
        # The gateway stands for the kinds that these objects are of; what pods need is up to the service below.
        after = [self._args.gateway.resource, self._args.namespace.resource]
        return KubernetesObject(f"{self._name}-{role}", item, self.child(depends_on=after))

    def _pod_needs(self) -> tuple[tuple[str, Manifest], ...]:
        """The identity of the pods, and the volume that outlives them."""
        spec, namespace = self._args.spec, self._args.namespace
        account = ("account", service.service_account(spec, namespace.secrets, namespace.pull_secrets))
        return (account, ("cache", caches.claim(spec.cache))) if spec.cache else (account,)

    def _paths(self) -> tuple[tuple[str, Manifest], ...]:
        """Network policies, and how the gateway speaks to the pods."""
        spec, gateway = self._args.spec, self._args.gateway
        policy = PolicySpec(
            model=spec.name,
            namespace=spec.namespace,
            gateway=gateway.peers,
            probers=gateway.probers,
            pooled=spec.pooled,
            downloads=spec.downloads,
            monitoring=self._args.monitoring,
        )
        policies = [("workload-policy", network_policy.workload(policy))]
        if spec.pooled:
            policies.append(("picker-policy", network_policy.picker(policy)))
        if spec.spans_hosts:
            policies.append(("group-policy", network_policy.group(policy)))
        return (*policies, *self._backends())

    def _backends(self) -> tuple[tuple[str, Manifest], ...]:
        """What the gateway must know of the pods that its own objects say: Google's, or Istio's."""
        spec = self._args.spec
        if not self._args.gateway.google:
            return destination_rules(spec.name, spec.namespace, spec.pooled, self._args.tls)
        backends = BackendSpec(
            model=spec.name,
            namespace=spec.namespace,
            pooled=spec.pooled,
            timeout_seconds=self._args.request_timeout_seconds,
        )
        return google.backend_policies(backends)

    def _route_spec(self) -> RouteSpec:
        spec, gateway = self._args.spec, self._args.gateway
        return RouteSpec(
            model=spec.name,
            namespace=spec.namespace,
            served_name=spec.served_name,
            gateway=gateway.name,
            gateway_namespace=gateway.namespace,
            section=gateway.section,
            pooled=spec.pooled,
            host=gateway.host,
            google=gateway.google,
            timeout_seconds=None if gateway.google else self._args.request_timeout_seconds,
        )

    @staticmethod
    def _routes(route: RouteSpec) -> tuple[tuple[str, Manifest], ...]:
        return (("route", routes.inference_route(route)), ("models-route", routes.plain_route(route)))

    def _define_service(self, route: RouteSpec, around: list[pulumi.Resource]) -> None:
        """The service, and the waits of docs/adr/0004, each within the model's load budget.

        A change takes a budget for every start that waits for another.
        """
        spec, gateway = self._args.spec, self._args.gateway
        names = tuple(item["metadata"]["name"] for _, item in self._routes(route))
        item = service.llm_service(spec, gateway.name, gateway.namespace, names)
        budget = spec.load_budget_seconds
        timeouts = pulumi.CustomTimeouts(create=f"{budget}s", update=f"{budget * spec.starts}s")
        mark = revision(item["spec"])
        before = [*self._args.after, *self._args.namespace.ready, *around]
        options = self.child(
            depends_on=before,
            custom_timeouts=timeouts,
            # KServe 0.20 refuses another number of hosts; a second service of the name would be refused as well.
            replace_on_changes=["spec.parallelism.pipeline"],
            delete_before_replace=True,
        )
        made = KubernetesObject(self._name, item, options)
        done: pulumi.Resource = made
        waits = (
            ("routed", service.routed(spec, names[0])),
            ("rollout", service.rollout(spec, mark)),
            *((("leaders", service.leaders(spec, mark)),) if spec.spans_hosts else ()),
            ("ready", service.ready(spec, mark)),
        )
        for role, fields in waits:
            # What they wait at goes and comes back with the service.
            options = self.child(depends_on=[done], custom_timeouts=timeouts, replace_with=[made])
            done = KubernetesPatch(f"{self._name}-{role}", fields, options)
