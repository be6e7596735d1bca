"""The gateway's benchmark: its smallest run works, and it says when a claim does not hold."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import backend, gateway, peer

SMALLEST = gateway.Sizes(seconds=0.2, connections=2, least=20, keys=(2,), tenants=(2,), concurrent=(2,))
LOADS = {f"{load}_{p}": 0.5 for load in ("alone", "half") for p in ("p50", "p99")}
AS_CLAIMED: dict[str, Any] = {
    "added": {
        "keys": {**LOADS, "times_litellm": 20.0},
        "chain": {**LOADS, "times_litellm": 20.0},
        "litellm": {**LOADS, "times_litellm": 1.0},
    },
    "keys": [{"count": 10, "p50": 1.0, "p99": 4.0}, {"count": 1000, "p50": 1.0, "p99": 5.9}],
    "tenants": [{"count": 10, "p50": 0.5, "p99": 0.6}, {"count": 100, "p50": 0.5, "p99": 1.5}],
    "overshoot": [{"concurrent": 10, "over": 1000, "bound": 1000}],
}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """The smallest run, with everything real but LiteLLM."""
    return gateway.run(SMALLEST, repetitions=1, with_peer=False)


def test_the_smallest_run_measures_every_rung(result: dict[str, Any]) -> None:
    assert [row["name"] for row in result["rows"]] == ["direct", "bare", "program", "keys", "chain"]
    for row in result["rows"]:
        assert row["megabytes"] > 1
        loads = ("alone", "saturated") if row["name"] in gateway.BASES else ("alone", "half", "saturated")
        for load in loads:
            assert 0 < row[load]["p50"] <= row[load]["p99"] and row[load]["rate"] > 0
    assert set(result["added"]) == {"program", "keys", "chain"}
    for series in ("keys", "tenants"):
        assert [row["count"] for row in result[series]] == [2]


def test_budgets_hold_in_the_smallest_run(result: dict[str, Any]) -> None:
    (row,) = result["overshoot"]
    assert row["over"] <= row["bound"]


def test_results_are_one_line_and_a_table(result: dict[str, Any]) -> None:
    assert "\n" not in json.dumps(result)
    for word in ("bare", "chain adds to bare", "2 keys", "2 tenants", "2 at once"):
        assert word in gateway.table(result)


def row(name: str, **figures: float) -> dict[str, Any]:
    """A row whose p50 are `figures`, and whose p99 are ten times that."""
    loads = {load: {"p50": p50, "p99": 10 * p50} for load, p50 in figures.items()}
    return {"name": name, "half": None, "beside": None, "cpu": [1.0], **loads}


def test_what_is_added_is_the_difference_to_bare_envoy_under_the_same_load() -> None:
    found = gateway.added(
        [row("bare", alone=1.0), row("direct", alone=0.5), row("chain", alone=3.0, half=9.0, beside=4.0)]
    )
    assert found == {"chain": {"alone_p50": 2.0, "alone_p99": 20.0, "half_p50": 5.0, "half_p99": 50.0}}


def test_a_repetition_in_which_everything_is_slow_does_not_change_how_two_compare() -> None:
    loads = {"alone": 1.0, "half": 1.0, "beside": 1.0}
    ours = {**row("chain", **loads), "cpu": [10.0, 30.0, 10.0]}
    theirs = {**row("litellm", **loads), "cpu": [200.0, 600.0, 300.0]}
    found = gateway.added([row("bare", alone=1.0), ours, theirs])
    assert found["chain"]["times_litellm"] == 20.0


def test_half_is_half_of_the_saturating_rate_for_both_that_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[float, str]] = []

    class Counting:
        saturated = alone = staticmethod(lambda rung: gateway.Sample(1, 1, 500.0, 1, 0))

        def at(self, rate: float, rung: gateway.Rung, seed: int) -> gateway.Sample:
            asked.append((rate, rung.name))
            return gateway.Sample(1, 1, rate, 1, 0)

    monkeypatch.setattr(gateway.load, "megabytes", lambda pids: 1.0)
    rungs = [gateway.Rung(name, None, ()) for name in ("bare", "chain")]
    gateway.compare(Counting(), rungs, 1)
    assert asked == [(250.0, "bare"), (250.0, "chain")]


def test_what_is_as_claimed_is_not_complained_about() -> None:
    assert gateway.broken(AS_CLAIMED) == []


CONTRADICTIONS: dict[str, Callable[[dict[str, Any]], None]] = {
    "chain adds 1.01 ms (alone_p50)": lambda r: r["added"]["chain"].update(alone_p50=1.01),
    "chain adds 1.01 ms (half_p50)": lambda r: r["added"]["chain"].update(half_p50=1.01),
    "keys adds 3.01 ms (half_p99)": lambda r: r["added"]["keys"].update(half_p99=3.01),
    "keys carries 20.0 times LiteLLM": lambda r: r["added"]["keys"].update(times_litellm=19.96),
    "1000 keys": lambda r: r["keys"][1].update(p99=6.1),
    "100 tenants": lambda r: r["tenants"][1].update(p99=1.7),
    "beyond the budget": lambda r: r["overshoot"][0].update(over=1001),
}


@pytest.mark.parametrize("claim", CONTRADICTIONS)
def test_each_claim_that_does_not_hold_is_named(claim: str) -> None:
    changed = copy.deepcopy(AS_CLAIMED)
    CONTRADICTIONS[claim](changed)
    (said,) = gateway.broken(changed)
    assert claim in said


def test_the_best_counts_figure_by_figure() -> None:
    found = gateway.best([gateway.Sample(1, 9, 10, 5, 0.5), gateway.Sample(2, 8, 20, 6, 0.1)])
    assert found == gateway.Sample(p50=1, p99=8, rate=20, cpu=5, others=0.1)


def test_no_repetitions_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gateway", "--repetitions", "0"])
    with pytest.raises(SystemExit):
        gateway.main()
    assert "--repetitions must be 1 or more" in capsys.readouterr().err


def test_without_limits_nothing_of_the_limit_is_left() -> None:
    issuer = gateway.Issuer()
    objects = backend.stack(2, issuer.jwk, gateway.KID)
    assert "llmp.limit" in json.dumps(objects, default=str)
    left = json.dumps(backend.without_limits(objects), default=str)
    assert "llmp.limit" not in left and "llmp.requests" in left and "publicKeys" not in left


def test_the_comparisons_hook_is_a_program() -> None:
    compile(peer.HOOK.format(limit=None), "hook", "exec")
