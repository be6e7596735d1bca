"""How Istio's gateway speaks to a model's pods. Pure.

The endpoint picker serves TLS with a certificate that it makes itself, always. The serving pods do the
same where KServe's TLS is on; Istio reaches them through the model's Service and, for a
pool, through a Service of its own making. KServe's certificates are self-signed, so they
encrypt and cannot be verified; what keeps others out are the network policies. A kind of service whose pods
speak no TLS is asked in the clear, which is said, so that a default of the mesh changes nothing (docs/adr/0013).
"""

from __future__ import annotations

from typing import Any

from components.core import labels, naming
from components.core.manifest import Manifest, manifest
from components.core.services import LLM, ServiceKind

API = "networking.istio.io/v1"
_PLAIN = {"mode": "DISABLE"}


def destination_rules(
    model: str, namespace: str, pooled: bool, tls: bool, kind: ServiceKind = LLM
) -> tuple[tuple[str, Manifest], ...]:
    """(role, object) for each host of the model that speaks TLS, or that never does."""
    service = kind.service(model)
    if not kind.tls:
        return (("workload-plain", _rule(model, namespace, "workload", service, _PLAIN)),)
    rules = []
    if pooled:
        rules.append(("picker-tls", _rule(model, namespace, "picker", naming.picker_service(model), _tls())))
    if tls:
        rules.append(("workload-tls", _rule(model, namespace, "workload", service, _tls())))
    if tls and pooled:
        shadow = naming.shadow_service(naming.inference_pool(model))
        # The certificate names the Service; the pool's own host is nowhere in it.
        rules.append(
            ("pool-tls", _rule(model, namespace, "pool", shadow, _tls(naming.host(service, namespace))))
        )
    return tuple(rules)


def _tls(sni: str | None = None) -> dict[str, Any]:
    return {"mode": "SIMPLE", "insecureSkipVerify": True, "sni": sni}


def _rule(model: str, namespace: str, role: str, service: str, tls: dict[str, Any]) -> Manifest:
    return manifest(
        API,
        "DestinationRule",
        f"{model}-{role}",
        namespace,
        labels={**labels.common("gateway"), labels.MODEL: model},
        spec={
            "host": naming.host(service, namespace),
            "trafficPolicy": {"tls": tls},
        },
    )
