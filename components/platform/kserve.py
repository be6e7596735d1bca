"""KServe: its two controllers, their shared configuration, and the presets of model services.

Who owns what (each object has one owner): `kserve-resources` owns the shared objects, among them the
config map `inferenceservice-config` that both controllers read; `kserve-llmisvc-resources` is told not to
create them, nor the inference extension's CRDs, which are a manifest of ours. Both CRD charts contain
one common CRD that the later of them leaves out when it is there, so they are installed one after the other.
The CRDs point at webhooks in a namespace named `kserve`, which is therefore fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.platform import cert_manager, lws
from components.platform.crds import GATEWAY_API, INFERENCE_EXTENSION
from components.platform.release import ReleaseSpec

NAMESPACE = "kserve"
CRD, RESOURCES = "kserve-crd", "kserve-resources"
LLM_CRD, LLM_RESOURCES = "kserve-llmisvc-crd", "kserve-llmisvc-resources"
PRESETS = "kserve-runtime-configs"
# Of the download into an InferenceService's pods: KServe's 1 GiB is too little for the page cache of many gigabytes. An
# LLMInferenceService says it itself.
DOWNLOAD_LIMITS = {"cpu": "2", "memory": "8Gi"}
# What KServe would write into every InferenceService that leaves it out: a processor and 2 GiB, for any engine.
_NO_DEFAULTS = {kind: {"cpu": "", "memory": ""} for kind in ("requests", "limits")}
# Proves that the webhooks answer; everything that KServe validates comes after it.
WEBHOOK_CHECK = "kserve-webhook-check"


@dataclass(frozen=True, kw_only=True)
class KServeArgs:
    """`gateway` is `<namespace>/<name>` of the Gateway; `tls` encrypts between it and the model pods."""

    gateway: str
    gateway_class: str
    tls: bool


def releases(args: KServeArgs) -> tuple[ReleaseSpec, ...]:
    """CRDs, controllers, then presets, which the controllers' webhooks validate."""
    # The controller watches Gateway API, pools and LeaderWorkerSets only if they are there when it starts.
    watched = (GATEWAY_API, INFERENCE_EXTENSION, lws.NAME)
    return (
        ReleaseSpec(name=CRD, namespace=NAMESPACE),
        ReleaseSpec(name=LLM_CRD, namespace=NAMESPACE, needs=(CRD,)),
        ReleaseSpec(
            name=RESOURCES,
            namespace=NAMESPACE,
            values=_shared(args),
            needs=(cert_manager.NAME, CRD, GATEWAY_API),
        ),
        ReleaseSpec(
            name=LLM_RESOURCES,
            namespace=NAMESPACE,
            values=_controller(),
            needs=(RESOURCES, LLM_CRD, *watched),
        ),
        ReleaseSpec(
            name=PRESETS,
            namespace=NAMESPACE,
            values={"kserve": {"llmisvcConfigs": {"enabled": True}}},
            needs=(WEBHOOK_CHECK,),
        ),
    )


def _shared(args: KServeArgs) -> dict[str, Any]:
    gateway: dict[str, Any] = {
        "ingressGateway": {
            "enableGatewayApi": True,
            "kserveGateway": args.gateway,
            "className": args.gateway_class,
        },
    }
    if args.tls:
        # The chart has no value for this switch, but writes this one unquoted into JSON, where a second key can follow
        # it (docs/adr/0006). A test renders the chart.
        gateway["disableHTTPRouteTimeout"] = 'false, "enableLLMInferenceServiceTLS": true'
    return {
        "kserve": {
            "controller": {"deploymentMode": "Standard", "gateway": gateway},
            "storage": {"resources": {"limits": DOWNLOAD_LIMITS}},
            "inferenceservice": {"resources": _NO_DEFAULTS},
        }
    }


def _controller() -> dict[str, Any]:
    controller = {
        "imagePullPolicy": "IfNotPresent",
        # The webhook denies the deletion of presets, and with it the uninstallation of their chart.
        "env": [{"name": "PREVENT_WELL_KNOWN_CONFIG_DELETION", "value": "false"}],
    }
    return {
        "kserve": {
            "createSharedResources": False,
            "llmisvc": {"createGIECRDs": False, "controller": controller},
        }
    }
