"""How the endpoint picker chooses a replica: EndpointPickerConfig. Pure.

The group `inference.networking.x-k8s.io` is deprecated but read by both pickers that may run:
the one of the inference extension 1.5 and llm-d's router 0.9, which KServe 0.20 deploys. The
plugins are those that both know (`pkg/epp/framework/plugins` of the inference extension 1.5).
"""

from __future__ import annotations

from typing import Any, Literal

from components.core.manifest import Manifest

Routing = Literal["prefix-cache", "load", "none"]

# Weights as in KServe's own default: a replica that has the prompt's prefix in its cache is preferred, unless
# its queue or its KV cache is so full that computing the prefix elsewhere is faster.
_LOAD = (("queue-scorer", 2), ("kv-cache-utilization-scorer", 2))
_PREFIX = ("prefix-cache-scorer", 3)
SCORERS: dict[str, tuple[tuple[str, int], ...]] = {
    "prefix-cache": (_PREFIX, *_LOAD),
    "load": _LOAD,
}
_PICKER = "max-score-picker"


def endpoint_picker(routing: Routing) -> Manifest | None:
    """The picker's configuration; None for `none`, where no picker runs and the Service takes turns."""
    scorers = SCORERS.get(routing)
    if scorers is None:
        return None
    types = ["single-profile-handler", *(name for name, _ in scorers), _PICKER]
    profile: list[dict[str, Any]] = [{"pluginRef": name, "weight": weight} for name, weight in scorers]
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [{"type": name} for name in types],
        "schedulingProfiles": [{"name": "default", "plugins": [*profile, {"pluginRef": _PICKER}]}],
    }
