"""Edits of an exported state."""

from __future__ import annotations

import copy

from ops.recover.edits import Adopt, Clear, EditState, Forget, Retry
from ops.state import Resource


def edited(exported, *edits):
    before = copy.deepcopy(exported)
    changed = EditState(tuple(edits)).apply(exported)
    assert exported == before, "what was judged must not change"
    assert "pending_operations" not in changed["deployment"]
    return changed["deployment"]["resources"]


def test_an_adopted_object_is_recorded_as_one_that_is_not_ready_yet(sample):
    entry = sample.object(parent="urn:parent", dependencies=["urn:a"], provider="urn:p::id")
    (adopted,) = edited(sample.exported([], [("creating", entry)]), Adopt(Resource(entry), "llm/web"))
    assert adopted["id"] == "llm/web"
    assert adopted["initErrors"]
    assert (adopted["parent"], adopted["dependencies"], adopted["provider"]) == (
        "urn:parent",
        ["urn:a"],
        "urn:p::id",
    )
    assert adopted["outputs"]["metadata"]["name"] == "web"
    assert adopted["outputs"]["__inputs"] == entry["inputs"]
    assert adopted["outputs"]["__initialApiVersion"] == "v1"


def test_secrets_of_an_adopted_object_stay_encrypted(sample):
    entry = sample.object("kubernetes:core/v1:Secret", inputs={"data": {"token": sample.secret}})
    (adopted,) = edited(sample.exported([]), Adopt(Resource(entry), "llm/web"))
    assert adopted["outputs"]["data"]["token"] == sample.secret
    assert adopted["outputs"]["__inputs"]["data"]["token"] == sample.secret


def test_an_adopted_patch_keeps_its_field_manager(sample):
    entry = sample.object("kubernetes:apps/v1:DeploymentPatch")
    adopt = Adopt(Resource(entry), "llm/web", "pulumi-kubernetes-aa")
    assert edited(sample.exported([]), adopt)[0]["outputs"]["__fieldManager"] == "pulumi-kubernetes-aa"


def test_an_adopted_release_has_the_outputs_that_an_upgrade_reads(sample):
    entry = sample.release()
    (adopted,) = edited(sample.exported([]), Adopt(Resource(entry), "cert-manager/cert-manager"))
    assert adopted["outputs"] == entry["inputs"]


def test_a_replacement_takes_the_place_of_what_was_deleted_first(sample):
    before, after = sample.object(name="first"), sample.object(name="last")
    gone = {**sample.object(), "id": "llm/web", "pendingReplacement": True}
    entry = sample.object(inputs={"data": {"new": "1"}})
    resources = edited(sample.exported([before, gone, after]), Adopt(Resource(entry), "llm/web"))
    assert [r["urn"].rsplit("::", 1)[-1] for r in resources] == ["first", "web", "last"]
    assert resources[1]["inputs"]["data"] == {"new": "1"}
    assert "pendingReplacement" not in resources[1]


def test_what_a_finished_replacement_replaces_is_left_to_be_deleted(sample):
    old = {**sample.object(), "id": "llm/old"}
    resources = edited(sample.exported([old]), Adopt(Resource(sample.object()), "llm/web"))
    assert [(r["id"], r.get("delete", False)) for r in resources] == [("llm/web", False), ("llm/old", True)]


def test_an_update_is_repeated_even_if_the_inputs_are_what_they_were(sample):
    entry = sample.object(id="llm/web")
    (retried,) = edited(sample.exported([entry]), Retry(Resource(entry)))
    assert retried["initErrors"]
    assert {k: v for k, v in retried.items() if k != "initErrors"} == entry


def test_reasons_why_something_was_not_ready_are_kept(sample):
    entry = sample.object(initErrors=["pod web-0: ImagePullBackOff"])
    assert edited(sample.exported([entry]), Retry(Resource(entry)))[0]["initErrors"] == entry["initErrors"]


def test_a_cloud_resource_is_read_again_before_the_next_update(sample):
    entry = sample.resource("gcp:container/cluster:Cluster", "cluster", id="c")
    (retried,) = edited(sample.exported([entry]), Retry(Resource(entry), reread=True))
    assert retried["refreshBeforeUpdate"] is True
    assert "initErrors" not in retried


def test_a_resource_that_is_gone_leaves_no_reference_behind(sample):
    gone = sample.object(name="gone", parent="urn:stack")
    urn = gone["urn"]
    user = sample.object(
        parent=urn,
        dependencies=["urn:a", urn],
        propertyDependencies={"spec": [urn, "urn:a"], "data": None},
        deletedWith=urn,
        replaceWith=[urn],
    )
    (left,) = edited(sample.exported([gone, user]), Forget(Resource(gone)))
    assert urn not in str({k: v for k, v in left.items() if k != "urn"})
    assert (left["parent"], left["dependencies"]) == ("urn:stack", ["urn:a"])
    assert left["propertyDependencies"]["spec"] == ["urn:a"]


def test_forgetting_a_replaced_resource_keeps_its_successor(sample):
    new, old = {**sample.object(), "id": "llm/new"}, {**sample.object(), "id": "llm/old", "delete": True}
    user = sample.object(name="user", dependencies=[new["urn"]])
    resources = edited(sample.exported([new, user, old]), Forget(Resource(old)))
    assert [r["urn"] for r in resources] == [new["urn"], user["urn"]]
    assert resources[1]["dependencies"] == [new["urn"]]


def test_dropping_an_operation_changes_nothing_else(sample):
    entry, other = sample.object(), sample.object(name="other")
    assert edited(sample.exported([other], [("creating", entry)]), Clear(Resource(entry))) == [other]
