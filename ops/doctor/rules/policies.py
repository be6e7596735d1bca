"""Whether the live NetworkPolicies let pass what serving needs, judged as a network plugin would.

A policy that blocks is seen whether or not the cluster enforces policies. Pods that are not there are judged by
the labels that they would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from components.core import labels
from components.serving.manifests import token_limits
from components.serving.manifests.gateway import MODEL_PORT
from components.serving.manifests.network_policy import PICKER_HEALTH_PORT, PICKER_PORT
from ops.doctor.chain import Rule, Seen
from ops.doctor.facts import PodFacts, Scene
from ops.doctor.rules.routing import AGAIN, missing
from ops.reachability import External, Peer, Pod, Reachability, Verdict

# Google's probers (docs.cloud.google.com/load-balancing/docs/health-check-concepts); any address stands for its range.
PROBERS = ("35.191.0.1", "130.211.0.1")
# Reserved for documentation (RFC 5737), so it is some address of the internet and nobody's.
INTERNET = "203.0.113.1"
RESOLVER = Pod(name="kube-dns", namespace="kube-system", labels={"k8s-app": "kube-dns"})
HTTPS, DNS = 443, 53


@dataclass(frozen=True, kw_only=True)
class Way:
    """A connection that serving needs."""

    name: str
    source: Peer
    target: Peer
    port: int
    protocol: str = "TCP"


def ways(scene: Scene) -> Iterator[Way]:
    """The connections that one model needs."""
    model = scene.one
    replica = _pod(model.pods, "replica", model.namespace, model.kind.pods(model.name))
    picker = _pod(model.pickers, "picker", model.namespace, labels.model_picker(model.name))
    for source in _doors(scene):
        # Of Google's only the probers' addresses are known everywhere; its proxies have the network's own range.
        name = "the load balancer's health check" if scene.stack.google else "gateway"
        yield Way(name=f"{name} -> replica:{MODEL_PORT}", source=source, target=replica, port=MODEL_PORT)
        if model.pooled:
            port = PICKER_HEALTH_PORT if scene.stack.google else PICKER_PORT
            yield Way(name=f"{name} -> picker:{port}", source=source, target=picker, port=port)
    if model.pooled:
        yield Way(name=f"picker -> replica:{MODEL_PORT}", source=picker, target=replica, port=MODEL_PORT)
    resolver = next(map(Pod.of, scene.stack.resolvers), RESOLVER)
    for protocol in ("UDP", "TCP"):
        yield Way(
            name=f"replica -> DNS:{DNS}/{protocol}",
            source=replica,
            target=resolver,
            port=DNS,
            protocol=protocol,
        )
    if model.uri.startswith("hf://"):
        yield Way(name=f"replica -> weights:{HTTPS}", source=replica, target=External(INTERNET), port=HTTPS)


def limit_ways(scene: Scene) -> Iterator[Way]:
    """The connections that keys and limits need."""
    home = scene.stack.gateway_ref.namespace if scene.stack.gateway_ref else ""
    service = _pod(_called(scene, token_limits.NAME), "ratelimit", home, {labels.APP_NAME: token_limits.NAME})
    store = _pod(_called(scene, token_limits.STORE), "store", home, {labels.APP_NAME: token_limits.STORE})
    for source in _doors(scene):
        port = token_limits.GRPC_PORT
        yield Way(name=f"gateway -> limit service:{port}", source=source, target=service, port=port)
    port = token_limits.STORE_PORT
    yield Way(name=f"limit service -> store:{port}", source=service, target=store, port=port)


def _called(scene: Scene, name: str) -> list[PodFacts]:
    return [pod for pod in scene.stack.limit_pods if _labels(pod).get(labels.APP_NAME) == name]


def _labels(pod: PodFacts) -> dict[str, Any]:
    return pod.live["metadata"].get("labels") or {}


def _doors(scene: Scene) -> Iterator[Peer]:
    """Whom requests come from: the gateway's pods, or Google's addresses, whose proxies are no pods."""
    if scene.stack.google:
        yield from map(External, PROBERS)
        return
    gateway = scene.stack.gateway_ref
    if gateway is not None:
        yield _pod(scene.stack.gateways, "gateway", gateway.namespace, {labels.GATEWAY_NAME: gateway.name})


def _pod(
    pods: tuple[PodFacts, ...] | list[PodFacts], name: str, namespace: str, marks: dict[str, str]
) -> Pod:
    live = next((Pod.of(pod.live) for pod in pods), None)
    return live or Pod(name=name, namespace=namespace, labels=marks)


def _blocked(scene: Scene, needed: Iterator[Way]) -> Iterator[Seen]:
    network = Reachability(scene.stack.policies, scene.stack.namespaces)
    for way in needed:
        verdict = network.allowed(way.source, way.target, way.port, way.protocol)
        if not verdict:
            yield Seen(subject=way.name, evidence=(_evidence(verdict),))


def _evidence(verdict: Verdict) -> str:
    side = {"Ingress": "into the target", "Egress": "out of the source"}[str(verdict.refused)]
    return f"nothing lets it {side}, which these policies close: {', '.join(verdict.by)}"


def _deleted(scene: Scene) -> Iterator[Seen]:
    for subject, evidence in missing("policies")(scene):
        yield Seen(subject=subject, evidence=evidence, blocks=False)


def _model_ways(scene: Scene) -> Iterator[Seen]:
    return _blocked(scene, ways(scene))


def limits_blocked(scene: Scene) -> Iterator[Seen]:
    """The ways of keys and limits that are closed."""
    return _blocked(scene, limit_ways(scene)) if scene.stack.limited else iter(())


RULES: tuple[Rule, ...] = (
    Rule(
        link="policies",
        page="network-policy",
        look=_model_ways,
        found="the network policies block it",
        fix="policies of this stack that are missing come back with `pulumi up --refresh`; to one of somebody else's, add "
        "what it closes",
    ),
    Rule(
        link="policies",
        page="network-policy",
        look=_deleted,
        found="it was deleted by hand, so what it allowed or closed is not as the stack has it",
        fix=AGAIN,
    ),
)
