"""`doctor` on a living stack: one fault after the other on one cluster, found at its link, and healthy again after it.

What only a real cloud shows (autoscaler, load balancer, certificates of an authority) is judged on recorded facts in
tests/ops/test_doctor_rules.py; here the words come from the programs themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from components.core import labels
from ops import cli
from ops.doctor.chain import Judged
from ops.doctor.collect import Collector
from ops.doctor.command import examine
from ops.kube import Manifest
from ops.state import State
from rehearsal.stand_ins.autoscaler import event
from tests.rehearsed.conftest import MODELS, Stack, eventually

pytestmark = [pytest.mark.rehearsed, pytest.mark.stacks]

MODEL, HOME, DOOR = "qwen3-0-6b", "llm-models", "llm-gateway"
SERVICE = ("serving.kserve.io/v1alpha2", "LLMInferenceService")
DEPLOYMENT = ("apps/v1", "Deployment")
REPLICAS = 2
FAILED = "Node scale up in zones europe-west4-a associated with this pod failed: {}. Pod is at risk of not being scheduled."
GATED = "Access to model Qwen/Qwen3-0.6B is restricted and you are not in the authorized list."
BFLOAT = "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0."
ACCESS = {
    "limitBy": "tokens",
    "tiers": {"ample": {"tokensPerMinute": 10_000_000}},
    "tenants": {"told": {"tier": "ample"}},
}


@pytest.fixture(scope="module")
def served(stack: Stack) -> Stack:
    """The dev stack with two replicas, up."""
    stack.configure(MODELS, lambda models: {name: {**m, "replicas": REPLICAS} for name, m in models.items()})
    stack.configure("llm-platform:access", lambda before: {**(before or {}), **ACCESS})
    stack.add_nodes()
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    return stack


# -- looking ---------------------------------------------------------------------------------------


def examined(stack: Stack) -> dict[str, Judged]:
    """The verdict on each link of the model and of what it rests on."""
    state = State.parse({"deployment": {"resources": stack.exported()}})
    return {link.link: link for one in examine(Collector(stack.kube, state), MODEL) for link in one.links}


def wrong(stack: Stack) -> dict[str, list[str]]:
    """What is found, by link, notes left out."""
    return {
        name: [f"{finding.found} | {'; '.join(finding.evidence)}" for finding in link.findings]
        for name, link in examined(stack).items()
        if link.verdict not in ("ok", "note", "skipped")
    }


def healthy(stack: Stack) -> None:
    """Wait until nothing is found and all replicas are ready."""
    last: list[Any] = []

    def well() -> bool:
        last[:] = [wrong(stack)]
        return not last[0] and len(replicas(stack)) == REPLICAS

    try:
        eventually(well, "the stack is healthy again", 120)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from None


def finds(stack: Stack, link: str, words: str) -> Judged:
    """Wait until this is found at this link."""
    last: list[Any] = []

    def found() -> Judged | None:
        last[:] = [wrong(stack)]
        return any(words in text for text in last[0].get(link, ())) and examined(stack)[link]

    try:
        return eventually(found, f"{link}: {words}", 60)
    except AssertionError as error:
        raise AssertionError(f"{error}; found: {last}") from None


def replicas(stack: Stack) -> list[Manifest]:
    selector = ",".join(f"{key}={value}" for key, value in labels.model_workload(MODEL).items())
    return stack.kube.list("v1", "Pod", HOME, selector)


# -- breaking --------------------------------------------------------------------------------------


@contextmanager
def faults(stack: Stack, settings: dict[str, Any], restart: bool = True) -> Iterator[None]:
    """Faults of the simulated nodes (rehearsal/node/faults.py); a replica is made anew to meet them."""
    stack.inject(settings)
    try:
        if restart:
            restarted(stack)
        yield
    finally:
        stack.inject({})


def restarted(stack: Stack) -> None:
    """Delete one replica and wait for the one that takes its place."""
    before = {pod["metadata"]["uid"] for pod in replicas(stack)}
    name = replicas(stack)[0]["metadata"]["name"]
    stack.kube.delete("v1", "Pod", name, HOME)

    def replaced() -> bool:
        now = {pod["metadata"]["uid"] for pod in replicas(stack)}
        return len(now) == REPLICAS and now != before

    eventually(replaced, f"another takes the place of {name}", 60)


def stage(**settings: Any) -> Callable[[Stack], AbstractContextManager[None]]:
    return lambda stack: faults(stack, {"stages": [{"match": f"{HOME}/{MODEL}-kserve-*", **settings}]})


def image(
    match: str, at: str, restart: bool = False, **more: str
) -> Callable[[Stack], AbstractContextManager[None]]:
    return lambda stack: faults(stack, {"images": [{"match": match, "at": at, **more}]}, restart)


@contextmanager
def patched(
    stack: Stack, kind: tuple[str, str], name: str, home: str, change: Any, back: Any
) -> Iterator[None]:
    """An edit by hand, and its undoing."""
    stack.kube.patch(*kind, name, home, change)
    try:
        yield
    finally:
        stack.kube.patch(*kind, name, home, back)


def scaled(name: str, home: str) -> Callable[[Stack], AbstractContextManager[None]]:
    none, one = ({"spec": {"replicas": count}} for count in (0, 1))
    return lambda stack: patched(stack, DEPLOYMENT, name, home, none, one)


@contextmanager
def gone(stack: Stack, kind: tuple[str, str], name: str, home: str) -> Iterator[None]:
    """An object deleted by hand, and made again."""
    before = stack.kube.get(*kind, name, home)
    assert before is not None
    meta = {key: before["metadata"].get(key) for key in ("name", "namespace", "labels", "annotations")}
    stack.kube.delete(*kind, name, home)
    try:
        yield
    finally:
        stack.kube.create(
            {**before, "apiVersion": kind[0], "kind": kind[1], "metadata": meta, "status": None}
        )


def deleted(kind: tuple[str, str], name: str, home: str) -> Callable[[Stack], AbstractContextManager[None]]:
    return lambda stack: gone(stack, kind, name, home)


@contextmanager
def crowded(stack: Stack, *told: tuple[str, str]) -> Iterator[None]:
    """One replica more than there are nodes; the autoscaler, of which there is none here, tells these events."""
    with patched(stack, SERVICE, MODEL, HOME, {"spec": {"replicas": 3}}, {"spec": {"replicas": REPLICAS}}):
        (waiting,) = eventually(
            lambda: [p for p in replicas(stack) if unscheduled(p)], "a replica waits for a node"
        )
        for reason, message in told:
            stack.kube.create(event(waiting, "Warning", reason, message))
        yield


def unscheduled(pod: Manifest) -> bool:
    return any(c.get("reason") == "Unschedulable" for c in pod.get("status", {}).get("conditions") or ())


def selecting(stack: Stack) -> AbstractContextManager[None]:
    """A selector that no node has; the rollout waits, and the old replicas serve on."""
    key, right = next(iter(stack.model(MODEL)["spec"]["template"]["nodeSelector"].items()))
    body = {value: {"spec": {"template": {"nodeSelector": {key: value}}}} for value in ("NVIDIA-H900", right)}
    return patched(stack, SERVICE, MODEL, HOME, body["NVIDIA-H900"], body[right])


NETWORKING, ROUTING = ("networking.k8s.io/v1", "NetworkPolicy"), ("gateway.networking.k8s.io/v1", "HTTPRoute")
FILTER = ("networking.istio.io/v1alpha3", "EnvoyFilter")
PICKER = f"{MODEL}-kserve-router-scheduler"


@contextmanager
def closed(stack: Stack) -> Iterator[None]:
    """A policy of the stack's that lets nobody in any more."""
    name = f"{MODEL}-workload"
    before = stack.kube.get(*NETWORKING, name, HOME)
    assert before is not None
    with patched(
        stack,
        NETWORKING,
        name,
        HOME,
        {"spec": {"ingress": []}},
        {"spec": {"ingress": before["spec"]["ingress"]}},
    ):
        yield


FAULTS: Mapping[str, tuple[Callable[[Stack], AbstractContextManager[None]], str, str]] = {
    "wrong selector": (selecting, "node", "nvidia.com/gpu.product=NVIDIA-H900"),
    "nodes full": (crowded, "node", "have no nvidia.com/gpu left"),
    "quota": (
        lambda s: crowded(s, ("FailedScaleUp", FAILED.format("GCE quota exceeded"))),
        "node",
        "quota is used up",
    ),
    "stock-out": (
        lambda s: crowded(s, ("FailedScaleUp", FAILED.format("GCE out of resources"))),
        "node",
        "no machine of this type",
    ),
    "pool at its maximum": (
        lambda s: crowded(
            s, ("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached")
        ),
        "node",
        "at its maximum",
    ),
    "download refused": (stage(fail="download", message=GATED), "pod", "the model is gated"),
    "download goes on": (stage(hold="download"), "pod", "weights are being downloaded"),
    "image missing": (
        image("*llm-d-cuda:*", "pull", True, message="manifest unknown"),
        "pod",
        "no such image",
    ),
    "loading": (stage(hold="load"), "pod", "loads or compiles"),
    "bfloat16": (stage(fail="load", message=BFLOAT), "pod", "no bfloat16"),
    "memory": (stage(fail="load", outOfMemory=True), "pod", "more memory than its container may"),
    "health check": (image("*llm-d-cuda:*", "unready"), "pod", "does not answer its health check"),
    "picker stopped": (scaled(PICKER, HOME), "picker", "scaled to zero; requests go to any replica"),
    "picker ends": (
        image("*endpoint-picker*", "crash"),
        "picker",
        "no picker is ready; requests go to any replica",
    ),
    "policy deleted": (
        deleted(NETWORKING, f"{MODEL}-workload", HOME),
        "policies",
        "the network policies block it",
    ),
    "policy edited": (
        closed,
        "policies",
        "the network policies block it | nothing lets it into the target",
    ),
    "route deleted": (deleted(ROUTING, f"{MODEL}-inference", HOME), "route", "deleted by hand"),
    "guard deleted": (
        deleted(FILTER, f"{DOOR}-tables", DOOR),
        "gateway",
        "a guard of the gateway was deleted",
    ),
    "gateway's pods": (image("*istio/proxyv2*", "crash"), "gateway", "no pod of the gateway is ready"),
    "store down": (
        image("*valkey/valkey:*", "crash"),
        "keys and limits",
        "the store of the counters is down",
    ),
    "limit service down": (
        image("*envoyproxy/ratelimit:*", "crash"),
        "keys and limits",
        "limit service is down",
    ),
    "operator down": (image("*llmisvc-controller:*", "crash"), "operators", "an operator does not run"),
}


# -- tests, in this order --------------------------------------------------------------------------


def test_a_healthy_stack_has_one_line_for_each_link_and_exit_code_0(served: Stack):
    healthy(served)
    answer = served.ops("doctor", "--stack", served.name)
    assert answer.returncode == cli.DONE, answer.stdout + answer.stderr
    links = examined(served)
    for name, link in links.items():
        lines = [line for line in answer.stdout.splitlines() if f"  {name}  " in line]
        assert len(lines) == 1 and " ok " in lines[0], name
        assert link.verdict in ("ok", "note")
    assert f"{REPLICAS} of {REPLICAS} replicas ready" in answer.stdout
    assert f"metrics of {REPLICAS} replicas" in answer.stdout


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_at_its_link_and_gone_when_it_is_lifted(served: Stack, fault: str):
    breaking, link, words = FAULTS[fault]
    with breaking(served):
        judged = finds(served, link, words)
        assert all(finding.evidence and finding.fix for finding in judged.findings)
    healthy(served)


def test_faults_that_are_independent_are_told_together_with_evidence_and_fix(served: Stack):
    with scaled(PICKER, HOME)(served), deleted(NETWORKING, f"{MODEL}-workload", HOME)(served):
        finds(served, "picker", "scaled to zero")
        answer = served.ops("doctor", MODEL, "--stack", served.name)
    assert answer.returncode == cli.FAILED, answer.stderr
    assert f"BROKEN: {MODEL}, picker: the picker is scaled to zero" in answer.stdout
    assert f"BROKEN: {MODEL}, policies: the network policies block it" in answer.stdout
    assert "gateway -> replica:8000, picker -> replica:8000" in answer.stdout
    assert answer.stdout.count("  fix  ") == answer.stdout.count("  more  ") >= 3
    healthy(served)


def test_what_only_a_person_can_decide_is_exit_code_3_also_for_programs(served: Stack):
    with crowded(served, ("FailedScaleUp", FAILED.format("GCE out of resources"))):
        finds(served, "node", "no machine of this type")
        answer = served.ops("doctor", "--stack", served.name, "--json")
    assert answer.returncode == cli.UNDECIDED, answer.stderr
    (model, _) = json.loads(answer.stdout)["examined"]
    (finding,) = next(link for link in model["links"] if link["link"] == "node")["findings"]
    assert finding["page"] == "stock-out"
    healthy(served)


def test_a_model_that_the_stack_does_not_have_is_refused_by_name(served: Stack):
    answer = served.ops("doctor", "nobody", "--stack", served.name)
    assert answer.returncode == cli.FAILED
    assert f"the stack has no model nobody: its models are {MODEL}" in answer.stderr


def test_short_prompts_are_told_to_be_why_caches_are_of_no_use(served: Stack):
    key = served.ops("keys", "issue", "--stack", served.name, "--tenant", "told").stdout.strip()
    with served.client() as client:
        for number in range(30):
            answer = client.ask(key, MODEL, f"{number} {number}", tokens=1)
            assert answer.error == (200, None)

    def said() -> list[str]:
        return [
            f.found for f in examined(served)["answers"].findings if "whole blocks of 16 tokens" in f.found
        ]

    assert eventually(said, "short prompts are told")
    assert served.ops("doctor", "--stack", served.name).returncode == cli.DONE
