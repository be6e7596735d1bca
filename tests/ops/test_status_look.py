"""What `status` looks at, over a cluster of plain dicts."""

from __future__ import annotations

import pytest

from ops.status.look import checks

OWNED = {"meta.helm.sh/release-namespace": "cert-manager", "meta.helm.sh/release-name": "cert-manager"}


def deployment(name, namespace, replicas=1, available=1, labels=None, annotations=None):
    count = {"replicas": available, "updatedReplicas": available, "availableReplicas": available}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels or {},
            "annotations": annotations or {},
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}},
        "status": count,
    }


def pod(name, namespace, app):
    message = "0/1 nodes are available"
    scheduled = {"type": "PodScheduled", "status": "False", "message": message}
    metadata = {"name": name, "namespace": namespace, "labels": {"app": app}}
    status = {"conditions": [scheduled]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": []},
        "status": status,
    }


def serving(item):
    """The pod with an engine on accelerators."""
    engine = {"name": "main", "resources": {"limits": {"google.com/tpu": "4"}}}
    return {**item, "spec": {**item["spec"], "containers": [engine]}}


def found(state, cluster):
    return {check.subject: check for check in checks(state, cluster)}


@pytest.mark.parametrize(
    ("statuses", "problem"),
    [
        (["deployed"], None),
        (["superseded", "deployed"], None),
        ([], "Helm has no such release"),
        (["failed"], "revision 1 is failed; run `up`"),
        (["deployed", "pending-upgrade"], "ops recover"),
    ],
)
def test_a_release_is_ready_when_helm_has_its_newest_revision_as_deployed(
    sample, fake_cluster, statuses, problem
):
    cluster = fake_cluster(*(sample.revision(status, i) for i, status in enumerate(statuses, start=1)))
    check = found(sample.state([sample.release()]), cluster)["Helm release cert-manager/cert-manager"]
    assert check.ready == (problem is None)
    assert problem is None or problem in check.problems[0]


def test_a_release_whose_chart_was_skipped_is_said_to_be(sample, fake_cluster):
    skipped = sample.release(outputs={"status": {"status": "skipped"}})
    (check,) = checks(sample.state([skipped]), fake_cluster())
    assert check.ready
    assert "skipped" in check.note


def test_operators_are_judged_by_the_workloads_that_their_release_installed(sample, fake_cluster):
    helm = {"app.kubernetes.io/managed-by": "Helm"}
    cluster = fake_cluster(
        sample.revision("deployed"),
        deployment("webhook", "cert-manager", available=0, labels=helm, annotations=OWNED),
        deployment("theirs", "cert-manager", available=0, labels=helm),
        pod("webhook-0", "cert-manager", "webhook"),
        pod("other-0", "cert-manager", "other"),
    )
    result = found(sample.state([sample.release()]), cluster)
    assert set(result) == {"Helm release cert-manager/cert-manager", "Deployment cert-manager/webhook"}
    problems = result["Deployment cert-manager/webhook"].problems
    assert "0 of 1 replicas available" in problems[0]
    assert problems[1] == "pod webhook-0 cannot be scheduled: 0/1 nodes are available"
    assert len(problems) == 2


def test_every_object_of_the_state_has_to_exist(sample, fake_cluster):
    here, gone = sample.object(name="here"), sample.object(name="gone")
    replaced = sample.object(name="replaced", delete=True)
    result = found(sample.state([here, gone, replaced]), fake_cluster(sample.live(here)))
    assert {name: check.ready for name, check in result.items()} == {
        "ConfigMap llm/here": True,
        "ConfigMap llm/gone": False,
    }


def test_a_model_is_judged_with_what_kserve_makes_for_it(sample, fake_cluster):
    entry = sample.object("kubernetes:serving.kserve.io/v1alpha2:LLMInferenceService", "qwen")
    model = {**sample.live(entry), "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    labels = {"app.kubernetes.io/part-of": "llminferenceservice", "app.kubernetes.io/name": "qwen"}
    pool = {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": "qwen-inference-pool", "namespace": "llm", "labels": labels},
    }
    cluster = fake_cluster(
        model,
        pool,
        deployment("qwen-kserve", "llm", available=0, labels=labels),
        deployment("qwen-kserve", "elsewhere", available=0, labels=labels),
        serving(pod("qwen-kserve-0", "llm", "qwen-kserve")),
    )
    patch = sample.object("kubernetes:apps/v1:DeploymentPatch", "qwen-kserve")
    listed = list(checks(sample.state([entry, patch]), cluster))
    result = {check.subject: check for check in listed}
    assert len(result) == len(listed), "nothing is listed twice"
    assert result["LLMInferenceService llm/qwen"].ready
    assert result["Deployment llm/qwen-kserve"].stage == "waiting for a node (step 1 of 6)"
    assert result["InferencePool llm/qwen-inference-pool"].problems == ("no gateway has looked at it yet",)
    assert "Deployment elsewhere/qwen-kserve" not in result


def test_a_replica_that_starts_is_told_by_its_stage_and_the_last_line_of_its_log(sample, fake_cluster):
    entry = sample.object("kubernetes:serving.kserve.io/v1alpha2:LLMInferenceService", "qwen")
    labels = {"app.kubernetes.io/part-of": "llminferenceservice", "app.kubernetes.io/name": "qwen"}
    starting = serving(pod("qwen-kserve-0", "llm", "qwen-kserve"))
    starting["spec"]["nodeName"] = "tpu-0"
    running = {"name": "main", "state": {"running": {"startedAt": "2026-01-01T12:00:00Z"}}, "ready": False}
    starting["status"] = {"phase": "Running", "containerStatuses": [running]}
    starting["log"] = [
        "Loading weights took 41.50 seconds",
        "Compiling the model with different input shapes.",
    ]
    parts = sample.live(entry), deployment("qwen-kserve", "llm", available=0, labels=labels), starting
    result = found(sample.state([entry]), fake_cluster(*parts))["Deployment llm/qwen-kserve"]
    assert result.stage == "compiling (step 5 of 6)"
    assert result.problems[1].startswith("pod qwen-kserve-0: compiling (")
    assert result.problems[1].endswith('; its log ends: "Compiling the model with different input shapes."')
