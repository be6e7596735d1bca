"""What Google's load balancer thinks of the endpoints behind it: it sends nothing to one that it calls unhealthy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ops.google import Backend, Google, backends
from ops.verify.bench import Bench
from ops.verify.verdicts import Result, Verdict, failed, inapplicable, passed, unchecked

OWNED = "gkegw1-"
"""What Google's gateway controller begins the names of its things with."""
_HEALTHY = "HEALTHY"


def look(bench: Bench) -> Iterator[Result]:
    """Every backend service of the models' namespaces."""
    config = bench.config
    if config.gateway.kind != "gke":
        yield Result("backends", "health", inapplicable("the gateway runs in the cluster"))
        return
    if config.cluster.kind != "gke":
        reason = "which project and region the cluster is in is not configured"
        fix = "ask yourself: gcloud compute backend-services get-health"
        yield Result("backends", "health", unchecked(reason, fix))
        return
    spaces = {target.namespace for target in bench.targets()}
    region = config.cluster.region
    found = [b for b in backends(Google(config.cluster.project), region) if _ours(b, spaces)]
    services = sorted({b.service for b in found})
    for service in services:
        yield Result(f"backend {service}", "health", judge([b for b in found if b.service == service]))
    if not services and spaces:
        fix = "look at the events of the models' HTTPRoutes"
        yield Result("backends", "health", failed(f"the gateway has no endpoints in {region}", fix))


def _ours(backend: Backend, spaces: Iterable[str]) -> bool:
    return backend.service.startswith(OWNED) and any(f"-{space}-" in backend.service for space in spaces)


def judge(endpoints: list[Backend]) -> Verdict:
    """Whether the load balancer would send requests to every endpoint."""
    ill = [f"{b.address} is {b.state}" for b in endpoints if b.state != _HEALTHY]
    if ill:
        return failed(
            f"{len(ill)} of {len(endpoints)} endpoints: {', '.join(ill)}",
            "does the health check ask the right path and port, and do policies let Google's probes in? "
            "See the HealthCheckPolicy",
        )
    return passed(f"{len(endpoints)} endpoints, all healthy")
