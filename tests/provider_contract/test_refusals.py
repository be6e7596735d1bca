"""What is refused on creation and on update, and what becomes of it in state."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pulumi_kubernetes as k8s
import pytest

from ops.kube import Manifest
from tests.provider_contract.conftest import Contract, Outcome, definition

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]


def config_map(name: str, namespace: str, **more: object) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        **more,
    }


def broken_webhook(contract: Contract, group: str) -> None:
    """A webhook for the group's objects at an address where nobody listens."""
    rule = {"apiGroups": [group], "apiVersions": ["*"], "resources": ["*"], "operations": ["CREATE"]}
    hook = {
        "name": f"hook.{group}",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
    }
    contract.kube.create({**configuration, "metadata": {"name": group}, "webhooks": [hook]})


@dataclass(frozen=True)
class Story:
    contract: Contract
    namespace: str
    foreseen: Outcome
    first: Outcome
    first_state: dict[str, Manifest]
    conflict: Outcome
    conflict_state: dict[str, Manifest]
    forced: Outcome

    def data(self, name: str) -> dict[str, str]:
        return self.contract.kube.get("v1", "ConfigMap", name, self.namespace)["data"]


@pytest.fixture(scope="module")
def story(contract: Contract) -> Story:
    stack, kube, namespace = contract.stack(), contract.kube, contract.namespace()
    hooked, late = f"hooked.{namespace}.example.com", f"late.{namespace}.example.com"
    kube.create(config_map("theirs", namespace, data={"k": "theirs"}))
    kube.create(definition(hooked))
    broken_webhook(contract, hooked)
    data, annotations = {"k": "1"}, {}

    def program():
        opts = contract.provider()
        meta = {"namespace": namespace}
        k8s.core.v1.ConfigMap("theirs", metadata={"name": "theirs", **meta}, data={"k": "ours"}, opts=opts)
        mutable = contract.provider("mutable", enable_config_map_mutable=True)
        contested = {"name": "contested", "annotations": annotations, **meta}
        k8s.core.v1.ConfigMap("contested", metadata=contested, data=data, opts=mutable)
        unclear = {"name": "unclear", "annotations": {"pulumi.com/waitFor": "{.data.k}=1"}, **meta}
        k8s.core.v1.ConfigMap("unclear", metadata=unclear, opts=opts)
        for name, group in (("hooked", hooked), ("late", late)):
            k8s.apiextensions.CustomResource(
                name, api_version=f"{group}/v1", kind="Widget", metadata={"name": name, **meta}, opts=opts
            )

    # The webhook is not asked in the preview of a kind that does not exist; of one that does, it is.
    foreseen = stack.preview(lambda: _without_hooked(contract, namespace, late))
    timer = threading.Timer(2, lambda: kube.create(definition(late)))
    timer.start()
    first, first_state = stack.up(program), stack.state()
    timer.join()
    kube.apply(config_map("contested", namespace, data={"k": "theirs"}), "somebody-else", force=True)
    data["k"] = "2"
    conflict, conflict_state = stack.up(program), stack.state()
    annotations["pulumi.com/patchForce"] = "true"
    return Story(
        contract, namespace, foreseen, first, first_state, conflict, conflict_state, stack.up(program)
    )


def _without_hooked(contract: Contract, namespace: str, group: str) -> None:
    opts = contract.provider()
    meta = {"namespace": namespace}
    k8s.core.v1.ConfigMap("theirs", metadata={"name": "theirs", **meta}, data={"k": "ours"}, opts=opts)
    k8s.apiextensions.CustomResource(
        "late", api_version=f"{group}/v1", kind="Widget", metadata={"name": "late", **meta}, opts=opts
    )


def test_a_preview_shows_creations_that_cannot_be_tried(story):
    assert story.foreseen.ok, story.foreseen.output
    assert story.foreseen.changed["theirs"] == story.foreseen.changed["late"] == ["create"]


def test_creating_what_already_exists_is_refused_and_leaves_it_alone(story):
    assert "already exists" in story.first.output and "use an alias" in story.first.output
    assert story.data("theirs") == {"k": "theirs"}
    assert "theirs" not in story.first_state


def test_a_custom_resource_may_come_a_little_before_its_definition(story):
    assert "late" in story.first_state


def test_a_webhook_that_refuses_connections_fails_the_creation_at_once(story):
    assert "failed calling webhook" in story.first.output
    assert "hooked" not in story.first_state


def test_an_unclear_wait_fails_after_the_creation_and_is_not_in_state(story):
    assert 'expected a "jsonpath=" or "condition=" prefix' in story.first.output
    assert story.contract.kube.get("v1", "ConfigMap", "unclear", story.namespace)
    assert "unclear" not in story.first_state


def test_a_field_of_another_manager_is_a_conflict_that_state_remembers(story):
    assert "conflict" in story.conflict.output and "somebody-else" in story.conflict.output
    assert story.conflict_state["contested"]["initErrors"]


def test_the_next_run_updates_what_was_in_conflict_and_force_wins(story):
    assert story.forced.changed["contested"] == ["update"]
    assert story.data("contested") == {"k": "2"}


def test_upsert_takes_an_existing_object(contract):
    stack, namespace = contract.stack(), contract.namespace()
    contract.kube.create(config_map("a", namespace))

    def program():
        opts = contract.provider(upsert_existing_objects=True)
        k8s.core.v1.ConfigMap("a", metadata={"name": "a", "namespace": namespace}, data={"k": "2"}, opts=opts)

    assert stack.up(program).ok
    assert contract.kube.get("v1", "ConfigMap", "a", namespace)["data"] == {"k": "2"}


def test_an_invalid_object_fails_in_the_preview_with_the_servers_words(contract):
    namespace = contract.namespace()

    def program():
        spec = {"ports": [{"port": 99999999}]}
        k8s.core.v1.Service(
            "bad", metadata={"name": "b", "namespace": namespace}, spec=spec, opts=contract.provider()
        )

    outcome = contract.stack().preview(program)
    assert not outcome.ok and "spec.ports[0].port" in outcome.output


def test_lists_and_nameless_patches_are_refused_in_the_preview(contract):
    def lists():
        k8s.core.v1.ConfigMapList("list", items=[], opts=contract.provider())

    def patches():
        k8s.core.v1.ConfigMapPatch("patch", data={"k": "v"}, opts=contract.provider())

    stack = contract.stack()
    assert "list resources" in stack.preview(lists).output.lower()
    assert "metadata.name" in stack.preview(patches).output
