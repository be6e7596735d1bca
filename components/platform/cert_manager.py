"""cert-manager: issues the certificates of webhooks and gateways."""

from __future__ import annotations

from components.platform.release import ReleaseSpec

NAME = "cert-manager"


def releases() -> tuple[ReleaseSpec, ...]:
    """One release. Its own start-up check, a hook of the chart, proves that its webhook answers before others use it."""
    values = {
        # Kept on uninstall: deleting them would delete every certificate in the cluster.
        "crds": {"enabled": True, "keep": True},
        "startupapicheck": {"enabled": True, "timeout": "5m"},
    }
    keeps = ("acme.cert-manager.io", "cert-manager.io")
    return (ReleaseSpec(name=NAME, namespace="cert-manager", values=values, keeps=keeps),)
