"""The life of objects: named, created, compared, changed, replaced and deleted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import SimpleNamespace

import pulumi
import pulumi_kubernetes as k8s
import pytest

from ops.kube import Manifest
from tests.provider_contract.conftest import Contract, Outcome, definition, deployment

pytestmark = pytest.mark.rehearsed

SKIP = {"pulumi.com/skipAwait": "true"}
BACKGROUND = {"pulumi.com/deletionPropagationPolicy": "background"}
SECOND = {
    "role": "b", "command": ["b"], "label": "b", "type": "example.com/b", "image": "x:2", "data": {"k": "2"}, "finalizer": True,
}  # fmt: skip
FIRST = {
    "role": "a", "command": ["a"], "label": "a", "type": "Opaque", "image": "x:1", "data": {"k": "1", "gone": "x"}, "finalizer": True,
}  # fmt: skip


class Program:
    """Objects that each stand for a rule, with the properties that change in `v`."""

    def __init__(self, contract: Contract, namespace: str):
        self._contract, self._namespace = contract, namespace
        self.v = SimpleNamespace(**FIRST)

    def _meta(self, name: str, **more: object) -> Manifest:
        return {"name": name, "namespace": self._namespace, **more}

    def __call__(self) -> None:
        opts = self._contract.provider()
        self._rewritten(opts)
        self._replaced(opts)
        self._config_maps(opts)
        if self.v.finalizer:
            brief = pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(delete="1s"))
            held = pulumi.ResourceOptions.merge(opts, brief)
            k8s.core.v1.ConfigMap(
                "held", metadata=self._meta("held", finalizers=["example.com/hold"]), opts=held
            )

    def _rewritten(self, opts: pulumi.ResourceOptions) -> None:
        """In spellings that the API server rewrites: quantities, empty values, string data, numbers."""
        labels = {"app": "x"}
        container = {
            "stdin": False,
            "env": [{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}],
            "resources": {
                "requests": {"cpu": "0.5", "memory": "1024Mi"},
                "limits": {"cpu": 2, "nvidia.com/gpu": 1},
            },
            "securityContext": {"allowPrivilegeEscalation": False},
        }
        volume = {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "2048Mi"}}
        spec = deployment(labels, 0, hostNetwork=False, volumes=[volume], container=container)
        k8s.apps.v1.Deployment("deployment", metadata=self._meta("d"), spec=spec, opts=opts)
        service = {"clusterIP": "None", "ports": [{"port": 80}], "selector": labels}
        k8s.core.v1.Service("service", metadata=self._meta("svc"), spec=service, opts=opts)
        policy = {"podSelector": {}, "ingress": []}
        k8s.networking.v1.NetworkPolicy("policy", metadata=self._meta("np"), spec=policy, opts=opts)
        group = f"{self._namespace}.example.com"
        schema = {"type": "object", "x_kubernetes_preserve_unknown_fields": True}
        spec = definition(group)["spec"]
        spec["versions"][0]["schema"] = {"open_apiv3_schema": schema}
        name = {"name": f"widgets.{group}"}
        crd = k8s.apiextensions.v1.CustomResourceDefinition("crd", metadata=name, spec=spec, opts=opts)
        after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[crd]))
        k8s.apiextensions.CustomResource(
            "widget", api_version=f"{group}/v1", kind="Widget", metadata=self._meta("w", annotations=BACKGROUND),
            spec={"size": 3, "ratio": 0.5, "empty": "", "list": [1, {"a": "b"}]}, opts=after,
        )  # fmt: skip

    def _replaced(self, opts: pulumi.ResourceOptions) -> None:
        v, meta = self.v, self._meta
        container = {"name": "main", "image": "x:1", "command": v.command}
        job = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}, "suspend": True}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": v.role}
        k8s.rbac.v1.RoleBinding("binding", metadata=meta("b"), role_ref=role, opts=opts)
        k8s.batch.v1.Job("job", metadata=meta("j", annotations=SKIP), spec=job, opts=opts)
        k8s.core.v1.Secret("typed", metadata=meta("t"), type=v.type, opts=opts)
        k8s.core.v1.ConfigMap("moved", metadata=meta(f"moved-{v.label}"), opts=opts)
        k8s.core.v1.ServiceAccount("account", metadata=meta("a", labels={"l": v.label}), opts=opts)

    def _config_maps(self, opts: pulumi.ResourceOptions) -> None:
        v, meta = self.v, self._meta
        auto = k8s.core.v1.ConfigMap("auto", metadata={"namespace": self._namespace}, data=v.data, opts=opts)
        k8s.core.v1.ConfigMap("named", metadata=meta("named"), data=v.data, opts=opts)
        mutable = self._contract.provider("mutable", enable_config_map_mutable=True)
        k8s.core.v1.ConfigMap("mutable-data", metadata=meta("mutable"), data=v.data, opts=mutable)
        hidden = {"open": "seen", "closed": pulumi.Output.secret("hush-hush")}
        k8s.core.v1.ConfigMap("hiding", metadata=meta("hiding"), data=hidden, opts=opts)
        secret = k8s.core.v1.Secret("secret", metadata=meta("s"), string_data={"p": "also-hush"}, opts=opts)
        scaled = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(ignore_changes=["spec.replicas"]))
        spec = deployment({"app": "scaled"}, image=v.image)
        k8s.apps.v1.Deployment("scaled", metadata=meta("scaled", annotations=SKIP), spec=spec, opts=scaled)
        pulumi.export("auto", auto.metadata.name)
        pulumi.export("data", secret.data)


@dataclass(frozen=True)
class Story:
    contract: Contract
    namespace: str
    created: Outcome
    encrypted: str
    unchanged: Outcome
    refreshed: Outcome
    after_refresh: Outcome
    foreseen: Outcome
    uid: str
    changed: Outcome
    held: Outcome
    held_in_state: bool
    freed: Outcome
    state: dict[str, Manifest]

    def get(self, kind: str, name: str, api_version: str = "v1") -> Manifest | None:
        return self.contract.kube.get(api_version, kind, name, self.namespace)


@pytest.fixture(scope="module")
def story(contract: Contract) -> Story:
    stack, kube, namespace = contract.stack(), contract.kube, contract.namespace()
    program = Program(contract, namespace)
    created = stack.up(program)
    assert created.ok, created.output
    encrypted = stack.state_text()
    unchanged, refreshed, after_refresh = stack.preview(program), stack.refresh(), stack.preview(program)
    uid = kube.get("v1", "ConfigMap", "mutable", namespace)["metadata"]["uid"]
    program.v = SimpleNamespace(**SECOND)
    foreseen = stack.preview(program)
    scale = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "scaled", "namespace": namespace},
    }
    kube.apply({**scale, "spec": {"replicas": 3}}, "autoscaler", force=True)
    changed = stack.up(program)
    assert changed.ok, changed.output
    program.v.finalizer = False
    kube.delete("networking.k8s.io/v1", "NetworkPolicy", "np", namespace)
    held = stack.up(program)
    held_in_state = "held" in stack.state()
    kube.patch("v1", "ConfigMap", "held", namespace, {"metadata": {"finalizers": None}})
    freed = stack.destroy()
    return Story(
        contract, namespace, created, encrypted, unchanged, refreshed, after_refresh, foreseen, uid, changed, held,
        held_in_state, freed, stack.state(),
    )  # fmt: skip


def test_an_unchanged_program_previews_as_unchanged_before_and_after_a_refresh(story):
    assert story.unchanged.changed == {}
    assert story.refreshed.changed == {}
    assert story.after_refresh.changed == {}


def test_autonames_come_from_the_resource_stay_and_are_new_for_a_replacement(story):
    first, second = story.created.outputs["auto"], story.changed.outputs["auto"]
    assert re.fullmatch(r"auto-[0-9a-f]{8}", first) and re.fullmatch(r"auto-[0-9a-f]{8}", second)
    assert first != second
    ops = story.changed.steps["auto"]
    assert ops.index("create-replacement") < ops.index("delete-replaced")


def test_data_of_a_named_config_map_replaces_it_old_one_first(story):
    ops = story.changed.steps["named"]
    assert ops.index("delete-replaced") < ops.index("create-replacement")


def test_data_of_a_mutable_config_map_is_updated_in_place(story):
    assert story.foreseen.changed["mutable-data"] == ["update"]
    assert story.changed.steps["mutable-data"] == ["update"]


def test_immutable_properties_replace_and_others_update(story):
    replaced = {name for name, ops in story.foreseen.changed.items() if "replace" in ops}
    assert replaced == {"binding", "job", "typed", "moved", "auto", "named"}
    assert story.foreseen.changed["account"] == ["update"]


def test_secrets_are_encrypted_in_state_and_hidden_in_output(story):
    written = story.encrypted + story.created.output
    for secret in ("hush-hush", "also-hush", "YWxzby1odXNo"):
        assert secret not in written
    assert "seen" in story.encrypted


def test_deletion_waits_for_finalizers_and_a_time_out_keeps_the_object_in_state(story):
    assert not story.held.ok
    assert "finalizers might be preventing deletion" in story.held.output
    assert story.held_in_state


def test_a_freed_object_and_one_that_vanished_are_deleted_without_complaint(story):
    assert story.freed.ok, story.freed.output
    assert [name for name in story.state if not name.startswith("contract-")] == []
    assert story.get("ConfigMap", "held") is None


def test_an_object_that_vanished_is_created_again_after_a_refresh(contract):
    stack, namespace = contract.stack(), contract.namespace()
    labels = [{"l": "a"}]

    def program():
        opts = contract.provider()
        meta = {"name": "a", "namespace": namespace}
        k8s.core.v1.ConfigMap("a", metadata={**meta, "labels": labels[0]}, opts=opts)
        contested = contract.provider("mutable", enable_config_map_mutable=True)
        k8s.core.v1.ConfigMap("updated", metadata={**meta, "name": "u"}, data=labels[0], opts=contested)

    stack.up(program)
    uid = contract.kube.get("v1", "ConfigMap", "u", namespace)["metadata"]["uid"]
    contract.kube.delete("v1", "ConfigMap", "a", namespace)
    assert stack.refresh().ok
    labels[0] = {"m": "b"}
    outcome = stack.up(program)
    assert outcome.changed == {"a": ["create"], "updated": ["update"]}
    # Keys that the program no longer has are gone: the first update took over the creation's fields.
    found = contract.kube.get("v1", "ConfigMap", "u", namespace)
    assert found["data"] == {"m": "b"} and found["metadata"]["uid"] == uid
