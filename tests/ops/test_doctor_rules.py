"""What `doctor` makes of recorded facts: every case of trouble has a scene, and every scene one explanation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from components.core import naming
from ops import cli
from ops.doctor.chain import MODEL_LINKS, STACK_LINKS, Finding, Judged, Rule, judge
from ops.doctor.command import outcome
from ops.doctor.facts import Endpoint, Scene
from ops.doctor.rules import MODEL_RULES, STACK_RULES
from ops.doctor.summary import SUMMARIES
from ops.state import ObjectRef
from tests.ops import doctor_scenes as make
from tests.ops.doctor_scenes import ago, condition, container, event, pending, pod, scene

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
FAILED, REFUSED, COMING = "FailedScaleUp", "NotTriggerScaleUp", "TriggeredScaleUp"
SCALE_UP = "Node scale up in zones europe-west4-a associated with this pod failed: {}. Pod is at risk."
CRASH = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}


def examined(what: Scene) -> dict[str, Judged]:
    """The verdicts on all links, those of the stack first."""
    shared = judge(Scene(stack=what.stack), STACK_LINKS, STACK_RULES)
    own = judge(what, MODEL_LINKS, MODEL_RULES, shared) if what.model else []
    return {link.link: link for link in (*shared, *own)}


def findings(what: Scene) -> list[tuple[str, Finding]]:
    return [(name, finding) for name, link in examined(what).items() for finding in link.findings]


def alone(only: make.PodFacts) -> Scene:
    """A model with one replica."""
    return scene(live=make.service_object(replicas=1), pods=(only,))


def initialising(*logs: str, reason: str = "CrashLoopBackOff", ended: Any = None) -> Scene:
    """Both replicas fail in the init container, with these last lines."""
    broken = container("storage-initializer", last=ended, waiting={"reason": reason})
    main = container("main", waiting={"reason": "PodInitializing"})
    text = {"storage-initializer": "\n".join(logs)}
    return alone(pod(ready=False, init=broken, main=main, logs=text))


def crashing(*logs: str, ended: Any = None, **changes: Any) -> Scene:
    """The engine ends again and again, with these last lines."""
    main = container("main", restarts=4, last=ended or {"exitCode": 1, "reason": "Error"}, waiting=CRASH)
    return alone(pod(ready=False, main=main, logs={"main": "\n".join(logs)}, **changes))


def pulling(message: str) -> Scene:
    main = container("main", waiting={"reason": "ImagePullBackOff", "message": message})
    return alone(pod(ready=False, main=main))


def starting(age: float, log: str = "Loading safetensors checkpoint shards: 40%") -> Scene:
    main = container("main", running={})
    return alone(pod(ready=False, main=main, age=age, logs={"main": log}))


def certificate(challenge: str, shared: dict[str, Any] | None = None, **status: Any) -> Scene:
    """A certificate whose order goes on like this."""
    ref = ObjectRef("cert-manager.io/v1", "Certificate", make.DOOR, "gateway-tls")
    spec = {"dnsNames": ["llm.example.com"], "issuerRef": {"kind": "Issuer", "name": "letsencrypt"}}
    live = make.thing("Certificate", "gateway-tls", make.DOOR, spec=spec)
    live["status"] = {
        "conditions": [condition("Ready", False, "DoesNotExist", "Issuing certificate")],
        **status,
    }
    said = {"state": "pending", "reason": challenge}
    order = make.thing("Challenge", "gateway-tls-1-2", make.DOOR, status=said)
    issuer = make.thing("Issuer", "letsencrypt", make.DOOR, status={"conditions": [condition("Ready")]})
    found = {"certificates": ((ref, live),), "challenges": (order,), "issuers": (issuer,)}
    return scene({**found, **(shared or {})})


def deleted(kind: str, name: str = "x", of_model: bool = False) -> Scene:
    ref = ObjectRef("v1", kind, make.HOME, name)
    return scene(missing=(ref,)) if of_model else scene({"missing": (ref,)})


def google(more: dict[str, Any] | None = None, **changes: Any) -> Scene:
    """Behind Google's gateway, with policies that let its probers in."""
    probers = tuple({"ipBlock": {"cidr": c}} for c in ("35.191.0.0/16", "130.211.0.0/22"))
    door = make.gateway()
    door["spec"]["gatewayClassName"] = "gke-l7-rilb"
    shared = {"gateway": door, "gateways": (), "limited": False, "limits": (), "limit_pods": ()}
    shared["policies"] = make.policies(gateway=probers, probers=probers)
    return scene({**shared, **(more or {})}, **{"health": healthy(), **changes})


def healthy(path: str = "/health", attached: bool = True) -> tuple[dict[str, Any], ...]:
    """The health check policies of a model."""
    check = {"default": {"config": {"httpHealthCheck": {"requestPath": path}}}}
    status = {"conditions": [condition("Attached", attached, message="conflicts with another")]}
    names = naming.workload_service(make.MODEL), naming.inference_pool(make.MODEL)
    return tuple(
        make.thing("HealthCheckPolicy", name, spec={**check, "targetRef": {"name": name}}, status=status)
        for name in names
    )


def refusing(kind: str, **words: bool) -> dict[str, Any]:
    return make.attached(kind, f"qwen-{kind.lower()}", **words)


def blocked(**changes: Any) -> Scene:
    return scene({"policies": make.policies(**changes)})


def limits_closed() -> tuple[dict[str, Any], ...]:
    """The gateway's namespace as a whole closed, by somebody who did not know what it needs."""
    return (*make.policies()[:4], make.network_policy.default_deny(make.DOOR))


def unlimited(**pods: bool) -> Scene:
    """The limit service and its store, ready or not."""
    shown = tuple(make.limit_pod(name, ready) for name, ready in pods.items())
    sizes = tuple(make.deployment(name, make.DOOR, 1, int(ready)) for name, ready in pods.items())
    return scene({"limit_pods": shown, "limits": sizes})


def answered(flags: str, status: int = 503) -> Scene:
    return scene(requests=(*make.requests(30), *make.requests(20, flags=flags, status=status)))


IDLE = {"vllm:num_requests_running": 0.0}
UNUSED = {"vllm:prefix_cache_hits_total": 0.0}

# (scene, link, a part of what is found). One row per rule at least; `test_every_rule_has_a_scene` sees to that.
CASES: dict[str, tuple[Scene, str, str]] = {
    # -- no node
    "quota": (
        scene(pods=(pending(event(FAILED, SCALE_UP.format("GCE quota exceeded"))),)),
        "node",
        "quota is used up",
    ),
    "stock-out": (
        scene(pods=(pending(event(FAILED, SCALE_UP.format("GCE out of resources"))),)),
        "node",
        "no machine of this type",
    ),
    "stock-out, told before the backoff": (
        scene(
            pods=(
                pending(
                    event(FAILED, SCALE_UP.format("GCE out of resources"), 90),
                    event(REFUSED, "pod didn't trigger scale-up: 1 in backoff after failed scale-up", 20),
                ),
            )
        ),
        "node",
        "no machine of this type",
    ),
    "no addresses": (
        scene(pods=(pending(event(FAILED, SCALE_UP.format("IP space exhausted"))),)),
        "node",
        "no addresses left",
    ),
    "failed otherwise": (
        scene(pods=(pending(event(FAILED, SCALE_UP.format("permission denied"))),)),
        "node",
        "could not add a node",
    ),
    "node on its way": (scene(pods=(pending(event(COMING, "0->1", 60)),)), "node", "on its way, for 60 s"),
    "after a failure, on its way": (
        scene(
            pods=(
                pending(event(FAILED, SCALE_UP.format("GCE quota exceeded"), 90), event(COMING, "0->1", 60)),
            )
        ),
        "node",
        "on its way",
    ),
    "node does not come": (
        scene(pods=(pending(event(COMING, "0->1", 1200)),)),
        "node",
        "asked for 1200 s ago",
    ),
    "autoscaler undecided": (
        scene(
            {"nodes": (make.node("s", {"cloud.google.com/gke-nodepool": "system"}),)}, pods=(pending(age=5),)
        ),
        "node",
        "has not decided yet",
    ),
    "claim unbound": (
        scene(
            pods=(pending(says="0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."),)
        ),
        "node",
        "a volume of the pod is not there",
    ),
    "pool at its maximum": (
        scene(pods=(pending(event(REFUSED, "pod didn't trigger scale-up: 1 max node group size reached")),)),
        "node",
        "at its maximum",
    ),
    "accelerators not offered yet": (
        scene(
            {"nodes": (make.node("l4-0", make.SELECTOR, offers={"cpu": "8"}),)},
            pods=(pending(says="0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),),
        ),
        "node",
        "do not offer nvidia.com/gpu yet",
    ),
    "wrong selector": (
        scene(
            {"nodes": (make.node("a", {"other": "label"}),)},
            pods=(
                pending(says="0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
            ),
        ),
        "node",
        "(nvidia.com/gpu.product=NVIDIA-L4)",
    ),
    "cordoned": (
        scene(pods=(pending(says="0/3 nodes are available: 2 node(s) were unschedulable."),)),
        "node",
        "cordoned or not ready",
    ),
    "wrong taint": (
        scene(
            {"nodes": (make.node("l4-0", make.SELECTOR, taints=[{"key": "team", "value": "a"}]),)},
            pods=(pending(says="0/1 nodes are available: 1 node(s) had untolerated taint {team: a}."),),
        ),
        "node",
        "does not tolerate it (team=a)",
    ),
    "nodes full": (
        scene(pods=(pending(says="0/3 nodes are available: 2 Insufficient nvidia.com/gpu."),)),
        "node",
        "the 2 nodes that fit have no nvidia.com/gpu left",
    ),
    "selector of one node": (
        scene(pods=(pending(says="0/3 nodes are available: 3 node(s) had volume node affinity conflict"),)),
        "node",
        "no node fits the model's selector",
    ),
    "scheduler silent": (scene(pods=(pending(says="something new"),)), "node", "no node takes the pod"),
    # -- the model as a whole
    "model deleted": (scene(live=None, pods=(), workloads=()), "pod", "not in the cluster"),
    "asleep": (scene(live=make.service_object(replicas=0), pods=()), "pod", "the model sleeps"),
    "nothing made": (scene(workloads=(), pods=()), "pod", "no workload"),
    "namespace's quota": (
        scene(
            pods=(pod(),),
            events=(event("FailedCreate", "pods forbidden: exceeded quota: gpus", kind="ReplicaSet"),),
        ),
        "pod",
        "1 of 2 pods: the namespace's quota",
    ),
    "refused by a webhook": (
        scene(
            pods=(pod(),), events=(event("FailedCreate", "admission webhook denied it", kind="ReplicaSet"),)
        ),
        "pod",
        "refused when they are created",
    ),
    "one of two, nobody says why": (scene(pods=(pod(),)), "pod", "fewer pods than wanted"),
    # -- one replica
    "node gone": (scene(pods=(pod(node="spot-7", ready=False),)), "pod", "node spot-7 is gone"),
    "node not ready": (
        scene({"nodes": (make.node("l4-0", make.SELECTOR, ready=False),)}, pods=(pod(ready=False),)),
        "pod",
        "gone or not ready",
    ),
    "disk filled": (
        scene(
            pods=(pod(ready=False, status={"message": "The node was low on resource: ephemeral-storage."}),)
        ),
        "pod",
        "filled the node's disk",
    ),
    "image: throttled": (pulling("429: toomanyrequests"), "pod", "registry throttles"),
    "image: refused": (pulling("failed to authorize: 401 unauthorized"), "pod", "does not let the node in"),
    "image: unreachable": (pulling("dial tcp 1.2.3.4:443: i/o timeout"), "pod", "registry cannot be reached"),
    "image: unknown": (pulling("manifest unknown"), "pod", "no such image"),
    "image: otherwise": (pulling("something new"), "pod", "image cannot be pulled"),
    "secret missing": (
        scene(
            pods=(
                pod(
                    ready=False,
                    main=container(
                        "main",
                        waiting={"reason": "CreateContainerConfigError", "message": 'secret "x" not found'},
                    ),
                ),
            )
        ),
        "pod",
        "refers to something that is not there",
    ),
    "volume busy": (
        scene(
            pods=(
                pod(
                    ready=False,
                    main=container("main", waiting={"reason": "ContainerCreating"}),
                    events=(event("FailedAttachVolume", "Multi-Attach error for volume"),),
                ),
            )
        ),
        "pod",
        "cannot be mounted",
    ),
    "download: memory": (
        initialising(ended={"exitCode": 137, "reason": "OOMKilled"}),
        "pod",
        "the download was killed",
    ),
    "download: gated": (
        initialising(
            "401 Client Error.", "Access to model meta-llama/x is restricted and you are not in the list"
        ),
        "pod",
        "gated",
    ),
    "download: token": (initialising("huggingface_hub.errors: 401 Client Error"), "pod", "does not accept"),
    "download: throttled": (
        initialising("429 Client Error: Too Many Requests"),
        "pod",
        "throttles this address",
    ),
    "download: bucket": (
        initialising("ClientError: (AccessDenied) GetObject"),
        "pod",
        "refuses the pod's identity",
    ),
    "download: nothing there": (initialising("(NoSuchKey): does not exist"), "pod", "nothing to download"),
    "download: no name": (
        initialising("[Errno -3] Temporary failure in name resolution"),
        "pod",
        "cannot be resolved",
    ),
    "download: no way out": (
        initialising("ConnectTimeoutError: timed out"),
        "pod",
        "cannot be reached from the pod",
    ),
    "download: disk": (
        initialising("OSError: [Errno 28] No space left on device"),
        "pod",
        "disk is too small",
    ),
    "download: otherwise": (initialising("something new"), "pod", "download of the weights fails"),
    "download goes on": (
        scene(pods=(pod(ready=False, age=40, init=container("storage-initializer", running={})),)),
        "pod",
        "being downloaded, for 40 of at most 900 s",
    ),
    "download takes too long": (
        scene(pods=(pod(ready=False, age=1000, init=container("storage-initializer", running={})),)),
        "pod",
        "longer than the load budget",
    ),
    "engine: killed for its memory": (
        crashing(ended={"exitCode": 137, "reason": "OOMKilled"}),
        "pod",
        "more memory than its container may",
    ),
    "engine: bfloat16 on T4": (
        crashing(
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Tesla T4"
        ),
        "pod",
        "no bfloat16",
    ),
    "engine: Triton on T4": (
        crashing("RuntimeError: PassManager::run failed"),
        "pod",
        "kernels do not compile",
    ),
    "engine: out of memory": (
        crashing("torch.OutOfMemoryError: CUDA out of memory."),
        "pod",
        "too small for weights",
    ),
    "engine: cache too small": (
        crashing(
            "max seq len (4096) is larger than the maximum number of tokens that can be stored in KV cache"
        ),
        "pod",
        "does not fit the KV cache",
    ),
    "engine: argument": (
        crashing("vllm: error: unrecognized arguments: --nope"),
        "pod",
        "one of its arguments",
    ),
    "engine: architecture": (
        crashing("Model architectures ['Qwen9'] are not supported for now"),
        "pod",
        "cannot serve the model's architecture",
    ),
    "engine: no config": (
        crashing("ValueError: No config format found in /mnt/models"),
        "pod",
        "not complete",
    ),
    "engine: TPU taken": (
        crashing("The TPU is already in use by process with pid 1"),
        "pod",
        "TPU cannot be opened",
    ),
    "engine: no driver": (crashing("RuntimeError: Found no NVIDIA driver"), "pod", "sees no accelerator"),
    "engine: links": (crashing("ncclSystemError: System call failed"), "pod", "cannot talk to each other"),
    "engine: died": (crashing("vllm.v1.engine.exceptions.EngineDeadError"), "pod", "died behind its server"),
    "engine: budget spent": (
        crashing(
            "Loading weights 80%", events=(event("Unhealthy", "Startup probe failed: connection refused"),)
        ),
        "pod",
        "not up within its load budget of 900 s",
    ),
    "engine: otherwise": (crashing("something new"), "pod", "ends again and again"),
    "loading": (starting(200), "pod", "loads or compiles, for 200 of at most 900 s"),
    "hangs": (starting(2000), "pod", "not up after 2000 s"),
    "containers are made": (
        scene(
            pods=(pod(ready=False, age=20, main=container("main", waiting={"reason": "ContainerCreating"})),)
        ),
        "pod",
        "are being made",
    ),
    "containers are not made": (
        scene(
            pods=(
                pod(ready=False, age=2000, main=container("main", waiting={"reason": "ContainerCreating"})),
            )
        ),
        "pod",
        "not made after 2000 s",
    ),
    "load balancer does not see it": (
        scene(
            pods=(
                pod(
                    ready=False,
                    main=container("main", True, running={}),
                    conditions=(
                        condition("ContainersReady"),
                        condition(
                            "cloud.google.com/load-balancer-neg-ready", False, "LoadBalancerNegNotReady"
                        ),
                    ),
                ),
            )
        ),
        "pod",
        "load balancer's health check",
    ),
    "health check fails": (
        scene(
            pods=(
                pod(
                    ready=False,
                    main={**container("main", running={}), "started": True},
                    events=(
                        event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"),
                    ),
                ),
            )
        ),
        "pod",
        "does not answer its health check",
    ),
    "not ready otherwise": (
        scene(pods=(pod(ready=False, main=container("main", True, running={})),)),
        "pod",
        "the pod is not ready",
    ),
    # -- picker
    "routing none": (scene(live=make.service_object("none"), picker=None, pool=None), "picker", "take turns"),
    "no picker": (scene(picker=None, pickers=()), "picker", "KServe has made no picker; requests go to any"),
    "picker stopped": (scene(picker=make.picker_deployment(0), pickers=()), "picker", "scaled to zero"),
    "picker: namespace's quota": (
        scene(
            pickers=(),
            events=(
                event(
                    "FailedCreate",
                    "pods forbidden: exceeded quota: ai-workload-quota",
                    kind="ReplicaSet",
                    name=f"{make.picker_deployment()['metadata']['name']}-1",
                ),
            ),
        ),
        "picker",
        "the namespace's quota refuses the picker; requests go to any",
    ),
    "picker: configuration": (
        scene(pickers=(make.picker_pod(False, "failed to load config: plugin type 'x' is not registered"),)),
        "picker",
        "does not understand its configuration",
    ),
    "picker: forbidden": (
        scene(pickers=(make.picker_pod(False, 'pods is forbidden: User "x" cannot list resource "pods"'),)),
        "picker",
        "may not read the API server",
    ),
    "picker: no API server": (
        scene(pickers=(make.picker_pod(False, "Unable to connect to the server"),)),
        "picker",
        "cannot reach the API server",
    ),
    "picker: otherwise": (
        scene(pickers=(make.picker_pod(False, "something new"),)),
        "picker",
        "no picker is ready",
    ),
    "picker's Service gone": (scene(services=()), "picker", "cannot ask the picker"),
    "picker configured otherwise": (
        scene(picker=make.picker_deployment(configuration="queue-scorer")),
        "picker",
        "another configuration",
    ),
    # -- pool and route
    "no pool": (scene(pool=None), "pool", "the pool is missing"),
    "pool selects nothing": (
        scene(pool={**make.pool(), "spec": {"selector": {"matchLabels": {"app": "other"}}}}),
        "pool",
        "selects none of the replicas",
    ),
    "pool refused": (scene(pool=refusing("InferencePool", Accepted=False)), "pool", "does not take the pool"),
    "route deleted": (deleted("HTTPRoute", of_model=True), "route", "deleted by hand"),
    "no route": (scene(routes=()), "route", "nothing leads to the model"),
    "route refused": (
        scene(routes=(refusing("HTTPRoute", ResolvedRefs=False),)),
        "route",
        "does not take the route",
    ),
    # -- Google
    "health policy deleted": (
        deleted("HealthCheckPolicy", of_model=True),
        "health checks",
        "deleted by hand",
    ),
    "no health policy": (google(health=()), "health checks", "asks the wrong path, and calls every replica"),
    "health policy: path": (google(health=healthy("/")), "health checks", "asks the wrong path"),
    "health policy refused": (
        google(health=healthy(attached=False)),
        "health checks",
        "does not take the policy",
    ),
    "endpoint unhealthy": (
        google(endpoints=(Endpoint("gkegw1-x-llm-models-qwen-y", "10.0.0.7", "UNHEALTHY"),)),
        "health checks",
        "calls replicas unhealthy",
    ),
    "Google not asked": (google({"unasked": "no credentials"}), "health checks", "was not asked"),
    # -- policies
    "gateway shut out": (
        blocked(gateway=(make.network_policy.pods({"app": "other"}, "elsewhere"),)),
        "policies",
        "network policies block it",
    ),
    "download shut in": (blocked(downloads=False), "policies", "network policies block it"),
    "policy deleted": (deleted("NetworkPolicy", of_model=True), "policies", "deleted by hand"),
    # -- what all share
    "operator down": (
        scene({"operators": ((make.deployment("istiod", "istio-system", 1, 0), ()),)}),
        "operators",
        "an operator does not run",
    ),
    "upgrade interrupted": (
        scene({"releases": (("istio-system/istiod", "pending-upgrade"), ("kserve/kserve", "deployed"))}),
        "operators",
        "did not come to its end",
    ),
    "gateway deleted": (scene({"gateway": None}), "gateway", "the gateway was deleted"),
    "guard deleted": (deleted("EnvoyFilter"), "gateway", "a guard of the gateway was deleted"),
    "gateway not programmed": (
        scene({"gateway": make.gateway(conditions=[condition("Accepted"), condition("Programmed", False)])}),
        "gateway",
        "has not taken it",
    ),
    "listener without certificate": (
        scene(
            {
                "gateway": make.gateway(
                    listeners=[
                        {
                            "name": "https",
                            "conditions": [condition("ResolvedRefs", False, "InvalidCertificateRef")],
                        }
                    ]
                )
            }
        ),
        "gateway",
        "the listener serves nothing",
    ),
    "gateway without address": (scene({"gateway": make.gateway(addresses=[])}), "gateway", "has no address"),
    "gateway without pods": (scene({"gateways": ()}), "gateway", "no pod of the gateway is ready"),
    "certificate deleted": (deleted("Certificate"), "certificate", "deleted by hand"),
    "issuer not ready": (
        certificate("", {"issuers": ()}),
        "certificate",
        "issuer is not ready",
    ),
    "rate limit": (
        certificate("acme: urn:ietf:params:acme:error:rateLimited: too many certificates already issued"),
        "certificate",
        "rate limit is reached",
    ),
    "no DNS record": (
        certificate("lookup llm.example.com: no such host"),
        "certificate",
        "does not lead here",
    ),
    "challenge not fetched": (
        certificate("Waiting for HTTP-01 challenge propagation: wrong status code '404', expected '200'"),
        "certificate",
        "cannot fetch the challenge from llm.example.com",
    ),
    "account refused": (
        certificate("invalidContact: forbidden domain"),
        "certificate",
        "refuses the account",
    ),
    "not issued otherwise": (certificate("something new"), "certificate", "the certificate is not issued"),
    "renewal fails": (
        scene(
            {
                "certificates": (
                    (
                        ObjectRef("cert-manager.io/v1", "Certificate", make.DOOR, "gateway-tls"),
                        make.thing(
                            "Certificate",
                            "gateway-tls",
                            make.DOOR,
                            status={"conditions": [condition("Ready")], "notAfter": ago(-86400)},
                        ),
                    ),
                )
            }
        ),
        "certificate",
        "is not renewed",
    ),
    "limits deleted": (deleted("Deployment", "valkey"), "keys and limits", "deleted by hand"),
    "store stopped": (
        scene(
            {
                "limits": (make.deployment("valkey", make.DOOR, 0),),
                "limit_pods": (make.limit_pod("ratelimit"),),
            }
        ),
        "keys and limits",
        "scaled to zero",
    ),
    "store down": (
        unlimited(ratelimit=False, valkey=False),
        "keys and limits",
        "store of the counters is down",
    ),
    "limit service down": (
        unlimited(ratelimit=False, valkey=True),
        "keys and limits",
        "limit service is down",
    ),
    "one of two limit services": (
        scene({"limits": (make.deployment("ratelimit", make.DOOR, 2, 1),)}),
        "keys and limits",
        "not all of it runs",
    ),
    "limits shut out": (
        scene({"policies": limits_closed()}),
        "keys and limits",
        "network policies block it",
    ),
    # -- answers
    "limits too slow": (answered("RLSE"), "answers", "20 of the last 50 requests failed: the limit service"),
    "replica out of reach": (answered("UF"), "answers", "cannot reach a replica"),
    "no replica known": (answered("UH"), "answers", "knows of no replica"),
    "too slow for the route": (answered("UT", 504), "answers", "longer than the route allows"),
    "failing otherwise": (answered("-", 500), "answers", "requests failed: see the engine's log"),
    "all wait at one": (
        scene(pods=make.measured({"vllm:num_requests_waiting": 5.0}, IDLE)),
        "answers",
        "another has nothing to do",
    ),
    "cache full": (
        scene(pods=make.measured({"vllm:kv_cache_usage_perc": 0.99}, {})),
        "answers",
        "KV cache is full",
    ),
    "queue": (
        scene(pods=make.measured(*2 * ({"vllm:num_requests_waiting": 3.0},))),
        "answers",
        "6 requests wait at the replicas",
    ),
    "preempted": (
        scene(pods=make.measured({"vllm:num_preemptions_total": 9.0}, {})),
        "answers",
        "preempted and computed again",
    ),
    "caching off": (
        scene(pods=make.measured(UNUSED, UNUSED, engine={"enable_prefix_caching": "False"})),
        "answers",
        "caches no prefixes",
    ),
    "short prompts": (
        scene(pods=make.measured(UNUSED, UNUSED), requests=make.requests(30, prompt=12.0)),
        "answers",
        "whole blocks of 16 tokens",
    ),
    "nothing in common": (scene(pods=make.measured(UNUSED, UNUSED)), "answers", "no beginning in common"),
    "cold replica": (
        scene(pods=make.measured({}, {"vllm:request_success_total": 2.0})),
        "answers",
        "a replica is new",
    ),
    "one prompt for all": (
        scene(
            pods=make.measured({"vllm:request_success_total": 900.0}, {"vllm:request_success_total": 100.0})
        ),
        "answers",
        "nearly all requests go to one replica",
    ),
    "metrics unread": (
        scene(pods=(pod(metrics={}, unread="qwen-0: forbidden"),)),
        "answers",
        "metrics of 1 replicas could not be read",
    ),
}


def test_a_healthy_stack_has_no_finding_and_one_fact_for_each_link():
    what = scene()
    assert findings(what) == []
    assert all(SUMMARIES[link](what) for link in examined(what))
    assert set(SUMMARIES) == {link.name for link in (*STACK_LINKS, *MODEL_LINKS)}
    assert findings(google()) == []


@pytest.mark.parametrize("case", CASES)
def test_each_case_is_found_at_its_link_and_explained_once(case):
    what, link, words = CASES[case]
    here = [(finding, finding.subjects) for name, finding in findings(what) if name == link]
    assert any(words in finding.found for finding, _ in here), [f.found for f, _ in here]
    named = [subject for _, subjects in here for subject in subjects]
    assert len(named) == len(set(named)), "one subject, one explanation"
    for finding, _ in here:
        assert finding.evidence and all(finding.evidence), finding.found
        assert finding.fix and "{" not in finding.found + finding.fix


def test_every_rule_has_a_scene():
    seen = {(link, finding.found) for what, _, _ in CASES.values() for link, finding in findings(what)}

    def shown(rule: Rule) -> bool:
        pattern = "".join(
            ".*" if p.startswith("{") else re.escape(p) for p in re.split(r"(\{\w+\})", rule.found)
        )
        return any(link == rule.link and re.fullmatch(pattern, found) for link, found in seen)

    assert not [rule.found for rule in (*MODEL_RULES, *STACK_RULES) if not shown(rule)]


def test_every_rule_has_a_runbook_and_every_runbook_a_rule_or_another_reason():
    pages = {rule.page for rule in (*MODEL_RULES, *STACK_RULES)}
    written = {file.stem for file in RUNBOOKS.glob("*.md")}
    assert pages <= written
    assert written - pages <= {"README", "change-capacity"}


# -- where guessing stops --------------------------------------------------------------------------


def test_nothing_is_said_of_what_rests_on_a_broken_link():
    what = scene(pods=(pending(says="0/3 nodes are available: 2 Insufficient nvidia.com/gpu."),), pool=None)
    links = examined(what)
    assert links["pod"].because == ("node",)
    assert links["pool"].because == ("pod",)
    assert links["route"].because == ("pool",)
    assert not [name for name, _ in findings(what) if name not in ("node",)]


def test_faults_that_have_nothing_to_do_with_each_other_are_all_shown():
    shut = make.policies(gateway=(make.network_policy.pods({"app": "other"}, "elsewhere"),))
    what = scene({"policies": shut}, pods=(pending(says="something"),), pickers=(make.picker_pod(False),))
    assert {name for name, _ in findings(what)} == {"node", "picker", "policies"}


def test_a_replica_that_serves_lets_the_rest_be_judged():
    what = scene(
        pods=(pod("qwen-1"), pending(says="0/3 nodes are available: 2 Insufficient nvidia.com/gpu."))
    )
    links = examined(what)
    assert links["node"].verdict == "broken"
    assert links["pod"].verdict == "ok"
    assert not links["answers"].because


@pytest.mark.parametrize(("opens", "judged"), [(True, True), (False, False)])
def test_a_picker_that_is_down_stops_the_rest_only_where_requests_do_not_pass_without_it(opens, judged):
    live = make.service_object(opens=opens)
    links = examined(scene(live=live, pickers=(make.picker_pod(False),)))
    assert links["picker"].verdict == "broken"
    assert (not links["pool"].because) is judged
    words = "any replica" if opens else "refused"
    assert words in links["picker"].findings[0].found


def test_the_load_budget_begins_when_a_node_takes_the_pod():
    waited = pod(ready=False, age=3000, main=container("main", running={}), status={"startTime": ago(60)})
    ((_, finding),) = findings(alone(waited))
    assert finding.severity == "wait" and "for 60 of at most 900 s" in finding.found


def test_replicas_that_show_the_same_are_one_finding():
    ((_, finding),) = findings(scene(pods=(pending(), pod("qwen-1", node="", ready=False))))
    assert len(finding.subjects) == 2


def test_only_what_is_ready_and_leads_a_group_serves():
    marks = {"leaderworkerset.sigs.k8s.io/worker-index": "1"}
    assert scene(pods=(pod("a"), pod("b", marks=marks), pod("c", ready=False))).one.serving == 1


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("quota", cli.UNDECIDED),
        ("download: gated", cli.UNDECIDED),
        ("no DNS record", cli.UNDECIDED),
        ("wrong selector", cli.FAILED),
        ("loading", cli.FAILED),
        ("asleep", cli.DONE),
        ("routing none", cli.DONE),
        ("short prompts", cli.DONE),
    ],
)
def test_the_exit_code_says_whether_something_was_found_and_who_must_act(case, code):
    assert outcome(finding for _, finding in findings(CASES[case][0])) == code


def test_decisions_and_faults_together_are_a_failure():
    what = scene(
        pods=(pending(event(FAILED, SCALE_UP.format("GCE quota exceeded"))),),
        pickers=(make.picker_pod(False),),
    )
    assert outcome(finding for _, finding in findings(what)) == cli.FAILED
