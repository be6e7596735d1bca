"""What `recover` makes of a state and a cluster; no engine and no cluster needed."""

from __future__ import annotations

import pytest

from ops.helm import Revision
from ops.recover.edits import Adopt, Clear, EditState, Forget, Retry
from ops.recover.facts import Facts
from ops.recover.findings import find, find_locks, find_orphans, plan
from ops.recover.locks import Lock
from ops.recover.rules import DeleteRevision, ReleaseLock, Uninstall

NOW = "2026-01-01T00:00:00Z"


def judge(sample, operation, entry, live, resources=(), **facts):
    """The one finding about a pending operation on `entry`, whose live object is `live`."""
    state = sample.state(list(resources), [(operation, entry)])
    known = Facts(objects={state.pending[0].resource.object: live}, **facts)
    (finding,) = find(state, known)
    return finding


def types(actions):
    return [type(action) for action in actions]


@pytest.mark.parametrize(
    ("operation", "presence", "action", "decided_by_people"),
    [
        ("creating", "absent", Clear, False),
        ("creating", "ours", Adopt, False),
        ("creating", "foreign", Clear, True),
        ("creating", "leaving", Clear, True),
        ("updating", "absent", Forget, False),
        ("updating", "ours", Retry, False),
        ("updating", "foreign", Retry, False),
        ("updating", "leaving", Clear, True),
        ("deleting", "absent", Forget, False),
        ("deleting", "ours", Clear, False),
        ("deleting", "leaving", Clear, True),
        ("reading", "ours", Clear, False),
        ("importing", "absent", Clear, False),
    ],
)
def test_every_interrupted_operation_on_an_object_has_one_answer(
    sample, operation, presence, action, decided_by_people
):
    entry = sample.object()
    live = {
        "absent": None,
        "ours": sample.live(entry),
        "foreign": sample.live(entry, manager="kubectl"),
        "leaving": sample.live(entry, deletionTimestamp=NOW),
    }[presence]
    finding = judge(sample, operation, entry, live)
    assert types(finding.actions) == [action]
    assert bool(finding.decide) == decided_by_people
    # The record of what is still to be done must survive until the object is gone.
    assert finding.blocks == (presence == "leaving")


@pytest.mark.parametrize(
    "labels",
    [{"llmp.dev/stack": "tpu", "app.kubernetes.io/name": "web"}, {"llmp.dev/stack": "dev"}, {}, None],
)
def test_an_object_with_other_labels_than_asked_for_is_not_adopted(sample, labels):
    entry = sample.object()
    finding = judge(sample, "creating", entry, sample.live(entry, labels=labels))
    assert types(finding.actions) == [Clear]
    assert "AlreadyExists" in finding.decide


@pytest.mark.parametrize(
    ("created", "adopted"), [("2026-01-01T11:59:59Z", False), ("2026-01-01T12:00:00Z", True)]
)
def test_an_object_older_than_what_its_creation_waited_for_is_not_adopted(sample, created, adopted):
    rested_on = sample.object(name="before", created="2026-01-01T12:00:29.123456789Z")
    entry = sample.object(dependencies=[rested_on["urn"]])
    finding = judge(sample, "creating", entry, sample.live(entry, creationTimestamp=created), [rested_on])
    assert types(finding.actions) == [Adopt if adopted else Clear]
    assert bool(finding.decide) != adopted


def test_an_object_that_the_state_holds_already_is_not_recorded_twice(sample):
    entry = sample.object()
    old = sample.resource(entry["type"], "before", entry["inputs"])
    assert types(judge(sample, "creating", entry, sample.live(entry), [old]).actions) == [Clear]


def test_an_object_created_in_place_of_one_that_was_deleted_first_is_adopted(sample):
    entry = sample.object()
    deleted = {**entry, "id": "llm/web", "pendingReplacement": True}
    assert types(judge(sample, "creating", entry, sample.live(entry), [deleted]).actions) == [Adopt]


def patched(manager, fields, time=NOW, operation="Apply"):
    return {"manager": manager, "operation": operation, "time": time, "fieldsV1": fields}


REVISION = {"f:metadata": {"f:annotations": {"f:llmp.dev/revision": {}}}}


@pytest.mark.parametrize(
    ("managed", "manager"),
    [
        ([patched("pulumi-kubernetes-aa", REVISION)], "pulumi-kubernetes-aa"),
        (
            [patched("pulumi-kubernetes-aa", REVISION), patched("pulumi-kubernetes-bb", {})],
            "pulumi-kubernetes-aa",
        ),
        (
            [
                patched("pulumi-kubernetes-aa", REVISION, "2026-01-01T00:00:00Z"),
                patched("pulumi-kubernetes-bb", REVISION, "2026-01-02T00:00:00Z"),
            ],
            "pulumi-kubernetes-bb",
        ),
        ([patched("pulumi-kubernetes-taken", REVISION)], ""),
        ([patched("kubectl", REVISION)], ""),
        ([patched("pulumi-kubernetes-aa", REVISION, operation="Update")], ""),
        ([], ""),
    ],
)
def test_a_patch_is_continued_under_the_field_manager_that_applied_it(sample, managed, manager):
    annotations = {"annotations": {"llmp.dev/revision": "1"}}
    entry = sample.object("kubernetes:apps/v1:DeploymentPatch")
    entry["inputs"]["metadata"] = {"name": "web", "namespace": "llm", **annotations}
    other = sample.object(name="other", outputs={"__fieldManager": "pulumi-kubernetes-taken"})
    live = sample.live(entry, managedFields=managed)
    (action,) = judge(sample, "creating", entry, live, [other]).actions
    assert (type(action), getattr(action, "field_manager", "")) == ((Adopt if manager else Clear), manager)


def revision(version=1, status="deployed", chart="cert-manager"):
    return Revision(version, status, chart, "v1.21.1", f"sh.helm.release.v1.cert-manager.v{version}")


PENDING_UPGRADE = (revision(1), revision(2, "pending-upgrade"))


@pytest.mark.parametrize(
    ("operation", "revisions", "actions"),
    [
        ("creating", (), [Clear]),
        ("creating", (revision(),), [Adopt]),
        ("creating", (revision(status="failed"),), [Adopt]),
        ("creating", (revision(status="pending-install"),), [DeleteRevision, Clear]),
        ("creating", (revision(status="uninstalling"),), [Uninstall, Clear]),
        ("updating", (), [Forget]),
        ("updating", (revision(),), [Retry]),
        ("updating", PENDING_UPGRADE, [DeleteRevision, Retry]),
        ("updating", (revision(1), revision(2, "pending-rollback")), [DeleteRevision, Retry]),
        ("deleting", (), [Forget]),
        ("deleting", (revision(),), [Clear]),
        ("deleting", (revision(status="uninstalling"),), [Uninstall, Forget]),
    ],
)
def test_every_interrupted_operation_on_a_release_has_one_answer(sample, operation, revisions, actions):
    entry = sample.release()
    state = sample.state([] if operation == "creating" else [entry], [(operation, entry)])
    (finding,) = find(state, Facts(releases={("cert-manager", "cert-manager"): revisions}))
    assert types(finding.actions) == actions
    assert not finding.decide


@pytest.mark.parametrize(
    ("revisions", "actions"),
    [
        ((), None),
        ((revision(),), None),
        ((revision(status="failed"),), None),
        (PENDING_UPGRADE, [DeleteRevision, Retry]),
        ((revision(status="pending-install"),), [Uninstall, Forget]),
        ((revision(status="uninstalling"),), [Uninstall, Forget]),
    ],
)
def test_a_pending_release_of_the_stack_is_found_without_a_pending_operation(sample, revisions, actions):
    state = sample.state([sample.release()])
    found = find(state, Facts(releases={("cert-manager", "cert-manager"): revisions}))
    assert [types(finding.actions) for finding in found] == ([actions] if actions else [])


def test_only_the_unfinished_revision_of_an_upgrade_is_deleted(sample):
    state = sample.state([sample.release()])
    (finding,) = find(state, Facts(releases={("cert-manager", "cert-manager"): PENDING_UPGRADE}))
    assert finding.actions[0] == DeleteRevision("cert-manager", "sh.helm.release.v1.cert-manager.v2")


@pytest.mark.parametrize(
    "revisions",
    [
        (revision(chart="other"),),
        (revision(2),),
        (revision(1), revision(2)),
        (revision(1, "pending-install", "other"),),
    ],
)
def test_a_release_that_the_interrupted_installation_cannot_have_made_is_left_alone(sample, revisions):
    state = sample.state([], [("creating", sample.release())])
    (finding,) = find(state, Facts(releases={("cert-manager", "cert-manager"): revisions}))
    assert types(finding.actions) == [Clear]
    assert "helm uninstall" in finding.decide


@pytest.mark.parametrize(
    "chart", ["cert-manager", "oci://quay.io/charts/cert-manager", "/a/cert-manager-v1.21.1.tgz"]
)
def test_a_release_is_recognised_however_its_chart_is_named(sample, chart):
    state = sample.state([], [("creating", sample.release(chart=chart))])
    (finding,) = find(state, Facts(releases={("cert-manager", "cert-manager"): (revision(),)}))
    assert types(finding.actions) == [Adopt]


def test_what_exists_in_the_state_only_is_repeated(sample):
    password = sample.resource("random:index/randomPassword:RandomPassword", "salt")
    component = sample.resource("llmp:index:Platform", "platform", custom=False)
    state = sample.state([], [("creating", password), ("creating", component)])
    assert [types(f.actions) for f in find(state, Facts())] == [[Clear], [Clear]]


def test_nothing_is_done_while_a_cloud_resource_may_or_may_not_exist(sample):
    cluster = sample.resource("gcp:container/cluster:Cluster", "cluster")
    password = sample.resource("random:index/randomPassword:RandomPassword", "salt")
    state = sample.state([], [("creating", cluster), ("creating", password)])
    found = find(state, Facts())
    assert cluster["urn"] in found[0].decide
    assert plan(found) == []


@pytest.mark.parametrize(("decision", "action"), [("projects/p/clusters/c", Adopt), (None, Clear)])
def test_a_decision_about_a_cloud_resource_is_followed(sample, decision, action):
    cluster = sample.resource("gcp:container/cluster:Cluster", "cluster")
    state = sample.state([], [("creating", cluster)])
    (finding,) = find(state, Facts(), {cluster["urn"]: decision})
    assert types(finding.actions) == [action]
    assert not finding.decide


def test_of_two_crashes_on_one_resource_the_last_counts(sample):
    first, second = sample.object(inputs={"data": {"a": "1"}}), sample.object(inputs={"data": {"a": "2"}})
    state = sample.state([], [("creating", first), ("creating", second)])
    assert [op.resource.inputs["data"]["a"] for op in state.pending] == ["2"]


def test_the_state_is_written_last_and_once(sample):
    release, web, old = sample.release(), sample.object(), sample.object(name="old")
    state = sample.state([release, old], [("creating", web), ("deleting", old)])
    facts = Facts(
        objects={op.resource.object: None for op in state.pending},
        releases={("cert-manager", "cert-manager"): PENDING_UPGRADE},
    )
    lock = Lock("file", "me", "here", 1, NOW, stale=True)
    actions = plan([*find(state, facts), *find_locks([lock], "dev")])
    assert types(actions) == [ReleaseLock, DeleteRevision, EditState]
    assert types(actions[-1].edits) == [Clear, Forget, Retry]


def test_a_lock_that_may_be_in_use_forbids_everything(sample):
    stale, held = Lock("a", "me", "here", 1, NOW, stale=True), Lock("b", "you", "there", 2, NOW)
    found = find_locks([stale, held], "dev")
    assert types(plan(found)) == [ReleaseLock]
    assert "pulumi cancel --stack dev" in found[1].decide
    assert "you@there" in found[1].subject
    state = sample.state([], [("creating", sample.resource("random:index/x:X", "x"))])
    assert not any(isinstance(a, EditState) for a in plan([*found, *find(state, Facts())]))


def test_a_provider_that_outlived_its_engine_forbids_everything():
    (finding,) = find_orphans([42])
    assert finding.blocks
    assert "kill 42" in finding.decide


def test_what_did_not_become_ready_is_reported_and_left_to_the_next_update(sample):
    state = sample.state([sample.object(initErrors=["Deployment is not ready\nmore"])])
    (finding,) = find(state, Facts())
    assert (finding.actions, finding.decide) == ((), "")
    assert "Deployment is not ready" in finding.found
    assert "more" not in finding.found


def test_objects_with_the_stack_label_that_the_state_does_not_know_are_only_listed(sample):
    entry = sample.object()
    stray = sample.operation("creating", entry).resource.object
    (finding,) = find(sample.state([]), Facts(strays=(stray,)))
    assert (finding.subject, finding.actions, finding.decide) == ("ConfigMap llm/web", (), "")
