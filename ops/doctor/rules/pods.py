"""Replicas that are missing, and engines that end, hang, or do not answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ops.doctor.causes import ENGINE, Cause, explain, last_line, proof, shown
from ops.doctor.chain import Rule, Seen
from ops.doctor.facts import PodFacts, Scene, conditions
from ops.doctor.rules import starts
from ops.doctor.rules.replicas import Sign, caused, look, rule
from ops.status import pods as stages

NEG = "cloud.google.com/load-balancer-neg-ready"
QUOTA = r"[Ee]xceeded quota"
QUOTA_FIX = (
    "of a quota of this stack, raise what the message names in `namespaces` of the stack file; one that was changed by "
    "hand comes back with `pulumi up --refresh`. Otherwise have its owner raise it, or ask for less in `resources`"
)


def _model(sign: Callable[[Scene], tuple[str, ...] | None]) -> Callable[[Scene], Iterator[Seen]]:
    """For signs on the model as a whole."""

    def signs(scene: Scene) -> Iterator[Seen]:
        evidence = sign(scene)
        if evidence is not None:
            words = {"there": len(scene.one.pods), "wanted": scene.one.replicas}
            subject = f"model {scene.one.name}"
            yield Seen(subject=subject, evidence=evidence, words=words, blocks=not scene.one.serving)

    return signs


# -- the model as a whole --------------------------------------------------------------------------


def _asleep(scene: Scene) -> tuple[str, ...] | None:
    model = scene.one
    return (f"the {model.kind.kind} asks for 0",) if model.live and model.replicas == 0 else None


def _absent(scene: Scene) -> tuple[str, ...] | None:
    return (f"the cluster has no such {scene.one.kind.kind}",) if scene.one.live is None else None


def _unmade(scene: Scene) -> tuple[str, ...] | None:
    """KServe made nothing of it, or not yet."""
    if scene.one.workloads or scene.one.live is None:
        return None
    failed = [c for c in conditions(scene.one.live) if c["status"] == "False" and c.get("message")]
    return tuple(f"{c['type']}: {shown(c['message'])}" for c in failed[:2]) or (
        "KServe has set no condition",
    )


def _refused(pattern: str) -> Callable[[Scene], tuple[str, ...] | None]:
    """Pods are fewer than wanted, and an event says why none is created."""

    def sign(scene: Scene) -> tuple[str, ...] | None:
        model = scene.one
        if len(model.pods) >= model.replicas:
            return None
        events = [e for e in model.events if e.get("reason") == "FailedCreate"]
        texts = [e.get("message", "") for e in events if re.search(pattern, e.get("message", ""))]
        return (shown(texts[-1]),) if texts else None

    return sign


def _fewer(scene: Scene) -> tuple[str, ...] | None:
    model = scene.one
    alive = [pod for pod in model.pods if not pod.leaving]
    return (f"{len(alive)} pods of {model.replicas}",) if len(alive) < model.replicas and model.live else None


# -- the engine ------------------------------------------------------------------------------------


def _crashing(pod: PodFacts) -> bool:
    """Whether the engine ended badly, now or in a loop."""
    status = pod.container(pod.main)
    state = status.get("state") or {}
    if (state.get("waiting") or {}).get("reason") in ("CrashLoopBackOff", "Error"):
        return True
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    return bool(ended.get("exitCode")) and not pod.ready


def _engine(cause: Cause | None) -> Sign:
    def sign(_scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
        if not _crashing(pod):
            return None
        text = "\n".join((str(pod.waits(pod.main).get("message", "")), pod.said(pod.main)))
        if cause is None:
            ended = pod.ended(pod.main)
            end = f", exit code {ended['exitCode']}" if "exitCode" in ended else ""
            return (f"{pod.restarts} restarts{end}", f"{pod.main}: {last_line(text) or 'no line in its log'}")
        return (f"{pod.main}: {proof(text, cause)}",) if explain(text, ENGINE) is cause else None

    return sign


def _memory(_scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
    reason = pod.ended(pod.main).get("reason")
    limit = next((c for c in pod.live["spec"]["containers"] if c["name"] == pod.main), {})
    memory = ((limit.get("resources") or {}).get("limits") or {}).get("memory", "none")
    ended = f"{pod.main} ended with {reason}; its limit is {memory}"
    return (ended,) if reason == starts.OUT_OF_MEMORY else None


def _out_of_budget(_scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
    """The kubelet ended it because it was not up when its budget was spent."""
    event = pod.event("Killing", "Unhealthy")
    text = str((event or {}).get("message", ""))
    if not pod.restarts or not re.search(r"[Ss]tartup probe", text):
        return None
    return shown(text), f"{pod.main}: {last_line(pod.said(pod.main))}"


def _starting(late: bool) -> Sign:
    """Running and not up yet: weights are loaded, or the model is compiled."""

    def sign(scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
        status = pod.container(pod.main)
        running = "running" in (status.get("state") or {}) and not status.get("started")
        if not running or (pod.age(scene.stack.now) > pod.budget) is not late:
            return None
        return (f"{pod.main}: {last_line(pod.logs.get(pod.main, '')) or 'no line yet'}",)

    return sign


def _behind_balancer(_scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
    """The pod itself is well, and Google's load balancer has not said so."""
    gate, own = pod.condition(NEG), pod.condition("ContainersReady")
    if own.get("status") != "True" or gate.get("status") == "True" or not gate:
        return None
    return (f"{gate.get('reason', NEG)}: {shown(str(gate.get('message', '')))}",)


def _unhealthy(_scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
    status = pod.container(pod.main)
    if "running" not in (status.get("state") or {}) or status.get("ready"):
        return None
    event = pod.event("Unhealthy") or {}
    said = shown(str(event.get("message", ""))) or "it runs, and its readiness probe (/health) fails"
    return said, f"{pod.main}: {last_line(pod.logs.get(pod.main, '')) or 'no line in its log'}"


def _anything(scene: Scene, pod: PodFacts) -> tuple[str, ...] | None:
    return tuple(stages.problems(pod.live, scene.stack.now)[:2])


RULES: tuple[Rule, ...] = (
    rule(
        "replicas-missing",
        _model(_absent),
        "the model is in the stack's state, and not in the cluster",
        "`pulumi up --refresh` makes it again, unless it was deleted on purpose",
    ),
    rule(
        "replicas-missing",
        _model(_asleep),
        "the model sleeps: no replica is wanted",
        "set `power: awake`, or `replicas` of the model, and `up`",
        severity="note",
    ),
    rule(
        "replicas-missing",
        _model(_unmade),
        "KServe has made no workload for the model",
        "correct what the condition names and `up`; where there is none, look at the operators link",
    ),
    rule(
        "quota",
        _model(_refused(QUOTA)),
        "{there} of {wanted} pods: the namespace's quota refuses the others",
        QUOTA_FIX,
        severity="decide",
    ),
    rule(
        "replicas-missing",
        _model(_refused("")),
        "{there} of {wanted} pods: the others are refused when they are created",
        "the message names who refuses: a webhook, a policy of the cluster, or a missing service account",
    ),
    *starts.RULES,
    rule(
        "not-ready",
        look(_memory),
        "the engine was killed: it used more memory than its container may",
        "raise the model's `resources.memory` above the size of the weights",
    ),
    *caused("not-ready", _engine, ENGINE),
    rule(
        "not-ready",
        look(_out_of_budget),
        "the engine was ended because it was not up within its load budget of {budget} s",
        "raise `loadBudgetSeconds` if the last line shows progress; a `cache` makes later starts short",
    ),
    rule(
        "not-ready",
        look(_engine(None)),
        "the engine ends again and again",
        "the last line of its log is above; `kubectl logs POD --previous` shows the rest",
    ),
    rule(
        "not-ready",
        look(_starting(late=True)),
        "the engine is not up after {age} s, longer than the load budget of {budget} s",
        "the last line of its log says where it hangs; raise `loadBudgetSeconds` if it gets on",
    ),
    rule(
        "not-ready",
        look(_starting(late=False)),
        "the engine loads or compiles, for {age} of at most {budget} s",
        "wait",
        severity="wait",
    ),
    rule(
        "health-check",
        look(_behind_balancer),
        "the replica is well, and the load balancer's health check does not reach it",
        "see the health checks and policies links; new endpoints take a minute or two",
    ),
    rule(
        "health-check",
        look(_unhealthy),
        "the engine runs, and does not answer its health check",
        "the last lines of its log say why; `kubectl delete pod` starts a new one if it hangs",
    ),
    rule("not-ready", look(_anything), "the pod is not ready", "what the kubelet says is above"),
    rule(
        "replicas-missing",
        _model(_fewer),
        "there are fewer pods than wanted",
        "the Deployment's events say why; while a rollout is under way, wait",
    ),
)
