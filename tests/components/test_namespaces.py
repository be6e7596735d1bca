"""What a namespace gets: quota, limits, team and credentials, as objects and in their order."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pulumi
import pytest

from components.serving.manifests import picker, quota, rollout, team
from components.serving.manifests.quota import Container, LimitsSpec, QuotaSpec
from components.serving.manifests.rollout import RoomSpec
from components.serving.manifests.team import TeamSpec
from stacks.config import Secrets, load_config
from stacks.namespaces import limits_spec, quota_spec
from tests.support import recorder
from tests.support.recorder import Recording
from tests.support.stacks import raw_stack, record_stack

NS, MODEL = "llm-models", "qwen3-0-6b"
TOKEN = "hf_" + "a1B2" * 8
QUOTA = {"cpu": 99, "memory": "999Gi", "chips": 8, "pods": 20, "storage": "1Ti"}
Run = Callable[..., Recording]


def settled(raw: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The dev stack with settings of its namespace."""
    raw["models"][MODEL]["resources"] = {"cpu": 2, "memory": "16Gi"}
    raw["namespaces"] = {NS: settings}
    return raw


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Records the dev stack, changed."""

    def recorded(change: Callable[[dict[str, Any]], Any], **more: Any) -> Recording:
        raw = copy.deepcopy(raw_stack("dev"))
        change(raw)
        return record_stack(raw, tmp_path, **more)

    return recorded


# -- builders --------------------------------------------------------------------------------------


def test_a_quota_counts_by_kubernetes_own_names() -> None:
    config = load_config(settled(raw_stack("dev"), quota={**QUOTA, "memoryLimits": "999Gi", "claims": 0}))
    spec = quota_spec(NS, config)
    assert spec is not None
    made = quota.resource_quota(spec)
    assert made["metadata"]["name"] == "ai-workload-quota"
    assert made["spec"]["hard"] == {
        "requests.cpu": "99",
        "requests.memory": "999Gi",
        "limits.memory": "999Gi",
        "requests.nvidia.com/gpu": "8",
        "pods": "20",
        "persistentvolumeclaims": "0",
        "requests.storage": "1Ti",
    }


def test_chips_are_those_of_the_accelerators_in_use() -> None:
    raw = raw_stack("tpu")
    raw["namespaces"] = {NS: {"quota": {"chips": 16}}}
    spec = quota_spec(NS, load_config(raw))
    assert spec == QuotaSpec(namespace=NS, hard={"requests.google.com/tpu": "16"})


@pytest.mark.parametrize(
    ("settings", "requests", "limits", "largest"),
    [
        ({"quota": {"pods": 9}}, ("100m", "128Mi"), {}, {}),
        ({"quota": {"pods": 9, "memoryLimits": "999Gi"}}, ("100m", "128Mi"), {"memory": "2Gi"}, {}),
        ({"limits": {"cpuRequest": "50m"}}, ("50m", "128Mi"), {}, {}),
        (
            {"limits": {"maxCpu": 32, "maxMemory": "64Gi"}},
            ("100m", "128Mi"),
            {"cpu": "32", "memory": "64Gi"},
            {"cpu": "32", "memory": "64Gi"},
        ),
        (
            {"limits": {"maxMemory": "64Gi", "memoryLimit": "1Gi"}},
            ("100m", "128Mi"),
            {"memory": "1Gi"},
            {"memory": "64Gi"},
        ),
    ],
)
def test_what_containers_get_that_do_not_ask(settings, requests, limits, largest) -> None:
    spec = limits_spec(NS, load_config(settled(raw_stack("dev"), **settings)))
    wanted = dict(zip(("cpu", "memory"), requests, strict=True))
    assert spec == LimitsSpec(namespace=NS, requests=wanted, limits=limits, largest=largest)
    (item,) = quota.limit_range(spec)["spec"]["limits"]
    assert item == {"type": "Container", "defaultRequest": wanted} | (
        {"default": limits} if limits else {}
    ) | ({"max": largest} if largest else {})


def asked(container: dict[str, Any]) -> Container:
    """What a container of a manifest asks for."""
    found = container["resources"]
    return Container(
        cpu=found["requests"]["cpu"],
        memory=found["requests"]["memory"],
        cpu_limit=found["limits"].get("cpu"),
        memory_limit=found["limits"].get("memory"),
    )


def test_what_the_quota_is_compared_with_is_what_our_own_pods_ask_for() -> None:
    spec = picker.scheduler(NS, "image:1")["spec"]["router"]["scheduler"]["template"]
    assert [asked(container) for container in spec["containers"]] == [quota.PICKER]
    made = dict(rollout.make_room(RoomSpec(model="m", namespace=NS, image="image:1", pull_secrets=())))
    pod = made["deployment"]["spec"]["template"]["spec"]
    assert [asked(container) for container in pod["containers"]] == [quota.ROOM]


@pytest.mark.parametrize("edits", [False, True])
def test_no_role_of_a_team_reads_secrets_or_makes_what_could_read_them(edits: bool) -> None:
    objects = dict(team.team(TeamSpec(namespace=NS, groups=("a", "b"), edits=edits)))
    rules = objects["team-role"]["rules"]
    named = {resource for rule in rules for resource in rule["resources"]}
    assert not named & {
        "*", "secrets", "configmaps", "pods/exec", "pods/attach", "pods/portforward", "pods/proxy",
        "services/proxy", "pods/ephemeralcontainers", "serviceaccounts", "serviceaccounts/token",
    }  # fmt: skip
    changing = {
        (verb, resource)
        for rule in rules
        for verb in rule["verbs"]
        for resource in rule["resources"]
        if verb not in team.READ
    }
    assert changing == ({("delete", "pods"), ("create", "pods/eviction")} if edits else set())
    binding = objects["team-binding"]
    assert [(s["kind"], s["name"]) for s in binding["subjects"]] == [("Group", "a"), ("Group", "b")]
    assert binding["roleRef"]["name"] == objects["team-role"]["metadata"]["name"]


def test_another_role_of_the_team_changes_no_binding() -> None:
    view, edit = (
        dict(team.team(TeamSpec(namespace=NS, groups=("a",), edits=edits))) for edits in (False, True)
    )
    assert view["team-binding"] == edit["team-binding"] and view["team-role"] != edit["team-role"]


# -- the component ---------------------------------------------------------------------------------


def test_every_pod_of_a_model_comes_after_quota_and_limits(run: Run) -> None:
    recording = run(lambda raw: settled(raw, quota=QUOTA, team={"groups": ["ml-team"]}))
    before = recording.before(
        recording.named(MODEL, "kubernetes:serving.kserve.io/v1alpha2:LLMInferenceService")
    )
    for role in ("quota", "limits", "default-deny", "dns"):
        assert recording.named(f"namespace-{NS}-{role}").urn in before, role
    assert recording.named(f"namespace-{NS}-team-binding")


def test_nothing_is_limited_and_nobody_let_in_unless_asked(run: Run) -> None:
    recording = run(lambda raw: None)
    made = [r for r in recording.objects if r.name.startswith(f"namespace-{NS}")]
    kinds = {r.inputs["kind"] for r in made}
    assert "NetworkPolicy" in kinds and not kinds & {"ResourceQuota", "LimitRange", "RoleBinding"}


def existing(raw: dict[str, Any]) -> None:
    raw["secrets"] = {"hfToken": {"existing": "theirs"}, "pullSecret": {"existing": "login"}}
    raw.setdefault("platform", {})["imagePullSecret"] = True


def test_existing_secrets_are_named_and_not_made(run: Run) -> None:
    recording = run(existing)
    account = recording.named(f"{MODEL}-account").inputs
    assert account["secrets"] == [{"name": "theirs"}]
    assert account["imagePullSecrets"] == [{"name": "login"}]
    made = {r.name for r in recording.of_type("kubernetes:core/v1:Secret")}
    assert not {name for name in made if name.startswith("namespace-")}


def test_a_value_of_the_configuration_is_compared_in_every_preview(run: Run) -> None:
    recording = run(lambda raw: None, secrets=lambda: Secrets(hf_token=pulumi.Output.secret("hf_x")))
    assert recording.named(f"namespace-{NS}-hf-token").ignored == ()


def stored(raw: dict[str, Any]) -> None:
    for model, home in zip(raw["models"].values(), ("one", "two"), strict=True):
        model["namespace"] = home
    raw["secrets"] = {"hfToken": {"awsSecretsManager": "prod/hf", "key": "token"}}


def test_a_stores_value_is_read_once_and_secret_in_every_namespace(tmp_path: Path) -> None:
    calls: list[str] = []

    def call(_: Any, args: Any) -> dict[str, Any]:
        calls.append(args.token)
        return {"secretString": json.dumps({"token": TOKEN})}

    raw = copy.deepcopy(raw_stack("gpu"))
    stored(raw)
    with patch.object(recorder._Echo, "call", call):
        recording = record_stack(raw, tmp_path)
    assert calls == ["aws:secretsmanager/getSecretVersion:getSecretVersion"]
    for home in ("one", "two"):
        made = recording.named(f"namespace-{home}-hf-token")
        assert made.secrets == ("stringData.HF_TOKEN",) and made.ignored == ()
    assert not [r.name for r in recording.registrations if TOKEN in str(r.inputs)]
