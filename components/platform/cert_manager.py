"""cert-manager: issues the certificates of webhooks and gateways."""

from __future__ import annotations

from components.platform.crds import GATEWAY_API
from components.platform.release import ReleaseSpec

NAME = "cert-manager"


def releases() -> tuple[ReleaseSpec, ...]:
    """One release. Its own start-up check, a hook of the chart, proves that its webhook answers before others use it."""
    values = {
        # Kept on uninstall: deleting them would delete every certificate in the cluster.
        "crds": {"enabled": True, "keep": True},
        "startupapicheck": {"enabled": True, "timeout": "5m"},
        # Answers ACME challenges by routes of the gateway. Off by default up to 1.21.
        "config": {"gatewayAPI": {"enabled": True}},
    }
    keeps = ("acme.cert-manager.io", "cert-manager.io")
    # With that switch on and no Gateway API, its controller ends as soon as it starts (pkg/controller/context.go).
    needs = (GATEWAY_API,)
    return (ReleaseSpec(name=NAME, namespace="cert-manager", values=values, keeps=keeps, needs=needs),)
