"""Two rehearsals on one machine: neither sees, disturbs or ends the other."""

from __future__ import annotations

import pytest

from tests.rehearsed.conftest import Stack, conditions, eventually

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]


@pytest.fixture
def pair(tmp_path):
    stacks = [Stack(tmp_path / name / "rehearsal") for name in ("one", "two")]
    yield stacks
    for stack in stacks:
        stack.rehearsal.down(force=True)


def a_pod(stack: Stack) -> str:
    """Run a pod there; returns its address."""
    stack.kube.create({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "istio/pilot:1.30.3"}], "serviceAccountName": "default"},
    })  # fmt: skip

    def ready():
        pod = stack.kube.get("v1", "Pod", "probe", "default")
        return pod if conditions(pod).get("Ready") == "True" else None

    return eventually(ready, "the pod is Ready")["status"]["podIP"]


def test_two_rehearsals_run_side_by_side_and_end_alone(pair):
    one, two = pair
    for stack in pair:
        stack.rehearsal.start("dev")
        eventually(
            lambda s=stack: s.kube.get("v1", "ServiceAccount", "default", "default"), "the service account"
        )
    assert one.kube.server != two.kube.server
    assert a_pod(one) != a_pod(two)
    one.rehearsal.down(force=True)
    assert two.kube.get("v1", "Pod", "probe", "default") is not None
    assert two.rehearsal.processes.running("agent")


def test_a_killed_machine_is_no_obstacle_to_the_next_start(pair):
    stack = pair[0]
    stack.rehearsal.start("dev")
    eventually(lambda: stack.kube.get("v1", "ServiceAccount", "default", "default"), "the service account")
    stack.kube.create({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept", "namespace": "default"},
    })  # fmt: skip
    stack.rehearsal.processes.stop_all()
    stack.rehearsal.start("dev")
    assert stack.kube.get("v1", "ConfigMap", "kept", "default") is not None
