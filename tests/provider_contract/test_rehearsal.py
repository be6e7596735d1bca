"""What the plugins of a rehearsal do beyond the official ones, and say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s
import pytest
import yaml

from ops.kube import Manifest
from tests.provider_contract.conftest import Contract, Outcome

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]

METADATA = """apiVersion: v2
name: far-away
version: 1.2.3
annotations: {rehearsal.llm-platform.dev/unavailable: "not to be had on this machine"}
"""
TEMPLATE = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: far-away}\n"


def test_a_foreign_api_server_is_refused_in_the_preview_already(contract: Contract):
    foreign = yaml.safe_load(contract.paths.kubeconfig.read_text())
    foreign["clusters"][0]["cluster"]["server"] = "https://cluster.example.com"

    def program():
        provider = k8s.Provider("foreign", kubeconfig=yaml.safe_dump(foreign))
        k8s.core.v1.Namespace("n", opts=pulumi.ResourceOptions(provider=provider))

    outcome = contract.stack().preview(program)
    assert not outcome.ok and "cluster.example.com is not on this machine" in outcome.output


@dataclass(frozen=True)
class Skipped:
    first: Outcome
    found: Manifest | None
    unchanged: Outcome
    second: Outcome
    found_later: Manifest | None
    destroyed: Outcome


@pytest.fixture(scope="module")
def skipped(contract: Contract, tmp_path_factory: pytest.TempPathFactory) -> Skipped:
    stack, namespace = contract.stack(), contract.namespace()
    path: Path = tmp_path_factory.mktemp("charts") / "far-away"
    (path / "templates").mkdir(parents=True)
    (path / "templates" / "all.yaml").write_text(TEMPLATE)
    (path / "Chart.yaml").write_text(METADATA)

    def program():
        k8s.helm.v3.Release("r", name="r", chart=str(path), namespace=namespace, opts=contract.provider())

    def found() -> Manifest | None:
        return contract.kube.get("v1", "ConfigMap", "far-away", namespace)

    first, at_first, unchanged = stack.up(program), found(), stack.preview(program)
    (path / "Chart.yaml").write_text("apiVersion: v2\nname: far-away\nversion: 1.2.4\n")
    second, later = stack.up(program), found()
    return Skipped(first, at_first, unchanged, second, later, stack.destroy())


def test_a_chart_that_cannot_be_had_is_skipped_visibly(skipped):
    assert skipped.first.ok, skipped.first.output
    assert "SKIPPED in rehearsal: far-away 1.2.3: not to be had on this machine" in skipped.first.output
    assert skipped.found is None
    assert skipped.unchanged.changed == {}


def test_it_is_installed_once_it_can_be_had(skipped):
    assert skipped.second.changed == {"r": ["update"]}
    assert skipped.found_later is not None
    assert skipped.destroyed.ok, skipped.destroyed.output
