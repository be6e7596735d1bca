"""The endpoint picker's configuration."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.serving.manifests.scheduling import endpoint_picker

# Registered by `cmd/epp/runner/runner.go` of the inference extension 1.5.0 and of llm-d's router 0.9.0 alike.
KNOWN = {
    "single-profile-handler",
    "max-score-picker",
    "queue-scorer",
    "kv-cache-utilization-scorer",
    "running-requests-size-scorer",
    "prefix-cache-scorer",
    "approx-prefix-cache-producer",
}
# The fields of `config` in the producer's types.go of either; the router refuses others.
PRODUCER_PARAMETERS = {
    "autoTune",
    "blockSizeTokens",
    "maxPrefixBlocksToMatch",
    "maxPrefixTokensToMatch",
    "lruCapacityPerServer",
}


def config(routing: Any) -> dict[str, Any]:
    built = endpoint_picker(routing)
    assert built is not None
    return built


def plugins(routing: Any) -> dict[str, dict[str, Any]]:
    """The plugins' parameters by type."""
    return {plugin["type"]: plugin.get("parameters", {}) for plugin in config(routing)["plugins"]}


def weights(routing: Any) -> dict[str, float]:
    """The scorers' weights by name."""
    (profile,) = config(routing)["schedulingProfiles"]
    return {plugin["pluginRef"]: plugin["weight"] for plugin in profile["plugins"] if "weight" in plugin}


@pytest.mark.parametrize("routing", ["prefix-cache", "load"])
def test_both_pickers_know_every_plugin(routing: Any) -> None:
    assert set(plugins(routing)) <= KNOWN
    assert len(plugins(routing)) == len(config(routing)["plugins"])


@pytest.mark.parametrize("routing", ["prefix-cache", "load"])
def test_everything_that_a_profile_names_is_declared(routing: Any) -> None:
    (profile,) = config(routing)["schedulingProfiles"]
    assert {plugin["pluginRef"] for plugin in profile["plugins"]} <= set(plugins(routing))


def test_both_pickers_know_every_parameter_of_the_producer() -> None:
    assert set(plugins("prefix-cache")["approx-prefix-cache-producer"]) <= PRODUCER_PARAMETERS


def test_the_scorer_has_no_parameters_that_kserve_would_take_out() -> None:
    assert plugins("prefix-cache")["prefix-cache-scorer"] == {}


def test_blocks_are_those_of_the_engine() -> None:
    parameters = plugins("prefix-cache")["approx-prefix-cache-producer"]
    assert parameters["autoTune"] is True
    # Either would be used instead of the engine's, or as long as it is not known.
    assert not {"blockSizeTokens", "lruCapacityPerServer"} & set(parameters)


def test_long_prompts_are_told_apart_whatever_the_block_size() -> None:
    parameters = plugins("prefix-cache")["approx-prefix-cache-producer"]
    assert parameters["maxPrefixTokensToMatch"] >= 128 * 1024
    assert "maxPrefixBlocksToMatch" not in parameters


def test_load_and_round_robin_remember_no_prefixes() -> None:
    assert not [name for name in plugins("load") if "prefix" in name]
    assert endpoint_picker("none") is None


def test_a_prefix_that_every_replica_has_does_not_decide() -> None:
    """Running requests do, before anything waits; and no load short of a queue outweighs a whole prompt's prefix."""
    weight = weights("prefix-cache")
    assert 0 < weight["running-requests-size-scorer"] < weight["prefix-cache-scorer"]


@pytest.mark.parametrize("routing", ["prefix-cache", "load"])
def test_a_configuration_is_the_caller_s_own(routing: Any) -> None:
    before = json.dumps(config(routing))
    for plugin in config(routing)["plugins"]:
        plugin.setdefault("parameters", {})["autoTune"] = False
    assert json.dumps(config(routing)) == before
