"""What the gateway can do with the cluster, the certificate and the keys."""

from __future__ import annotations

from collections.abc import Iterator

from stacks.config.errors import Problem
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
    if tls.certificate_map is not None and gateway.kind != "gke":
        yield problem(
            ("gateway", "tls", "certificateMap"),
            "Certificate Manager serves Google's gateway only",
            "the listener would have no certificate",
            "use issuer or secretName, or set gateway.kind to gke",
        )


RULES = (cloud, access_needs_istio, keys_need_tls, open_to_all, certificate)
