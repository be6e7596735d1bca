"""The one door to all models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from components.clusters.objects import KubernetesObject
from components.core import labels
from components.core.base import Component
from components.core.manifest import manifest
from components.serving.certificate import GatewayCertificate, GatewayCertificateArgs
from components.serving.chain import RequestArgs, RequestChain, RequestChainArgs
from components.serving.handle import GatewayHandle
from components.serving.manifests import gateway as manifests
from components.serving.manifests import google
from components.serving.manifests.certificate import CertificateSpec
from components.serving.manifests.gateway import GatewaySpec
from components.serving.manifests.network_policy import Peer, blocks, pods

# Istio starts pods and a load balancer for them; Google makes a load balancer of six or more resources of its own, and
# takes it apart before the Gateway is gone.
PROGRAMMED_SECONDS = 600
GOOGLE_SECONDS = 1800


@dataclass(frozen=True, kw_only=True)
class InferenceGatewayArgs:
    """`requests` is None where the gateway is not Istio's, `certificate` where somebody else brings one.

    `proxies` are the address blocks that Google's gateway sends requests from. `monitoring` are the pods
    that scrape metrics; `after` are the operators that the gateway needs.
    """

    spec: GatewaySpec
    requests: RequestArgs | None
    certificate: CertificateSpec | None = None
    proxies: tuple[str, ...] = ()
    monitoring: Peer | None = None
    after: tuple[pulumi.Resource, ...] = ()


class InferenceGateway(Component):
    """A Gateway in a namespace of its own."""

    TOKEN = "llmp:index:InferenceGateway"

    def __init__(self, name: str, args: InferenceGatewayArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        self._name = name
        spec = args.spec
        # The gateway's own routes, as those of models, come from namespaces that carry its label.
        marks = {**labels.common("gateway"), labels.ROUTES: spec.name}
        home = manifest("v1", "Namespace", spec.namespace, labels=marks)
        namespace = KubernetesObject(f"{name}-namespace", home, self.child(depends_on=list(args.after)))
        peer = pods({labels.GATEWAY_NAME: spec.name}, spec.namespace)
        # Before the gateway: it must never have answered anybody without them.
        before = [namespace, *args.after, *self._guards(args, peer, namespace)]
        if spec.google:
            # Google programs nothing, not even the other listener, while a listener's Secret is missing.
            before += self._certificate(args, before)
        gateway = KubernetesObject(
            name,
            manifests.gateway(spec),
            self.child(depends_on=before, custom_timeouts=_times(spec)),
        )
        if args.requests is not None:
            KubernetesObject(f"{name}-base", manifests.base_route(spec), self.child(depends_on=[gateway]))
        if not spec.google:
            # A challenge comes through the gateway's other listener.
            self._certificate(args, [*args.after, gateway])
        if spec.encrypted:
            KubernetesObject(f"{name}-redirect", manifests.redirect(spec), self.child(depends_on=[gateway]))
        address = gateway.status.apply(_address)
        scheme = "https" if spec.encrypted else "http"
        door = pulumi.Output.from_input(spec.host) if spec.host else address
        self.handle = GatewayHandle(
            name=spec.name,
            namespace=spec.namespace,
            section=spec.section,
            host=spec.host,
            peers=blocks(args.proxies) if spec.google else (peer,),
            probers=google.probers() if spec.google else (),
            google=spec.google,
            resource=gateway,
            address=address,
            url=pulumi.Output.concat(scheme, "://", door),
        )
        self.register_outputs({"address": address})

    def _certificate(self, args: InferenceGatewayArgs, after: list[pulumi.Resource]) -> list[pulumi.Resource]:
        """The certificate, where it is issued here; to be waited for where the gateway cannot do without."""
        if args.certificate is None:
            return []
        certificate = GatewayCertificateArgs(spec=args.certificate, after=tuple(after))
        return [GatewayCertificate(f"{self._name}-certificate", certificate, self.child()).issued]

    def _guards(
        self, args: InferenceGatewayArgs, peer: Peer, namespace: pulumi.Resource
    ) -> list[pulumi.Resource]:
        if args.requests is None:
            return []
        chain = RequestChainArgs(
            requests=args.requests,
            peer=peer,
            monitoring=args.monitoring,
            after=(namespace, *args.after),
        )
        return RequestChain(f"{self._name}-requests", chain, self.child()).ready


def _times(spec: GatewaySpec) -> pulumi.CustomTimeouts:
    if spec.google:
        seconds = f"{GOOGLE_SECONDS}s"
        return pulumi.CustomTimeouts(create=seconds, update=seconds, delete=seconds)
    return pulumi.CustomTimeouts(create=f"{PROGRAMMED_SECONDS}s", update=f"{PROGRAMMED_SECONDS}s")


def _address(status: dict[str, Any] | None) -> str:
    """The first address of a Gateway's status; empty where it has none."""
    addresses = (status or {}).get("addresses") or [{}]
    return str(addresses[0].get("value", ""))
