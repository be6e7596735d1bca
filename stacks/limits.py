"""What the configuration can say and this release cannot build. Pure.

Refused rather than ignored: a stack without the keys or the cluster that its file asks for would look right.
"""

from __future__ import annotations

from collections.abc import Callable

from stacks.config import Problem, StackConfig
from stacks.config.errors import path_of

# Issuers that this release does not create; any other name is a ClusterIssuer that exists.
_OWN_ISSUERS = ("letsencrypt", "letsencrypt-staging", "own-ca")


def _cluster(config: StackConfig) -> Problem | None:
    if config.cluster.kind == "existing":
        return None
    return Problem(
        path_of("cluster", "kind"),
        f"this release has no component for {config.cluster.kind} yet",
        "no cluster would be created",
        "create the cluster yourself and name its context with kind: existing",
    )


def _access(config: StackConfig) -> Problem | None:
    if config.access is None:
        return None
    return Problem(
        path_of("access"),
        "this release has no component for keys and token limits yet",
        "everybody who reaches the gateway could use the models",
        "remove it, and keep the gateway internal",
    )


def _gateway(config: StackConfig) -> Problem | None:
    if config.gateway.kind == "istio":
        return None
    return Problem(
        path_of("gateway", "kind"),
        f"this release has no component for gateway kind {config.gateway.kind} yet",
        "no gateway would be created",
        "use istio",
    )


def _issuer(config: StackConfig) -> Problem | None:
    tls = config.gateway.tls
    if tls is None or tls.issuer not in _OWN_ISSUERS:
        return None
    return Problem(
        path_of("gateway", "tls", "issuer"),
        f'this release does not create the issuer "{tls.issuer}" yet',
        "the gateway would wait for a certificate that nobody issues",
        "name a ClusterIssuer that exists, or put a certificate into the cluster and set secretName",
    )


def _power(config: StackConfig) -> Problem | None:
    if config.power != "schedule":
        return None
    return Problem(
        path_of("power"),
        "this release does not follow a schedule yet, and the program never reads the clock",
        "nobody could tell whether the models run",
        "write awake or asleep",
    )


_LIMITS: tuple[Callable[[StackConfig], Problem | None], ...] = (_cluster, _access, _gateway, _issuer, _power)


def limits(config: StackConfig) -> list[Problem]:
    """Everything in the configuration that this release cannot do."""
    return [problem for problem in (limit(config) for limit in _LIMITS) if problem is not None]
