"""`python -m ops verify` against real Envoys with a real counting service: what is right passes, what is broken does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ops.verify import access, checks, models, routing, throughput
from ops.verify.bench import Bench, Wishes
from ops.verify.client import Client, Door
from ops.verify.passes import Mint, Passes
from ops.verify.verdicts import Outcome, Result, Verdict
from stacks.config import load_config
from tests.data_plane.chain import AUDIENCE, GEMMA, LLAMA, Chain, Raw, wait_until, without_access

PASSED, FAILED, UNCHECKED, INAPPLICABLE = Outcome
TIERS = {"free": 200, "premium": 1000, "none": 0, "plenty": 1_000_000_000}


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    """Trying these tiers takes seconds of a minute."""
    monkeypatch.setattr(access, "LEAST_LEFT", 6)
    monkeypatch.setattr(access, "SETTLING", 2.0)


def few_tiers(raw: Raw) -> None:
    """Tiers whose boundaries take seconds to reach, one that is closed, one that nobody can afford to spend."""
    raw["access"] |= {
        "tiers": {name: {"tokensPerMinute": budget} for name, budget in TIERS.items()},
        "tenants": {"none-0": {"tier": "none"}, "small": {"tier": "free"}},
    }


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Iterator[Chain]:
    with Chain.running(tmp_path_factory.mktemp("verify"), configure=few_tiers) as running:
        yield running


@pytest.fixture(scope="module")
def anybody(tmp_path_factory) -> Iterator[Chain]:
    """A gateway that lets everybody in."""
    with Chain.running(tmp_path_factory.mktemp("anybody"), configure=without_access) as running:
        yield running


@pytest.fixture(scope="module")
def lenient(tmp_path_factory) -> Iterator[Chain]:
    """A gateway that refuses nobody for the limit, and has no tenants of verification's."""

    def configure(raw: Raw) -> None:
        few_tiers(raw)
        raw["access"] |= {"shadow": True}

    with Chain.running(tmp_path_factory.mktemp("lenient"), configure=configure, shadow=True) as running:
        yield running


def mint_of(chain: Chain) -> Mint:
    private = chain.signer.private
    return Mint(
        chain.signer.kid, private.public_key(), lambda text: private.sign(text, ec.ECDSA(hashes.SHA256()))
    )


def client_of(chain: Chain) -> Client:
    url = urlsplit(chain.plane.url)
    return Client(
        Door(scheme="http", host="llm.example.com", address=str(url.hostname), port=url.port or 80), 4
    )


def bench_of(
    chain: Chain,
    configure: Callable[[Raw], None] = lambda raw: None,
    given: str | None = None,
    **changes: Any,
) -> Bench:
    """A verification of what runs, by a configuration that `configure` may make another than the running one."""
    raw = json.loads(json.dumps(chain.raw))
    configure(raw)
    config = load_config(raw)
    kept = config.access is None or config.access.verification
    passes = Passes(
        AUDIENCE, asked=config.access is not None, reserved=kept, mint=mint_of(chain), given=given
    )
    common = {
        "config": config,
        "passes": passes,
        "client": client_of(chain),
        "log": lambda: [json.dumps(line) for line in chain.plane.log()],
        "wishes": Wishes(requests=8, concurrent=4),
        "say": lambda text: None,
    }
    return Bench(**{**common, **changes})


def verdicts(results: Iterator[Result], subject: str | None = None) -> Mapping[str, Verdict]:
    """Verdicts by check, of one subject or of all."""
    return {r.check: r.verdict for r in results if subject in (None, r.subject)}


def outcomes(found: Mapping[str, Verdict]) -> dict[str, Outcome]:
    return {check: verdict.outcome for check, verdict in found.items()}


def dumb(raw: Raw) -> None:
    raw["access"]["verification"] = False


# -- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [GEMMA, LLAMA])
def test_a_model_that_works_passes_every_question(chain: Chain, model: str) -> None:
    found = verdicts(models.look(bench_of(chain, only=(model,))))
    assert set(outcomes(found).values()) == {PASSED}, found
    assert "parts after" in found["stream"].evidence


def test_questions_work_where_no_key_is_asked_for(anybody: Chain) -> None:
    found = verdicts(models.look(bench_of(anybody, only=(GEMMA,))))
    assert set(outcomes(found).values()) == {PASSED}, found


def test_a_model_that_is_not_there_fails_and_says_so(chain: Chain) -> None:
    def rename(raw: Raw) -> None:
        raw["models"] = {"other": raw["models"][GEMMA]}
        raw["access"].pop("multipliers")

    found = verdicts(models.look(bench_of(chain, rename)))
    assert set(outcomes(found).values()) == {FAILED}
    assert "404" in found["by body"].evidence and "gemma-2b, llama-3-8b" in found["listed"].evidence


def test_a_replica_that_breaks_streams_off_is_seen(chain: Chain) -> None:
    target = bench_of(chain).targets()[0]
    body = models.chat(50, model=target.name, rehearsal={"reset_after": 5})
    stream = client_of(chain).stream(models.CHAT, bench_of(chain).passes.general(), body)
    assert models.judge_stream(stream).outcome is FAILED


def test_without_a_way_to_sign_everything_that_needs_a_key_is_left_with_the_fix(chain: Chain) -> None:
    bench = bench_of(chain)
    bench.passes.mint, bench.passes.lacking = None, "no key in /nowhere"
    (found,) = checks._looked(checks.Group(name="models", look=models.look), bench)
    assert found.verdict.outcome is UNCHECKED
    assert "/nowhere" in found.verdict.evidence and "--key-file" in found.verdict.fix


def test_a_given_key_asks_instead(chain: Chain) -> None:
    bench = bench_of(chain, given=chain.named("small").key, only=(GEMMA,))
    bench.passes.mint = None
    assert verdicts(models.look(bench))["by body"].outcome is PASSED


# -- speed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "outcome", "said"),
    [
        ({}, PASSED, "req/s"),
        ({"min_rps": 0.01, "max_p50": 1e6}, PASSED, "p99"),
        ({"min_rps": 1e6}, FAILED, "less than 1e+06"),
        ({"max_p50": 0.001}, FAILED, "more than 0.001"),
    ],
)
def test_wishes_decide_about_the_parallel_run(
    chain: Chain, wishes: dict[str, float], outcome: Outcome, said: str
) -> None:
    bench = bench_of(chain, only=(GEMMA,), wishes=Wishes(requests=8, concurrent=4, **wishes))
    found = verdicts(throughput.look(bench))
    assert (found["parallel"].outcome, found["serial"].outcome) == (outcome, PASSED)
    assert said in found["parallel"].evidence


def test_a_spent_budget_is_no_slow_model(chain: Chain) -> None:
    bench = bench_of(chain, given=chain.named("none-0").key, only=(GEMMA,))
    assert set(outcomes(verdicts(throughput.look(bench))).values()) == {UNCHECKED}


# -- cache routing --------------------------------------------------------------------------------------------------


def test_replicas_that_take_turns_fail_and_one_that_keeps_its_prompts_passes(chain: Chain) -> None:
    """This gateway has no picker: its requests go to any replica, as with a picker that does not see prompts."""
    bench = bench_of(chain, only=(LLAMA,))
    scattered = verdicts(routing.look(bench))["cache routing"]
    assert scattered.outcome is FAILED, scattered
    pods = chain.plane.pods(LLAMA)
    try:
        known(chain, pods[:1])
        kept = verdicts(routing.look(bench))["cache routing"]
    finally:
        known(chain, pods)
    assert kept.outcome is PASSED and "16 of 16" in kept.evidence, kept


def known(chain: Chain, pods: Sequence[str]) -> None:
    """Make these the model's only replicas, and wait until the gateway knows."""
    name = f"cluster.outbound|8000||{LLAMA}-kserve-workload-svc.llm-models.svc.cluster.local.membership_total"
    chain.plane.replace_pods(LLAMA, pods)
    wait_until(lambda: chain.plane.stats()[name] == len(pods), "the gateway does not follow")


def test_routing_that_cannot_be_seen_is_not_checked(chain: Chain) -> None:
    group = checks.Group(name="cache routing", look=routing.look)
    (found,) = checks._looked(group, bench_of(chain, only=(LLAMA,), log=None))
    assert found.verdict.outcome is UNCHECKED and "medians" in found.verdict.evidence


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"replicas": 1}, "one replica"),
        ({"routing": "load"}, "routing is load"),
        ({"maxModelLen": 100}, "hold no 4 blocks"),
    ],
)
def test_routing_is_only_judged_where_it_can_show(chain: Chain, change: Raw, reason: str) -> None:
    def configure(raw: Raw) -> None:
        raw["models"][LLAMA] |= change

    found = verdicts(routing.look(bench_of(chain, configure, only=(LLAMA,))))["cache routing"]
    assert found.outcome is INAPPLICABLE and reason in found.evidence


# -- keys and tiers -------------------------------------------------------------------------------------------------


def test_every_key_that_must_be_refused_is_refused(chain: Chain) -> None:
    found = verdicts(access.refusals(bench_of(chain)))
    assert set(outcomes(found)) == {refusal.check for refusal in access.REFUSALS}
    assert set(outcomes(found).values()) == {PASSED}, found


def test_a_gateway_that_lets_everybody_in_fails(chain: Chain, anybody: Chain) -> None:
    bench = replace(bench_of(chain), client=client_of(anybody))
    found = verdicts(access.refusals(bench))
    assert set(outcomes(found).values()) == {FAILED}
    assert all("let in" in verdict.evidence for verdict in found.values())


def test_each_tier_shows_its_budget_and_ends_at_it(chain: Chain) -> None:
    results = list(access.limits(bench_of(chain)))
    for tier in TIERS:
        found = verdicts(iter(results), f"tier {tier}")
        assert found["headers"].outcome is PASSED, found
        assert found["boundary"].outcome is (INAPPLICABLE if tier == "plenty" else PASSED), found


def only_tier(name: str, **more: Any) -> Callable[[Raw], None]:
    """Verify one tier, so that no other's minute is used."""

    def configure(raw: Raw) -> None:
        raw["access"] |= {"tiers": {name: {"tokensPerMinute": TIERS[name]}}, "tenants": {}, **more}

    return configure


def test_limits_without_effect_fail(lenient: Chain) -> None:
    found = verdicts(access.limits(bench_of(lenient, only_tier("free", shadow=False))))
    assert found["boundary"].outcome is FAILED and "still answered" in found["boundary"].evidence


def test_in_shadow_mode_nobody_is_refused_and_that_is_right(lenient: Chain) -> None:
    found = verdicts(access.limits(bench_of(lenient, only_tier("premium"))))
    assert outcomes(found) == {"headers": PASSED, "boundary": PASSED}
    assert "shadow" in found["boundary"].evidence


def test_a_budget_that_is_not_the_configured_one_fails(chain: Chain) -> None:
    def other(raw: Raw) -> None:
        raw["access"]["tiers"] = {"premium": {"tokensPerMinute": 1001}}
        raw["access"]["tenants"] = {}

    found = verdicts(access.limits(bench_of(chain, other, wishes=Wishes(max_tokens=0))))
    assert found["headers"].outcome is FAILED and "1000" in found["headers"].evidence


def test_tenants_that_are_not_deployed_yet_ask_for_an_up(chain: Chain) -> None:
    def more(raw: Raw) -> None:
        raw["access"]["tiers"] = {"new": {"tokensPerMinute": 10}}
        raw["access"]["tenants"] = {}

    found = verdicts(access.limits(bench_of(chain, more)))
    assert found["headers"].outcome is FAILED and "pulumi up" in found["headers"].fix


def test_switched_off_says_how_to_switch_it_on(chain: Chain) -> None:
    found = verdicts(access.limits(bench_of(chain, dumb)), "tier free")["budget"]
    assert found.outcome is UNCHECKED and "access.verification" in found.evidence
