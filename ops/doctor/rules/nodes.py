"""Pods that no node takes: what the autoscaler says, else what the scheduler says, else what the nodes show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

from ops.doctor.causes import shown
from ops.doctor.chain import Rule, Seen
from ops.doctor.facts import ModelFacts, PodFacts, Scene, happened
from ops.kube import Manifest

NODE_SECONDS = 900.0
"""A node that was promised should be there by then; a TPU slice takes up to a quarter of an hour."""
ROUND_SECONDS = 60.0
"""Within this time an autoscaler looks at a new pod; a round takes ten seconds, more on a large cluster."""
CLOUDS = ("cloud.google.com/", "eks.amazonaws.com/")
"""What labels of nodes begin with where a cloud manages them, and can add some."""
FAILED, REFUSED, COMING = "FailedScaleUp", "NotTriggerScaleUp", "TriggeredScaleUp"
MAX_SIZE = re.compile(r"max node group size reached|max cluster (cpu|memory|gpu)? ?limit", re.IGNORECASE)
QUOTA = re.compile(r"quota", re.IGNORECASE)
STOCK = re.compile(
    r"out of resources|stock_?out|RESOURCE_POOL_EXHAUSTED|not have enough resources", re.IGNORECASE
)
ADDRESSES = re.compile(r"IP[_ ]SPACE|IP addresses", re.IGNORECASE)
SELECTOR = re.compile(r"didn't match Pod's node (affinity|selector)|node affinity conflict", re.IGNORECASE)
TAINT = re.compile(r"untolerated taint", re.IGNORECASE)
SHORT = re.compile(r"Insufficient (\S+?)[.,]?(\s|$)")
CORDONED = re.compile(
    r"were unschedulable|were not ready|node\.kubernetes\.io/(not-ready|unreachable)", re.IGNORECASE
)
VOLUME = re.compile(
    r"unbound immediate PersistentVolumeClaims|persistentvolumeclaim .* not found", re.IGNORECASE
)
# Taints by which Kubernetes says that a node is not well; not the pool's own.
_SICK = "node.kubernetes.io/"

Sign = Callable[[Scene, PodFacts], tuple[str, dict[str, str]] | None]
"""From a waiting pod to its evidence and the words of the sentences; None where it does not show."""


def waiting(model: ModelFacts) -> Iterator[PodFacts]:
    """The replicas that no node has taken."""
    return (pod for pod in model.pods if not pod.node and not pod.ready and not pod.leaving)


def said(pod: PodFacts, pattern: re.Pattern[str], *reasons: str) -> str | None:
    """The newest event with one of the reasons, if it says so."""
    event = pod.event(*reasons)
    text = str((event or {}).get("message", ""))
    return shown(f"{(event or {}).get('reason')}: {text}") if event and pattern.search(text) else None


def verdict(pod: PodFacts) -> str:
    """Why no node takes it: the autoscaler's words, who has looked at pools too, else the scheduler's."""
    event = pod.event(REFUSED)
    return str((event or {}).get("message") or pod.condition("PodScheduled").get("message") or "")


def _look(sign: Sign) -> Callable[[Scene], Iterator[Seen]]:
    def look(scene: Scene) -> Iterator[Seen]:
        model = scene.one
        for pod in waiting(model):
            found = sign(scene, pod)
            if found is not None:
                evidence, words = found
                yield Seen(
                    subject=f"pod {pod.name}",
                    evidence=(evidence,),
                    words={"selector": _selector(model), **words},
                    blocks=not model.serving,
                )

    return look


def _selector(model: ModelFacts) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(model.selector.items())) or "no label"


def _failed(pattern: re.Pattern[str]) -> Sign:
    """The last attempt to add a node failed, and none was begun since."""

    def sign(_scene: Scene, pod: PodFacts) -> tuple[str, dict[str, str]] | None:
        last = pod.event(FAILED, COMING)
        text = said(pod, pattern, FAILED)
        return (text, {}) if text and last and last["reason"] == FAILED else None

    return sign


def _coming(late: bool) -> Sign:
    def sign(scene: Scene, pod: PodFacts) -> tuple[str, dict[str, str]] | None:
        last = pod.event(FAILED, COMING)
        if last is None or last["reason"] != COMING:
            return None
        age = scene.stack.now - happened(last)
        if (age > timedelta(seconds=NODE_SECONDS)) is not late:
            return None
        words = {"age": f"{age.total_seconds():.0f}", "limit": f"{NODE_SECONDS:.0f}"}
        return shown(f"{COMING}: {last.get('message', '')}"), words

    return sign


def _says(pattern: re.Pattern[str]) -> Sign:
    def sign(_scene: Scene, pod: PodFacts) -> tuple[str, dict[str, str]] | None:
        text = verdict(pod)
        return (shown(text), {}) if pattern.search(text) else None

    return sign


def _fitting(scene: Scene) -> list[Manifest]:
    """Nodes with the labels that the model asks for."""
    wanted = scene.one.selector.items()
    return [n for n in scene.stack.nodes if wanted <= (n["metadata"].get("labels") or {}).items()]


def _no_such_node(scene: Scene, pod: PodFacts) -> tuple[str, dict[str, str]] | None:
    """No node has the labels, and whoever could add some did not say that a pool has them."""
    text = verdict(pod)
    elsewhere = pod.event(REFUSED) and (TAINT.search(text) or SHORT.search(text))
    return None if _fitting(scene) or elsewhere or not text else (shown(text), {})


def _undecided(scene: Scene, pod: PodFacts) -> tuple[str, dict[str, str]] | None:
    """A cloud's autoscaler has not said anything yet about a pod that has just been made."""
    clouds = [
        n for n in scene.stack.nodes if any(k.startswith(CLOUDS) for k in n["metadata"].get("labels") or {})
    ]
    if pod.event(FAILED, REFUSED, COMING) or not clouds or pod.age(scene.stack.now) > ROUND_SECONDS:
        return None
    return shown(verdict(pod)), {}


def _not_advertised(scene: Scene, pod: PodFacts) -> tuple[str, dict[str, str]] | None:
    """There are nodes of the kind, and none of them offers the accelerator."""
    match = SHORT.search(verdict(pod))
    nodes = _fitting(scene)
    if match is None or not nodes:
        return None
    resource = match.group(1)
    offers = [(node["status"].get("allocatable") or {}).get(resource, "0") for node in nodes]
    if any(offer != "0" for offer in offers):
        return None
    names = ", ".join(node["metadata"]["name"] for node in nodes[:3])
    return f"{names}: allocatable {resource} is 0", {"resource": resource}


def _full(scene: Scene, pod: PodFacts) -> tuple[str, dict[str, str]] | None:
    text = verdict(pod)
    match = SHORT.search(text)
    if match is None:
        return None
    return shown(text), {"resource": match.group(1), "nodes": str(len(_fitting(scene)))}


def _tainted(scene: Scene, pod: PodFacts) -> tuple[str, dict[str, str]] | None:
    text = verdict(pod)
    taints = [
        f"{taint['key']}={taint.get('value', '')}"
        for node in _fitting(scene)
        for taint in node["spec"].get("taints") or ()
        if not taint["key"].startswith(_SICK)
    ]
    found = ", ".join(sorted(set(taints))) or "the one named"
    return (shown(text), {"taints": found}) if TAINT.search(text) and not CORDONED.search(text) else None


def _anything(_scene: Scene, pod: PodFacts) -> tuple[str, dict[str, str]] | None:
    text = verdict(pod) or "the scheduler has not looked at it: is kube-scheduler running?"
    return shown(text), {}


_POOL = "the model's accelerator in the stack file"

RULES: tuple[Rule, ...] = (
    Rule(
        link="node",
        page="quota",
        look=_look(_failed(QUOTA)),
        found="the cloud refuses a node: the quota is used up",
        fix="ask for quota (TPUs are counted in chips per family and region; spot and flex-start have one of their own), "
        "or lower `replicas` or choose another `capacity`",
        severity="decide",
    ),
    Rule(
        link="node",
        page="stock-out",
        look=_look(_failed(STOCK)),
        found="the cloud has no machine of this type in the zone now",
        fix="wait, since the autoscaler tries again, or change `capacity` (spot, flex-start, reservation) or the zone",
        severity="decide",
    ),
    Rule(
        link="node",
        page="pending",
        look=_look(_failed(ADDRESSES)),
        found="the cloud refuses a node: the network has no addresses left for it",
        fix="widen the ranges of the cluster's network: a node takes a block of addresses for its pods",
        severity="decide",
    ),
    Rule(
        link="node",
        page="pending",
        look=_look(_failed(re.compile(""))),
        found="the autoscaler could not add a node",
        fix="`gcloud container operations list` and the cluster's autoscaler log say what the cloud refused",
    ),
    Rule(
        link="node",
        page="pending",
        look=_look(_coming(late=False)),
        found="a node is on its way, for {age} s now",
        fix="wait: up to {limit} s for TPU machines, less for others",
        severity="wait",
    ),
    Rule(
        link="node",
        page="stock-out",
        look=_look(_coming(late=True)),
        found="a node was asked for {age} s ago and has not come",
        fix="look at the pool's operations in the cloud: a stock-out is often told there first; flex-start may queue for "
        "days",
        severity="decide",
    ),
    Rule(
        link="node",
        page="pending",
        look=_look(_undecided),
        found="no node has room, and the autoscaler has not decided yet",
        fix="wait a minute",
        severity="wait",
    ),
    Rule(
        link="node",
        page="pending",
        look=_look(_says(VOLUME)),
        found="a volume of the pod is not there",
        fix="`kubectl get pvc -A` shows which claim is Pending: its storage class or size is what to correct",
    ),
    Rule(
        link="node",
        page="replicas-missing",
        look=_look(_says(MAX_SIZE)),
        found="the pool is at its maximum, and all of its nodes are taken",
        fix=f"raise `maxNodes` of {_POOL}, or lower `replicas`",
    ),
    Rule(
        link="node",
        page="pending",
        look=_look(_not_advertised),
        found="the nodes are there, but do not offer {resource} yet",
        fix="wait for the driver and device plugin on new nodes (up to 10 min with the GPU operator); else look at its "
        "pods: `kubectl get pods -n gpu-operator`",
    ),
    Rule(
        link="node",
        page="pending",
        look=_look(_no_such_node),
        found="no node and no pool has the labels that the model asks for ({selector})",
        fix=f"correct `nodeSelector` or the type of {_POOL}, or add such nodes to the cluster",
    ),
    Rule(
        link="node",
        page="pending",
        look=_look(_says(CORDONED)),
        found="the nodes that fit are cordoned or not ready",
        fix="`kubectl get nodes` shows which; `kubectl uncordon NODE`, or replace the node",
    ),
    Rule(
        link="node",
        page="pending",
        look=_look(_tainted),
        found="the nodes that fit are tainted, and the model does not tolerate it ({taints})",
        fix=f"add the taint to `tolerations` of {_POOL}, or take it off the nodes",
    ),
    Rule(
        link="node",
        page="replicas-missing",
        look=_look(_full),
        found="the {nodes} nodes that fit have no {resource} left",
        fix=f"lower `replicas`, raise `maxNodes` of {_POOL}, or end what else holds them",
    ),
    Rule(
        link="node",
        page="pending",
        look=_look(_says(SELECTOR)),
        found="no node fits the model's selector ({selector})",
        fix=f"correct `nodeSelector` or the type of {_POOL}",
    ),
    Rule(
        link="node",
        page="pending",
        look=_look(_anything),
        found="no node takes the pod",
        fix="the scheduler's words say what it lacks",
    ),
)
