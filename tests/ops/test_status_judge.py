"""What `status` says of single objects, pods and the last update."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ops.status import history, judge, pods

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
FOUR_MINUTES_AGO = "2026-01-01T11:56:00Z"


def live(kind, generation=1, spec=None, **status):
    return {
        "kind": kind,
        "metadata": {"name": "web", "generation": generation},
        "spec": spec or {},
        "status": status,
    }


def condition(kind, status="True", reason="", message=""):
    return {"type": kind, "status": status, "reason": reason, "message": message}


def parents(*conditions):
    return {"parents": [{"parentRef": {"name": "llm-gateway"}, "conditions": list(conditions)}]}


ROLLED_OUT = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
TWO = {"replicas": 2}
READY = [
    live("ConfigMap"),
    live("Namespace", phase="Active"),
    live("Gateway", conditions=[condition("Accepted"), condition("Programmed")]),
    live("HTTPRoute", **parents(condition("Accepted"), condition("ResolvedRefs"))),
    live("InferencePool", **parents(condition("Accepted"))),
    live("LLMInferenceService", conditions=[condition("Ready"), condition("GroupDegraded", "False")]),
    live("Deployment", spec=TWO, **ROLLED_OUT),
    live("Deployment", spec={"replicas": 0}, observedGeneration=1),
    live("StatefulSet", spec=TWO, observedGeneration=1, replicas=2, readyReplicas=2),
    live("StatefulSet", spec=TWO, observedGeneration=1, replicas=2, readyReplicas=2, updatedReplicas=2),
    live("DaemonSet", observedGeneration=1, desiredNumberScheduled=0),
]


@pytest.mark.parametrize("ready", READY, ids=lambda o: o["kind"])
def test_what_is_ready_has_no_problems(ready):
    assert judge.problems(ready) == []


NOT_READY = {
    "does not exist": None,
    "Programmed is False (AddressNotAssigned: no address)": live(
        "Gateway",
        conditions=[
            condition("Accepted"),
            condition("Programmed", "False", "AddressNotAssigned", "no\n address"),
        ],
    ),
    "Programmed is not set yet": live("Gateway", conditions=[condition("Accepted")]),
    "Accepted is not set yet": live("Gateway"),
    "no gateway has looked at it yet": live("HTTPRoute"),
    "llm-gateway: ResolvedRefs is False (InvalidKind)": live(
        "HTTPRoute", **parents(condition("Accepted"), condition("ResolvedRefs", "False", "InvalidKind"))
    ),
    "llm-gateway: Accepted is Unknown": live("InferencePool", **parents(condition("Accepted", "Unknown"))),
    "Ready is Unknown": live("LLMInferenceService", conditions=[condition("Ready", "Unknown")]),
    "Ready is not set yet": live("LLMInferenceService"),
    "has not seen the latest change": live("Deployment", generation=2, spec=TWO, **ROLLED_OUT),
    "1 of 2 replicas available, 2 of the latest": live(
        "Deployment", spec=TWO, **{**ROLLED_OUT, "availableReplicas": 1}
    ),
    "2 of 2 replicas available, 1 of the latest": live(
        "Deployment", spec=TWO, **{**ROLLED_OUT, "updatedReplicas": 1}
    ),
    "1 replicas of the generation before": live("Deployment", spec=TWO, **{**ROLLED_OUT, "replicas": 3}),
    "ReplicaFailure is True (FailedCreate: exceeded quota)": live(
        "Deployment",
        observedGeneration=1,
        conditions=[condition("ReplicaFailure", "True", "FailedCreate", "exceeded quota")],
    ),
    "Progressing is False (ProgressDeadlineExceeded)": live(
        "Deployment",
        observedGeneration=1,
        conditions=[condition("Progressing", "False", "ProgressDeadlineExceeded")],
    ),
    "0 of 1 pods available": live(
        "DaemonSet", observedGeneration=1, desiredNumberScheduled=1, numberAvailable=1
    ),
    "its phase is Pending, not Bound": live("PersistentVolumeClaim", phase="Pending"),
    "is being deleted; what holds it: serving.kserve.io/llmisvc-finalizer": {
        **live("LLMInferenceService", conditions=[condition("Ready")]),
        "metadata": {
            "deletionTimestamp": FOUR_MINUTES_AGO,
            "finalizers": ["serving.kserve.io/llmisvc-finalizer"],
        },
    },
}


@pytest.mark.parametrize(("problem", "broken"), NOT_READY.items(), ids=str)
def test_what_is_not_ready_says_why(problem, broken):
    assert any(problem in found for found in judge.problems(broken)), judge.problems(broken)


def test_a_model_names_its_parts_that_are_not_ready_and_nothing_else():
    model = live(
        "LLMInferenceService",
        conditions=[
            condition("Ready", "False", "MinimumReplicasUnavailable"),
            condition("MainWorkloadReady", "False", "MinimumReplicasUnavailable", "0 of 1"),
            condition("WorkloadsReady", "False", "MinimumReplicasUnavailable"),
            condition("HTTPRoutesReady"),
            condition("InferencePoolReady", "False", "WaitingForGateway"),
        ],
    )
    assert judge.problems(model) == [
        "MainWorkloadReady is False (MinimumReplicasUnavailable: 0 of 1)",
        "InferencePoolReady is False (WaitingForGateway)",
    ]


def test_endless_messages_are_shortened_to_a_line():
    text = judge.shortened("one\ntwo " + "x" * 1000)
    assert text.startswith("one two x")
    assert len(text) == 300


TPU = {"limits": {"google.com/tpu": "4"}}
PROBED = {"name": "main", "startupProbe": {"failureThreshold": 90, "periodSeconds": 10}, "resources": TPU}


def pod(node="gpu-0", initial=None, main=None, conditions=(), **fields):
    spec = {"containers": [PROBED], **({"nodeName": node} if node else {})}
    status = {"conditions": list(conditions), "phase": "Pending"}
    if initial:
        status["initContainerStatuses"] = [{"name": "storage-initializer", "state": initial}]
    if main:
        status["containerStatuses"] = [{"name": "main", "state": main, **fields}]
    return {"metadata": {"name": "qwen-0"}, "spec": spec, "status": status}


UNSCHEDULABLE = condition(
    "PodScheduled", "False", "Unschedulable", "0/1 nodes: 1 Insufficient nvidia.com/gpu."
)
WAITS = {"waiting": {"reason": "PodInitializing"}}
RUNS = {"running": {"startedAt": FOUR_MINUTES_AGO}}
PODS = [
    (
        pod(None, conditions=[UNSCHEDULABLE]),
        "waiting for a node",
        "cannot be scheduled: 0/1 nodes: 1 Insufficient",
    ),
    (pod(), "fetching the image", "is not ready: Pending"),
    (
        pod(main={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}),
        "fetching the image",
        "main waits: ImagePullBackOff: not found",
    ),
    (
        pod(initial=RUNS, main=WAITS),
        "downloading the weights",
        "storage-initializer has been starting for 240 s",
    ),
    (
        pod(initial={"terminated": {"exitCode": 1, "reason": "Error"}}, main=WAITS),
        "fetching the image",
        "storage-initializer ended with Error (exit code 1)",
    ),
    (pod(initial=WAITS, main=WAITS), "fetching the image", "is not ready: Pending"),
    (pod(main=RUNS), "loading the weights", "main has been starting for 240 s of the 900 s that it may take"),
    (
        pod(
            main={"waiting": {"reason": "CrashLoopBackOff"}},
            lastState={"terminated": {"reason": "OOMKilled", "exitCode": 137}},
        ),
        "loading the weights",
        "main waits: CrashLoopBackOff; it last ended with OOMKilled (exit code 137)",
    ),
    (pod(main=RUNS, started=True), "loading the weights", "main runs, but its readiness probe fails"),
]


@pytest.mark.parametrize(
    ("waiting", "stage", "problem"), PODS, ids=[f"{i}-{p[1]}" for i, p in enumerate(PODS)]
)
def test_a_pod_says_how_far_it_is_and_what_keeps_it(waiting, stage, problem):
    assert not pods.is_ready(waiting)
    assert pods.stage(waiting) == stage
    assert any(problem in found for found in pods.problems(waiting, NOW)), pods.problems(waiting, NOW)


LOADED = ["Loading weights took 41.50 seconds", "Compiling the model with different input shapes."]
PROGRESS = [
    (pod(initial=RUNS, main=WAITS), "downloading the weights (240 s, 30 to 60 s by estimate)"),
    (pod(main=RUNS), "loading the weights (240 s, 3 to 5 min by estimate, at most 900 s)"),
]


@pytest.mark.parametrize(("waiting", "text"), PROGRESS, ids=[text for _, text in PROGRESS])
def test_a_models_pod_says_how_long_its_stage_has_taken_and_takes_elsewhere(waiting, text):
    assert pods.progress(waiting, NOW) == text


def test_the_engines_log_tells_loading_from_compiling():
    assert pods.stage(pod(main=RUNS), LOADED[:1]) == "compiling"
    assert pods.progress(pod(main=RUNS), NOW, LOADED).startswith("compiling (240 s, 3 to 5 min")
    assert pods.stage(pod(initial=RUNS, main=WAITS), LOADED) == "downloading the weights"


def test_only_what_goes_wrong_is_a_fault_and_has_the_containers_last_words():
    assert not list(pods.faults(pod(initial=RUNS, main=WAITS)))
    assert not list(pods.faults(pod(main=RUNS)))
    said = {"reason": "Error", "exitCode": 1, "message": "Traceback\nHBM is too small\n"}
    crashed = pod(main={"waiting": {"reason": "CrashLoopBackOff"}}, lastState={"terminated": said})
    assert list(pods.faults(crashed)) == [("main", "CrashLoopBackOff", "HBM is too small")]
    assert "exit code 1), saying: HBM is too small" in pods.problems(crashed, NOW)[0]
    unpulled = pod(main={"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}})
    assert list(pods.faults(unpulled)) == [("main", "ErrImagePull", "manifest unknown")]


def test_a_pod_that_serves_or_has_done_its_work_is_ready():
    assert pods.stage(pod(conditions=[condition("Ready")])) == "ready"
    done = pod()
    done["status"]["phase"] = "Succeeded"
    assert pods.is_ready(done)


SUCCEEDED = {"kind": "update", "result": "succeeded", "endTime": "2026-01-01T12:00:00.000Z"}
DURING = "2026-01-01T12:00:00.999999999Z"


def test_an_update_that_came_to_its_end_is_no_problem(sample):
    assert history.problems(sample.state([sample.object()]), [SUCCEEDED], DURING) == []


@pytest.mark.parametrize(
    ("last", "written", "problem"),
    [
        ([], DURING, "never brought up"),
        ([{**SUCCEEDED, "result": "failed"}], DURING, "ended as failed"),
        ([SUCCEEDED], "2026-01-01T12:00:01.5Z", "never came to its end"),
    ],
)
def test_an_update_that_failed_or_was_killed_is_named(sample, last, written, problem):
    assert problem in history.problems(sample.state([sample.object()]), last, written)[0]


def test_what_was_interrupted_or_not_awaited_to_the_end_is_named(sample):
    entry = sample.object()
    pending = sample.state([], [("creating", entry)])
    assert (
        "ConfigMap llm/web: run `python -m ops recover`" in history.problems(pending, [SUCCEEDED], DURING)[0]
    )
    busy = history.problems(pending, [SUCCEEDED], DURING, at_work=["lock of me@here"])
    assert "right now (lock of me@here)" in busy[0]
    half = sample.state([{**entry, "initErrors": ["timed out"]}])
    assert "stopped at ConfigMap llm/web" in history.problems(half, [SUCCEEDED], DURING)[0]
