"""How cert-manager judges issuers: whether one is ready, and whether it would sign a certificate.

`selfSigned`, `ca` and `acme` are known, any other type is refused by name. Nobody is asked over the
network: an ACME account is always granted, and a challenge succeeds when the gateway that it would come
through could answer it. Reasons and messages are those of cert-manager 1.21 (pkg/issuer).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import yaml

from ops.kube import Kube, Manifest
from rehearsal.cluster.certificates import KeyPair
from rehearsal.stand_ins import signing

# Where Secrets of ClusterIssuers are, by the chart's default.
CLUSTER_NAMESPACE = "cert-manager"
CHALLENGE_PORT = 80
# X.520; cert-manager's webhook refuses longer ones.
COMMON_NAME_LENGTH = 64
GATEWAY = "Gateway"


@dataclass(frozen=True)
class Verdict:
    """A Ready condition without its type."""

    ready: bool
    reason: str
    message: str = ""


class Refusal(Exception):
    """Why a certificate is not signed yet."""


class Issuers:
    """Judges issuers by the objects that they refer to. `find` gets a Gateway by name and namespace."""

    def __init__(self, kube: Kube, acme: KeyPair, find: Callable[[str, str], Manifest | None]):
        self._kube, self._acme, self._find = kube, acme, find

    def verdict(self, issuer: Manifest) -> Verdict:
        """Whether the issuer is ready, and why not."""
        spec = issuer["spec"]
        if "selfSigned" in spec:
            return Verdict(True, "IsReady")
        if "ca" in spec:
            return self._authority_verdict(issuer)
        if "acme" in spec:
            return self._account_verdict(issuer)
        known = ", ".join(sorted(spec)) or "none"
        return Verdict(
            False, "ErrInitIssuer", f"the rehearsal simulates selfSigned, ca and acme, not {known}"
        )

    def _authority_verdict(self, issuer: Manifest) -> Verdict:
        name = issuer["spec"]["ca"]["secretName"]
        wrong = "Error getting keypair for CA issuer: "
        pair = signing.pair_of(self._kube.get("v1", "Secret", name, _home(issuer)))
        if pair is None:
            return Verdict(False, "ErrGetKeyPair", f'{wrong}secret "{name}" not found')
        if not signing.is_authority(pair):
            return Verdict(False, "ErrInvalidKeyPair", f"{wrong}certificate is not a CA")
        return Verdict(True, "KeyPairVerified", "Signing CA verified")

    def _account_verdict(self, issuer: Manifest) -> Verdict:
        acme = issuer["spec"]["acme"]
        if not acme.get("solvers"):
            return Verdict(
                False, "InvalidConfig", "no solver is configured, so no challenge could be answered"
            )
        strange = [s for s in acme["solvers"] if "gatewayHTTPRoute" not in s.get("http01", {})]
        if strange:
            return Verdict(False, "InvalidSolver", "the rehearsal simulates solvers of kind gatewayHTTPRoute")
        message = f"The ACME account was registered with the ACME server (simulated: {acme['server']} was not asked)"
        return Verdict(True, "ACMEAccountRegistered", message)

    def signer(self, issuer: Manifest, certificate: Manifest) -> KeyPair | None:
        """The authority that signs for a ready issuer; None for itself. Raises :class:`Refusal` for not yet."""
        spec = issuer["spec"]
        if len(certificate["spec"].get("commonName", "")) > COMMON_NAME_LENGTH:
            raise Refusal(f"a common name has {COMMON_NAME_LENGTH} characters at most")
        if "selfSigned" in spec:
            return None
        if "ca" in spec:
            name = spec["ca"]["secretName"]
            return signing.pair_of(self._kube.get("v1", "Secret", name, _home(issuer)))
        self._prove(spec["acme"], certificate)
        return self._acme

    def _prove(self, acme: Manifest, certificate: Manifest) -> None:
        """Whether every name of a certificate could be proven."""
        names = certificate["spec"].get("dnsNames") or ()
        if not names or certificate["spec"].get("ipAddresses"):
            raise Refusal("an ACME certificate has DNS names, and nothing else")
        if not self._watches_gateways():
            raise Refusal("gateway api is not enabled: cert-manager's config lacks gatewayAPI.enabled")
        parents = [p for s in acme["solvers"] for p in s["http01"]["gatewayHTTPRoute"].get("parentRefs", ())]
        home = certificate["metadata"]["namespace"]
        for name in names:
            wrong = [self._obstacle(parent, name, home) for parent in parents]
            if not wrong or all(wrong):
                raise Refusal(f"challenge for {name}: {'; '.join(filter(None, wrong)) or 'no parentRefs'}")

    def _watches_gateways(self) -> bool:
        """Whether the controller was told to make routes (the chart's ConfigMap)."""
        item = self._kube.get("v1", "ConfigMap", "cert-manager", CLUSTER_NAMESPACE) or {}
        config = yaml.safe_load((item.get("data") or {}).get("config.yaml", "")) or {}
        return bool((config.get("gatewayAPI") or {}).get("enabled") or config.get("enableGatewayAPI"))

    def _obstacle(self, parent: Manifest, host: str, home: str) -> str | None:
        """Why a challenge for a host would not come through a Gateway."""
        namespace = parent.get("namespace", home)
        where = f"Gateway {namespace}/{parent['name']}"
        gateway = self._find(parent["name"], namespace)
        if gateway is None:
            return f"{where} does not exist"
        status = gateway.get("status") or {}
        conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
        if conditions.get("Programmed") != "True" or not status.get("addresses"):
            return f"{where} is not programmed"
        listeners = [
            x for x in gateway["spec"]["listeners"] if parent.get("sectionName") in (None, x["name"])
        ]
        if any(self._answers(x, host, home, namespace) for x in listeners):
            return None
        section = parent.get("sectionName", "any")
        return (
            f"{where} has no HTTP listener ({section}) on port {CHALLENGE_PORT} that serves {host} to {home}"
        )

    def _answers(self, listener: Manifest, host: str, home: str, gateway_home: str) -> bool:
        return (
            (listener["protocol"], listener["port"]) == ("HTTP", CHALLENGE_PORT)
            and _serves(listener.get("hostname"), host)
            and self._admits(listener, home, gateway_home)
        )

    def _admits(self, listener: Manifest, home: str, gateway_home: str) -> bool:
        """Whether a listener takes routes from a namespace."""
        rule = (listener.get("allowedRoutes") or {}).get("namespaces") or {}
        kind = rule.get("from", "Same")
        if kind != "Selector":
            return kind == "All" or (kind == "Same" and home == gateway_home)
        namespace = self._kube.get("v1", "Namespace", home) or {"metadata": {}}
        wanted = (rule.get("selector") or {}).get("matchLabels") or {}
        return wanted.items() <= (namespace["metadata"].get("labels") or {}).items()


def find_issuer(certificate: Manifest, issuers: Iterable[Manifest]) -> Manifest | None:
    """The issuer that a Certificate refers to."""
    reference = certificate["spec"]["issuerRef"]
    kind = reference.get("kind", "Issuer")
    namespace = certificate["metadata"]["namespace"] if kind == "Issuer" else ""
    wanted = kind, namespace, reference["name"]
    return next((i for i in issuers if wanted == (i["kind"], *_place(i))), None)


def _place(item: Manifest) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _home(issuer: Manifest) -> str:
    """Where an issuer's Secrets are."""
    return issuer["metadata"].get("namespace") or CLUSTER_NAMESPACE


def _serves(hostname: str | None, host: str) -> bool:
    """Whether a listener's host name covers a host."""
    if not hostname:
        return True
    if hostname.startswith("*."):
        return host.endswith(hostname[1:]) and host != hostname[2:]
    return hostname == host
