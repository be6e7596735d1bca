"""A healthy stack as the doctor's facts, and ways to break it: recorded objects of a rehearsal, cut to what is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from components.core import labels, naming
from components.serving.manifests import network_policy
from components.serving.manifests.network_policy import PolicySpec
from ops.doctor.facts import ModelFacts, PodFacts, Scene, StackFacts
from ops.doctor.traffic import Request
from ops.state import ObjectRef

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MODEL, HOME, DOOR = "qwen", "llm-models", "llm-gateway"
SELECTOR = {"nvidia.com/gpu.product": "NVIDIA-L4"}
GPU = "nvidia.com/gpu"
GATEWAY_PEER = network_policy.pods({labels.GATEWAY_NAME: DOOR}, DOOR)
PREFIX_PLUGINS = ({"type": "prefix-cache-scorer"}, {"type": "queue-scorer"})
METRICS = {
    "vllm:num_requests_waiting": 0.0,
    "vllm:num_requests_running": 1.0,
    "vllm:kv_cache_usage_perc": 0.3,
    "vllm:request_success_total": 100.0,
    "vllm:prompt_tokens_total": 100_000.0,
    "vllm:prefix_cache_queries_total": 100_000.0,
    "vllm:prefix_cache_hits_total": 80_000.0,
}


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def condition(kind: str, true: bool = True, reason: str = "", message: str = "") -> dict[str, str]:
    status = "True" if true else "False"
    return {"type": kind, "status": status, "reason": reason, "message": message}


def thing(kind: str, name: str, namespace: str = HOME, **fields: Any) -> dict[str, Any]:
    """An object; `marks` are its labels."""
    meta = {"name": name, "namespace": namespace, "labels": fields.pop("marks", {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": {}, **fields}


def event(
    reason: str, message: str, seconds: float = 30, kind: str = "Pod", name: str = ""
) -> dict[str, Any]:
    about = {"kind": kind, "name": name}
    return {"reason": reason, "message": message, "lastTimestamp": ago(seconds), "involvedObject": about}


# -- pods ------------------------------------------------------------------------------------------


def container(
    name: str, ready: bool = False, restarts: int = 0, last: Any = None, **state: Any
) -> dict[str, Any]:
    """A container's status, with its one state as a keyword."""
    started = "running" in state and ready
    status = {"name": name, "ready": ready, "started": started, "restartCount": restarts, "state": state}
    return status | ({"lastState": {"terminated": last}} if last else {})


def pod(
    name: str = "qwen-0", node: str = "l4-0", ready: bool = True, age: float = 300, **changes: Any
) -> PodFacts:
    """A replica; `init`, `main` and `status` replace what it says of itself, the rest are PodFacts' own."""
    init = changes.pop("init", container("storage-initializer", True, terminated={"exitCode": 0}))
    main = changes.pop("main", container("main", ready, running={}))
    marks = {**labels.model_workload(MODEL), **changes.pop("marks", {})}
    probe = {"periodSeconds": 10, "failureThreshold": 90}
    engine = {"name": "main", "startupProbe": probe, "args": changes.pop("args", [])}
    engine["ports"] = [{"containerPort": 8000}]
    engine["resources"] = {"limits": {"memory": "16Gi", GPU: "1"}}
    conditions = [condition("Ready", ready), *changes.pop("conditions", ())]
    status = {"phase": "Running", "conditions": conditions, "podIP": "10.0.0.7"}
    status |= {"initContainerStatuses": [init], "containerStatuses": [main]} | changes.pop("status", {})
    live = thing("Pod", name, marks=marks, status=status)
    live["metadata"]["creationTimestamp"] = ago(age)
    live["spec"] = {"containers": [engine], "initContainers": [{"name": "storage-initializer"}]}
    if node:
        live["spec"]["nodeName"] = node
    return PodFacts(live=live, metrics=changes.pop("metrics", METRICS if ready else {}), **changes)


def pending(*events: dict[str, Any], says: str = "0/3 nodes are available", age: float = 300) -> PodFacts:
    """A replica that no node takes; `says` is the scheduler's message."""
    unscheduled = condition("PodScheduled", False, "Unschedulable", says)
    status = {
        "phase": "Pending",
        "conditions": [unscheduled],
        "initContainerStatuses": [],
        "containerStatuses": [],
    }
    return pod("qwen-0", node="", ready=False, age=age, status=status, events=events)


def helper(
    name: str, marks: Mapping[str, str], namespace: str, ready: bool = True, **changes: Any
) -> PodFacts:
    """A pod of something else than a model."""
    main = changes.pop("main", container("main", ready, running={}))
    status = {"conditions": [condition("Ready", ready)], "containerStatuses": [main], "podIP": "10.0.1.9"}
    live = thing("Pod", name, namespace, marks=dict(marks), status=status)
    live["spec"] = {"nodeName": "system-0", "containers": [{"name": "main"}]}
    return PodFacts(live=live, **changes)


def node(name: str, marks: Mapping[str, str], ready: bool = True, **more: Any) -> dict[str, Any]:
    status = {"conditions": [condition("Ready", ready)], "allocatable": more.get("offers", {GPU: "1"})}
    live = thing("Node", name, marks=dict(marks), status=status)
    return {**live, "spec": {"taints": more.get("taints", [])}}


def deployment(
    name: str, namespace: str, replicas: int = 1, available: int | None = None, **more: Any
) -> dict[str, Any]:
    count = replicas if available is None else available
    live = thing("Deployment", name, namespace, **more)
    live["spec"] = {
        "replicas": replicas,
        "template": {"spec": {"containers": [{"name": "main", "args": []}]}},
    }
    live["status"] = {"replicas": count, "updatedReplicas": count, "availableReplicas": count}
    return live


# -- the healthy stack -----------------------------------------------------------------------------


def attached(kind: str, name: str, **conditions: bool) -> dict[str, Any]:
    """An object that a gateway has taken."""
    judged = [
        condition(word, true)
        for word, true in ({"Accepted": True, "ResolvedRefs": True} | conditions).items()
    ]
    return thing(kind, name, status={"parents": [{"parentRef": {"name": DOOR}, "conditions": judged}]})


def service_object(routing: str = "prefix-cache", replicas: int = 2, opens: bool = True) -> dict[str, Any]:
    """The LLMInferenceService."""
    plugins = PREFIX_PLUGINS if routing == "prefix-cache" else PREFIX_PLUGINS[1:]
    reference = {"failureMode": "FailOpen" if opens else "FailClose"}
    scheduler = {
        "config": {"inline": {"plugins": list(plugins)}},
        "pool": {"spec": {"endpointPickerRef": reference}},
    }
    router = {} if routing == "none" else {"scheduler": scheduler}
    spec = {"replicas": replicas, "model": {"uri": "hf://Qwen/Qwen3"}, "router": router}
    spec["template"] = {"nodeSelector": SELECTOR}
    return thing("LLMInferenceService", MODEL, spec=spec, status={"conditions": [condition("Ready")]})


def pool() -> dict[str, Any]:
    live = attached("InferencePool", naming.inference_pool(MODEL))
    reference = {"name": naming.picker_service(MODEL), "port": {"number": 9002}}
    live["spec"] = {"selector": {"matchLabels": labels.model_workload(MODEL)}, "endpointPickerRef": reference}
    return live


def picker_deployment(replicas: int = 1, configuration: str = "prefix-cache-scorer") -> dict[str, Any]:
    live = deployment("qwen-kserve-router-scheduler", HOME, replicas)
    arguments = ["--config-text", f"kind: EndpointPickerConfig\nplugins: [{configuration}]"]
    live["spec"]["template"]["spec"]["containers"][0]["args"] = arguments
    return live


def picker_pod(ready: bool = True, log: str = "") -> PodFacts:
    main = (
        container("main", ready, running={})
        if ready
        else container("main", waiting={"reason": "CrashLoopBackOff"})
    )
    return helper("picker-0", labels.model_picker(MODEL), HOME, ready, main=main, logs={"main": log})


def policies(**changes: Any) -> tuple[dict[str, Any], ...]:
    """What the stack makes; `changes` are of its PolicySpec."""
    settings = {
        "model": MODEL,
        "namespace": HOME,
        "gateway": (GATEWAY_PEER,),
        "pooled": True,
        "downloads": True,
    }
    spec = PolicySpec(**settings | changes)
    own = (network_policy.workload(spec), network_policy.picker(spec))
    limits = [item for _, item in network_policy.limits_policies(DOOR, GATEWAY_PEER, None)]
    return (network_policy.default_deny(HOME), network_policy.dns(HOME), *own, *limits)


def namespace(name: str) -> dict[str, Any]:
    return thing("Namespace", name, marks={labels.NAMESPACE_NAME: name})


def gateway(**changes: Any) -> dict[str, Any]:
    status = {
        "conditions": [condition("Accepted"), condition("Programmed")],
        "addresses": [{"value": "10.9.9.9"}],
    }
    return thing("Gateway", DOOR, DOOR, spec={"gatewayClassName": "istio"}, status=status | changes)


def limit_pod(name: str, ready: bool = True) -> PodFacts:
    return helper(f"{name}-0", {labels.APP_NAME: name}, DOOR, ready)


def stack(**changes: Any) -> StackFacts:
    """What all models share, in order; `changes` are of StackFacts."""
    facts = StackFacts(
        now=NOW,
        nodes=(node("l4-0", SELECTOR), node("l4-1", SELECTOR), node("system-0", {}, offers={})),
        policies=policies(),
        namespaces=(namespace(HOME), namespace(DOOR), namespace("kube-system")),
        gateway_ref=ObjectRef("gateway.networking.k8s.io/v1", "Gateway", DOOR, DOOR),
        gateway=gateway(),
        gateways=(helper("gateway-0", {labels.GATEWAY_NAME: DOOR}, DOOR),),
        limits=(deployment("ratelimit", DOOR), deployment("valkey", DOOR)),
        limit_pods=(limit_pod("ratelimit"), limit_pod("valkey")),
        limited=True,
        operators=((deployment("istiod", "istio-system"), ()),),
    )
    return replace(facts, **changes)


def model(**changes: Any) -> ModelFacts:
    """A model with two replicas, in order; `changes` are of ModelFacts."""
    port = {"port": 9002}
    facts = ModelFacts(
        name=MODEL,
        namespace=HOME,
        live=service_object(),
        workloads=(deployment("qwen-kserve", HOME, 2),),
        pods=(pod("qwen-0"), pod("qwen-1", node="l4-1")),
        picker=picker_deployment(),
        pickers=(picker_pod(),),
        pool=pool(),
        services=(thing("Service", naming.picker_service(MODEL), spec={"ports": [port]}),),
        routes=(attached("HTTPRoute", "qwen-inference"), attached("HTTPRoute", "qwen-models")),
    )
    return replace(facts, **changes)


def scene(shared: Mapping[str, Any] | None = None, **changes: Any) -> Scene:
    """A model in its stack."""
    return Scene(stack=stack(**(shared or {})), model=model(**changes))


def requests(count: int, **fields: Any) -> tuple[Request, ...]:
    settings = {"model": MODEL, "status": 200, "flags": "-", "replica": "10.0.0.7:8000", "prompt": 900.0}
    return tuple(Request(**settings | fields) for _ in range(count))


def measured(*changes: Mapping[str, float], **more: Any) -> tuple[PodFacts, ...]:
    """Ready replicas with these metrics."""
    return tuple(pod(f"qwen-{i}", metrics={**METRICS, **change}, **more) for i, change in enumerate(changes))
