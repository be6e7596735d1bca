"""`python -m ops rollout`: what it says of a model on its way, and when it ends."""

from __future__ import annotations

import json
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

import pytest

from components.core import labels, naming
from ops import cli, cluster
from ops.errors import OpsError
from ops.kube import Manifest
from ops.pulumi import Pulumi
from ops.rollout import command
from ops.rollout.look import models
from ops.rollout.progress import HASH, LWS_HASH, REVISION, Progress, of_model
from ops.state import State

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL, NAMESPACE, API = "qwen", "llm-models", "serving.kserve.io/v1alpha2"
PLAN = "needs no spare node; 2 of 3 replicas serve meanwhile; takes up to 3 x 900 s"


def service(ready: bool = True, seen: int = 2) -> Manifest:
    condition = {"type": "Ready", "status": "True" if ready else "False", "reason": "NotEnough"}
    return {
        "kind": "LLMInferenceService",
        "metadata": {"name": MODEL, "namespace": NAMESPACE, "generation": 2},
        "status": {"observedGeneration": seen, "conditions": [condition]},
    }


def deployment(replicas: int = 3, seen: int = 5, revision: str = "2") -> Manifest:
    return {
        "kind": "Deployment",
        "metadata": {"name": naming.workload(MODEL), "generation": 5, "annotations": {REVISION: revision}},
        "spec": {"replicas": replicas},
        "status": {"observedGeneration": seen},
    }


SETS = [
    {"metadata": {"labels": {HASH: name}, "annotations": {REVISION: revision}}}
    for name, revision in (("old", "1"), ("new", "2"))
]


def pod(of: str, state: str = "ready", key: str = HASH) -> Manifest:
    """A pod that is ready, has no node, cannot pull its image, or ends."""
    meta: dict[str, Any] = {"name": f"{of}-{state}", "labels": {key: of}}
    if state == "ends":
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    ready = {"type": "Ready", "status": "True" if state in ("ready", "ends") else "False"}
    conditions, status = [ready], {}
    if state == "homeless":
        message = "0/3 nodes are available: 3 Insufficient google.com/tpu."
        conditions.append({"type": "PodScheduled", "status": "False", "message": message})
    if state == "unpulled":
        waiting = {"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}}
        status = {"containerStatuses": [{"name": "main", "state": waiting}]}
    node = {} if state == "homeless" else {"nodeName": "n"}
    return {"metadata": meta, "spec": node, "status": {"conditions": conditions, **status}}


def judged(*found: Manifest, model: Manifest | None = None, **of: Any) -> Progress:
    return of_model(model or service(), deployment(**of), SETS, found, NOW)


def test_it_is_done_when_every_replica_is_new_and_the_model_ready_with_it() -> None:
    done = judged(pod("new"), pod("new"), pod("new"))
    assert done.done and str(done) == f"{MODEL}: all 3 replicas are new and Ready"
    assert judged(replicas=0).done


@pytest.mark.parametrize(
    "left",
    [
        judged(pod("new"), pod("new")),
        judged(pod("new"), pod("new"), pod("new"), pod("old")),
        judged(pod("new"), pod("new"), pod("new", "homeless")),
        judged(*[pod("new")] * 3, model=service(ready=False)),
        judged(*[pod("new")] * 3, model=service(seen=1)),
        judged(*[pod("new")] * 3, seen=4),
        # The ReplicaSet of the latest revision is not there yet: what runs is old, whatever its name.
        judged(*[pod("new")] * 3, revision="3"),
        of_model(service(), None, [], [], NOW),
    ],
)
def test_it_is_not_done_before(left: Progress) -> None:
    assert not left.done


def test_a_line_names_how_many_are_new_old_and_where_the_others_are() -> None:
    found = judged(pod("old"), pod("old"), pod("new"), pod("new", "homeless"), pod("old", "ends"))
    assert str(found) == f"{MODEL}: 1 of 3 replicas are new and ready, 2 old, 1 waiting for a node"


@pytest.mark.parametrize(
    ("state", "reason"), [("homeless", "3 Insufficient google.com/tpu"), ("unpulled", "manifest unknown")]
)
def test_what_keeps_a_new_pod_is_told_in_the_words_of_whoever_knows(state: str, reason: str) -> None:
    (said,) = judged(pod("old"), pod("new", state)).problems
    assert reason in said


def test_a_replica_over_several_machines_counts_each_of_them() -> None:
    group = {
        "kind": "LeaderWorkerSet",
        "metadata": {"name": naming.group_set(MODEL), "generation": 1},
        "spec": {"replicas": 2, "leaderWorkerTemplate": {"size": 4}},
    }
    leaders = [{"metadata": {"labels": {LWS_HASH: "new"}}}]
    some = [pod("new", key=LWS_HASH)] * 4 + [pod("old", key=LWS_HASH)] * 4
    assert of_model(service(), group, leaders, some, NOW).old == 4
    assert of_model(service(), group, leaders, [pod("new", key=LWS_HASH)] * 8, NOW).done


# -- the command -----------------------------------------------------------------------------------


def exported() -> dict[str, Any]:
    """A stack with one model and what its outputs say of it."""
    metadata = {"name": MODEL, "namespace": NAMESPACE}
    outputs = {"rollouts": {MODEL: PLAN}, "load_budgets_seconds": {MODEL: 900}}
    stack = {"urn": "urn::stack", "type": "pulumi:pulumi:Stack", "outputs": outputs}
    token = f"kubernetes:{API}:LLMInferenceService"
    own = {"custom": True, "inputs": {"apiVersion": API, "metadata": metadata}}
    resources = [
        stack,
        {"urn": "urn::model", "type": token, **own},
        {"urn": "urn::ready", "type": f"{token}Patch", **own},
    ]
    return {"deployment": {"resources": resources}}


class Cluster:
    """One model; each look at its pods sees the next of `states`, and then the last for ever."""

    def __init__(self, *states: list[Manifest]):
        self._states = list(states)

    def get(self, _version: str, kind: str, name: str, namespace: str) -> Manifest | None:
        assert namespace == NAMESPACE
        return {"LLMInferenceService": service(), "Deployment": deployment()}.get(kind)

    def list(self, _version: str, kind: str, namespace: str, selector: str) -> list[Manifest]:
        assert selector == ",".join(f"{k}={v}" for k, v in labels.model_workload(MODEL).items())
        if kind == "ReplicaSet":
            return SETS
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]


def follow(monkeypatch: pytest.MonkeyPatch, kube: Cluster, model: str | None = None, **more: Any) -> int:
    monkeypatch.setattr(Pulumi, "__init__", lambda self, stack, _=None: setattr(self, "stack", stack))
    monkeypatch.setattr(Pulumi, "export", lambda _: exported())
    monkeypatch.setattr(cluster, "connect", lambda *_: kube)
    monkeypatch.setattr(command, "LOOK_SECONDS", 0)
    return command.run(Namespace(stack="tpu", project=None, model=model, **{"timeout": None} | more))


def test_it_says_what_the_change_takes_then_each_step_once_and_ends_with_zero(monkeypatch, capsys) -> None:
    before, half, after = [pod("old")] * 3, [pod("old")] * 2 + [pod("new")], [pod("new")] * 3
    assert follow(monkeypatch, Cluster(before, half, half, half, after)) == cli.DONE
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{MODEL}: a change {PLAN}"
    assert len(said) == 4
    # The budget of one start, three times.
    assert "of 2700 s" in said[1] and said[-1].endswith("all 3 replicas are new and Ready")


def test_it_ends_with_one_and_the_reason_when_its_time_is_over(monkeypatch, capsys) -> None:
    stuck = [pod("old"), pod("old"), pod("new", "homeless")]
    assert follow(monkeypatch, Cluster(stuck), timeout=1e-9) == cli.FAILED
    assert "3 Insufficient google.com/tpu" in capsys.readouterr().out


def test_a_model_that_the_stack_does_not_have_is_refused_with_those_that_it_has(monkeypatch) -> None:
    with pytest.raises(OpsError, match=f"no model qwe; its models: {MODEL}"):
        follow(monkeypatch, Cluster([]), model="qwe")


def test_a_patch_of_a_model_is_no_model_of_its_own() -> None:
    assert list(models(State.parse(json.loads(json.dumps(exported()))))) == [MODEL]
