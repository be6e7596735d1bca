"""That the operator's tools find a model of either kind: its workload, its pods, and its engine in them."""

from __future__ import annotations

from typing import Any

import pytest

from components.core import labels
from components.core.services import LLM, PREDICTOR, ServiceKind
from ops.doctor.facts import ModelFacts, PodFacts
from ops.rollout.look import look, models
from ops.rollout.progress import HASH, REVISION
from ops.status import pods
from ops.status.look import checks

KINDS = pytest.mark.parametrize("kind", [LLM, PREDICTOR], ids=lambda kind: kind.kind)
MODEL, HOME = "qwen", "llm-models"


def service(kind: ServiceKind, **status: Any) -> dict[str, Any]:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": MODEL, "namespace": HOME, "generation": 4},
        "status": {**ready, **status},
    }


def made(kind: ServiceKind, ready: bool = True) -> list[dict[str, Any]]:
    """What KServe makes of it: a Deployment with one ReplicaSet and one pod."""
    carried = {**kind.parts(MODEL), **kind.pods(MODEL)}
    done = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": int(ready), "observedGeneration": 1}
    waiting = {"name": kind.engine, "state": {"waiting": {"reason": "ErrImagePull", "message": "unknown"}}}
    chips = {"limits": {"nvidia.com/gpu": "1"}}

    def item(api: str, thing: str, name: str, marks: dict[str, str], **body: Any) -> dict[str, Any]:
        meta = {
            "name": name,
            "namespace": HOME,
            "labels": marks,
            "annotations": {REVISION: "1"},
            "generation": 1,
        }
        return {"apiVersion": api, "kind": thing, "metadata": meta, **body}

    spec = {"replicas": 1, "selector": {"matchLabels": kind.pods(MODEL)}}
    status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    return [
        item("apps/v1", "Deployment", kind.workload(MODEL), carried, spec=spec, status=done),
        item("apps/v1", "ReplicaSet", "set", {**carried, HASH: "new"}, spec={}),
        item(
            "v1",
            "Pod",
            "pod",
            {**carried, HASH: "new"},
            spec={"nodeName": "node", "containers": [{"name": kind.engine, "resources": chips}]},
            status=status if ready else {**status, "containerStatuses": [waiting]},
        ),
    ]


def stack(sample: Any, kind: ServiceKind) -> Any:
    meta = {"metadata": {"name": MODEL, "namespace": HOME}}
    return sample.state([sample.object(f"kubernetes:{kind.api_version}:{kind.kind}", MODEL, inputs=meta)])


@KINDS
def test_status_looks_into_what_kserve_makes(sample: Any, fake_cluster: Any, kind: ServiceKind) -> None:
    cluster = fake_cluster(service(kind), *made(kind, ready=False))
    found = {check.subject: check for check in checks(stack(sample, kind), cluster)}
    told = found[f"Deployment {HOME}/{kind.workload(MODEL)}"]
    assert any(f"{kind.engine} waits: ErrImagePull" in text for text in told.problems), told.problems
    assert told.stage.startswith("fetching the image")


@KINDS
def test_a_rollout_is_followed_on_its_deployment(sample: Any, fake_cluster: Any, kind: ServiceKind) -> None:
    (model,) = models(stack(sample, kind)).values()
    cluster = fake_cluster(service(kind, observedGeneration=4), *made(kind))
    assert look(cluster, model).done


def test_what_an_inference_service_calls_observed_are_generations_of_its_deployment(
    sample: Any, fake_cluster: Any
) -> None:
    done = {}
    for kind in (LLM, PREDICTOR):
        (model,) = models(stack(sample, kind)).values()
        done[kind.kind] = look(fake_cluster(service(kind, observedGeneration=1), *made(kind)), model).done
    assert done == {LLM.kind: False, PREDICTOR.kind: True}


@KINDS
def test_the_engine_is_known_by_the_container_of_its_kind(kind: ServiceKind) -> None:
    *_, pod = made(kind)
    pod["spec"]["containers"].insert(0, {"name": "modelcar"})
    assert pods.engine(pod) == PodFacts(live=pod).main == kind.engine


def test_the_doctor_reads_what_is_wanted_where_each_kind_says_it() -> None:
    selector = {"gpu": "l4"}
    one = {"replicas": 2, "model": {"uri": "hf://a/b"}, "template": {"nodeSelector": selector}}
    other = {"minReplicas": 2, "nodeSelector": selector, "model": {"storageUri": "hf://a/b"}}
    for kind, spec in ((LLM, one), (PREDICTOR, {"predictor": other})):
        facts = ModelFacts(name=MODEL, namespace=HOME, live={"spec": spec}, kind=kind)
        assert (facts.replicas, facts.uri, facts.selector, facts.routing) == (2, "hf://a/b", selector, "none")


def test_only_pods_of_the_model_are_its_pods() -> None:
    # Of two models in one namespace none is found with the other, whatever the kinds.
    selected = [kind.pods(name) for kind in (LLM, PREDICTOR) for name in ("a", "b")]
    assert len({tuple(sorted(wanted.items())) for wanted in selected}) == 4
    assert all(wanted != labels.model_picker("a") for wanted in selected)
