"""What clients try in order to pay less or to be somebody else: letter D of docs/limits-tests.md."""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from ops.keys import tokens
from stacks.config import ConfigError, load_config
from tests.data_plane import client
from tests.data_plane.chain import (
    AUDIENCE,
    CHEAP,
    GEMMA,
    LLAMA,
    RESEMBLING,
    Chain,
    Raw,
    Signer,
    Tenant,
    completion,
    prompt_of,
    recorded,
    wait_until,
)
from tests.data_plane.client import next_event
from tests.data_plane.conftest import Start

HOST = "llm.example.com"
JSON = ("content-type", "application/json")


def with_host(raw: Raw) -> None:
    raw["gateway"] = {"host": HOST, "tls": {"none": "the tests read what is on the wire"}}


@pytest.fixture(scope="module")
def hosted(start: Start) -> Iterator[Chain]:
    """The gateway with a host name."""
    with start(configure=with_host, host=HOST) as running:
        yield running


# -- forged headers -------------------------------------------------------------------------------------------------

FORGED = {
    "x-tenant-id": "enterprise-0",
    "x-maas-tier": "enterprise",
    "x-tokens-limit": "999999",
    "x-tokens-remaining": "999999",
    "x-tokens-used": "0",
    "x-requests-limit": "999999",
    "x-envoy-internal": "true",
    "x-envoy-original-path": "/v1/models",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-max-retries": "9",
    "x-envoy-retry-on": "5xx",
    "x-envoy-force-trace": "true",
    "x-gateway-destination-endpoint": "127.0.0.1:1",
    "x-gateway-destination-endpoint-subset": "127.0.0.1:1",
    "x-gateway-inference-objective": "first",
    "x-gateway-inference-fairness-id": "other",
    "x-gateway-model-name-rewrite": LLAMA,
    "x-llm-d-request-priority": "9",
    "x-prefiller-host-port": "127.0.0.1:1",
    "x-data-parallel-host-port": "127.0.0.1:1",
    "x-session-token": "MTI3LjAuMC4xOjE=",
    "x-slo-ttft-ms": "1",
    "test-epp-endpoint-selection": "127.0.0.1:1",
}
# What Envoy and the request program themselves tell a model server.
OWN = {"x-gateway-model-name", "x-envoy-expected-rq-timeout-ms", "x-envoy-attempt-count"}


def test_d53_headers_of_a_client_change_nothing_and_reach_nobody(chain: Chain) -> None:
    tenant = chain.tenant("free")
    answer = chain.ask(tenant, completion(100, GEMMA), more=FORGED.items())
    assert (answer.status, answer.number("x-tokens-limit"), answer.number("x-tokens-used")) == (200, 200, 10)
    chain.settled(tenant, 10)
    assert not {name for name, _ in answer.headers} & (
        FORGED.keys() - {"x-tokens-limit", "x-tokens-used"}
    ) - {"x-tokens-remaining"}
    seen = dict(chain.seen()["headers"])
    believed = {name for name, value in FORGED.items() if seen.get(name) == value}
    assert not believed
    assert not {name for name in seen if name.startswith(("x-gateway", "x-envoy", "x-llm-d"))} - OWN
    assert not {"authorization", "accept-encoding"} & seen.keys()


# -- keys -----------------------------------------------------------------------------------------------------------


def unsigned(claims: Raw, header: Raw, signature: str = "") -> str:
    parts = (tokens.encode(json.dumps(part).encode()) for part in (header, claims))
    return ".".join([*parts, signature])


def claims_of(key: str) -> Raw:
    payload = key.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))


STRANGER = Signer("first-test-key")
NOW = int(time.time())
BAD_KEYS = {
    "opaque": lambda key, signer: "sk-1234567890abcdef",
    "empty": lambda key, signer: "",
    "truncated": lambda key, signer: key[:-4],
    "without signature": lambda key, signer: key.rpartition(".")[0] + ".",
    "without last part": lambda key, signer: key.rpartition(".")[0],
    "padded too much": lambda key, signer: key + "====",
    "padded inside": lambda key, signer: key.replace(".", "==."),
    "and a word": lambda key, signer: key + " more",
    "and a comma": lambda key, signer: key + ",",
    "and another": lambda key, signer: f"{key},{signer.key('enterprise-0')}",
    "longer": lambda key, signer: key + "AAAA",
    "twice": lambda key, signer: f"{key}.{key}",
    "alg none": lambda key, signer: unsigned(claims_of(key), {"alg": "none", "typ": "JWT"}),
    "alg none with signature": lambda key, signer: unsigned(
        claims_of(key), {"alg": "none", "kid": signer.kid}, key.split(".")[2]
    ),
    "alg HS256": lambda key, signer: unsigned(
        claims_of(key), {"alg": "HS256", "kid": signer.kid}, key.split(".")[2]
    ),
    "another signer": lambda key, signer: STRANGER.key("plenty-0"),
    "claims exchanged": lambda key, signer: ".".join(
        [key.split(".")[0], signer.key("enterprise-0").split(".")[1], key.split(".")[2]]
    ),
    "wrong issuer": lambda key, signer: signer.key("plenty-0", iss="someone"),
    "no issuer": lambda key, signer: signer.key("plenty-0", iss=None),
    "wrong audience": lambda key, signer: signer.key("plenty-0", aud="prod/llm-gateway/llm-gateway"),
    "no audience": lambda key, signer: signer.key("plenty-0", aud=None),
    "expired": lambda key, signer: signer.key("plenty-0", iat=NOW - 7200, exp=NOW - 3600),
    "not yet valid": lambda key, signer: signer.key("plenty-0", nbf=NOW + 3600),
    "no id": lambda key, signer: signer.key("plenty-0", jti=None),
    "no tenant": lambda key, signer: signer.key("plenty-0", sub=None),
    "a tenant that is no text": lambda key, signer: signer.key("plenty-0", sub=7),
}


def refused(chain: Chain, headers: client.Headers, path: str = "/v1/completions") -> client.Answer:
    """The answer to a request, which must be one that asked neither a counter nor a model."""
    before = chain.asked(), chain.store.dbsize()
    answer = client.ask(chain.plane.url, "POST", path, [*headers, JSON], completion(9))
    assert (chain.asked(), chain.store.dbsize()) == before
    return answer


MISSES, HITS = r"\.jwt_cache_miss$", r"\.jwt_cache_hit$"


def remembered(chain: Chain, tenant: Tenant) -> int:
    """Ask until every worker has verified the tenant's key; how often that was."""
    before = chain.counted(MISSES)
    for asked in range(1, 100):
        assert chain.ask(tenant, completion(9)).status == 200
        if chain.counted(MISSES) == before + chain.plane.workers:
            return asked
    raise AssertionError("some worker was never asked")


@pytest.mark.parametrize("prefix", ["Bearer", "APIKEY"])
@pytest.mark.parametrize("kind", BAD_KEYS)
def test_d54_a_bad_key_is_refused_before_anything_is_counted(chain: Chain, kind: str, prefix: str) -> None:
    good = chain.tenant()
    # The gateway remembers what it verified: nothing that resembles it may profit from that.
    asked = remembered(chain, good)
    chain.settled(good, 9 * asked)
    bad = BAD_KEYS[kind](good.key, chain.signer)
    answer = refused(chain, [("authorization", f"{prefix} {bad}")])
    assert (answer.status, answer.code) == (401, "invalid_api_key")


def test_d54_a_signature_is_verified_once_by_each_worker(chain: Chain) -> None:
    tenant = chain.tenant()
    remembered(chain, tenant)
    before = chain.counted(HITS), chain.counted(MISSES)
    for _ in range(5):
        assert chain.ask(tenant, completion(9)).status == 200
    assert (chain.counted(HITS), chain.counted(MISSES)) == (before[0] + 5, before[1])


def test_d54_another_request_authentication_changes_nothing(start: Start) -> None:
    """As while a stack is upgraded that had one of its own, and where the mesh has one."""
    changes = r"listener_manager\.listener_in_place_updated$"
    with start() as chain:
        keys = json.dumps({"keys": [tokens.jwk_of(chain.signer.private.public_key())]})
        ours = {"issuer": "llm-platform", "audiences": [AUDIENCE], "jwks": keys}
        theirs = {"issuer": "https://somebody.example.com", "jwks": keys}
        before = chain.counted(changes)
        chain.plane.apply([request_authentication(chain, [ours, theirs])])
        wait_until(lambda: chain.counted(changes) > before, "the gateway has not heard of it")
        tenant = chain.tenant()
        assert chain.ask(tenant, completion(9)).status == 200
        assert chain.ask(chain.nobody, completion(9)).status == 401
        chain.settled(tenant, 9)


def request_authentication(chain: Chain, rules: list[Raw]) -> Raw:
    """Istio's own object for keys, for the chain's gateway."""
    (gateway,) = (item for item in recorded(chain.raw, chain.directory) if item["kind"] == "Gateway")
    reference = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway["metadata"]["name"]}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "other", "namespace": gateway["metadata"]["namespace"]},
        "spec": {"targetRefs": [reference], "jwtRules": rules},
    }


def test_d54_a_key_that_is_remembered_expires_all_the_same(chain: Chain) -> None:
    """Envoy allows clocks to be a minute apart."""
    seconds = 4
    tenant = chain.named("enterprise-1", exp=int(time.time()) - 60 + seconds)
    assert chain.ask(tenant, completion(9)).status == 200
    wait_until(lambda: chain.ask(tenant, completion(9)).status == 401, "the key is still valid")


def test_d54_a_padded_key_is_the_same_key(chain: Chain) -> None:
    """Envoy's decoder takes padding, which carries nothing: who is verified is who pays."""
    tenant = chain.tenant()
    headers = [("authorization", f"Bearer {tenant.key}=="), JSON]
    assert client.ask(chain.plane.url, "POST", "/v1/completions", headers, completion(9)).status == 200
    chain.settled(tenant, 9)


PLACES = {
    "nowhere": ([], "/v1/completions"),
    "small letters": ([("authorization", "apikey {}")], "/v1/completions"),
    "another scheme": ([("authorization", "Basic {}")], "/v1/completions"),
    "no scheme": ([("authorization", "{}")], "/v1/completions"),
    "another header": ([("x-api-key", "{}")], "/v1/completions"),
    "the query": ([], "/v1/completions?access_token={}"),
    "the query by another name": ([], "/v1/completions?api_key={}"),
    "a cookie": ([("cookie", "authorization=Bearer {}")], "/v1/completions"),
}


@pytest.mark.parametrize("place", PLACES)
def test_d54_a_good_key_in_the_wrong_place_is_none(chain: Chain, place: str) -> None:
    headers, path = PLACES[place]
    key = chain.signer.key("plenty-0")
    answer = refused(chain, [(name, value.format(key)) for name, value in headers], path.format(key))
    assert (answer.status, answer.code) == (401, "invalid_api_key")


def test_d54_the_older_word_and_openais_word_open_the_door(chain: Chain) -> None:
    tenant = chain.tenant()
    for number, word in enumerate(("APIKEY", "Bearer"), start=1):
        headers = [("authorization", f"{word} {tenant.key}"), JSON]
        assert client.ask(chain.plane.url, "POST", "/v1/completions", headers, completion(9)).status == 200
        chain.settled(tenant, 9 * number)


@pytest.mark.parametrize("first", [True, False])
def test_d54_two_keys_are_none(chain: Chain, first: bool) -> None:
    """A second header neither hides the first nor makes somebody else pay."""
    tenant, stranger = chain.tenant(), STRANGER.key("plenty-0")
    pair = [("authorization", f"Bearer {key}") for key in (tenant.key, stranger)]
    answer = refused(chain, pair if first else pair[::-1])
    assert (answer.status, answer.code) == (401, "invalid_api_key")


def test_an_unknown_tenant_with_a_good_key_is_refused_before_anything_is_counted(chain: Chain) -> None:
    answer = refused(chain, chain.named("ghost").headers[:1])
    assert (answer.status, answer.code) == (403, "unknown_tenant")


# -- changes take effect --------------------------------------------------------------------------------------------


def test_d55_a_revoked_key_ends_and_what_it_began_does_not(chain: Chain) -> None:
    tenant = chain.tenant()
    other = chain.named(tenant.name)
    key_id = claims_of(tenant.key)["jti"]
    body = completion(20, rehearsal={"hold_after": 2})
    with chain.streaming(tenant, body) as response:
        next_event(response)
        chain.change(lambda raw: raw["access"].update(revoked=[key_id]))
        wait_until(lambda: chain.ask(tenant, completion(9)).status == 401, "the key is still valid")
        assert chain.ask(tenant, completion(9)).code == "invalid_api_key"
        assert chain.ask(other, completion(9)).status == 200
        chain.release()
        assert b"[DONE]" in response.read()


def test_d55_a_signing_key_is_replaced_without_refusing_a_valid_key(chain: Chain) -> None:
    old, new, name = chain.signer, Signer("second-test-key"), chain.tenant().name
    both = {signer.kid: signer.public for signer in (old, new)}
    keys = {signer: Tenant(name, signer.key(name)) for signer in (old, new)}

    def status(signer: Signer) -> int:
        return chain.ask(keys[signer], completion(9)).status

    assert (status(old), status(new)) == (200, 401)
    chain.change(lambda raw: raw["access"].update(publicKeys=both))
    wait_until(lambda: (status(old), status(new)) == (200, 200), "the new key is not known")
    chain.change(lambda raw: raw["access"].update(publicKeys={new.kid: new.public}))
    wait_until(lambda: (status(old), status(new)) == (401, 200), "the old key is still valid")
    chain.change(lambda raw: raw["access"].update(publicKeys=both))
    wait_until(lambda: status(old) == 200, "the old key does not come back")


def test_d55_a_tenant_that_changes_its_tier_has_the_new_budget_at_once(chain: Chain) -> None:
    tenant = chain.tenant("free", seconds=15)
    assert chain.ask(tenant, completion(300)).status == 200
    chain.settled(tenant, 300)
    assert chain.ask(tenant, completion(9)).status == 429
    chain.change(lambda raw: raw["access"]["tenants"][tenant.name].update(tier="premium"))
    wait_until(lambda: chain.ask(tenant, completion(9)).status == 200, "the tenant is still in its old tier")
    assert chain.ask(tenant, completion(9)).number("x-tokens-limit") == 1000


def test_d55_a_budget_that_changes_counts_at_once(chain: Chain) -> None:
    tenant = chain.tenant("premium", seconds=15)
    assert chain.ask(tenant, completion(1500)).status == 200
    chain.settled(tenant, 1500)
    assert chain.ask(tenant, completion(9)).status == 429
    chain.change(lambda raw: raw["access"]["tiers"]["premium"].update(tokensPerMinute=9000))
    wait_until(lambda: chain.ask(tenant, completion(9)).status == 200, "the old budget still counts")
    assert chain.ask(tenant, completion(9)).number("x-tokens-limit") == 9000


def test_d55_a_removed_tenant_is_unknown(chain: Chain) -> None:
    tenant = chain.tenant()
    assert chain.ask(tenant, completion(9)).status == 200
    chain.change(lambda raw: raw["access"]["tenants"].pop(tenant.name))
    wait_until(lambda: chain.ask(tenant, completion(9)).status == 403, "the tenant is still known")


# -- answers without usage ------------------------------------------------------------------------------------------

OPTIONS: dict[str, Raw] = {
    "none": {},
    "null": {"stream_options": None},
    "refused": {"stream_options": {"include_usage": False}},
    "refused twice": {"stream_options": {"include_usage": False, "continuous_usage_stats": False}},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_d56_a_stream_tells_its_usage_whatever_the_client_wants(chain: Chain, options: str) -> None:
    tenant = chain.tenant()
    answer = chain.ask(tenant, completion(77, stream=True, **OPTIONS[options]))
    assert answer.events[-1]["usage"]["total_tokens"] == 77
    chain.settled(tenant, 77)


@pytest.mark.parametrize("stream", [True, False])
def test_d56_an_answer_without_usage_is_estimated_and_says_so(chain: Chain, stream: bool) -> None:
    tenant = chain.tenant()
    answer = chain.ask(tenant, completion(44, stream=stream, rehearsal={"usage": False}))
    # An event per token and the last one; a token per four bytes.
    estimate = 40 + 1 + 1 if stream else -(-len(answer.body) // 4)
    (line,) = chain.log(tenant, 1)
    assert (line["total"], line["source"]) == (estimate, "estimate")
    chain.settled(tenant, estimate)


@pytest.mark.parametrize("accepted", ["gzip", "br", "gzip, deflate, br", "identity;q=0", "*;q=0, gzip"])
@pytest.mark.parametrize("stream", [True, False])
def test_d57_answers_come_uncompressed_and_are_read(chain: Chain, accepted: str, stream: bool) -> None:
    tenant = chain.tenant()
    body = completion(66, stream=stream, rehearsal={"gzip": "asked"})
    answer = chain.ask(tenant, body, more=[("accept-encoding", accepted)])
    assert (answer.status, answer.header("content-encoding")) == (200, None)
    chain.settled(tenant, 66)
    assert chain.log(tenant, 1)[0]["source"] == "usage"


@pytest.mark.parametrize("stream", [True, False])
def test_d57_an_answer_that_comes_compressed_is_estimated_by_its_size(chain: Chain, stream: bool) -> None:
    tenant = chain.tenant()
    answer = chain.ask(tenant, completion(500, stream=stream, rehearsal={"gzip": "always"}))
    assert (answer.status, answer.header("content-encoding")) == (200, "gzip")
    (line,) = chain.log(tenant, 1)
    assert (line["total"], line["source"]) == (-(-len(answer.body) // 4), "estimate")
    chain.settled(tenant, line["cost"])


# -- paths and hosts ------------------------------------------------------------------------------------------------

BY_PATH = f"/llm-models/{LLAMA}/v1/completions"
# Envoy resolves dots before anything reads the path.
METERED = (
    "/v1/completions?x=1",
    "/v1/completions?",
    f"{BY_PATH}?model={GEMMA}",
    "/v1/./completions",
    "/v1/%2e%2e/v1/completions",
    "/v1/models/../completions",
)
DENIED = (
    "/v1/completions#x",
    "/v1/completions/",
    "//v1/completions",
    "/v1//completions",
    "/v1/completions%2f",
    "/v1%2fcompletions",
    "/V1/completions",
    "/v1/Completions",
    "/v1/completions;x=1",
    "/v1/completions%00",
    "/v1/completions%3fx",
    "/v1/completions%20",
    "/v1/models/../completions/",
    f"{BY_PATH}/",
    f"/{BY_PATH}",
    f"/llm-models/{LLAMA.upper()}/v1/completions",
    f"/llm-models/{LLAMA}",
    f"/llm-models/{LLAMA}/",
    f"/llm-models/{LLAMA}/v1/embeddings",
    f"/llm-models/{LLAMA}/metrics",
    f"/llm-models/{LLAMA}/tokenize",
    f"/llm-models/{LLAMA}/v1/load_lora_adapter",
    "/v1/embeddings",
    "/v1/audio/speech",
    "/v1/score",
    "/invocations",
    "/inference/v1/generate",
    "/tokenize",
    "/metrics",
    "/health",
    "/rehearsal/release",
    "/",
    "*",
)


@pytest.mark.parametrize("path", METERED)
def test_d59_a_path_that_is_answered_is_paid(chain: Chain, path: str) -> None:
    tenant = chain.tenant()
    assert chain.ask(tenant, completion(30), path).status == 200
    chain.settled(tenant, 30)


@pytest.mark.parametrize("path", DENIED)
def test_d59_a_path_that_is_not_exactly_known_reaches_nothing(chain: Chain, path: str) -> None:
    tenant, before = chain.tenant(), chain.asked()
    answer = chain.ask(tenant, completion(30), path)
    assert answer.status in (400, 404, 405)
    assert (chain.asked(), chain.spent(tenant)) == (before, 0)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("stream", [True, False])
def test_d59_other_apis_are_paid_as_well(chain: Chain, path: str, stream: bool) -> None:
    tenant = chain.tenant()
    text = {"input": prompt_of(10)} if path == "/v1/responses" else {}
    text = text or {"messages": [{"role": "user", "content": prompt_of(10)}]}
    limits = {"max_output_tokens": 30, "max_tokens": 30, "ignore_eos": True}
    assert chain.ask(tenant, {"model": LLAMA, "stream": stream, **text, **limits}, path).status == 200
    (line,) = chain.log(tenant, 1)
    assert (line["completion"], line["source"]) == (30, "usage") and line["total"] >= 40
    chain.settled(tenant, line["total"])


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECTED"])
def test_d59_no_other_method_reaches_a_model(chain: Chain, method: str) -> None:
    tenant, before = chain.tenant(), chain.asked()
    answer = client.ask(chain.plane.url, method, BY_PATH, tenant.headers, completion(30))
    assert answer.status in (400, 404, 405)
    assert (chain.asked(), chain.spent(tenant)) == (before, 0)


@pytest.mark.parametrize("path", ["/v1/completions", BY_PATH])
@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_d59_nothing_is_upgraded(chain: Chain, path: str, upgrade: str) -> None:
    tenant, before = chain.tenant(), chain.asked()
    headers = {**dict(tenant.headers), "connection": "upgrade", "upgrade": upgrade, "content-length": "0"}
    with closing(client.raw(chain.plane.url)) as connection, connection.makefile("rb") as answer:
        connection.sendall(client.request_bytes("GET", path, headers))
        assert int(answer.readline().split()[1]) in (400, 403, 404, 405)
    assert (chain.asked(), chain.spent(tenant)) == (before, 0)


def test_d59_a_request_of_two_lengths_is_refused(chain: Chain) -> None:
    tenant, before = chain.tenant(), chain.asked()
    hidden = client.request_bytes("POST", BY_PATH, dict(tenant.headers))
    headers = {**dict(tenant.headers), "content-length": "5", "transfer-encoding": "chunked"}
    with closing(client.raw(chain.plane.url)) as connection, connection.makefile("rb") as answer:
        connection.sendall(client.request_bytes("POST", BY_PATH, headers, b"0\r\n\r\n" + hidden))
        assert int(answer.readline().split()[1]) == 400
    assert (chain.asked(), chain.spent(tenant)) == (before, 0)


@pytest.mark.parametrize("host", [HOST, HOST.upper(), f"{HOST}:8080", f"{HOST}:1", "Llm.Example.com:443"])
def test_d60_every_spelling_of_the_host_is_metered(hosted: Chain, host: str) -> None:
    tenant = hosted.tenant()
    assert hosted.ask(tenant, completion(30), more=[("host", host)]).status == 200
    hosted.settled(tenant, 30)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "other.example.com", f"a.{HOST}", f"{HOST}.", "localhost", "*", f"{HOST}@x"]
)
def test_d60_another_host_reaches_nothing(hosted: Chain, host: str) -> None:
    tenant, before = hosted.tenant(), hosted.asked()
    for path in ("/v1/completions", BY_PATH, "/v1/models"):
        body = None if path == "/v1/models" else completion(30)
        # Where no host matches there are no tables, and the gateway stays closed.
        assert hosted.ask(tenant, body, path, more=[("host", host)]).status in (400, 404)
    assert (hosted.asked(), hosted.spent(tenant)) == (before, 0)


def test_d60_without_a_host_name_every_host_is_metered(chain: Chain) -> None:
    tenant = chain.tenant()
    for number, host in enumerate(("127.0.0.1", "other.example.com:99", "UPPER"), start=1):
        assert chain.ask(tenant, completion(30), more=[("host", host)]).status == 200
        chain.settled(tenant, 30 * number)


# -- bodies ---------------------------------------------------------------------------------------------------------

PROMPT, LENGTH = 4, 20
GREEDY: dict[str, tuple[Raw, int]] = {
    "many answers": ({"n": 50}, PROMPT + 50 * LENGTH),
    "many answers as a stream": ({"n": 50, "stream": True}, PROMPT + 50 * LENGTH),
    "best of many": ({"best_of": 50}, PROMPT + LENGTH),
    "echo": ({"echo": True}, PROMPT + LENGTH),
    "echo as a stream": ({"echo": True, "stream": True}, PROMPT + LENGTH),
    "log probabilities": ({"logprobs": 5, "prompt_logprobs": 5}, PROMPT + LENGTH),
}


@pytest.mark.parametrize("kind", GREEDY)
def test_d61_what_makes_more_tokens_costs_more(chain: Chain, kind: str) -> None:
    more, cost = GREEDY[kind]
    tenant = chain.tenant()
    assert chain.ask(tenant, completion(PROMPT + LENGTH, LLAMA, PROMPT, **more)).status == 200
    chain.settled(tenant, cost)


def test_d61_an_echoed_usage_is_not_believed(chain: Chain) -> None:
    tenant, lie = chain.tenant(), '"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0} '
    for number, stream in enumerate((True, False), start=1):
        body = {**completion(9), "prompt": lie * 4, "max_tokens": 6, "echo": True, "stream": stream}
        assert chain.ask(tenant, body).status == 200
        chain.settled(tenant, number * (len(lie) + 6))


def test_d61_more_than_the_model_can_is_refused_for_one(chain: Chain) -> None:
    tenant = chain.tenant()
    assert chain.ask(tenant, {**completion(9), "max_tokens": 10**9}).status == 400
    chain.settled(tenant, 1)


def text_of(model: str, other: str, rest: str) -> dict[str, bytes]:
    """Bodies that name `model` and `other` at once, in every way that readers of JSON could disagree about."""
    forms = {
        "twice": f'{{"model":"{model}","model":"{other}",{rest}}}',
        "at both ends": f'{{"model":"{model}",{rest},"model":"{other}"}}',
        "escaped": f'{{"model":"{model}",{rest},"mod\\u0065l":"{other}"}}',
        "escaped first": f'{{"mod\\u0065l":"{other}",{rest},"model":"{model}"}}',
        "nested": f'{{"metadata":{{"model":"{model}"}},{rest},"model":"{other}"}}',
        "nested last": f'{{"model":"{other}",{rest},"metadata":{{"model":"{model}"}}}}',
        "in a list": f'{{"stop":[{{"model":"{model}"}}],{rest},"model":"{other}"}}',
        "in capitals": f'{{"Model":"{model}",{rest},"model":"{other}"}}',
        "in text": f'{{"user":"\\"model\\":\\"{model}\\"",{rest},"model":"{other}"}}',
        "with spaces": f'{{ "model" \n:\t"{model}",{rest},"model" : "{other}"}}',
        "null last": f'{{"model":"{other}",{rest},"model":null}}',
        "a number last": f'{{"model":"{other}",{rest},"model":7}}',
        "after many": "{" + f'"model":"{model}",' * 40 + f'{rest},"model":"{other}"}}',
        "unfinished": f'{{"model":"{other}",{rest},"model":"{model}"',
        "two objects": f'{{"model":"{model}",{rest}}}{{"model":"{other}",{rest}}}',
        "with a mark": f'\ufeff{{"model":"{model}",{rest},"model":"{other}"}}',
    }
    return {kind: text.encode() for kind, text in forms.items()}


REST = json.dumps({"prompt": prompt_of(PROMPT), "max_tokens": 96, "ignore_eos": True})[1:-1]
SPOOFS = {
    f"{first} {kind}": body
    for first, second in ((GEMMA, LLAMA), (LLAMA, GEMMA))
    for kind, body in text_of(first, second, REST).items()
}


@pytest.mark.parametrize("spoof", SPOOFS)
def test_d62_an_answer_costs_the_price_of_the_model_that_gave_it(chain: Chain, spoof: str) -> None:
    tenant = chain.tenant()
    answer = chain.ask(tenant, SPOOFS[spoof])
    if answer.status != 200:
        assert answer.status in (400, 404)
        return
    price = CHEAP if answer.json["model"] == GEMMA else 1
    chain.settled(tenant, round(100 * price))


@pytest.mark.parametrize("spoof", SPOOFS)
def test_d62_no_body_opens_a_model_that_is_not_the_tenants(chain: Chain, spoof: str) -> None:
    before = chain.asked()[LLAMA]
    chain.ask(chain.named("only-gemma"), SPOOFS[spoof])
    assert chain.asked()[LLAMA] == before


def test_d62_two_model_headers_are_none_that_is_known(chain: Chain) -> None:
    tenant = chain.named("only-gemma")
    before = chain.asked()[LLAMA]
    for pair in ((GEMMA, LLAMA), (LLAMA, GEMMA)):
        more = [("x-gateway-model-name", name) for name in pair]
        for body in (completion(9, GEMMA), completion(9, LLAMA), {"prompt": "x"}):
            chain.ask(tenant, body, more=more)
    assert chain.asked()[LLAMA] == before


# -- counters -------------------------------------------------------------------------------------------------------


def test_d65_tenants_whose_names_resemble_each_other_have_their_own_budgets(chain: Chain) -> None:
    for cost, name in enumerate(RESEMBLING, start=10):
        assert chain.ask(chain.named(name), completion(cost)).status == 200
    for cost, name in enumerate(RESEMBLING, start=10):
        pattern = f"llmp_tier_free_tenant_{name}_[0-9]*"
        wait_until(
            lambda k=pattern, c=cost: sum(int(chain.store.get(n) or 0) for n in chain.store.keys(k)) == c,
            f"{name} did not pay {cost}",
        )


def test_d65_no_name_can_hold_what_joins_names_in_the_store(chain: Chain) -> None:
    raw = copy.deepcopy(chain.raw)
    raw["access"]["tenants"]["a_tenant_b"] = {"tier": "free"}
    with pytest.raises(ConfigError, match="a_tenant_b"):
        load_config(raw)


def test_d66_requests_without_a_valid_key_leave_nothing_in_the_store(chain: Chain) -> None:
    before, asked = chain.store.dbsize(), chain.asked()
    with closing(client.connect(chain.plane.url)) as connection:
        for number in range(300):
            signer = chain.signer if number % 2 else STRANGER
            key = signer.key(f"ghost-{number}", aud=AUDIENCE)
            headers: Any = [("authorization", f"Bearer {key}"), JSON]
            response = client.send(connection, "POST", "/v1/completions", headers, completion(9))
            assert client.answer_of(response).status in (401, 403)
    assert (chain.store.dbsize(), chain.asked()) == (before, asked)
