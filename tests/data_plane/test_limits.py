"""What tenants may use, on real Envoys with a real counting service: letter C of docs/limits-tests.md."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from tests.data_plane import client, h2
from tests.data_plane.chain import BUDGETS, CHEAP, GEMMA, LLAMA, Chain, Raw, Tenant, completion, wait_until
from tests.data_plane.conftest import Start

TIMEOUT_SECONDS = 2


def short_timeout(raw: Raw) -> None:
    raw["models"][GEMMA] |= {"requestTimeoutSeconds": TIMEOUT_SECONDS, "minTokensPerSecond": 10000}


# Everything holds over several gateways with several threads each.
CHAIN = {"gateways": 2, "workers": 4, "configure": short_timeout}


def spend(chain: Chain, tenant: Tenant, cost: int, before: int = 0) -> client.Answer:
    """One answer of that cost, paid for; `before` is what was spent until then."""
    answer = chain.ask(tenant, completion(cost))
    assert answer.status == 200
    chain.settled(tenant, before + cost)
    return answer


def admitted(chain: Chain, tenant: Tenant, cost: int) -> int:
    """How many answers of that cost a tenant gets, one after the other, until it is refused."""
    for count in range(1000):
        answer = chain.ask(tenant, completion(cost), gateway=count % chain.plane.count)
        if answer.status == 429:
            return count
        chain.settled(tenant, (count + 1) * cost)
    raise AssertionError("there is no end")


def cluster(model: str) -> str:
    """The name under which Envoy counts requests to a model."""
    return f"cluster.outbound|8000||{model}-kserve-workload-svc.llm-models.svc.cluster.local"


def dead(chain: Chain, model: str) -> str:
    """An address at which no replica of the model listens."""
    return chain.plane.pods(model)[0].rpartition(".")[0] + ".250"


@contextmanager
def replicas(chain: Chain, model: str, *addresses: str) -> Iterator[None]:
    """The model's replicas are there, as every gateway knows, for as long as this lasts."""
    before = chain.plane.pods(model)
    move(chain, model, addresses)
    try:
        yield
    finally:
        move(chain, model, before)


def move(chain: Chain, model: str, addresses: Sequence[str]) -> None:
    name = f"{cluster(model)}.update_success"
    known = [chain.plane.stats(index)[name] for index in range(chain.plane.count)]
    chain.plane.replace_pods(model, addresses)
    wait_until(
        lambda: all(chain.plane.stats(index)[name] > before for index, before in enumerate(known)),
        "the gateways do not follow",
    )


def hits(chain: Chain, tenant: Tenant) -> int:
    """What the counting service says of a tenant in its metrics."""
    with urllib.request.urlopen(chain.plane.limits_page) as page:
        lines = page.read().decode().splitlines()
    mine = [
        line
        for line in lines
        if line.startswith("ratelimit_service_rate_limit_total_hits") and tenant.name in line
    ]
    return sum(int(float(line.split()[-1])) for line in mine)


# -- the boundary --------------------------------------------------------------------------------------------------


def test_c37_a_budget_is_exact(chain: Chain) -> None:
    tenant = chain.tenant("free")
    spend(chain, tenant, 100)
    spend(chain, tenant, 100, before=100)
    assert chain.ask(tenant, completion(100)).status == 429


def test_c38_the_answer_that_exceeds_a_budget_is_the_last_one(chain: Chain) -> None:
    tenant = chain.tenant("free")
    spend(chain, tenant, 250)
    assert chain.ask(tenant, completion(5)).status == 429


def test_c39_a_budget_of_nothing_admits_nothing(chain: Chain) -> None:
    assert chain.ask(chain.tenant("none"), completion(5)).status == 429


def test_c40_all_gateways_and_workers_share_one_count(chain: Chain) -> None:
    tenant, costs = chain.tenant(), []
    for number in range(400):
        answer = chain.ask(tenant, completion(5 + number % 7), gateway=number % 2)
        costs.append(answer.json["usage"]["total_tokens"])
    assert costs == [5 + number % 7 for number in range(400)]
    chain.settled(tenant, sum(costs))


@pytest.mark.parametrize(("tier", "cost"), [("free", 30), ("premium", 400), ("enterprise", 1200)])
def test_c41_each_tier_has_its_own_budget(chain: Chain, tier: str, cost: int) -> None:
    tenant = chain.tenant(tier)
    assert admitted(chain, tenant, cost) == -(-BUDGETS[tier] // cost)
    assert chain.ask(tenant, completion(5)).number("x-tokens-limit") == BUDGETS[tier]


def test_c42_keys_of_a_tenant_share_its_budget_and_tenants_do_not(chain: Chain) -> None:
    tenant, other = chain.tenant("free"), chain.tenant("free")
    spend(chain, tenant, 200)
    second = chain.named(tenant.name)
    assert second.key != tenant.key
    assert chain.ask(second, completion(5)).status == 429
    spend(chain, other, 200)


def test_c43_a_budget_is_one_of_the_minute(chain: Chain) -> None:
    tenant = chain.tenant("free")
    answer = spend(chain, tenant, 200)
    ((name, _),) = chain.counters(tenant).items()
    minute = int(time.time()) // 60 * 60
    assert name == f"llmp_tier_free_tenant_{tenant.name}_{minute}"
    # The counter outlives its minute by the jitter of the service at most.
    assert 0 < chain.store.ttl(name) <= 60 + 10
    refused = chain.ask(tenant, completion(5))
    until_next = minute + 60 - time.time()
    for reset in (answer.number("x-tokens-reset"), refused.number("retry-after")):
        assert 1 <= reset <= 60 and until_next <= reset <= until_next + 5
    # As if all of this had been in the minute before: the budget is whole again.
    chain.store.rename(name, name.replace(str(minute), str(minute - 60)))
    answer = chain.ask(tenant, completion(50))
    assert (answer.status, answer.number("x-tokens-remaining")) == (200, 150)


@pytest.mark.long
def test_c43_the_next_minute_begins_with_the_whole_budget(chain: Chain) -> None:
    tenant = chain.tenant("free")
    spend(chain, tenant, 200)
    refused = chain.ask(tenant, completion(5))
    assert refused.status == 429
    time.sleep(refused.number("retry-after"))
    answer = chain.ask(tenant, completion(50))
    assert (answer.status, answer.number("x-tokens-remaining")) == (200, 150)


def test_c45_every_refusal_is_the_same_and_costs_one(chain: Chain) -> None:
    tenant = chain.tenant("free")
    spend(chain, tenant, 230)
    before = chain.asked()[LLAMA]
    for number in range(1, 6):
        answer = chain.ask(tenant, completion(50), gateway=number % 2)
        assert (answer.status, answer.code) == (429, "rate_limit_exceeded")
        assert answer.json["error"]["type"] == "tokens"
        assert answer.header("content-type") == "application/json"
        headers = [answer.number(f"x-tokens-{name}") for name in ("limit", "remaining", "used")]
        assert headers == [200, 0, 200]
        assert answer.number("retry-after") == answer.number("x-tokens-reset")
        chain.settled(tenant, 230 + number)
    assert chain.asked()[LLAMA] == before


def test_the_headers_of_a_small_answer_include_it_and_those_of_a_stream_do_not(chain: Chain) -> None:
    tenant = chain.tenant("free")
    answer = spend(chain, tenant, 30)
    assert (answer.number("x-tokens-used"), answer.number("x-tokens-remaining")) == (30, 170)
    streamed = chain.ask(tenant, completion(40, stream=True))
    assert (streamed.number("x-tokens-used"), streamed.number("x-tokens-remaining")) == (30, 170)
    chain.settled(tenant, 70)


def test_c46_concurrent_requests_exceed_a_budget_by_their_own_cost_at_most(chain: Chain) -> None:
    tenant, together, cost = chain.tenant("free", seconds=15), 50, 60
    with ThreadPoolExecutor(together) as threads:
        answers = list(
            threads.map(lambda n: chain.ask(tenant, completion(cost), gateway=n % 2), range(together))
        )
    statuses = [answer.status for answer in answers]
    passed = statuses.count(200)
    assert set(statuses) <= {200, 429} and passed >= -(-BUDGETS["free"] // cost)
    chain.settled(tenant, passed * cost + (together - passed))
    assert passed * cost <= BUDGETS["free"] + together * cost
    assert chain.ask(tenant, completion(5)).status == 429


# -- what went wrong costs one --------------------------------------------------------------------------------------

FAULTS = {
    "error": ({"status": 500}, 500, None),
    "unavailable": ({"status": 503}, 503, None),
    "reset": ({"reset_after": 0}, 503, "model_unavailable"),
    "timeout": ({"delay_seconds": TIMEOUT_SECONDS * 2}, 504, "timeout"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_c47_an_attempt_without_an_answer_costs_one(chain: Chain, fault: str) -> None:
    wanted, status, code = FAULTS[fault]
    tenant = chain.tenant("free")
    answer = chain.ask(tenant, completion(50, GEMMA, rehearsal=wanted))
    assert answer.status == status
    assert code is None or answer.code == code
    chain.settled(tenant, 1)
    (line,) = chain.log(tenant, 1)
    assert (line["cost"], line["status"], line["total"]) == (1, status, None)


@pytest.mark.parametrize("body", [completion(5, LLAMA, n=1, max_tokens=-1), {"model": LLAMA, "prompt": 7}])
def test_c47_what_the_engine_refuses_costs_one(chain: Chain, body: Raw) -> None:
    tenant = chain.tenant("free")
    assert chain.ask(tenant, body).status == 400
    chain.settled(tenant, 1)


def test_c47_without_a_replica_the_attempt_costs_one(chain: Chain) -> None:
    tenant = chain.tenant("free")
    with replicas(chain, GEMMA, dead(chain, GEMMA)):
        answer = chain.ask(tenant, completion(50, GEMMA))
    assert (answer.status, answer.code) == (503, "model_unavailable")
    chain.settled(tenant, 1)


def test_c48_an_answer_after_a_retry_is_paid_once(chain: Chain) -> None:
    tenant, asked = chain.tenant(), 0
    retries = f"{cluster(LLAMA)}.upstream_rq_retry_success"
    with replicas(chain, LLAMA, *chain.plane.pods(LLAMA), dead(chain, LLAMA)):
        while not chain.plane.stats()[retries]:
            assert chain.ask(tenant, completion(20)).status == 200
            asked += 1
            assert asked < 300, "no request met the replica that is not there"
    chain.settled(tenant, 20 * asked)


# -- how a request travels ------------------------------------------------------------------------------------------


def test_c49_http2_is_counted(chain: Chain) -> None:
    tenant = chain.tenant("free")
    with closing(h2.Connection(client.raw(chain.plane.url))) as connection:
        for number in (1, 2):
            ok, body = connection.post("/v1/completions", tenant.headers, client.encoded(completion(100)))
            assert ok and b'"total_tokens": 100' in body
            chain.settled(tenant, 100 * number)
        ok, body = connection.post("/v1/completions", tenant.headers, client.encoded(completion(100)))
        assert not ok and b"rate_limit_exceeded" in body


def test_c49_every_request_of_a_connection_is_counted(chain: Chain) -> None:
    tenant = chain.tenant("free")
    with closing(client.connect(chain.plane.url)) as connection:
        for number in (1, 2):
            body = completion(100)
            response = client.send(connection, "POST", "/v1/completions", tenant.headers, body)
            assert client.answer_of(response).status == 200
            chain.settled(tenant, 100 * number)
        response = client.send(connection, "POST", "/v1/completions", tenant.headers, completion(100))
        assert client.answer_of(response).status == 429


@pytest.mark.parametrize("path", ["/v1/completions", f"/llm-models/{LLAMA}/v1/completions"])
def test_c49_a_client_that_waits_for_100_continue_is_served(chain: Chain, path: str) -> None:
    tenant, body = chain.tenant("free"), client.encoded(completion(30))
    headers = {**dict(tenant.headers), "expect": "100-continue", "content-length": str(len(body))}
    with closing(client.raw(chain.plane.url)) as connection, connection.makefile("rb") as answer:
        connection.sendall(client.request_bytes("POST", path, headers))
        connection.settimeout(5)
        assert answer.readline().startswith(b"HTTP/1.1 100")
        assert answer.readline() == b"\r\n"
        connection.sendall(body)
        assert answer.readline().startswith(b"HTTP/1.1 200")
    chain.settled(tenant, 30)


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{LLAMA}", f"/llm-models/{LLAMA}/v1/models"])
def test_c50_questions_about_models_are_free_and_always_answered(chain: Chain, path: str) -> None:
    tenant = chain.tenant("free")
    spend(chain, tenant, 200)
    assert chain.ask(tenant, completion(5)).status == 429
    chain.settled(tenant, 201)
    assert chain.ask(tenant, path=path).status == 200
    assert chain.ask(tenant, completion(5)).status == 429
    chain.settled(tenant, 202)


# -- three books of the same ----------------------------------------------------------------------------------------


def test_c51_log_and_store_and_metrics_agree(chain: Chain) -> None:
    tenant = chain.tenant("premium", seconds=10)
    bodies = [
        completion(30),
        completion(70, stream=True),
        completion(105, GEMMA),
        completion(9, GEMMA),
        completion(50, rehearsal={"status": 500}),
        completion(2000),
        completion(5),
    ]
    paid = 0
    for body, cost in zip(bodies, (30, 70, 11, 1, 1, 2000, 1), strict=True):
        chain.ask(tenant, body)
        chain.settled(tenant, paid := paid + cost)
    log = chain.log(tenant, len(bodies))
    assert sum(line["cost"] for line in log) == paid == chain.spent(tenant)
    assert [line["cost"] for line in log if line["model"] == GEMMA] == [11, 1]
    assert [line["total"] for line in log if line["model"] == GEMMA] == [105, 9]
    assert [line["status"] for line in log if line["flags"] == "RL"] == [429]
    wait_until(lambda: hits(chain, tenant) == paid, lambda: f"{hits(chain, tenant)} in the metrics")


def test_prices_are_those_of_the_model_that_answers(chain: Chain) -> None:
    tenant = chain.tenant("free")
    answer = chain.ask(tenant, completion(101, GEMMA))
    assert answer.json["usage"]["total_tokens"] == 101 and CHEAP == 0.1
    assert answer.number("x-tokens-used") == 11
    chain.settled(tenant, 11)


def test_c52_the_gate_of_these_tests_is_the_limit_itself(chain: Chain) -> None:
    """What `Chain.running` waits for is refused by a counter, not by anything that stands before it."""
    probe = chain.named("none-0")
    before, asked = chain.spent(probe), chain.asked()["ratelimit"]
    answer = chain.ask(probe, completion(5))
    assert (answer.status, answer.code) == (429, "rate_limit_exceeded")
    assert chain.asked()["ratelimit"] == asked + 1
    chain.settled(probe, before + 1)


# -- other ways to limit --------------------------------------------------------------------------------------------


def test_requests_are_counted_where_requests_are_limited(start: Start) -> None:
    with start(limitBy="requests") as chain:
        tenant = chain.tenant("free")
        for number in range(1, 4):
            answer = chain.ask(tenant, completion(500, stream=number == 2))
            assert answer.status == 200
            assert (answer.number("x-requests-used"), answer.number("x-requests-limit")) == (number, 200)
            assert answer.header("x-tokens-used") is None
            chain.settled(tenant, number)
        refused = chain.ask(chain.tenant("none"), completion(5))
        assert (refused.status, refused.json["error"]["type"]) == (429, "requests")


def test_in_shadow_mode_everything_is_counted_and_nobody_refused(start: Start) -> None:
    with start(shadow=True) as chain:
        tenant = chain.tenant("free")
        for number in (1, 2, 3):
            assert chain.ask(tenant, completion(150)).status == 200
            chain.settled(tenant, 150 * number)
        assert chain.ask(chain.named("ghost"), completion(5)).code == "unknown_tenant"
