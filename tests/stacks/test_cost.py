"""What a stack is said to cost: sums of dated list prices, and nothing that is not known."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from components.core.prices import prices
from stacks.config import StackConfig, load_config
from stacks.cost import Estimate, estimate, needed_nodes, summary
from tests.support.stacks import raw_stack


def stack(name: str = "tpu", power: str = "awake", replicas: int | None = None, **pool: Any) -> StackConfig:
    raw = raw_stack(name)
    raw["power"] = power
    for entry in raw["cluster"]["accelerators"].values():
        entry.update(pool)
    if replicas is not None:
        for model in raw["models"].values():
            model["replicas"] = replicas
    return load_config(raw)


def priced(config: StackConfig) -> Estimate:
    found = estimate(config)
    assert found is not None
    return found


# Hand calculations from list prices of the same day: three nodes, one node, one spot node, none.
@pytest.mark.parametrize(
    ("config", "hourly"),
    [
        (stack(), 36.19),
        (stack(replicas=1), 12.43),
        (stack(replicas=1, capacity="spot"), 4.70),
        (stack(power="asleep"), 0.55),
    ],
)
def test_the_sum_is_that_of_the_list_prices(config: StackConfig, hourly: float) -> None:
    assert priced(config).hourly("now") == pytest.approx(hourly, abs=0.01)


def test_asleep_and_awake_agree_on_what_sleeping_costs() -> None:
    assert priced(stack()).hourly("asleep") == pytest.approx(priced(stack(power="asleep")).hourly("now"))


def test_at_most_counts_pools_at_their_greatest_size() -> None:
    config = stack(replicas=1, maxNodes=3)
    assert priced(config).hourly("most") - priced(config).hourly("now") > 2 * 4 * 2.97


def test_a_reservation_is_billed_while_the_stack_sleeps() -> None:
    asleep = stack(power="asleep", capacity="reservation", reservation="mine")
    assert priced(asleep).hourly("now") > 3 * 4 * 2.97


def test_a_price_that_is_only_an_upper_bound_is_called_one() -> None:
    assert summary(stack(capacity="flex-start"))["upper_bounds"] == ["pool v6e"]


def test_what_has_no_price_is_named_and_not_guessed() -> None:
    raw = raw_stack("tpu")
    raw["cluster"] |= {"zone": "southamerica-west1-a", "system": {"machineType": "e2-standard-4"}}
    found = priced(load_config(raw))
    assert found.not_priced == ("pool v6e (tpu-v6e in southamerica-west1)",)
    assert found.hourly("now") < 1


def test_somebody_elses_cluster_has_no_price() -> None:
    config = stack("dev")
    assert estimate(config) is None
    assert "hourly" not in summary(config)


def test_a_gpu_stack_is_priced_too() -> None:
    assert priced(stack("gpu")).hourly("now") == pytest.approx(0.1 + 2 * 0.192 + 1.3232 + 4.6016 + 0.05)


def test_a_pool_needs_whole_nodes_for_the_chips_of_all_its_models() -> None:
    assert needed_nodes(stack(replicas=2), "v6e") == 2


def test_every_price_says_where_and_when_it_was_read() -> None:
    for key, price in prices().items():
        assert price.hourly > 0 and price.source and isinstance(price.read, date), key


def test_the_output_calls_itself_an_estimate() -> None:
    output = summary(stack())
    assert "estimate" in output["note"]
    assert output["monthly"] == round(730 * priced(stack()).hourly("now"))
    assert output["prices_read"] <= "2026-11-21"
