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
from components.serving.manifests.certificate import CertificateSpec
from components.serving.manifests.gateway import GatewaySpec
from components.serving.manifests.network_policy import Peer, pods

PROGRAMMED_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class InferenceGatewayArgs:
    """`requests` is None where the gateway is not Istio's, `certificate` where somebody else brings one.

    `monitoring` are the pods that scrape metrics; `after` are the operators that the gateway needs.
    """

    spec: GatewaySpec
    requests: RequestArgs | None
    certificate: CertificateSpec | None = None
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
        guards = self._guards(args, peer, namespace)
        timeout = pulumi.CustomTimeouts(create=f"{PROGRAMMED_SECONDS}s", update=f"{PROGRAMMED_SECONDS}s")
        gateway = KubernetesObject(
            name,
            manifests.gateway(spec),
            self.child(depends_on=[namespace, *args.after, *guards], custom_timeouts=timeout),
        )
        if args.requests is not None:
            KubernetesObject(f"{name}-base", manifests.base_route(spec), self.child(depends_on=[gateway]))
        if args.certificate is not None:
            certificate = GatewayCertificateArgs(spec=args.certificate, after=(*args.after, gateway))
            GatewayCertificate(f"{name}-certificate", certificate, self.child())
        if spec.tls_secret:
            KubernetesObject(f"{name}-redirect", manifests.redirect(spec), self.child(depends_on=[gateway]))
        address = gateway.status.apply(_address)
        scheme = "https" if spec.tls_secret else "http"
        door = pulumi.Output.from_input(spec.host) if spec.host else address
        self.handle = GatewayHandle(
            name=spec.name,
            namespace=spec.namespace,
            section=spec.section,
            host=spec.host,
            peers=(peer,),
            istio=args.requests is not None,
            resource=gateway,
            address=address,
            url=pulumi.Output.concat(scheme, "://", door),
        )
        self.register_outputs({"address": address})

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


def _address(status: dict[str, Any] | None) -> str:
    """The first address of a Gateway's status; empty where it has none."""
    addresses = (status or {}).get("addresses") or [{}]
    return str(addresses[0].get("value", ""))
