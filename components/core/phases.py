"""How long the phases from nothing to an answering model took for others. Estimates, not limits.

Sources, read 2026-08: the deployment guide of three TPU v6e replicas on GKE (johnahull/rhaii-on-xks-gke, commit
b0d2a87), and one of Mistral 24B on one and four L4 (its load times). What bounds a phase is the stack's own:
`loadBudgetSeconds` of a model, and the time-outs of each resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

NOTE = "estimates: what clusters and models like these were seen to take"
SECONDS_PER_MINUTE = 60


@dataclass(frozen=True)
class Span:
    """A time in seconds, `least` to `most`."""

    least: int
    most: int

    def __str__(self) -> str:
        unit, name = (1, "s") if self.most < SECONDS_PER_MINUTE * 2 else (SECONDS_PER_MINUTE, "min")
        most = f"{self.most / unit:g} {name}"
        return f"about {most}" if self.least == self.most else f"{self.least / unit:g} to {most}"


# Of what comes before the models. A new pool's first machines are part of the cluster's time.
CLUSTER: Mapping[str, Span] = MappingProxyType(
    {"control plane": Span(300, 300), "accelerator nodes": Span(60, 900)}
)
OPERATORS = Span(600, 600)

# Of a pod, in their order, by the vendor of its accelerator. Only what somebody has measured stands here.
NODE, DOWNLOAD, IMAGE, LOAD = "node", "download", "image", "load and compile"
POD: Mapping[str, Mapping[str, Span]] = MappingProxyType(
    {
        "google": MappingProxyType(
            {NODE: Span(60, 300), DOWNLOAD: Span(30, 60), IMAGE: Span(10, 10), LOAD: Span(180, 300)}
        ),
        "nvidia": MappingProxyType({LOAD: Span(120, 360)}),
    }
)
