"""Quota, limits and team of a namespace of models, enforced by the real API server and its controllers."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from components.core import quantities
from components.serving.manifests import quota
from components.serving.manifests.team import NAME as TEAM
from ops.kube import ApiError, Manifest
from stacks.config import load_config
from stacks.config.asks import asks
from tests.rehearsed.conftest import MODELS, Outcome, Stack, eventually
from tests.support.stacks import raw_stack

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]

NS, MODEL, GROUP = "llm-models", "qwen3-0-6b", "ml-team"
RESOURCES = {"cpu": 2, "memory": "16Gi"}
# No more than the model needs with a replica that starts beside the old one, its picker, and what makes room.
EXACT = {"cpu": "5.01", "memory": "34848Mi", "memoryLimits": "49216Mi", "chips": 2, "pods": 4}
WORKLOAD = {"app.kubernetes.io/name": MODEL, "kserve.io/component": "workload"}
SETTINGS = {NS: {"quota": EXACT, "team": {"groups": [GROUP], "role": "edit"}}}


@pytest.fixture(scope="module")
def served(stack: Stack) -> Stack:
    """The dev stack under an exact quota, up."""
    stack.configure("llm-platform:namespaces", lambda _: SETTINGS)
    stack.configure(MODELS, lambda models: {MODEL: {**models[MODEL], "resources": RESOURCES}})
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    return stack


@pytest.fixture(scope="module")
def rolled_out(served: Stack) -> Outcome:
    """A change of the model's pods, in the room that the quota leaves."""
    served.configure(MODELS, lambda models: {MODEL: {**models[MODEL], "env": {"CHANGED": "1"}}})
    return served.run("up")


@pytest.fixture(scope="module")
def small(rolled_out: Outcome, served: Stack) -> Stack:
    """The stack after somebody has made its quota too small for any pod, and its only replica has gone."""
    kube, body = served.kube, {"spec": {"hard": {quota.PODS: "0"}}}
    kube.patch("v1", "ResourceQuota", quota.NAME, NS, body)
    (replica,) = served.pods(NS, WORKLOAD)
    kube.delete("v1", "Pod", replica["metadata"]["name"], NS)
    eventually(
        lambda: any(
            "exceeded quota" in event.get("message", "")
            for event in kube.list("v1", "Event", NS, fields="reason=FailedCreate")
        ),
        "the ReplicaSet is refused",
    )
    return served


def in_use(stack: Stack) -> dict[str, float]:
    """What Kubernetes has counted."""
    live = stack.kube.get("v1", "ResourceQuota", quota.NAME, NS)
    assert live is not None
    return {name: quantities.value(value) for name, value in live["status"]["used"].items()}


def pod(**requests: str) -> Manifest:
    """A pod that no node takes, with these requests or none."""
    container: dict[str, Any] = {"name": "main", "image": "registry.example.com/nothing:1"}
    if requests:
        container["resources"] = {"requests": requests, "limits": requests}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "by-hand", "namespace": NS},
        "spec": {"nodeSelector": {"nowhere": "at-all"}, "containers": [container]},
    }


def kubectl(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    """What a member of the team types."""
    member = (
        "--as=ada",
        f"--as-group={GROUP}",
        f"--namespace={NS}",
        f"--kubeconfig={stack.paths.kubeconfig}",
    )
    command = [str(stack.paths.bin / "kubectl"), *member, *words]
    environment = stack.rehearsal.environment()
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_model_takes_what_the_arithmetic_says_less_the_replica_of_a_rollout(served: Stack) -> None:
    raw = raw_stack("dev")
    raw["models"][MODEL]["resources"] = RESOURCES
    found = list(asks(MODEL, load_config(raw)))
    expected = {name: sum(ask.amounts.get(name, 0.0) for ask in found) for name in in_use(served)}
    one = {
        quota.CPU: 2.0,
        quota.MEMORY: 16 * 2.0**30,
        quota.MEMORY_LIMITS: 16 * 2.0**30,
        quota.PODS: 1.0,
        quota.chips("nvidia.com/gpu"): 1.0,
    }
    assert in_use(served) == pytest.approx({name: expected[name] - one[name] for name in expected})


def test_a_change_of_the_model_fits_into_the_exact_quota(rolled_out: Outcome, served: Stack) -> None:
    assert rolled_out.status == 0, rolled_out.output
    (replica,) = served.pods(NS, WORKLOAD)
    assert {"name": "CHANGED", "value": "1"} in replica["spec"]["containers"][0]["env"]


def test_the_next_preview_is_empty(rolled_out: Outcome, served: Stack) -> None:
    preview = served.run("preview")
    assert preview.status == 0 and preview.changed() == {}, preview.output


def test_a_pod_that_asks_for_nothing_gets_the_defaults_and_is_counted(
    rolled_out: Outcome, served: Stack
) -> None:
    before = in_use(served)[quota.CPU]
    served.kube.create(pod())
    try:
        live = served.kube.get("v1", "Pod", "by-hand", NS)
        assert live is not None
        assert live["spec"]["containers"][0]["resources"] == {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": quota.DEFAULT_MEMORY_LIMIT},
        }
        eventually(lambda: in_use(served)[quota.CPU] == pytest.approx(before + 0.1), "the pod is counted")
    finally:
        served.kube.delete("v1", "Pod", "by-hand", NS)


def test_the_api_server_refuses_a_pod_beyond_the_quota(rolled_out: Outcome, served: Stack) -> None:
    with pytest.raises(ApiError, match=f"exceeded quota: {quota.NAME}.*requests.cpu=3"):
        served.kube.create(pod(cpu="3", memory="1Gi"))


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("list pods", True),
        ("get pods/log", True),
        ("delete pods", True),
        ("list llminferenceservices.serving.kserve.io", True),
        ("get resourcequotas", True),
        ("get secrets", False),
        ("list secrets", False),
        ("list configmaps", False),
        ("create pods", False),
        ("create pods/exec", False),
        ("create pods/portforward", False),
        ("create pods/attach", False),
        ("update pods/ephemeralcontainers", False),
        ("create serviceaccounts/token", False),
        ("create llminferenceservices.serving.kserve.io", False),
        ("update resourcequotas", False),
        ("create rolebindings.rbac.authorization.k8s.io", False),
    ],
)
def test_what_a_member_of_the_team_may_do(served: Stack, words: str, answer: bool) -> None:
    verb, what = words.split()
    resource, _, sub = what.partition("/")
    more = [f"--subresource={sub}"] if sub else []
    said = kubectl(served, "auth", "can-i", verb, resource, *more)
    assert said.stdout.strip() == ("yes" if answer else "no"), said.stderr


def test_a_member_of_the_team_sees_pods_and_no_secret_and_nothing_elsewhere(served: Stack) -> None:
    listed = kubectl(served, "get", "pods")
    assert listed.returncode == 0 and f"{MODEL}-kserve" in listed.stdout, listed.stderr
    for words in (("get", "secrets"), ("get", "pods", "--namespace=kube-system")):
        refused = kubectl(served, *words)
        assert refused.returncode != 0 and 'User "ada" cannot list resource' in refused.stderr


def test_nobody_but_the_group_is_let_in(served: Stack) -> None:
    binding = served.kube.get("rbac.authorization.k8s.io/v1", "RoleBinding", TEAM, NS)
    assert binding is not None
    assert [(s["kind"], s["name"]) for s in binding["subjects"]] == [("Group", GROUP)]


def test_doctor_names_a_quota_that_somebody_made_too_small(small: Stack) -> None:
    doctor = small.ops("doctor", MODEL, "--stack", small.name)
    assert doctor.returncode == 3, doctor.stdout + doctor.stderr
    assert "0 of 1 pods: the namespace's quota refuses the others" in doctor.stdout
    assert f"exceeded quota: {quota.NAME}" in doctor.stdout and "runbooks/quota.md" in doctor.stdout


def test_up_takes_the_quota_back_from_whoever_changed_it_and_the_model_serves_again(small: Stack) -> None:
    # As `pulumi up --refresh` does in one.
    assert small.run("refresh").status == 0
    healed = small.run("up")
    assert healed.status == 0, healed.output
    assert healed.changed()[f"namespace-{NS}-quota"] == "update"
    assert small.pods(NS, WORKLOAD)
