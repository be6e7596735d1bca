"""The check of inputs against the SDK, which is worth something only if it finds things."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import sdk
from tests.support.recorder import Recording, Registration

POOL = "cluster-v6e-on-demand"


def pool(recording: Recording, change: Callable[[dict[str, Any]], Any]) -> Registration:
    """A recorded pool with changed inputs."""
    found = recording.named(POOL)
    inputs = copy.deepcopy(dict(found.inputs))
    change(inputs)
    return dataclasses.replace(found, inputs=inputs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda i: i.update(nodeCounts=1), ".nodeCounts: NodePoolArgs has no such argument"),
        (lambda i: i.update(node_count=1), ".node_count: NodePoolArgs has no such argument"),
        (
            lambda i: i["autoscaling"].update(max_node_count=3),
            ".autoscaling.max_node_count: NodePoolAutoscalingArgs has no such argument",
        ),
        (lambda i: i["autoscaling"].update(maxNodeCount="3"), ".autoscaling.maxNodeCount: '3' is not"),
        (lambda i: i["autoscaling"].update(maxNodeCount=True), ".autoscaling.maxNodeCount: True is not"),
        (lambda i: i["autoscaling"].update(maxNodeCount=1.5), ".autoscaling.maxNodeCount: 1.5 is not"),
        (lambda i: i.update(ignoreNodeCountChanges=1), ".ignoreNodeCountChanges: 1 is not of type bool"),
        (lambda i: i.update(nodeLocations="europe-west4-a"), ".nodeLocations: 'europe-west4-a' is not"),
        (lambda i: i.update(nodeLocations=["a", 1]), ".nodeLocations[1]: 1 is not of type str"),
        (
            lambda i: i["nodeConfig"]["taints"][0].update(effects="x"),
            ".nodeConfig.taints[0].effects: NodePoolNodeConfigTaintArgs has no such argument",
        ),
        (lambda i: i["nodeConfig"]["taints"][0].pop("value"), ".nodeConfig.taints[0].value"),
        (lambda i: i["nodeConfig"].update(labels={"a": 1}), ".nodeConfig.labels[a]: 1 is not of type str"),
        (lambda i: i["nodeConfig"].update(bootDisk=[]), ".nodeConfig.bootDisk: [] is not"),
        (lambda i: i.pop("cluster"), ".cluster: NodePoolArgs requires it"),
    ],
)
def test_what_the_sdk_does_not_take_is_found(plain: Recording, change: Any, said: str) -> None:
    (fault,) = sdk.faults(pool(plain, change))
    assert said in fault and fault.startswith(POOL)


def test_secrets_are_taken_on_trust_and_whole_numbers_where_others_may_be(plain: Recording) -> None:
    assert not sdk.faults(pool(plain, lambda i: i.update(project=sdk.HIDDEN)))
    subnet = plain.named("cluster-subnet")
    logged = {**subnet.inputs, "logConfig": {**subnet.inputs["logConfig"], "flowSampling": 1}}
    assert not sdk.faults(dataclasses.replace(subnet, inputs=logged))


def test_settings_of_the_provider_are_read_as_what_they_were(plain: Recording) -> None:
    provider = plain.named("cluster-google")
    wrong = {**provider.inputs, "addPulumiAttributionLabel": '"no"'}
    (fault,) = sdk.faults(dataclasses.replace(provider, inputs=wrong))
    assert ".addPulumiAttributionLabel: 'no' is not of type bool" in fault


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("nodeConfig.labels", True),
        ("nodeConfig.taints.key", True),
        ("node_config.labels", False),
        ("nodeConfig.label", False),
        ("cluster.name", False),
    ],
)
def test_paths_are_those_of_the_wire(path: str, there: bool) -> None:
    assert sdk.has_path(sdk.arguments_of("gcp:container/nodePool:NodePool"), path) is there
