"""The EKS component under the real Pulumi engine and the aws plugin, from preview to nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pytest

from components.clusters.eks.component import EksGpuCluster
from stacks.eks import NAME
from tests.clusters.eks import ADMIN, VIEWER, args
from tests.provider_contract.conftest import Contract, contract  # noqa: F401 - a fixture
from tests.support.cloud_stories import Story, install, tell

pytestmark = [
    pytest.mark.rehearsed,
    pytest.mark.long,
    # The SDK warns about deprecated classes of its own whenever the package they are in is loaded.
    pytest.mark.filterwarnings("ignore:aws[.]:DeprecationWarning"),
]


@dataclass
class Program:
    """The component with two GPU pools, one of them never empty; a test changes it between runs."""

    capacity: str = "on-demand"
    tags: dict[str, str] | None = None

    def __call__(self) -> None:
        cluster = EksGpuCluster(NAME, args(self._config))
        k8s.core.v1.Namespace(
            "made-through-amazon",
            metadata={"name": "made-through-amazon"},
            opts=pulumi.ResourceOptions(provider=cluster.handle.provider),
        )

    def _config(self, raw: dict[str, Any]) -> None:
        raw["cluster"] |= {
            "adminRoles": [ADMIN],
            "viewerRoles": [VIEWER],
            "tags": self.tags or {"team": "search"},
        }
        raw["cluster"]["accelerators"]["l4"]["capacity"] = self.capacity
        raw["cluster"]["accelerators"]["l4x4"]["minNodes"] = 1


@pytest.fixture(scope="module")
def story(contract: Contract) -> Story:  # noqa: F811
    install(contract.paths, "aws", {"aws": "cloud.aws_cli"})
    program = Program()

    def change() -> None:
        program.capacity, program.tags = "spot", {"team": "other"}

    return tell(contract, program, "made-through-amazon", change)


def test_a_preview_of_nothing_yet_succeeds_without_any_value_of_amazons(story):
    assert story.foreseen.ok, story.foreseen.output


def test_up_makes_the_cluster_and_its_nodes(story):
    assert story.first.ok, story.first.output
    types = {n["metadata"]["labels"]["node.kubernetes.io/instance-type"] for n in story.nodes}
    assert {"m6i.xlarge", "g6.12xlarge"} <= types
    assert all(n["status"]["conditions"][0]["status"] == "True" for n in story.nodes)


def test_the_kubeconfig_with_amazons_command_reaches_the_cluster(story):
    assert story.namespace is not None


def test_nothing_differs_afterwards_not_even_after_a_refresh(story):
    assert story.unchanged.ok and story.unchanged.changed == {}, story.unchanged.output
    assert story.refreshed.ok and story.refreshed.changed == {}, story.refreshed.output


def test_another_kind_of_capacity_is_another_group_and_tags_change_in_place(story):
    assert story.changed.ok, story.changed.output
    steps = story.changed.changed
    # Launch template and group, which have one name.
    assert set(steps["cluster-l4-spot"]) == {"create"} and set(steps["cluster-l4-on-demand"]) == {"delete"}
    assert "update" in steps["cluster"] and steps["cluster-network"] == ["update"]
    labels = [n["metadata"]["labels"]["llmp.dev/pool"] for n in story.nodes_after]
    assert "l4-on-demand" not in labels


def test_destroy_leaves_the_account_empty(story):
    assert story.destroyed.ok, story.destroyed.output
    assert story.left.empty, story.left.document()["resources"]
    assert story.nodes_left == []
