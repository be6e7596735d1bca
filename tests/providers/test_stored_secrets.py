"""Secrets that a store of the cloud keeps: read in `up` alone, in the state only encrypted, and never shown."""

from __future__ import annotations

import base64
import importlib
import json
import warnings
from dataclasses import dataclass, replace
from typing import Any

import pytest
import yaml
from pulumi import ResourceOptions

from components.clusters.handle import ClusterHandle
from components.clusters.provider import kubernetes_provider
from components.serving.isolation import ModelNamespace, ModelNamespaceArgs
from stacks.config.secret_sources import SecretSource
from stacks.namespaces import credential
from tests.provider_contract.conftest import Contract, Outcome, contract  # noqa: F401 - a fixture
from tests.support.cloud_stories import install
from tests.support.simulated_aws import REGION

pytestmark = [
    pytest.mark.rehearsed,
    pytest.mark.long,
    # The SDK warns about deprecated classes of its own whenever the package they are in is loaded.
    pytest.mark.filterwarnings("ignore:aws[.]:DeprecationWarning"),
]

OLD, NEW = "hf_" + "a1B2" * 8, "hf_" + "c3D4" * 8
HOME, SECRET = "models", "namespace-models-hf-token"
DENIED = {
    "kind": "secretsmanager/secretVersion",
    "operation": "read",
    "code": "AccessDeniedException",
    "message": "you may not",
}


@dataclass(frozen=True)
class Program:
    """A namespace whose token is kept in AWS Secrets Manager, in a JSON object under this key."""

    kubeconfig: str
    key: str = "token"

    def __call__(self) -> None:
        aws = importlib.import_module("pulumi_aws")
        secrets = importlib.import_module("components.clusters.eks.secrets")
        amazon = aws.Provider("amazon", region=REGION)
        kubernetes = kubernetes_provider("kubernetes", "contract", "rehearsal", self.kubeconfig)
        cluster = ClusterHandle(
            provider=kubernetes,
            cloud="aws",
            accelerators={},
            description="",
            read_secret=lambda name: secrets.read_secret(name, amazon),
        )
        source = SecretSource(awsSecretsManager="prod/hf", key=self.key)
        token = credential("hfToken", None, source, cluster)
        args = ModelNamespaceArgs(namespace=HOME, gateway="gateway", hf_token=token)
        ModelNamespace("namespace-models", args, ResourceOptions(providers=[kubernetes]))


@dataclass(frozen=True)
class Runs:
    """What the engine's runs did, in their order."""

    unasked: Outcome
    absent: Outcome
    first: Outcome
    stored: dict[str, Any]
    state: str
    previewed: Outcome
    rotated: Outcome
    changed: dict[str, Any]
    wrong: Outcome
    destroyed: Outcome


@pytest.fixture(scope="module")
def runs(contract: Contract) -> Runs:  # noqa: F811
    install(contract.paths, "aws", {})
    program, stack = Program(str(contract.paths.kubeconfig)), contract.stack()
    settings = contract.paths.root / "cloud" / "settings.yaml"
    settings.parent.mkdir(exist_ok=True)

    def keep(token: str | None, *refusals: Any) -> None:
        kept = [{"name": "prod/hf", "region": REGION, "text": json.dumps({"token": token})}] if token else []
        settings.write_text(yaml.safe_dump({"secrets": kept, "refusals": list(refusals)}))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"aws\.", DeprecationWarning)
        importlib.import_module("pulumi_aws.secretsmanager")
        keep(None, DENIED)
        unasked = stack.preview(program)
        keep(None)
        absent = stack.up(program)
        keep(OLD)
        first, stored, state = stack.up(program), secret(contract), stack.state_text()
        keep(NEW, DENIED)
        previewed = stack.preview(program)
        keep(NEW)
        rotated, changed = stack.up(program), secret(contract)
        wrong = stack.up(replace(program, key="other"))
        return Runs(
            unasked, absent, first, stored, state, previewed, rotated, changed, wrong, stack.destroy()
        )


def secret(contract: Contract) -> dict[str, Any]:  # noqa: F811
    """The Secret as the cluster has it, decoded."""
    found = contract.kube.get("v1", "Secret", "hf-token", HOME)
    assert found is not None
    return {name: base64.b64decode(value).decode() for name, value in found["data"].items()}


def test_a_preview_reads_nothing_and_foresees_the_secret(runs: Runs) -> None:
    assert runs.unasked.ok, runs.unasked.output
    assert runs.unasked.changed[SECRET] == ["create"]


def test_a_secret_that_does_not_exist_fails_up_by_name(runs: Runs) -> None:
    assert not runs.absent.ok
    assert "reading Secrets Manager Secret Version (prod/hf|AWSCURRENT): couldn't find resource" in (
        runs.absent.output
    )


def test_up_puts_the_value_into_the_cluster_and_nowhere_else_in_the_clear(runs: Runs) -> None:
    assert runs.first.ok, runs.first.output
    assert runs.stored == {"HF_TOKEN": OLD}
    assert OLD not in runs.state and base64.b64encode(OLD.encode()).decode() not in runs.state
    for run in (runs.unasked, runs.first, runs.previewed, runs.rotated, runs.wrong, runs.destroyed):
        assert OLD not in run.output and NEW not in run.output


def test_the_next_preview_is_empty_without_the_right_to_read_the_secret(runs: Runs) -> None:
    assert runs.previewed.ok and runs.previewed.changed == {}, runs.previewed.output


def test_another_value_in_the_store_reaches_the_cluster_with_the_next_up(runs: Runs) -> None:
    assert runs.rotated.ok and runs.rotated.changed == {SECRET: ["update"]}, runs.rotated.output
    assert runs.changed == {"HF_TOKEN": NEW}


def test_a_secret_of_another_form_is_refused_with_the_key_and_without_the_value(runs: Runs) -> None:
    assert not runs.wrong.ok
    assert (
        'secrets.hfToken: prod/hf in AWS Secrets Manager is not a JSON object with the key "other"'
        in runs.wrong.output
    )


def test_destroy_needs_no_secret_store(runs: Runs) -> None:
    assert runs.destroyed.ok, runs.destroyed.output
