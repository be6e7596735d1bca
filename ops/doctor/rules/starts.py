"""What comes before the engine: node, image, volumes, and the download of the weights."""

from __future__ import annotations

import re

from ops.doctor.causes import DOWNLOADS, IMAGES, Cause, explain, last_line, proof, shown
from ops.doctor.chain import Rule
from ops.doctor.facts import INIT, PodFacts, Scene, conditions
from ops.doctor.rules.replicas import Sign, caused, look, rule, waiting_reason

PULLING = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName"}
STARTING = {"ContainerCreating", "PodInitializing", "Pending"}
OUT_OF_MEMORY = "OOMKilled"
DISK = re.compile(r"ephemeral-storage|local ephemeral|DiskPressure", re.IGNORECASE)
# A node that is taken away ends its pods with one of these (kubelet's and the cloud's words).
TAKEN = {"Preempted", "Preempting", "NodeShutdown", "Terminated", "NodeLost", "Shutdown"}


def _node_gone(scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
    reason = str(pod.status.get("reason", ""))
    node = scene.stack.nodes_by_name.get(pod.node)
    if node is None:
        return (f"node {pod.node} does not exist any more",)
    ready = next((c for c in conditions(node) if c["type"] == "Ready"), {})
    if ready.get("status") != "True":
        return (
            f"node {pod.node}: Ready is {ready.get('status', 'not set')}, {shown(ready.get('message', ''))}",
        )
    return (f"pod status: {reason}",) if reason in TAKEN else None


def _evicted(_scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
    event = pod.event("Evicted", "EvictionThresholdMet")
    text = str(pod.status.get("message") or (event or {}).get("message", ""))
    return (shown(text),) if DISK.search(text) else None


def _pulling(cause: Cause | None) -> Sign:
    def sign(_scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
        if waiting_reason(pod) not in PULLING:
            return None
        waits = pod.waits(INIT) or pod.waits(pod.main)
        event = pod.event("Failed") or {}
        text = "\n".join((str(waits.get("message", "")), str(event.get("message", ""))))
        if cause is None:
            return (shown(text),)
        return (proof(text, cause),) if explain(text, IMAGES) is cause else None

    return sign


def _unset(_scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
    waits = pod.waits(INIT) or pod.waits(pod.main)
    wrong = waits.get("reason") in ("CreateContainerConfigError", "CreateContainerError")
    return (shown(str(waits.get("message", ""))),) if wrong else None


def _mounting(_scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
    event = pod.event("FailedMount", "FailedAttachVolume")
    return (shown(event.get("message", "")),) if event and waiting_reason(pod) in STARTING else None


def _creating(late: bool) -> Sign:
    def sign(scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
        preparing = waiting_reason(pod) in STARTING or not list(pod.containers())
        if not preparing or (pod.age(scene.stack.now) > pod.budget) is not late:
            return None
        event = pod.event("Pulling", "Pulled", "Scheduled", "SuccessfulAttachVolume") or {}
        return (shown(str(event.get("message", "")) or waiting_reason(pod)),)

    return sign


def _init_failed(pod: PodFacts) -> bool:
    state = pod.container(INIT).get("state") or {}
    ended = (state.get("terminated") or {}).get("exitCode")
    return (state.get("waiting") or {}).get("reason") in ("CrashLoopBackOff", "Error") or bool(ended)


def _download(cause: Cause | None) -> Sign:
    def sign(_scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
        if not _init_failed(pod):
            return None
        text = "\n".join((str(pod.waits(INIT).get("message", "")), pod.said(INIT)))
        if cause is None:
            return (f"{INIT}: {last_line(text) or 'it left no line in its log'}",)
        return (f"{INIT}: {proof(text, cause)}",) if explain(text, DOWNLOADS) is cause else None

    return sign


def _init_memory(_scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
    ended = pod.ended(INIT)
    killed = _init_failed(pod) and (ended.get("reason") == OUT_OF_MEMORY or ended.get("exitCode") == 137)
    return (
        (f"{INIT} ended with {ended.get('reason')} (exit code {ended.get('exitCode')})",) if killed else None
    )


def _downloading(late: bool) -> Sign:
    def sign(scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
        running = "running" in (pod.container(INIT).get("state") or {})
        if not running or (pod.age(scene.stack.now) > pod.budget) is not late:
            return None
        return (f"{INIT}: {last_line(pod.logs.get(INIT, '')) or 'no line yet'}",)

    return sign


RULES: tuple[Rule, ...] = (
    rule(
        "pending",
        look(_node_gone),
        "the pod's node {node} is gone or not ready",
        "wait for the autoscaler's next node if it was spot or under maintenance; else look at the node",
    ),
    rule(
        "init-crash",
        look(_evicted),
        "the pod was evicted: it filled the node's disk",
        "set the model's `resources.ephemeralStorage` to twice its weights, or use `uri: pvc://…`",
    ),
    *caused("not-ready", _pulling, IMAGES),
    rule(
        "not-ready",
        look(_pulling(None)),
        "the image cannot be pulled",
        "the message is the container runtime's",
    ),
    rule(
        "not-ready",
        look(_unset),
        "the container refers to something that is not there",
        "the message names the Secret or ConfigMap; `up` makes those of the stack",
    ),
    rule(
        "not-ready",
        look(_mounting),
        "a volume cannot be mounted",
        "a claim that only one node may mount keeps further replicas out: use one that many may read, or one replica",
    ),
    rule(
        "init-crash",
        look(_init_memory),
        "the download was killed: it used more memory than its container may",
        "raise the model's `resources.memory`, which the download gets as well",
    ),
    *caused("init-crash", _download, DOWNLOADS),
    rule(
        "init-crash",
        look(_download(None)),
        "the download of the weights fails",
        "the last line of its log is above; `kubectl logs POD -c storage-initializer` shows the rest",
    ),
    rule(
        "init-crash",
        look(_downloading(late=True)),
        "the weights are still being downloaded after {age} s, longer than the load budget of {budget} s",
        "raise `loadBudgetSeconds`, or keep the weights nearer: `cache`, a bucket in the region, a claim",
    ),
    rule(
        "init-crash",
        look(_downloading(late=False)),
        "the weights are being downloaded, for {age} of at most {budget} s",
        "wait",
        severity="wait",
    ),
    rule(
        "not-ready",
        look(_creating(late=True)),
        "the pod's containers are not made after {age} s",
        "the newest event is above: most often a large image over a slow way, or a volume",
    ),
    rule(
        "not-ready",
        look(_creating(late=False)),
        "the pod's containers are being made (image, volumes), for {age} s",
        "wait",
        severity="wait",
    ),
)
