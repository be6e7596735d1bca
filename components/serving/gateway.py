"""The one door to all models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from components.clusters.objects import KubernetesObject
from components.core import labels
from components.core.base import Component
from components.core.manifest import manifest
from components.serving.handle import GatewayHandle
from components.serving.manifests import gateway as manifests
from components.serving.manifests.gateway import GatewaySpec
from components.serving.manifests.network_policy import pods

PROGRAMMED_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class InferenceGatewayArgs:
    """`after` are the operators that the gateway needs; `istio` says whether Istio implements it."""

    spec: GatewaySpec
    istio: bool
    after: tuple[pulumi.Resource, ...] = ()


class InferenceGateway(Component):
    """A Gateway in a namespace of its own."""

    TOKEN = "llmp:index:InferenceGateway"

    def __init__(self, name: str, args: InferenceGatewayArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        spec = args.spec
        home = manifest("v1", "Namespace", spec.namespace, labels=labels.common("gateway"))
        namespace = KubernetesObject(f"{name}-namespace", home, self.child(depends_on=list(args.after)))
        timeout = pulumi.CustomTimeouts(create=f"{PROGRAMMED_SECONDS}s", update=f"{PROGRAMMED_SECONDS}s")
        gateway = KubernetesObject(
            name,
            manifests.gateway(spec),
            self.child(depends_on=[namespace, *args.after], custom_timeouts=timeout),
        )
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
            peers=(pods({labels.GATEWAY_NAME: spec.name}, spec.namespace),),
            istio=args.istio,
            resource=gateway,
            address=address,
            url=pulumi.Output.concat(scheme, "://", door),
        )
        self.register_outputs({"address": address})


def _address(status: dict[str, Any] | None) -> str:
    """The first address of a Gateway's status; empty where it has none."""
    addresses = (status or {}).get("addresses") or [{}]
    return str(addresses[0].get("value", ""))
