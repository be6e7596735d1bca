"""Istio: the gateway's control plane. The gateway's own pods are made by istiod from the Gateway object."""

from __future__ import annotations

from components.platform.crds import GATEWAY_API, INFERENCE_EXTENSION
from components.platform.release import ReleaseSpec

BASE, ISTIOD = "istio-base", "istiod"
NAMESPACE = "istio-system"
# The chart marks them all `helm.sh/resource-policy: keep`.
KEEPS = tuple(f"{area}.istio.io" for area in ("extensions", "networking", "security", "telemetry"))


def releases() -> tuple[ReleaseSpec, ...]:
    """CRDs, then istiod, which looks for the APIs that it serves only when it starts."""
    apis = (GATEWAY_API, INFERENCE_EXTENSION)
    values = {
        # Off by default in every release up to 1.31; without it an InferencePool is no backend.
        "env": {
            "ENABLE_GATEWAY_API_INFERENCE_EXTENSION": "true",
            # The gateway itself answers `Expect: 100-continue`. The request program holds a body while it looks for its
            # model, so an engine asked first would never be heard, and the client would wait for its own time-out.
            "ENABLE_100_CONTINUE_HEADERS": "false",
        },
    }
    return (
        ReleaseSpec(name=BASE, namespace=NAMESPACE, keeps=KEEPS),
        ReleaseSpec(name=ISTIOD, namespace=NAMESPACE, values=values, needs=(BASE, *apis)),
    )
