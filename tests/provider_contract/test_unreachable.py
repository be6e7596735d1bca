"""Clusters that are not there: previews work, everything else is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
import pulumi_random as random
import pytest
import yaml

from tests.provider_contract.conftest import CONTEXT, Contract, Outcome

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]


def config_map(name: str, provider: k8s.Provider) -> k8s.core.v1.ConfigMap:
    opts = pulumi.ResourceOptions(provider=provider)
    return k8s.core.v1.ConfigMap(name, metadata={"name": name, "namespace": "default"}, opts=opts)


@dataclass(frozen=True)
class Story:
    foreseen: Outcome
    tried: Outcome
    state: dict[str, dict]


@pytest.fixture(scope="module")
def story(contract: Contract) -> Story:
    stack = contract.stack()
    stranger = yaml.safe_load(contract.paths.kubeconfig.read_text())
    stranger["users"][0]["user"] = {"token": "nobody-knows-me"}

    def program():
        config_map("in-unknown-context", k8s.Provider("context", context="no-such-context"))
        config_map("as-stranger", k8s.Provider("stranger", kubeconfig=yaml.safe_dump(stranger)))
        config_map("in-nonsense", k8s.Provider("nonsense", kubeconfig="{nonsense"))
        later = random.RandomString("later", length=4)
        kubeconfig = later.result.apply(lambda _: contract.paths.kubeconfig.read_text())
        config_map("known-later", k8s.Provider("later-provider", kubeconfig=kubeconfig))

    return Story(stack.preview(program), stack.up(program), stack.state())


def test_a_preview_works_without_a_cluster_or_with_one_that_is_not_known_yet(story):
    assert story.foreseen.ok, story.foreseen.output
    for name in ("in-unknown-context", "as-stranger", "in-nonsense", "known-later"):
        assert story.foreseen.changed[name] == ["create"]


def test_the_provider_says_nothing_of_it_in_a_preview(story):
    assert "unreachable" not in story.foreseen.output


def test_creation_is_refused_without_a_cluster(story):
    assert not story.tried.ok
    assert story.tried.output.count("configured Kubernetes cluster is unreachable") >= 3
    assert {"in-unknown-context", "as-stranger", "in-nonsense"}.isdisjoint(story.state)


def test_the_reason_names_the_context(story):
    assert "no-such-context" in story.tried.output


def test_a_kubeconfig_that_becomes_known_is_used(story):
    assert "known-later" in story.state


def test_deletion_is_refused_without_a_cluster_unless_state_may_forget_it(contract):
    stack = contract.stack()
    inputs: dict[str, object] = {"context": CONTEXT}

    def program():
        provider = k8s.Provider("cluster", cluster_identifier="one", **inputs)
        if inputs["context"] == CONTEXT:
            config_map(f"kept-{stack.name}", provider)

    assert stack.up(program).ok
    inputs["context"] = "no-such-context"
    refused = stack.up(program)
    assert not refused.ok and "PULUMI_K8S_DELETE_UNREACHABLE" in refused.output
    assert f"kept-{stack.name}" in stack.state()
    inputs["delete_unreachable"] = True
    assert stack.up(program).ok
    assert f"kept-{stack.name}" not in stack.state()
    assert contract.kube.get("v1", "ConfigMap", f"kept-{stack.name}", "default")


@dataclass(frozen=True)
class Identity:
    other_context: Outcome
    kept: Outcome
    moved: Outcome


@pytest.fixture(scope="module")
def identity(contract: Contract) -> Identity:
    stack = contract.stack()
    kubeconfig = yaml.safe_load(contract.paths.kubeconfig.read_text())
    inputs: dict[str, object] = {"kubeconfig": yaml.safe_dump(kubeconfig), "cluster_identifier": "one"}

    def program():
        config_map(f"id-{stack.name}", k8s.Provider("cluster", **inputs))

    assert stack.up(program).ok
    kubeconfig["clusters"][0]["cluster"]["tls-server-name"] = "localhost"
    inputs["kubeconfig"] = yaml.safe_dump(kubeconfig)
    kept = stack.preview(program)
    inputs["cluster_identifier"] = "two"
    moved = stack.preview(program)
    plain = contract.stack()
    inputs.pop("cluster_identifier")
    assert plain.up(lambda: config_map(f"id-{plain.name}", k8s.Provider("cluster", **inputs))).ok
    kubeconfig["clusters"][0]["cluster"]["tls-server-name"] = "127.0.0.1"
    inputs["kubeconfig"] = yaml.safe_dump(kubeconfig)
    other = plain.preview(lambda: config_map(f"id-{plain.name}", k8s.Provider("cluster", **inputs)))
    return Identity(other, kept, moved)


def test_another_cluster_behind_the_context_replaces_the_provider_and_its_objects(identity):
    assert "replace" in identity.other_context.changed["cluster"]


def test_the_same_identifier_keeps_them_whatever_the_kubeconfig_says(identity):
    assert identity.kept.changed == {"cluster": ["update"]}


def test_another_identifier_replaces_them(identity):
    assert "replace" in identity.moved.changed["cluster"]
