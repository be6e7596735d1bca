"""How the endpoint picker chooses a replica: EndpointPickerConfig. Pure.

The group `inference.networking.x-k8s.io` is deprecated but read by both pickers that may run:
the one of the inference extension 1.5 and llm-d's router 0.9, which KServe 0.20 deploys. The
plugins and their parameters are those that both know (`pkg/epp/framework/plugins` of either).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from components.core.manifest import Manifest

Routing = Literal["prefix-cache", "load", "none"]

# Weights as in KServe's own default: a replica that has the prompt's prefix in its cache is preferred, unless
# its queue or its KV cache is so full that computing the prefix elsewhere is faster.
_LOAD = (("queue-scorer", 2), ("kv-cache-utilization-scorer", 2))
_PREFIX = ("prefix-cache-scorer", 3)
# KServe's default is blind to load until something waits, so that a system prompt which all chats share keeps every
# one of them at the replica that saw it first: vLLM counts a cache that is only warm as free. Measured with
# benchmarks/routing.py without the KV scorer: all requests at one of three replicas (one system prompt), and 58 %
# (eight) that became 36 % with this. A third of the prefix's weight moves new chats, seldom those with a history.
_RUNNING = ("running-requests-size-scorer", 1)
SCORERS: Mapping[str, tuple[tuple[str, int], ...]] = MappingProxyType(
    {"prefix-cache": (_PREFIX, *_LOAD, _RUNNING), "load": (*_LOAD, _RUNNING)}
)
_PICKER = "max-score-picker"

# What remembers which replica saw which prefix. Parameters of the scorer itself would be taken out by KServe for
# routers from 0.9 on (`withRemovePrefixCacheScorerParametersV09`), those of its producer are not.
_PRODUCER = "approx-prefix-cache-producer"
_PARAMETERS: Mapping[str, Any] = MappingProxyType(
    {
        # The size and the number of blocks are the engine's own, from vllm:cache_config_info.
        "autoTune": True,
        # The inference extension would look at 256 blocks only, 4096 tokens at vLLM's 16 a block: chats over one
        # long document would look alike, and move between replicas. The value is the router's default.
        "maxPrefixTokensToMatch": 131072,
    }
)


def endpoint_picker(routing: Routing) -> Manifest | None:
    """The picker's configuration; None for `none`, where no picker runs and the Service takes turns."""
    scorers = SCORERS.get(routing)
    if scorers is None:
        return None
    types = ["single-profile-handler", *(name for name, _ in scorers), _PICKER]
    producers = [{"type": _PRODUCER, "parameters": dict(_PARAMETERS)}] if _PREFIX in scorers else []
    profile: list[dict[str, Any]] = [{"pluginRef": name, "weight": weight} for name, weight in scorers]
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [*({"type": name} for name in types), *producers],
        "schedulingProfiles": [{"name": "default", "plugins": [*profile, {"pluginRef": _PICKER}]}],
    }
