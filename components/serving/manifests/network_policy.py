"""Who may talk to whom in a namespace of models: nobody, and then the few paths that serving needs. Pure.

Pods are selected by the labels that KServe 0.20 gives them; peers by pod and namespace, never by
an empty selector. The API server is no pod on managed clusters, so it is allowed by address block, as are the proxies
and the probes of Google's gateway.
Kubelets probe from the node, which network plugins let through. What counts tokens stands beside the gateway, in
a namespace that is not closed as a whole, and is closed pod by pod.

`rehearsal/reachability.py` judges these policies as Kubernetes would; tests/rehearsal/test_reachability.py holds the
verdicts that they must have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from components.core import labels, naming
from components.core.manifest import Manifest, manifest
from components.core.services import LLM, ServiceKind
from components.serving.manifests import token_limits
from components.serving.manifests.gateway import MODEL_PORT
from components.serving.manifests.preset import GROUP_PORTS
from components.serving.manifests.storage import Store

API = "networking.k8s.io/v1"
PICKER_PORT, PICKER_HEALTH_PORT, PICKER_METRICS_PORT = 9002, 9003, 9090
# LeaderWorkerSet 0.8: the set that a pod is of.
GROUP_LABEL = "leaderworkerset.sigs.k8s.io/name"
# Where cloud identity and metadata live; nothing here may ask them.
LINK_LOCAL = "169.254.0.0/16"
# Addresses that are not the internet: RFC 1918, RFC 6598 and link-local.
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", LINK_LOCAL)
# The usual address of a node-local DNS cache; queries go there instead of to the DNS pods.
NODE_DNS = "169.254.20.10/32"
# Where pods of EKS ask for the credentials of their role (docs.aws.amazon.com/eks, pod-id-agent-setup, read 2026-11).
POD_IDENTITY, POD_IDENTITY_PORT = "169.254.170.23/32", 80
HTTPS = 443
# 443 on managed clusters, 6443 on most others.
API_SERVER_PORTS = (443, 6443)

Peer = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """The paths of one model.

    `gateway` are peers that requests come from, `probers` those that ask for the health of pods where the
    gateway is not in the cluster. `downloads` says whether weights come over the
    network; `store` says from where, None for a public hub or bucket.
    `api_server_blocks` hold the API server, which the picker watches. `monitoring` are the pods
    that scrape metrics, None without them.
    """

    model: str
    namespace: str
    gateway: tuple[Peer, ...]
    pooled: bool
    downloads: bool
    probers: tuple[Peer, ...] = ()
    store: Store | None = None
    api_server_blocks: tuple[str, ...] = ("0.0.0.0/0",)
    monitoring: Peer | None = None
    kind: ServiceKind = LLM


def default_deny(namespace: str) -> Manifest:
    """Nothing in, nothing out, for every pod."""
    return manifest(
        API,
        "NetworkPolicy",
        "default-deny",
        namespace,
        labels=labels.common("isolation"),
        spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    )


def dns(namespace: str) -> Manifest:
    """Name resolution, for every pod."""
    return manifest(
        API,
        "NetworkPolicy",
        "dns",
        namespace,
        labels=labels.common("isolation"),
        spec={"podSelector": {}, "policyTypes": ["Egress"], "egress": [_resolver()]},
    )


def _resolver() -> dict[str, Any]:
    resolver = pods({"k8s-app": "kube-dns"}, "kube-system")
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {"to": [resolver, {"ipBlock": {"cidr": NODE_DNS}}], "ports": ports}


def workload(spec: PolicySpec) -> Manifest:
    """The serving pods: requests from the gateway, metrics to the picker, weights from their store.

    vLLM serves its metrics at the port of its API, so whoever scrapes them could also ask for completions.
    """
    picker = [{"podSelector": {"matchLabels": labels.model_picker(spec.model)}}] if spec.pooled else []
    peers = [*spec.gateway, *spec.probers, *picker, *_given(spec.monitoring)]
    return _policy(
        spec,
        "workload",
        spec.kind.pods(spec.model),
        ingress=[_rule("from", peers, [MODEL_PORT])],
        egress=_store(spec),
    )


def picker(spec: PolicySpec) -> Manifest:
    """The endpoint picker: questions from the gateway; it scrapes the replicas and watches the API server.

    It has no weights and no way to them (`picker.py`).
    """
    replicas = [{"podSelector": {"matchLabels": labels.model_workload(spec.model)}}]
    api = [_block(cidr, except_=[LINK_LOCAL]) for cidr in spec.api_server_blocks]
    return _policy(
        spec,
        "picker",
        labels.model_picker(spec.model),
        ingress=[
            _rule("from", list(spec.gateway), [PICKER_PORT]),
            *_from(spec.probers, PICKER_HEALTH_PORT),
            *_from(_given(spec.monitoring), PICKER_METRICS_PORT),
        ],
        egress=[
            _rule("to", replicas, [MODEL_PORT]),
            _rule("to", api, API_SERVER_PORTS),
        ],
    )


def group(spec: PolicySpec) -> Manifest:
    """The pods of a model on several hosts, among themselves: a leader and its workers, at the ports of Ray and TPUs.

    They run one program under one account, and which group a pod is in no selector can ask, so that groups
    of one model are not closed to each other. Workers have nothing else but the weights' store.
    """
    hosts = {GROUP_LABEL: naming.group_set(spec.model)}
    peers: list[Peer] = [{"podSelector": {"matchLabels": hosts}}]
    return _policy(
        spec,
        "group",
        hosts,
        ingress=[_rule("from", peers, GROUP_PORTS)],
        egress=[_rule("to", peers, GROUP_PORTS), *_store(spec)],
    )


def limits_policies(
    namespace: str, gateway_peer: Peer, monitoring: Peer | None
) -> tuple[tuple[str, Manifest], ...]:
    """(role, policy) for the limit service and its store: only the gateway may count, and only the service may store.

    Whoever reached the store could give itself any budget; the service's HTTP port answers without being asked
    who one is. `monitoring` are the pods that scrape the service's metrics.
    """
    store: list[Peer] = [{"podSelector": {"matchLabels": {labels.APP_NAME: token_limits.STORE}}}]
    service: list[Peer] = [{"podSelector": {"matchLabels": {labels.APP_NAME: token_limits.NAME}}}]
    return (
        (
            "service-policy",
            _closed(
                namespace,
                token_limits.NAME,
                ingress=[
                    _rule("from", [gateway_peer], [token_limits.GRPC_PORT]),
                    *_from(_given(monitoring), token_limits.METRICS_PORT),
                ],
                egress=[_rule("to", store, [token_limits.STORE_PORT]), _resolver()],
            ),
        ),
        (
            "store-policy",
            _closed(
                namespace,
                token_limits.STORE,
                ingress=[_rule("from", service, [token_limits.STORE_PORT])],
                egress=[],
            ),
        ),
    )


def _closed(namespace: str, name: str, ingress: list[Any], egress: list[Any]) -> Manifest:
    """A policy for the pods of one application that leaves nothing open but its rules."""
    return manifest(
        API,
        "NetworkPolicy",
        name,
        namespace,
        labels=labels.common("isolation"),
        spec={
            "podSelector": {"matchLabels": {labels.APP_NAME: name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    )


def _given(peer: Peer | None) -> list[Peer]:
    return [] if peer is None else [peer]


def _from(peers: Iterable[Peer], port: int) -> list[dict[str, Any]]:
    """The rule for peers. Without any it must not be there at all: a rule from nobody is a rule from everybody."""
    found = list(peers)
    return [_rule("from", found, [port])] if found else []


def pods(match: dict[str, str], namespace: str) -> Peer:
    """Pods with the labels in the namespace of that name."""
    return {
        "namespaceSelector": {"matchLabels": {labels.NAMESPACE_NAME: namespace}},
        "podSelector": {"matchLabels": match},
    }


def blocks(cidrs: Iterable[str]) -> tuple[Peer, ...]:
    """Whoever has an address in one of the blocks; for what is outside of the cluster."""
    return tuple(_block(cidr) for cidr in cidrs)


def downloader(namespace: str, model: str, store: Store | None) -> Manifest:
    """The pods that fill a model's claim: they fetch weights and talk to nobody else."""
    return manifest(
        API,
        "NetworkPolicy",
        naming.filler(model),
        namespace,
        labels={**labels.common("isolation"), labels.MODEL: model},
        spec={
            "podSelector": {"matchLabels": labels.filler(model)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": _reach(store),
        },
    )


def _store(spec: PolicySpec) -> list[dict[str, Any]]:
    return _reach(spec.store) if spec.downloads else []


def _reach(store: Store | None) -> list[dict[str, Any]]:
    """The way to weights: to the internet, as a hub and AWS's S3 are there, or to a store of one's own alone."""
    if store is None or not (store.namespace or store.networks):
        port = store.port if store else HTTPS
        identity = store is not None and store.pod_identity
        return [
            _rule("to", [_block("0.0.0.0/0", except_=list(PRIVATE))], [port]),
            *([_rule("to", [_block(POD_IDENTITY)], [POD_IDENTITY_PORT])] if identity else []),
        ]
    if store.namespace:
        # The port of its Service need not be that of its pods, which is what policies see.
        return [{"to": [{"namespaceSelector": {"matchLabels": {labels.NAMESPACE_NAME: store.namespace}}}]}]
    return [_rule("to", list(blocks(store.networks)), [store.port])]


def _block(cidr: str, except_: list[str] | None = None) -> Peer:
    # Kubernetes refuses an exception that is not inside the block.
    return {"ipBlock": {"cidr": cidr, "except": except_ if except_ and cidr == "0.0.0.0/0" else None}}


def _rule(direction: str, peers: list[Peer], ports: Iterable[int]) -> dict[str, Any]:
    return {direction: peers, "ports": [{"protocol": "TCP", "port": port} for port in ports]}


def _policy(
    spec: PolicySpec, role: str, selector: dict[str, str], ingress: list[Any], egress: list[Any]
) -> Manifest:
    return manifest(
        API,
        "NetworkPolicy",
        f"{spec.model}-{role}",
        spec.namespace,
        labels={**labels.common("isolation"), labels.MODEL: spec.model},
        spec={
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    )
