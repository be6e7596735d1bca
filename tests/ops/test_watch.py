"""What `watch` tells, of which look, and how often."""

from __future__ import annotations

import threading
from argparse import Namespace
from datetime import UTC, datetime, timedelta

import pytest

from ops.errors import OpsError
from ops.watch import advice, news
from ops.watch.command import Watch
from ops.watch.news import News, Snapshot, Teller
from ops.watch.place import Place, PoolPlace
from ops.watch.source import NotYet, Source, look
from stacks.config import load_config
from tests.support.stacks import raw_stack

NOW = datetime(2026, 11, 21, 12, 5, tzinfo=UTC)
POOL = PoolPlace(key="v6e", machine="ct6e-standard-4t", capacity="on-demand", max_nodes=3)
PLACE = Place(
    models=frozenset({("llm-models", "qwen")}),
    pools={"qwen": POOL},
    project="my-project",
    zone="europe-west4-a",
    cloud="gke",
)
ENGINE = {"name": "main", "resources": {"limits": {"google.com/tpu": "4"}}}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
GROUP = "https://www.googleapis.com/compute/v1/projects/p/zones/z/instanceGroups/grp 0->3 (max: 3)"


def at(second):
    return f"2026-11-21T12:00:{second:02}Z"


def pod(name="qwen-1", node="tpu-0", containers=(ENGINE,), status=None, **meta):
    metadata = {"name": name, "namespace": "llm-models", "uid": name, "creationTimestamp": at(0)}
    labels = {"app.kubernetes.io/name": "qwen", "pod-template-hash": "5d4f"}
    owner = {"kind": "ReplicaSet", "name": "web-5d4f"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "labels": labels, "ownerReferences": [owner], **meta},
        "spec": {"containers": list(containers), **({"nodeName": node} if node else {})},
        "status": status or {"phase": "Pending"},
    }


def waiting(name="qwen-1"):
    return pod(name, None, status={"conditions": [{**UNSCHEDULABLE, "lastTransitionTime": at(0)}]})


def event(reason, message, second=1, about="qwen-1"):
    return {
        "metadata": {"name": f"{about}.{second}", "namespace": "llm-models"},
        "involvedObject": {"kind": "Pod", "name": about, "uid": about},
        "reason": reason,
        "message": message,
        "lastTimestamp": at(second),
    }


def failed(cause, **more):
    zones = "Node scale up in zones europe-west4-a associated with this pod failed"
    return event("FailedScaleUp", f"{zones}: {cause}. Pod is at risk of not being scheduled.", **more)


def refused(why, **more):
    return event("NotTriggerScaleUp", f"pod didn't trigger scale-up: {why}", **more)


def told(*pods, events=(), place=PLACE, **seen):
    return [item.text for item in news.news(Snapshot(tuple(pods), tuple(events), **seen), place, NOW)]


STOCK_OUT = failed("GCE out of resources")
CASES = [
    (STOCK_OUT, "stock-out", "europe-west4-a has no ct6e-standard-4t free as on-demand right now"),
    (STOCK_OUT, "stock-out", "(accelerators.v6e.capacity: spot or flex-start or reservation)"),
    (STOCK_OUT, "stock-out", "asia-northeast1-b"),
    (failed("GCE quota exceeded"), "quota exceeded", "quotas?project=my-project"),
    (failed("GCE quota exceeded"), "quota exceeded", "chips in europe-west4"),
    (
        refused("2 node(s) didn't match Pod's node affinity/selector, 1 max node group size reached"),
        "pool at its maximum",
        "accelerators.v6e.maxNodes is 3: raise it",
    ),
    (refused("3 node(s) didn't match Pod's node affinity/selector"), "no pool fits", "node selector"),
    (refused("1 in backoff after failed scale-up"), "pause", "then tried again"),
    (failed("who knows"), "no node", "ops doctor"),
]


@pytest.mark.parametrize(("said", "cause", "what_to_do"), CASES, ids=range(len(CASES)))
def test_a_node_that_does_not_come_is_told_with_the_clouds_reason_and_what_to_do(said, cause, what_to_do):
    line = told(waiting(), events=[said])[0]
    assert line.startswith(f"qwen: NO NODE ({cause}): {said['reason']}: {said['message'].rstrip('.')} -> ")
    assert what_to_do in line


ON_EKS = Place(
    models=frozenset({("llm-models", "qwen")}),
    pools={
        "qwen": PoolPlace(
            key="l4", machine="g6.4xlarge", zone="us-east-1a", capacity="on-demand", max_nodes=1
        )
    },
    cloud="eks",
)
MACHINES = "eks-cluster-l4-on-demand-0a1b2c3-0123456789ab"


def not_come(group=MACHINES, second=2):
    """What Amazon's autoscaler puts on its own status."""
    code = "OutOfResource.placeholder-cannot-be-fulfilled"
    text = (
        f"Failed adding 1 nodes to group {group} due to {code}; source errors: AWS cannot provision any more"
    )
    about = {"kind": "ConfigMap", "name": "cluster-autoscaler-status", "uid": "status"}
    return {**event("ScaleUpFailed", text, second), "involvedObject": about}


def selecting(pool):
    """A pod that waits for a node of a pool."""
    found = waiting()
    return {**found, "spec": {**found["spec"], "nodeSelector": {"llmp.dev/pool": pool}}}


def test_machines_that_amazon_does_not_give_are_told_with_the_command_that_has_the_reason():
    asked = event("TriggeredScaleUp", f"pod triggered scale-up: [{{{MACHINES} 0->1 (max: 1)}}]")
    again = {**asked, "lastTimestamp": at(9)}
    rest = refused("1 in backoff after failed scale-up", second=8)
    for events in ([asked, not_come()], [asked, not_come(), rest], [asked, not_come(), rest, again]):
        line = told(selecting("l4-on-demand"), events=events, place=ON_EKS)[0]
        assert line.startswith("qwen: NO NODE (no machine from AWS): ScaleUpFailed: Failed adding 1 nodes")
        assert "us-east-1a has no g6.4xlarge free as on-demand right now, or the account's quota" in line
        assert f"--region us-east-1 --auto-scaling-group-name {MACHINES} " in line
        assert "(accelerators.l4.capacity: spot or reservation)" in line


@pytest.mark.parametrize(
    ("pool", "events"),
    [
        ("l4x4-on-demand", [not_come()]),
        ("l4-on-demand", [not_come("eks-cluster-x-l4-on-demand-0a1b2c3-0")]),
        # The pod is younger than the trouble.
        ("l4-on-demand", [{**not_come(), "lastTimestamp": "2026-11-21T11:00:00Z"}]),
    ],
)
def test_trouble_of_other_machines_or_other_times_is_not_a_models(pool, events):
    assert not [x for x in told(selecting(pool), events=events, place=ON_EKS) if "ScaleUpFailed" in x]


def test_where_a_pool_on_eks_is_and_what_its_machines_are_is_read_from_the_stack_file():
    found = Place.of(load_config(raw_stack("gpu")))
    assert "cluster-autoscaler" in found.namespaces
    pool = found.pools["mistral-24b-quantized"]
    assert (pool.machine, pool.zone, pool.capacity) == ("g6.4xlarge", "us-east-1a", "on-demand")


def test_replicas_that_wait_for_the_same_reason_are_told_once():
    both = [failed("GCE out of resources"), failed("GCE out of resources", about="qwen-2")]
    lines = told(waiting(), waiting("qwen-2"), events=both)
    assert [line for line in lines if "NO NODE" in line] == lines[:1]


def test_the_reason_of_a_failure_stays_while_its_pool_rests():
    rest = refused("1 in backoff after failed scale-up", second=2)
    assert "stock-out" in told(waiting(), events=[rest, STOCK_OUT])[0]
    later = refused("1 max node group size reached", second=3)
    assert "pool at its maximum" in told(waiting(), events=[rest, STOCK_OUT, later])[0]


def test_nodes_that_come_after_all_take_the_place_of_the_failure():
    coming = event("TriggeredScaleUp", f"pod triggered scale-up: [{{{GROUP}}}]", second=9)
    lines = told(waiting(), events=[STOCK_OUT, coming])
    assert lines[0].startswith("qwen: nodes are on their way: pod triggered scale-up")
    assert not any("NO NODE" in line for line in lines)


def test_events_of_pods_that_are_gone_or_have_a_node_are_of_yesterday():
    assert not any("NO NODE" in line for line in told(pod(), events=[STOCK_OUT]))
    assert told(events=[STOCK_OUT]) == []


def test_a_quota_that_keeps_pods_from_being_made_is_told_while_it_does():
    said = 'pods "x-{}" is forbidden: exceeded quota: ai-workload-quota, requested: pods=1, used: pods=4, limited: pods=4'
    made = {
        "metadata": {},
        "involvedObject": {"kind": "ReplicaSet", "name": "qwen-kserve-5d4f"},
        "reason": "FailedCreate",
    }
    recent = [
        {**made, "message": said.format(n), "lastTimestamp": f"2026-11-21T12:04:{n}Z"} for n in (10, 40)
    ]
    (line,) = told(events=recent)
    assert line.startswith("qwen-kserve: NO POD: exceeded quota: ai-workload-quota, requested: pods=1")
    assert "`namespaces` of the stack file" in line
    assert not told(events=[{**recent[0], "lastTimestamp": "2026-11-21T11:55:00Z"}])
    assert not told(events=[{**recent[0], "message": "denied by a webhook"}])


def test_without_an_autoscaler_the_schedulers_reason_is_told_after_a_while():
    assert told(waiting())[0] == "qwen: NO NODE for 1 of its pods: 0/2 nodes are available"
    fresh = {**UNSCHEDULABLE, "lastTransitionTime": "2026-11-21T12:04:45Z"}
    assert not any("NO NODE" in line for line in told(pod(node=None, status={"conditions": [fresh]})))


def crashing(why, text="", container="main", **ended):
    state = {"waiting": {"reason": why, "message": text}}
    last = {"lastState": {"terminated": ended}} if ended else {}
    key = "containerStatuses" if container == "main" else "initContainerStatuses"
    return {"phase": "Pending", key: [{"name": container, "state": state, **last}]}


GATED = {"exitCode": 1, "message": "x\n401 gated\n"}
FAULTS = [
    (crashing("ImagePullBackOff", "manifest unknown"), "main ImagePullBackOff: manifest unknown"),
    (
        crashing("CrashLoopBackOff", "back-off 10s", "storage-initializer", **GATED),
        "storage-initializer CrashLoopBackOff: 401 gated",
    ),
    (
        crashing("CrashLoopBackOff", exitCode=137, reason="OOMKilled"),
        "main CrashLoopBackOff: OOMKilled (exit code 137)",
    ),
]


@pytest.mark.parametrize(("status", "line"), FAULTS, ids=[line for _, line in FAULTS])
def test_containers_that_fail_are_told_once_with_their_last_words(status, line):
    lines = told(pod(status=status), pod("qwen-2", status=status))
    assert lines == [f"qwen: {line}", "qwen: 2 failing"]


def test_words_that_the_kubelet_did_not_keep_come_from_the_log():
    status = crashing("CrashLoopBackOff", exitCode=1, reason="Error")
    assert told(pod(status=status), words={("qwen-1", "main"): "no space left"})[0].endswith(
        ": no space left"
    )


@pytest.mark.parametrize(("restarts", "expected"), [(1, []), (3, ["web: main CrashLoopBackOff: no"])])
def test_other_workloads_are_named_by_what_made_their_pods_and_may_end_until_others_are_there(
    restarts, expected
):
    status = crashing("CrashLoopBackOff", exitCode=1, message="no")
    status["containerStatuses"][0]["restartCount"] = restarts
    assert told(pod(containers=[{"name": "main"}], status=status)) == expected


def starting():
    state = {"running": {"startedAt": "2026-11-21T12:04:00Z"}}
    return {"phase": "Running", "containerStatuses": [{"name": "main", "state": state, "ready": False}]}


def serving(ready):
    finished = {"terminated": {"exitCode": 0, "startedAt": at(10), "finishedAt": at(20)}}
    conditions = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(10)},
        {"type": "Ready", "status": "True", "lastTransitionTime": at(ready)},
    ]
    return {
        "conditions": conditions,
        "initContainerStatuses": [{"name": "storage-initializer", "state": finished}],
        "containerStatuses": [{"name": "main", "state": {"running": {"startedAt": at(22)}}, "ready": True}],
    }


def test_a_models_replicas_are_told_by_stage_with_the_time_spent_and_the_time_it_took_elsewhere():
    logs = {"qwen-1": ["Loading weights took 3 seconds"]}
    parts = pod(status=starting()), pod("qwen-2", status=starting()), pod("qwen-3", status=serving(50))
    (line,) = told(*parts, logs=logs)
    assert line == (
        "qwen: 1 ready, 1 compiling (60 s, 3 to 5 min by estimate), "
        "1 loading the weights (60 s, 3 to 5 min by estimate)"
    )


def test_a_model_that_is_ready_is_told_with_the_time_of_each_phase_of_its_slowest_replica():
    (line,) = told(pod(status=serving(50)), pod("qwen-2", status=serving(55)))
    assert line == (
        "qwen: 2 ready; the slowest took 55 s: node 10 s, download 10 s, image 2 s, load and compile 33 s"
    )


def test_nodes_without_accelerators_are_no_news_and_others_are_when_they_come_and_fail():
    def node(name, status, **capacity):
        conditions = [{"type": "Ready", "status": status, "reason": "NodeStatusUnknown"}]
        return {"metadata": {"name": name}, "status": {"capacity": capacity, "conditions": conditions}}

    chips = {"google.com/tpu": "4"}
    found = (node("system", "False"), node("tpu-0", "True", **chips), node("tpu-1", "Unknown", **chips))
    assert told(nodes=found) == [
        "node tpu-0 (4 google.com/tpu) is there",
        "node tpu-1 (4 google.com/tpu): Ready is Unknown (NodeStatusUnknown)",
    ]


def test_everything_is_told_once_and_again_when_it_changes_or_lasts():
    teller = Teller()

    def say(version="a", minutes=0, repeats=True):
        found = [News(("k",), version, version, repeats)]
        return list(teller.new(found, NOW + timedelta(minutes=minutes)))

    assert [say(), say(), say(minutes=1)] == [["a"], [], []]
    assert say("b", minutes=1) == ["b"]
    assert say("b", minutes=7, repeats=False) == []
    assert say("b", minutes=7) == ["b"]


def model(ready="True", seen=1, kind="LLMInferenceService"):
    status = {"observedGeneration": seen, "conditions": [{"type": "Ready", "status": ready}]}
    meta = {"namespace": "llm-models", "name": "qwen", "generation": 1}
    return {"kind": kind, "metadata": meta, "status": status}


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([], False),
        ([model()], True),
        ([model("False")], False),
        ([model(seen=0)], False),
        # What an InferenceService calls observed are generations of its Deployment.
        ([model(seen=0, kind="InferenceService")], True),
    ],
)
def test_ready_are_all_models_that_shall_run_and_in_their_latest_generation(models, expected):
    assert news.ready(Snapshot(models=tuple(models)), PLACE) is expected


def test_what_shall_run_and_where_is_read_from_the_stack_file():
    place = Place.of(load_config(raw_stack("tpu")))
    assert place.models == {("llm-models", "qwen2-5-3b")}
    assert place.pools["qwen2-5-3b"] == POOL
    assert {"llm-models", "llm-gateway", "kserve"} <= set(place.namespaces)
    assert Place.of(load_config({**raw_stack("tpu"), "power": "asleep"})).models == frozenset()


def test_advice_needs_no_stack_file():
    for cause in advice.CAUSES:
        assert "{" not in advice.advice(cause, Place(), "qwen")


def test_a_look_reads_the_stacks_namespaces_and_the_logs_of_engines_that_start(fake_cluster):
    elsewhere = pod("qwen-2", namespace="somebody-elses")
    cluster = fake_cluster({**pod(status=starting()), "log": ["Loading weights took 3 seconds"]}, elsewhere)
    place = Place(namespaces=("llm-models",))
    seen = look(cluster, place)
    assert [p["metadata"]["name"] for p in seen.pods] == ["qwen-1"]
    assert seen.logs == {"qwen-1": ["Loading weights took 3 seconds"]}


class Stack:
    """A stack whose state names no cluster."""

    def export(self):
        return {"deployment": {"resources": []}}


def test_a_cluster_that_does_not_exist_yet_is_waited_for():
    source = Source(Stack(), Namespace(kubeconfig=None, context=None), PLACE)
    with pytest.raises(NotYet, match="waiting for it"):
        source.look()


class Script:
    """A source that shows one thing after the other, and the last one for ever."""

    def __init__(self, *seen):
        self._seen = list(seen)

    def look(self):
        found = self._seen.pop(0) if len(self._seen) > 1 else self._seen[0]
        if isinstance(found, OpsError):
            raise found
        return found


OPTIONS = {"until_ready": True, "timeout": None, "every": 0.0}


def test_trouble_is_told_once_and_ends_nothing(capsys):
    gone = OpsError("cannot be reached")
    source = Script(NotYet("waiting"), gone, gone, Snapshot(models=(model(),)))
    assert Watch(source, PLACE).run(Namespace(**OPTIONS), threading.Event()) == 0
    said = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert said[:2] == ["waiting", "cannot be reached"] and said[2].startswith("every model is Ready after")
    assert len(said) == 3


@pytest.mark.parametrize(("until_ready", "status"), [(True, 1), (False, 0)])
def test_the_timeout_is_a_failure_only_for_who_waits_until_ready(until_ready, status):
    options = Namespace(**{**OPTIONS, "until_ready": until_ready, "timeout": 0.0})
    assert Watch(Script(Snapshot()), PLACE).run(options, threading.Event()) == status


def test_told_to_stop_it_looks_once_more(capsys):
    stop = threading.Event()
    stop.set()
    ready = Snapshot(pods=(pod(status=serving(50)),))
    assert Watch(Script(ready), PLACE).run(Namespace(**{**OPTIONS, "until_ready": False}), stop) == 0
    assert "qwen: 1 ready" in capsys.readouterr().out
