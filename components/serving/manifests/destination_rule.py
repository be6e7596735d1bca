"""How Istio's gateway speaks to a model's pods. Pure.

The endpoint picker serves TLS with a certificate that it makes itself, always. The serving pods do the
same where KServe's TLS is on; Istio reaches them through the model's Service and, for a
pool, through a Service of its own making. KServe's certificates are self-signed, so they
encrypt and cannot be verified; what keeps others out are the network policies.
"""

from __future__ import annotations

from components.core import labels, naming
from components.core.manifest import Manifest, manifest

API = "networking.istio.io/v1"


def destination_rules(
    model: str, namespace: str, pooled: bool, tls: bool
) -> tuple[tuple[str, Manifest], ...]:
    """(role, object) for each host of the model that speaks TLS."""
    service = naming.workload_service(model)
    rules = []
    if pooled:
        rules.append(("picker-tls", _rule(model, namespace, "picker", naming.picker_service(model))))
    if tls:
        rules.append(("workload-tls", _rule(model, namespace, "workload", service)))
    if tls and pooled:
        shadow = naming.shadow_service(naming.inference_pool(model))
        # The certificate names the Service; the pool's own host is nowhere in it.
        rules.append(
            ("pool-tls", _rule(model, namespace, "pool", shadow, sni=naming.host(service, namespace)))
        )
    return tuple(rules)


def _rule(model: str, namespace: str, role: str, service: str, sni: str | None = None) -> Manifest:
    return manifest(
        API,
        "DestinationRule",
        f"{model}-{role}",
        namespace,
        labels={**labels.common("gateway"), labels.MODEL: model},
        spec={
            "host": naming.host(service, namespace),
            "trafficPolicy": {"tls": {"mode": "SIMPLE", "insecureSkipVerify": True, "sni": sni}},
        },
    )
