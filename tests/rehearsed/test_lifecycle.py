"""The life of the dev stack: up, unchanged, changed, broken and mended, destroyed.

The tests of this module run in order on one embedded cluster; each starts from
where the one before left the stack.
"""

from __future__ import annotations

import pytest
import yaml

from rehearsal.node import images
from rehearsal.rehearsal import Rehearsal
from tests.rehearsed.conftest import MODELS, conditions, eventually
from tests.rehearsed.dev import MODEL, ROLLED, pods, serving, set_model

pytestmark = pytest.mark.rehearsed


def test_up_ends_with_the_model_ready_by_kserves_own_status(stack):
    # A rolling update keeps the old replica until the new one serves, so it needs a spare accelerator.
    stack.add_nodes()
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    ready = conditions(stack.model(MODEL))
    assert ready["Ready"] == ready["WorkloadsReady"] == ready["RouterReady"] == "True"
    (pod,) = pods(stack)
    assert conditions(pod)["Ready"] == "True"
    main = next(c for c in pod["spec"]["containers"] if c["name"] == "main")
    assert (
        main["resources"]["limits"]["nvidia.com/gpu"]
        == main["resources"]["requests"]["nvidia.com/gpu"]
        == "1"
    )
    assert pod["spec"]["nodeName"].startswith("l4-")


def test_a_second_preview_is_empty(stack):
    outcome = stack.run("preview", "--expect-no-changes")
    assert outcome.status == 0, outcome.output
    assert outcome.changed() == {}


def test_a_refresh_finds_no_drift(stack):
    outcome = stack.run("refresh", "--expect-no-changes")
    assert outcome.status == 0, outcome.output


def test_status_says_that_everything_is_ready(stack):
    answer = stack.ops("status", "--stack", "dev")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_a_changed_flag_changes_the_model_and_nothing_else(stack):
    set_model(stack, maxNumSeqs=32)
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    assert set(outcome.changed().values()) == {"update"}
    assert set(outcome.changed()) <= ROLLED and MODEL in outcome.changed()
    (pod,) = eventually(
        lambda: [p for p in pods(stack) if not p["metadata"].get("deletionTimestamp")], "one pod"
    )
    main = next(c for c in pod["spec"]["containers"] if c["name"] == "main")
    assert any("32" in argument for argument in main["args"])


def test_an_image_that_never_becomes_ready_fails_within_its_budget_and_keeps_the_old_replica(stack):
    before = serving(stack)
    stack.paths.faults.write_text(
        yaml.safe_dump(
            {"images": [{"match": "*:v0.0.0-broken", "at": "pull", "message": "manifest unknown"}]}
        )
    )
    known = next(name for name in images.IMAGES if name.endswith("vllm-openai"))
    set_model(stack, image=f"{known}:v0.0.0-broken", loadBudgetSeconds=30)
    outcome = stack.run("up")
    assert outcome.status != 0
    assert "manifest unknown" in outcome.output, outcome.output
    assert serving(stack) == before, "the old replica must keep serving"
    answer = stack.ops("status", "--stack", "dev")
    assert answer.returncode != 0 and "manifest unknown" in answer.stdout + answer.stderr


def test_the_previous_configuration_restores_everything_without_manual_work(stack):
    set_model(
        stack, image=None, loadBudgetSeconds=stack.committed[MODELS][MODEL].get("loadBudgetSeconds", 900)
    )
    stack.paths.faults.unlink()
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    assert stack.ops("status", "--stack", "dev").returncode == 0
    assert stack.run("preview", "--expect-no-changes").status == 0


def test_destroy_leaves_nothing_but_the_kept_crds(stack):
    stack.reset()
    outcome = stack.run("destroy")
    assert outcome.status == 0, outcome.output
    assert [r for r in stack.exported() if r["type"] != "pulumi:pulumi:Stack"] == []
    own = {"default", "kube-system", "kube-public", "kube-node-lease"}
    assert {n["metadata"]["name"] for n in stack.kube.list("v1", "Namespace")} == own
    for version, kind in (("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Service")):
        left = [o["metadata"]["name"] for o in stack.kube.list(version, kind)]
        assert left == (["kubernetes"] if kind == "Service" else [])
    groups = {
        c["spec"]["group"] for c in stack.kube.list("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    }
    kept = {"gateway.networking.k8s.io", "inference.networking.k8s.io", "inference.networking.x-k8s.io"}
    assert kept <= groups and "serving.kserve.io" not in groups


def test_down_ends_every_process_and_deletes_the_files(stack):
    rehearsal: Rehearsal = stack.rehearsal
    assert rehearsal.processes.names()
    assert rehearsal.down() == 0
    assert not stack.paths.root.exists()
    assert rehearsal.processes.stop_all() == []
