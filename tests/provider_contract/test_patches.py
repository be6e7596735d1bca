"""Patch resources: they share objects field by field, with a field manager of their own."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
import pytest

from ops.kube import Manifest
from tests.provider_contract.conftest import Contract, Kubelet, Outcome, definition, deployment

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]


@dataclass(frozen=True)
class Story:
    foreseen: Outcome
    applied: Outcome
    namespace: Manifest
    missing: Manifest
    crd: Manifest
    state: dict[str, Manifest]
    unchanged: Outcome
    gone: Outcome
    namespace_after: Manifest
    seconds_key: str | None


@pytest.fixture(scope="module")
def story(contract: Contract) -> Story:
    stack, kube, namespace = contract.stack(), contract.kube, contract.namespace()
    group = f"{namespace}.example.com"
    shared, foreign = definition(group), definition(group, "Gadget")
    kube.apply(
        {**foreign, "metadata": {**foreign["metadata"], "labels": {"theirs": "yes"}}}, "other-installer"
    )
    labelled = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {"theirs": "yes"}},
    }
    kube.apply(labelled, "somebody-else")
    wait = {"pulumi.com/waitFor": "jsonpath={.data.never}"}
    waiting = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "waiting", "namespace": namespace, "annotations": wait},
    }
    kube.create(waiting)

    def program():
        opts = contract.provider()
        k8s.core.v1.NamespacePatch("ours", metadata={"name": namespace, "labels": {"ours": "yes"}}, opts=opts)
        stolen = {"name": namespace, "labels": {"theirs": "no"}}
        k8s.core.v1.NamespacePatch("stolen", metadata=stolen, opts=opts)
        missing = {"name": "missing", "namespace": namespace}
        kept = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(retain_on_delete=True))
        k8s.core.v1.ConfigMapPatch("missing", metadata=missing, data={"k": "v"}, opts=kept)
        for name, crd in (("shared", shared), ("foreign", foreign)):
            spec = {**crd["spec"], "versions": [_typed(crd)]}
            meta = {"name": crd["metadata"]["name"]}
            k8s.apiextensions.v1.CustomResourceDefinitionPatch(name, metadata=meta, spec=spec, opts=kept)
        brief = pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="1s"))
        )
        waiting = {"name": "waiting", "namespace": namespace, "labels": {"l": "x"}}
        k8s.core.v1.ConfigMapPatch("waiting", metadata=waiting, opts=brief)

    foreseen, applied, state = stack.preview(program), stack.up(program), stack.state()
    found = [
        kube.get("v1", "Namespace", namespace),
        kube.get("v1", "ConfigMap", "missing", namespace),
        kube.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", foreign["metadata"]["name"]),
    ]
    unchanged, gone = stack.preview(program), stack.destroy()
    kept = kube.get("v1", "ConfigMap", "missing", namespace)
    return Story(
        foreseen, applied, *found, state, unchanged, gone, kube.get("v1", "Namespace", namespace), (kept or {}).get("data")
    )  # fmt: skip


def _typed(crd: Manifest) -> Manifest:
    schema = {"type": "object", "x_kubernetes_preserve_unknown_fields": True}
    return {**crd["spec"]["versions"][0], "schema": {"open_apiv3_schema": schema}}


def test_a_preview_does_not_try_patches(story):
    assert story.foreseen.ok, story.foreseen.output


def test_a_patch_adds_its_fields_and_leaves_those_of_others(story):
    labels = story.namespace["metadata"]["labels"]
    assert labels["ours"] == "yes" and labels["theirs"] == "yes"


def test_a_patch_of_a_field_of_another_manager_is_a_conflict_and_not_in_state(story):
    assert "conflict" in story.applied.output and "somebody-else" in story.applied.output
    assert "stolen" not in story.state


def test_a_patch_creates_what_is_missing(story):
    assert story.missing["data"] == {"k": "v"}
    assert "shared" in story.state


def test_a_definition_that_another_installer_owns_is_shared_while_it_is_the_same(story):
    assert "foreign" in story.state and not story.state["foreign"].get("initErrors")
    managers = {f["manager"] for f in story.crd["metadata"]["managedFields"]}
    assert "other-installer" in managers and len(managers) > 1
    assert story.crd["metadata"]["labels"] == {"theirs": "yes"}


def test_a_wait_that_another_manager_annotated_counts_too(story):
    assert story.state["waiting"]["initErrors"]


def test_deleting_a_patch_gives_up_its_fields_only(story):
    labels = story.namespace_after["metadata"]["labels"]
    assert story.gone.ok, story.gone.output
    assert "ours" not in labels and labels["theirs"] == "yes"
    assert story.seconds_key == {"k": "v"}


def test_a_patch_of_a_deployment_waits_for_its_rollout(contract):
    stack, kube, namespace = contract.stack(), contract.kube, contract.namespace()
    meta = {"name": "d", "namespace": namespace}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": deployment({"app": "x"}),
    }
    kube.create(manifest)

    def program():
        brief = pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="2s"))
        opts = pulumi.ResourceOptions.merge(contract.provider(), brief)
        k8s.apps.v1.DeploymentPatch("rollout", metadata={**meta, "labels": {"seen": "1"}}, opts=opts)

    waited = stack.up(program)
    assert not waited.ok and "'d' timed out waiting to be Ready" in waited.output
    with Kubelet(kube, namespace):
        assert stack.up(program).changed == {"rollout": ["update"]}
    assert not stack.state()["rollout"].get("initErrors")
