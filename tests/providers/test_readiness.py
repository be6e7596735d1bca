"""Readiness, judged on objects alone: what each kind waits for and what it says meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ops.kube import ApiError, UnknownKind
from rehearsal.providers.kubernetes import apply
from rehearsal.providers.kubernetes.awaiting import NotReady, Waiting, custom, pods, services, workloads
from rehearsal.providers.kubernetes.awaiting.jsonpath import BadPath, JsonPath
from rehearsal.providers.kubernetes.awaiting.progress import Look

META = {"name": "x", "namespace": "ns", "uid": "u", "generation": 2}
DOCUMENT = {
    "kind": "Pod",
    "metadata": {"annotations": {"llmp.dev/revision": "abc"}},
    "status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False", "n": 3}],
    },
}


class FakeKube:
    """Objects by (kind, name)."""

    def __init__(self, *objects: dict[str, Any]):
        self._objects = [
            {**o, "metadata": {"name": o["kind"].lower(), **o.get("metadata", {})}} for o in objects
        ]

    def get(self, api_version, kind, name, namespace=None):
        return next((o for o in self._objects if (o["kind"], o["metadata"]["name"]) == (kind, name)), None)

    def list(self, api_version, kind, namespace=None):
        return [o for o in self._objects if o["kind"] == kind]


def look(live: dict[str, Any], *others: dict[str, Any], **more: Any) -> Look:
    return Look(FakeKube(*others), {"metadata": META, **live}, **more)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.status.phase", ["Running"]),
        ("$.metadata.annotations['llmp.dev/revision']", ["abc"]),
        ('$["metadata"]["annotations"]["llmp.dev/revision"]', ["abc"]),
        ("$.status.conditions[0].status", ["True"]),
        ("$.status.conditions[-1].type", ["Other"]),
        ("$.status.conditions[*].type", ["Ready", "Other"]),
        ("$.status.conditions[0,1].type", ["Ready", "Other"]),
        ("$.status.conditions[?(@.type=='Ready')].status", ["True"]),
        ("$.status.conditions[?@.type=='Ready' || @.n > 2].type", ["Ready", "Other"]),
        ("$.status.conditions[?@.n && @.status!='True'].type", ["Other"]),
        ("$.status.conditions[?!@.n].type", ["Ready"]),
        ("$.status[?@ == 'Running' || @ == 'Succeeded']", ["Running"]),
        ("$..type", ["Ready", "Other"]),
        ("$.status.*[0].type", ["Ready"]),
        ("$.status.never", []),
        ("$.status.phase.deeper", []),
    ],
)
def test_json_paths_select(path, found):
    assert JsonPath(path).select(DOCUMENT) == found


@pytest.mark.parametrize(
    "path", ["status", "$.a.", "$.a\\.b", "$[", "$.a[?]", "$.a[x]", "$.a b", "$.a[?@.b ==]", "$.a-b", ""]
)
def test_what_is_no_json_path_is_refused(path):
    with pytest.raises(BadPath):
        JsonPath(path)


@pytest.mark.parametrize(
    ("expression", "ready"),
    [
        ("condition=Ready", True),
        ("condition=ready=true", True),
        ("condition=Other", False),
        ("condition=Other=False", True),
        ("condition=Missing", False),
        ("jsonpath={.status.phase}=Running", True),
        ("jsonpath={.status.phase}=Pending", False),
        ("jsonpath={.status.phase}", True),
        ("jsonpath={ $.status.conditions }", True),
        ("jsonpath={.status.conditions[?@.type=='Other'].n}=3", True),
        ('["condition=Ready", "jsonpath={.status.phase}=Running"]', True),
        ('["condition=Ready", "condition=Other"]', False),
    ],
)
def test_annotated_waits(expression, ready):
    assert custom.parse(expression)(look(DOCUMENT | {"metadata": META})).ready is ready


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "Ready",
        "[]",
        "jsonpath=.status.phase=Running",
        "jsonpath='{.a}'=b",
        "jsonpath={.a}=b=c",
        "jsonpath={.a}=",
    ],
)
def test_annotations_that_say_nothing_clear_are_refused(expression):
    with pytest.raises(custom.BadExpression):
        custom.parse(expression)


def test_a_condition_of_an_older_generation_does_not_count():
    condition = {"type": "Ready", "status": "True", "observedGeneration": 1}
    progress = custom.parse("condition=Ready")(look({"status": {"conditions": [condition]}}))
    assert not progress.ready and "generation 1" in progress.status


def test_a_false_condition_is_told_with_reason_and_message():
    condition = {"type": "Ready", "status": "False", "reason": "NoGateway", "message": "gateway is missing"}
    progress = custom.parse("condition=Ready")(look({"kind": "Model", "status": {"conditions": [condition]}}))
    assert progress.reasons == (
        "Model ns/x: condition Ready=False (want True): NoGateway: gateway is missing",
    )


def deployment(revision: str = "2", observed: int = 2, **conditions: tuple[str, str]) -> dict[str, Any]:
    listed = [
        {"type": k, "status": s, "reason": r, "message": f"about {k}"} for k, (s, r) in conditions.items()
    ]
    meta = {**META, "annotations": {"deployment.kubernetes.io/revision": revision}}
    return {
        "metadata": meta,
        "spec": {"replicas": 1},
        "status": {"observedGeneration": observed, "conditions": listed},
    }


def replica_set(ready: int, revision: str = "2") -> dict[str, Any]:
    annotations = {"deployment.kubernetes.io/revision": revision}
    meta = {"uid": f"rs{revision}", "annotations": annotations, "ownerReferences": [{"uid": "u"}]}
    return {
        "kind": "ReplicaSet",
        "metadata": meta,
        "spec": {"replicas": 1},
        "status": {"readyReplicas": ready},
    }


def pod(reason: str, revision: str = "2") -> dict[str, Any]:
    kinds = {"PodScheduled": "True", "Initialized": "True", "Ready": "False"}
    container = {"name": "main", "ready": False, "state": {"waiting": {"reason": reason, "message": "m"}}}
    status = {
        "conditions": [{"type": k, "status": s} for k, s in kinds.items()],
        "containerStatuses": [container],
    }
    return {"kind": "Pod", "metadata": {"ownerReferences": [{"uid": f"rs{revision}"}]}, "status": status}


AVAILABLE, COMPLETE = ("True", "MinimumReplicasAvailable"), ("True", "NewReplicaSetAvailable")


@pytest.mark.parametrize(
    ("live", "others", "ready"),
    [
        (deployment(Available=AVAILABLE, Progressing=COMPLETE), [replica_set(1)], True),
        (deployment(Available=AVAILABLE, Progressing=COMPLETE, observed=1), [replica_set(1)], False),
        (deployment(Available=AVAILABLE, Progressing=("True", "ReplicaSetUpdated")), [replica_set(1)], False),
        (
            deployment("1", Available=AVAILABLE, Progressing=("True", "ReplicaSetUpdated")),
            [replica_set(1, "1")],
            True,
        ),
        (deployment(Available=("False", "Few"), Progressing=COMPLETE), [replica_set(1)], False),
        (deployment(Available=AVAILABLE, Progressing=COMPLETE), [replica_set(1, "1")], False),
        (deployment(Available=AVAILABLE, Progressing=COMPLETE), [replica_set(0)], False),
    ],
)
def test_a_deployment_is_ready_when_its_newest_replica_set_is(live, others, ready):
    assert workloads.deployment_rolled_out(look(live, *others)).ready is ready


def test_a_deployment_tells_of_the_pods_of_the_newest_revision_only():
    live = deployment(Available=("False", "Few"), Progressing=("False", "ProgressDeadlineExceeded"))
    others = replica_set(0), replica_set(1, "1"), pod("CrashLoopBackOff"), pod("OldTrouble", "1")
    reasons = "\n".join(workloads.deployment_rolled_out(look(live, *others)).reasons)
    assert "[ProgressDeadlineExceeded] about Progressing" in reasons
    assert "CrashLoopBackOff" in reasons and "OldTrouble" not in reasons


def test_a_pod_that_no_node_takes_says_why():
    waiting = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    assert pods.pod_ready(look({"status": {"conditions": [waiting]}})).reasons == (
        "[Pod ns/x]: [Unschedulable] 0/1 nodes",
    )


def test_a_container_that_ended_says_how():
    ended = {"reason": "Error", "exitCode": 3, "finishedAt": "2026-01-01T00:00:00Z"}
    container = {"name": "main", "ready": False, "state": {"running": {}}, "lastState": {"terminated": ended}}
    conditions = [{"type": k, "status": "True"} for k in ("PodScheduled", "Initialized")]
    status = {
        "conditions": [*conditions, {"type": "Ready", "status": "False"}],
        "containerStatuses": [container],
    }
    assert "(Error: exit code 3)" in pods.pod_ready(look({"status": status})).reasons[0]


@pytest.mark.parametrize(
    ("conditions", "ready", "failed"),
    [
        ([], False, False),
        ([{"type": "Complete", "status": "True"}], True, False),
        (
            [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}],
            False,
            True,
        ),
        ([{"type": "Failed", "status": "True", "reason": "Other", "message": "m"}], False, False),
    ],
)
def test_a_job_is_ready_once_complete_and_fails_at_once(conditions, ready, failed):
    progress = pods.job_complete(look({"status": {"startTime": "t", "conditions": conditions}}))
    assert (progress.ready, progress.failed) == (ready, failed)


STATEFUL = {
    "replicas": 2, "readyReplicas": 2, "currentReplicas": 2, "currentRevision": "r", "updateRevision": "r", "observedGeneration": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "strategy", "ready"),
    [
        ({}, "RollingUpdate", True),
        ({"readyReplicas": 1}, "RollingUpdate", False),
        ({"updateRevision": "s"}, "RollingUpdate", False),
        ({"updateRevision": "s", "currentReplicas": 0}, "OnDelete", True),
        ({"observedGeneration": 1}, "RollingUpdate", False),
    ],
)
def test_a_stateful_set_is_ready_when_all_replicas_are_of_the_newest_revision(status, strategy, ready):
    live = {"spec": {"replicas": 2, "updateStrategy": {"type": strategy}}, "status": {**STATEFUL, **status}}
    assert workloads.stateful_set_rolled_out(look(live)).ready is ready


def service(**spec: Any) -> dict[str, Any]:
    return {"spec": {"selector": {"a": "b"}, **spec}}


@pytest.mark.parametrize(
    ("live", "ready"),
    [
        (service(clusterIP="None"), True),
        (service(type="ExternalName"), True),
        (service(selector={}), True),
        (service(), False),
        (service(type="LoadBalancer", selector={}), False),
        ({**service(type="LoadBalancer", selector={}), "status": {"loadBalancer": {"ingress": [{}]}}}, True),
    ],
)
def test_a_service_without_pods_to_find_only_needs_its_address(live, ready):
    assert services.service_ready(look(live)).ready is ready


def test_a_service_waits_until_its_endpoints_have_settled(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(services.time, "monotonic", lambda: now[0])
    endpoints = {"kind": "Endpoints", "metadata": {"name": "x", "resourceVersion": "1"}}
    seen = look(service(), endpoints)
    assert not services.service_ready(seen).ready
    now[0] += services.SETTLE_SECONDS - 1
    assert not services.service_ready(seen).ready
    now[0] += 1
    assert services.service_ready(seen).ready


class FakeCluster:
    """Refuses to create, with the errors given in turn."""

    def __init__(self, *errors: ApiError):
        self.errors, self.tries, self.kube = list(errors), 0, self

    def path(self, manifest, named=True):
        return "/"

    def request(self, *_):
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return {"made": True}


def test_a_creation_is_tried_six_times_while_its_kind_or_namespace_is_missing():
    pauses: list[float] = []
    cluster = FakeCluster(*[UnknownKind("v1", "X")] * 9)
    with pytest.raises(UnknownKind):
        apply.create(cluster, {}, "m", False, False, lambda _, seconds: pauses.append(seconds) or True)
    assert cluster.tries == 6 and pauses == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("reason", ["AlreadyExists", "InternalError", "Forbidden", "Invalid"])
def test_any_other_refusal_is_final(reason):
    cluster = FakeCluster(ApiError(500, reason, "no"))
    with pytest.raises(ApiError):
        apply.create(cluster, {}, "m", False, False, lambda *_: True)
    assert cluster.tries == 1


def test_an_interrupt_ends_a_wait_with_what_is_known():
    stopping = threading.Event()
    stopping.set()
    made = {"apiVersion": "apps/v1", "kind": "Deployment", **deployment(Available=("False", "Few"))}
    fake = FakeKube(replica_set(0))
    cluster = type("Cluster", (), {"kube": fake})()
    with pytest.raises(NotReady, match="cancelled") as caught:
        Waiting(cluster, lambda *_: None, stopping).until_ready({}, made, None, 600)
    assert "[Few] about Available" in caught.value.reasons
