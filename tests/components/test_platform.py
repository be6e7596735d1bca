"""The table of operators."""

from __future__ import annotations

import json

import pytest

from components.core import labels
from components.platform import kserve
from components.platform.crds import shared_definitions
from components.platform.kserve import KServeArgs
from components.platform.lock import load_lock
from components.platform.platform import BUNDLES, OPERATORS, manifests_of, releases_of
from components.platform.webhook_check import webhook_check
from tests.support.stacks import definition

ARGS = KServeArgs(gateway="llm-gateway/llm-gateway", gateway_class="istio", tls=True)
RELEASES = releases_of(OPERATORS, ARGS)


def test_every_chart_of_the_lock_file_has_exactly_one_release() -> None:
    names = [spec.name for spec in RELEASES]
    assert len(set(names)) == len(names)
    assert set(names) == set(load_lock().charts)
    assert set(manifests_of(BUNDLES)) == set(load_lock().manifests)


def test_each_release_comes_after_everything_that_it_needs() -> None:
    there = {*BUNDLES.values()}
    for spec in RELEASES:
        if spec.name == kserve.PRESETS:
            there.add(kserve.WEBHOOK_CHECK)
        assert set(spec.needs) <= there, f"{spec.name} needs {set(spec.needs) - there}"
        there.add(spec.name)


def test_kserve_s_shared_objects_have_one_owner() -> None:
    shared = {
        spec.name: spec.values["kserve"].get("createSharedResources", True)
        for spec in RELEASES
        if spec.name in (kserve.RESOURCES, kserve.LLM_RESOURCES)
    }
    assert shared == {kserve.RESOURCES: True, kserve.LLM_RESOURCES: False}
    controller = next(spec for spec in RELEASES if spec.name == kserve.LLM_RESOURCES).values["kserve"][
        "llmisvc"
    ]
    assert controller["createGIECRDs"] is False


def test_a_definition_is_applied_without_what_the_server_owns_and_awaited() -> None:
    (item,) = shared_definitions("bundle", [definition("things", "example.com")])
    assert "status" not in item and "creationTimestamp" not in item["metadata"]
    assert item["metadata"]["annotations"][labels.WAIT_FOR] == "condition=Established"


def test_only_kinds_that_are_safe_to_share_and_keep_are_applied() -> None:
    policy = {"kind": "ValidatingAdmissionPolicy", "metadata": {"name": "safe-upgrades"}}
    assert shared_definitions("bundle", [policy]) == ()
    role = {"kind": "ClusterRole", "metadata": {"name": "admin"}}
    with pytest.raises(ValueError, match="ClusterRole admin would be applied over other owners' objects"):
        shared_definitions("bundle", [role])


def test_the_webhook_check_may_ask_and_nothing_more() -> None:
    objects = dict(webhook_check("registry.example/kubectl:v1.34.1", "v0.20.0"))
    assert objects["role"]["rules"] == [
        {
            "apiGroups": ["serving.kserve.io"],
            "resources": ["llminferenceservices", "inferenceservices"],
            "verbs": ["create"],
        }
    ]
    (container,) = objects["job"]["spec"]["template"]["spec"]["containers"]
    assert "--dry-run=server" in container["args"]
    question = json.loads(objects["question"]["data"]["question.json"])
    assert {item["kind"] for item in question["items"]} == {"LLMInferenceService", "InferenceService"}


def test_another_kserve_is_asked_anew() -> None:
    jobs = [dict(webhook_check("kubectl:v1", version))["job"]["spec"] for version in ("v0.20.0", "v0.21.0")]
    assert jobs[0] != jobs[1]
