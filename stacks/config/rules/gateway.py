"""What the gateway can do with the cluster, the certificate and the keys."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from stacks.config.errors import Problem
from stacks.config.gateway import CLASS_NAMES
from stacks.config.rules.draft import Draft, problem


def cloud(draft: Draft) -> Iterator[Problem]:
    """Google's gateway exists on GKE."""
    if draft.config.gateway.kind == "gke" and draft.config.cluster.kind == "eks" and draft.knows("cluster"):
        yield problem(
            ("gateway", "kind"),
            "gke is Google's load balancer, but the cluster is on EKS",
            "no controller would ever accept the Gateway",
            "use istio",
        )


def access_needs_istio(draft: Draft) -> Iterator[Problem]:
    """Keys and limits are checked by filters that only Istio's gateway has."""
    if draft.config.access is not None and draft.config.gateway.kind == "gke":
        yield problem(
            ("access",),
            "the gke gateway can check neither keys nor limits",
            "every request would pass, whoever sends it",
            "set gateway.kind to istio, or remove llm-platform:access",
        )


# Google's documentation makes proxy-only subnets of /23; one of /16 has room for a thousand gateways.
WIDEST_PROXIES = 16

# What Google brings to its own gateway, and what it does without.
_GOOGLES = {
    "istio": ("istio", "Istio would run beside it and serve nobody"),
    "gateway_api": ("gatewayApi", "GKE defines the Gateway API itself, and takes other versions back"),
    "inference_extension": (
        "inferenceExtension",
        "GKE defines InferencePool itself, and takes other versions back",
    ),
}


def google_brings(draft: Draft) -> Iterator[Problem]:
    """Nothing is installed that comes with Google's gateway."""
    if draft.config.gateway.kind != "gke":
        return
    for field, (key, consequence) in _GOOGLES.items():
        if getattr(draft.config.platform, field) == "managed":
            yield problem(
                ("platform", key), "managed, but the gateway is Google's", consequence, "remove the key"
            )


def google_class(draft: Draft) -> Iterator[Problem]:
    """Pools are backends of Google's two regional classes only."""
    gateway = draft.config.gateway
    if gateway.kind != "gke" or gateway.class_name is None or not draft.knows("gateway", "className"):
        return
    fitting = CLASS_NAMES[gateway.kind, gateway.exposure]
    if gateway.class_name != fitting:
        yield problem(
            ("gateway", "className"),
            f"{gateway.class_name} is not the class of an {gateway.exposure} gateway"
            if gateway.class_name in CLASS_NAMES.values()
            else f"{gateway.class_name} takes no InferencePool as a backend",
            "the models would not be reachable, or by others than exposure says",
            f"remove it; {fitting} follows from kind and exposure",
        )


def google_proxies(draft: Draft) -> Iterator[Problem]:
    """Where Google's proxies are must be known, once."""
    gateway, cluster = draft.config.gateway, draft.config.cluster
    if not all(
        draft.knows(*place) for place in (("cluster",), ("gateway", "kind"), ("gateway", "proxyOnly"))
    ):
        return
    needed = gateway.kind == "gke" and cluster.kind == "existing"
    if needed and gateway.proxy_only is None:
        yield problem(
            ("gateway", "proxyOnly"),
            "is missing",
            "network policies would keep Google's proxies away from the models",
            "add the range of the proxy-only subnet: gcloud compute networks subnets list "
            "--filter=purpose=REGIONAL_MANAGED_PROXY",
        )
    elif needed and ipaddress.IPv4Network(gateway.proxy_only).prefixlen < WIDEST_PROXIES:
        yield problem(
            ("gateway", "proxyOnly"),
            f"{gateway.proxy_only} is more than a proxy-only subnet",
            "whoever else has an address in it would reach the models around the gateway",
            "use the subnet's own range, for example 192.168.100.0/23",
        )
    elif gateway.proxy_only is not None and not needed:
        yield problem(
            ("gateway", "proxyOnly"),
            "is for Google's gateway on an existing cluster",
            "it would be ignored",
            "set cluster.network.proxyOnly" if gateway.kind == "gke" else "remove it",
        )


def keys_need_tls(draft: Draft) -> Iterator[Problem]:
    """Keys do not cross a public network in the clear."""
    gateway = draft.config.gateway
    if draft.config.access is None or gateway.exposure != "public" or gateway.tls is not None:
        return
    yield problem(
        ("gateway", "tls"),
        "keys would be sent to a public listener without TLS",
        "everybody on the way can read and use them",
        "add tls: {issuer: letsencrypt} and a host; or, if you must, tls: {none: <the reason in words>}",
    )


def open_to_all(draft: Draft) -> Iterator[Problem]:
    """A public gateway without keys is meant."""
    gateway = draft.config.gateway
    if gateway.exposure == "public" and draft.config.access is None and gateway.open_reason is None:
        if draft.knows("access"):
            yield problem(
                ("gateway", "exposure"),
                "the gateway is public and asks for no key",
                "everybody could use the accelerators at your cost",
                "add llm-platform:access, set exposure: internal, or write gateway.openReason",
            )
    elif gateway.open_reason is not None and (
        gateway.exposure != "public" or draft.config.access is not None
    ):
        yield problem(
            ("gateway", "openReason"),
            "the gateway is not open to everybody",
            "the reason would mislead the next reader",
            "remove it",
        )


def certificate(draft: Draft) -> Iterator[Problem]:
    """The certificate fits the listener."""
    gateway = draft.config.gateway
    tls = gateway.tls
    if tls is None:
        return
    if tls.issuer is not None and gateway.host is None:
        yield problem(
            ("gateway", "host"),
            "is missing",
            "a certificate is issued for a host name",
            "add host: <name>, or use tls: {secretName: …}",
        )
    acme = tls.issuer is not None and tls.issuer.startswith("letsencrypt")
    if acme and gateway.exposure == "internal":
        yield problem(
            ("gateway", "tls", "issuer"),
            "Let's Encrypt cannot reach an internal gateway",
            "the certificate would never be issued",
            "use own-ca, an existing ClusterIssuer or secretName",
        )
    if tls.email is not None and not acme:
        yield problem(
            ("gateway", "tls", "email"),
            "only an ACME account has a contact",
            "it would be ignored",
            "remove it, or use issuer: letsencrypt",
        )
    if acme and gateway.kind == "gke" and gateway.exposure == "public":
        yield problem(
            ("gateway", "tls", "issuer"),
            "Let's Encrypt would ask through Google's gateway, which serves nothing before its certificate is there",
            "the certificate would never be issued",
            "use certificateManager, secretName, or a ClusterIssuer that answers by DNS",
        )
    if tls.certificate_manager is not None and gateway.kind != "gke":
        yield problem(
            ("gateway", "tls", "certificateManager"),
            "Certificate Manager serves Google's gateway only",
            "the listener would have no certificate",
            "use issuer or secretName, or set gateway.kind to gke",
        )


RULES = (
    cloud,
    access_needs_istio,
    google_brings,
    google_class,
    google_proxies,
    keys_need_tls,
    open_to_all,
    certificate,
)
