"""One model: its identity, its network paths, its routes, and the service that KServe runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pulumi

from components.clusters.objects import KubernetesObject, KubernetesPatch
from components.core.base import Component
from components.core.manifest import Manifest
from components.core.services import LLM, PREDICTOR
from components.serving.handle import GatewayHandle, NamespaceHandle
from components.serving.manifests import cache as caches
from components.serving.manifests import gateway as routes
from components.serving.manifests import google, inference_service, network_policy
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


@dataclass(frozen=True, kw_only=True)
class _Build:
    """How one kind of service is made: the object, attached to gateway and routes; what is waited for after it; and the
    changes of it that KServe refuses.
    """

    item: Callable[[ModelSpec, GatewayHandle, tuple[str, ...]], Manifest]
    waits: Callable[[ModelSpec, Manifest, str], tuple[tuple[str, Manifest], ...]]
    refused: tuple[str, ...] = ()


_BUILDS: Mapping[str, _Build] = {
    LLM.kind: _Build(
        item=lambda spec, door, names: service.llm_service(spec, door.name, door.namespace, names),
        waits=service.waits,
        # KServe 0.20 refuses another number of hosts.
        refused=("spec.parallelism.pipeline",),
    ),
    # It knows nothing of our gateway and routes.
    PREDICTOR.kind: _Build(
        item=lambda spec, *_: inference_service.inference_service(spec), waits=inference_service.waits
    ),
}


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
        secrets = service.download_secrets(spec, namespace.secrets)
        account = ("account", service.service_account(spec, secrets, namespace.pull_secrets))
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
            store=spec.store,
            monitoring=self._args.monitoring,
            kind=spec.kind,
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
            return destination_rules(spec.name, spec.namespace, spec.pooled, self._args.tls, spec.kind)
        backends = BackendSpec(
            model=spec.name,
            namespace=spec.namespace,
            pooled=spec.pooled,
            timeout_seconds=self._args.request_timeout_seconds,
            kind=spec.kind,
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
            kind=spec.kind,
            host=gateway.host,
            google=gateway.google,
            timeout_seconds=None if gateway.google else self._args.request_timeout_seconds,
        )

    @staticmethod
    def _routes(route: RouteSpec) -> tuple[tuple[str, Manifest], ...]:
        return (("route", routes.inference_route(route)), ("models-route", routes.plain_route(route)))

    def _define_service(self, route: RouteSpec, around: list[pulumi.Resource]) -> None:
        """The service, and the waits of its kind, each within the model's load budget.

        A change takes a budget for every start that waits for another.
        """
        spec = self._args.spec
        build = _BUILDS[spec.kind.kind]
        names = tuple(item["metadata"]["name"] for _, item in self._routes(route))
        item = build.item(spec, self._args.gateway, names)
        budget = spec.load_budget_seconds
        timeouts = pulumi.CustomTimeouts(create=f"{budget}s", update=f"{budget * spec.starts}s")
        home = self._args.namespace
        before = [*self._args.after, *home.ready, *home.shared, *around]
        options = self.child(
            depends_on=before,
            custom_timeouts=timeouts,
            # A second service of the name would be refused as well.
            replace_on_changes=list(build.refused),
            delete_before_replace=True,
        )
        made = KubernetesObject(self._name, item, options)
        done: pulumi.Resource = made
        for role, fields in build.waits(spec, item, names[0]):
            # What they wait at goes and comes back with the service.
            options = self.child(depends_on=[done], custom_timeouts=timeouts, replace_with=[made])
            done = KubernetesPatch(f"{self._name}-{role}", fields, options)
