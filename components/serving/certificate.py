"""The gateway's certificate, awaited until it is there."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.clusters.objects import KubernetesObject
from components.core.base import Component
from components.serving.manifests import certificate as manifests
from components.serving.manifests.certificate import CertificateSpec

# Let's Encrypt takes seconds, the load balancer's address and DNS before it take minutes.
ISSUED_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class GatewayCertificateArgs:
    """`after` holds cert-manager and, with Istio, the Gateway, whose HTTP listener answers challenges."""

    spec: CertificateSpec
    after: tuple[pulumi.Resource, ...] = ()


class GatewayCertificate(Component):
    """Issuer and certificate, each awaited. `issued` is the last: after it the Secret is there."""

    TOKEN = "llmp:index:GatewayCertificate"

    def __init__(self, name: str, args: GatewayCertificateArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        timeout = pulumi.CustomTimeouts(create=f"{ISSUED_SECONDS}s", update=f"{ISSUED_SECONDS}s")
        after: tuple[pulumi.Resource, ...] = args.after
        # Each needs the one before: the root is signed by the first issuer and is the key of the second.
        for role, item in manifests.certificate(args.spec):
            options = self.child(depends_on=list(after), custom_timeouts=timeout)
            made = KubernetesObject(f"{name}-{role}", item, options)
            after = (*args.after, made)
        self.issued = after[-1]
        self.register_outputs({"secret": args.spec.secret})
