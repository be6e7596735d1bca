"""The one door to all models."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from stacks.config.base import Strict, entry
from stacks.config.errors import refusal
from stacks.config.types import Cidr, DnsLabel, HostName, Reason, Text

CLASS_NAMES = {
    ("istio", "internal"): "istio",
    ("istio", "public"): "istio",
    ("gke", "internal"): "gke-l7-rilb",
    ("gke", "public"): "gke-l7-regional-external-managed",
}
_SOURCES = ("issuer", "secretName", "certificateManager", "none")


class Tls(Strict):
    """Where the gateway's certificate comes from: exactly one of the first four keys."""

    issuer: DnsLabel | None = entry(
        "Issuer: letsencrypt, letsencrypt-staging, own-ca, or the name of a ClusterIssuer.",
        None,
    )
    secret_name: DnsLabel | None = entry("Existing TLS Secret in the gateway's namespace.", None)
    certificate_manager: DnsLabel | None = entry(
        "Certificate of Certificate Manager in the cluster's region, with gateway kind gke. Google's regional gateways "
        "take certificates by name and no certificate maps.",
        None,
    )
    none: Reason | None = entry("No TLS, and the reason why keys may travel in the clear here.", None)
    email: Text | None = entry("Contact of the ACME account, with a letsencrypt issuer.", None)

    @model_validator(mode="after")
    def _one_source(self) -> Tls:
        values = (self.issuer, self.secret_name, self.certificate_manager, self.none)
        given = [name for name, value in zip(_SOURCES, values, strict=True) if value is not None]
        if len(given) != 1:
            raise refusal(
                f"{' and '.join(given)} are set together" if given else "no source of a certificate is given",
                "the listener would have no certificate, or two",
                f"set exactly one of {', '.join(_SOURCES)}",
            )
        return self


class Gateway(Strict):
    """The gateway and its listener."""

    kind: Literal["istio", "gke"] = entry(
        "istio runs in the cluster and knows keys and token limits; gke is Google's load balancer.", "istio"
    )
    exposure: Literal["internal", "public"] = entry(
        "Who can reach it: the private network, or everybody.", "internal"
    )
    open_reason: Reason | None = entry(
        "Why a public gateway may answer without `access`; required then.", None
    )
    host: HostName | None = entry(
        "Host name of the endpoint.", None, derived="the gateway's address, any host name"
    )
    tls: Tls | None = entry("HTTPS; HTTP is redirected.", None, derived="plain HTTP")
    namespace: DnsLabel = entry("Namespace of the gateway.", "llm-gateway")
    name: DnsLabel = entry("Name of the Gateway object.", "llm-gateway")
    class_name: DnsLabel | None = entry("GatewayClass.", None, derived="kind and exposure")
    proxy_only: Cidr | None = entry(
        "Range of the proxy-only subnet in an existing cluster's network and region, with gateway kind gke: network "
        "policies let Google's proxies in by it.",
        None,
        derived="cluster.network.proxyOnly on a new cluster",
    )

    @property
    def gateway_class(self) -> str:
        """The GatewayClass: the one that is written, or that of kind and exposure."""
        return self.class_name or CLASS_NAMES[self.kind, self.exposure]

    @property
    def encrypted(self) -> bool:
        """Whether the listener speaks TLS."""
        return self.tls is not None and self.tls.none is None
