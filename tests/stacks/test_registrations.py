"""What holds for every resource of a stack, whatever it is made of."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest

from stacks.config import Secrets
from tests.support.recorder import Recording, Registration
from tests.support.stacks import raw_stack, record_stack

MODEL = "qwen3-0-6b"
SERVICE = "kubernetes:serving.kserve.io/v1alpha2:LLMInferenceService"
DEFINITION = "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinitionPatch"
RELEASE = "kubernetes:helm.sh/v3:Release"
TOKEN = "not-a-real-token"
Run = Callable[..., Recording]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Records the dev stack, changed by a function of its raw configuration."""

    def go(change: Callable[[dict[str, Any]], None] = lambda raw: None, **more: Any) -> Recording:
        raw = copy.deepcopy(raw_stack("dev"))
        change(raw)
        return record_stack(raw, tmp_path, **more)

    return go


def release(recording: Recording, name: str) -> Registration:
    """The release of a chart, by its name in the lock file."""
    return recording.named(f"platform-release-{name}", RELEASE)


def changed(old: Recording, new: Recording) -> set[str]:
    """Names of resources whose inputs differ, or that are in only one of the two."""
    before, after = ({r.urn: r for r in one.registrations} for one in (old, new))
    return {
        (after.get(urn) or before[urn]).name
        for urn in before.keys() | after.keys()
        if urn not in before or urn not in after or before[urn].inputs != after[urn].inputs
    }


def test_every_object_is_a_component_s_child_on_the_cluster_s_own_provider(run: Run) -> None:
    recording = run()
    provider = recording.named("cluster-kubernetes")
    components = {r.urn for r in recording.registrations if r.type.startswith("llmp:index:")}
    assert recording.objects
    for item in recording.objects:
        assert item.provider.startswith(f"{provider.urn}::"), item.name
        assert item.parent in components, item.name


def test_every_component_registers_its_outputs(run: Run) -> None:
    recording = run()
    components = {r.urn for r in recording.registrations if r.type.startswith("llmp:index:")}
    assert components <= recording.completed


def test_definitions_come_before_operators_and_operators_before_models(run: Run) -> None:
    recording = run()
    model = recording.before(recording.named(MODEL, SERVICE))
    assert {r.urn for r in recording.of_type(DEFINITION)} < model
    assert {r.urn for r in recording.of_type(RELEASE)} < model
    definitions = {r.urn for r in recording.of_type(DEFINITION)}
    for operator in ("istiod", "kserve-llmisvc-resources"):
        assert definitions < recording.before(release(recording, operator))
    for needed in ("lws", "cert-manager", "kserve-llmisvc-crd"):
        assert release(recording, needed).urn in recording.before(
            release(recording, "kserve-llmisvc-resources")
        )


def test_webhooks_are_asked_before_anything_that_they_check(run: Run) -> None:
    recording = run()
    check = recording.named("platform-kserve-webhook-check-job")
    assert release(recording, "kserve-llmisvc-resources").urn in recording.before(check)
    for checked in (release(recording, "kserve-runtime-configs"), recording.named(MODEL, SERVICE)):
        assert check.urn in recording.before(checked)
    assert check.delete_before_replace


def test_shared_definitions_outlive_the_stack_and_nothing_else_does(run: Run) -> None:
    recording = run()
    for item in recording.objects:
        assert item.retain_on_delete == (item.type == DEFINITION), item.name
        assert not item.protect
    assert set(recording.outputs["kept_on_destroy"]) >= {
        r.inputs["spec"]["group"] for r in recording.of_type(DEFINITION)
    }


def test_each_wait_for_a_model_has_its_load_budget_and_follows_the_one_before(run: Run) -> None:
    recording = run(lambda raw: raw["models"][MODEL].update(loadBudgetSeconds=321))
    chain = [recording.named(MODEL, SERVICE)]
    chain += [recording.named(f"{MODEL}-{role}") for role in ("routed", "rollout", "ready")]
    for item in chain:
        assert item.timeouts == {"create": "321s", "update": "321s"}, item.name
    for earlier, later in itertools.pairwise(chain):
        assert later.dependencies == {earlier.urn}
    probe = chain[0].inputs["spec"]["template"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 321


def test_nothing_replaces_the_provider_s_own_await_of_the_rollout(run: Run) -> None:
    """The provider reads `waitFor` from the live object, so one on the Deployment would hold for every resource."""
    deployments = [r for r in run().objects if r.inputs.get("kind") == "Deployment"]
    assert f"{MODEL}-rollout" in {r.name for r in deployments}
    for deployment in deployments:
        assert "pulumi.com/waitFor" not in deployment.inputs["metadata"].get("annotations", {})


def test_a_model_s_first_creation_goes_on_to_the_reasons_of_its_pods(run: Run) -> None:
    recording = run()
    assert "annotations" not in recording.named(MODEL, SERVICE).inputs["metadata"]
    ready = recording.named(f"{MODEL}-ready").inputs["metadata"]["annotations"]
    assert ready["pulumi.com/waitFor"] == "condition=Ready"
    assert recording.named(f"{MODEL}-rollout").urn in recording.before(recording.named(f"{MODEL}-ready"))


def test_a_token_is_secret_in_one_object_and_nowhere_else(run: Run) -> None:
    recording = run(secrets=lambda: Secrets(hf_token=pulumi.Output.secret(TOKEN)))
    marked = {r.name: r for r in recording.registrations if r.secrets}
    # The other one holds the generated password of the limits' store.
    assert set(marked) == {"namespace-llm-models-hf-token", "gateway-requests-limits-store-auth"}
    secret = marked["namespace-llm-models-hf-token"]
    assert secret.secrets == ("stringData.HF_TOKEN",)
    assert set(secret.secret_outputs) == {"data", "stringData"}
    assert not [r.name for r in recording.registrations if TOKEN in str(r.inputs)]
    assert recording.named(f"{MODEL}-account").inputs["secrets"] == [{"name": "hf-token"}]


def test_a_stack_without_secrets_makes_none(run: Run) -> None:
    recording = run(lambda raw: raw.pop("access"))
    assert not recording.of_type("kubernetes:core/v1:Secret")
    assert "secrets" not in recording.named(f"{MODEL}-account").inputs


def test_the_state_holds_no_path_of_this_machine_unless_the_user_names_one(run: Run, tmp_path: Path) -> None:
    provider = run().named("cluster-kubernetes")
    assert "kubeconfig" not in provider.inputs
    path = tmp_path / "kubeconfig"
    named = run(lambda raw: raw["cluster"].update(kubeconfig=str(path)))
    assert named.named("cluster-kubernetes").inputs["kubeconfig"] == str(path)


def test_only_the_identifier_replaces_the_provider_and_objects_are_never_taken_over(run: Run) -> None:
    inputs = run().named("cluster-kubernetes").inputs
    assert inputs["clusterIdentifier"] == "existing/llm-platform-dev"
    assert inputs["upsertExistingObjects"] == "false"
    assert inputs["enableConfigMapMutable"] == inputs["enableSecretMutable"] == "true"


def test_an_operator_that_is_provided_is_neither_installed_nor_waited_for(run: Run) -> None:
    recording = run(lambda raw: raw.update(platform={"certManager": "provided", "istio": "provided"}))
    names = {r.name for r in recording.of_type(RELEASE)}
    assert not {"platform-release-cert-manager", "platform-release-istiod"} & names
    assert "platform-release-kserve-llmisvc-resources" in names
    assert {"cert-manager", "istio"} <= set(recording.outputs["operators"]["provided"])
    assert "cert-manager" not in recording.outputs["operators"]["installed"]


def test_a_platform_that_is_provided_whole_leaves_only_models(run: Run) -> None:
    parts = ("certManager", "istio", "gatewayApi", "inferenceExtension", "kserve", "leaderWorkerSet")
    recording = run(lambda raw: raw.update(platform=dict.fromkeys(parts, "provided")))
    assert not recording.of_type(RELEASE) and not recording.of_type(DEFINITION)
    assert not recording.of_type("kubernetes:batch/v1:Job")
    assert recording.named(MODEL, SERVICE)


def test_a_changed_flag_changes_the_model_and_its_waits_only(run: Run) -> None:
    new = run(lambda raw: raw["models"][MODEL].update(maxNumSeqs=32))
    assert changed(run(), new) == {MODEL, f"{MODEL}-rollout", f"{MODEL}-ready"}


def test_asleep_takes_the_replicas_and_nothing_else(run: Run) -> None:
    awake, asleep = run(), run(lambda raw: raw.update(power="asleep"))
    assert asleep.named(MODEL, SERVICE).inputs["spec"]["replicas"] == 0
    # The tables let the gateway say that it sleeps.
    assert changed(awake, asleep) == {
        MODEL, f"{MODEL}-rollout", f"{MODEL}-ready", "gateway-requests-tables",
    }  # fmt: skip


def test_another_model_changes_nothing_of_the_first(run: Run) -> None:
    def add(raw: dict[str, Any]) -> None:
        raw["models"] = {"another": raw["models"][MODEL], MODEL: raw["models"][MODEL]}
        raw["cluster"]["accelerators"]["l4"]["maxNodes"] = 2

    old, new = run(), run(add)
    # The gateway's tables hold all models; they change without touching a connection.
    assert {n for n in changed(old, new) if not n.startswith("another")} == {"gateway-requests-tables"}


def test_a_revoked_key_a_new_tenant_and_a_price_change_the_tables_alone(run: Run) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["access"]["revoked"] = ["0123456789abcdef"]
        raw["access"]["tenants"]["newcomer"] = {"tier": "free"}
        raw["access"]["multipliers"] = {MODEL: 2.5}

    assert set(changed(run(), run(change))) == {"gateway-requests-tables"}


def test_a_new_budget_changes_the_limit_services_configuration_alone(run: Run) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["access"]["tiers"]["free"]["tokensPerMinute"] = 300

    assert set(changed(run(), run(change))) == {"gateway-requests-limits-config"}


def test_a18_without_access_nothing_of_keys_and_limits_is_left(run: Run) -> None:
    recording = run(lambda raw: raw.pop("access"))
    ours = {r.name for r in recording.registrations if r.name.startswith("gateway-requests")}
    assert ours == {"gateway-requests", "gateway-requests-filters", "gateway-requests-tables"}
    assert not [
        r for r in recording.registrations if r.type.startswith(("random:", "pulumi:providers:random"))
    ]


def test_nobody_is_answered_before_keys_and_limits_are_in_force(run: Run) -> None:
    recording = run()
    before = recording.before(recording.named("gateway", "kubernetes:gateway.networking.k8s.io/v1:Gateway"))
    guards = {r.urn for r in recording.objects if r.name.startswith("gateway-requests")}
    assert guards and guards <= before


def test_models_of_two_namespaces_get_a_closed_namespace_each(run: Run) -> None:
    def add(raw: dict[str, Any]) -> None:
        raw["models"]["second"] = {**raw["models"][MODEL], "namespace": "team-b"}
        raw["cluster"]["accelerators"]["l4"]["maxNodes"] = 2

    recording = run(add)
    for namespace in ("llm-models", "team-b"):
        deny = recording.named(f"namespace-{namespace}-default-deny").inputs
        assert deny["metadata"]["namespace"] == namespace
        assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_outputs_say_how_to_reach_each_model(run: Run) -> None:
    outputs = run().outputs
    assert outputs["model_urls"] == {MODEL: f"http://203.0.113.10/llm-models/{MODEL}/v1"}
    assert outputs["gateway_address"] == "203.0.113.10"
    assert outputs["load_budgets_seconds"] == {MODEL: 900}
