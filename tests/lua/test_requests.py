"""The way in: who asks, for what, and what is taken from the request."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from components.serving.manifests.gateway import INFERENCE_PATHS
from components.serving.manifests.lua import LuaAccess, requests_source
from tests.lua.envoy import ACCESS, GEMMA, LLAMA, MODELS, QWEN, TENANTS, Worker

HEADER = "x-gateway-model-name"
QWEN_BODY = '{"model":"qwen"}'


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker()


@pytest.fixture(scope="module")
def open_worker() -> Worker:
    """Without access: no key is asked for."""
    return Worker(requests_source(MODELS, None))


# Identity


def test_d54_without_a_verified_key_the_answer_is_401_and_says_what_to_send(worker: Worker) -> None:
    refused = worker.request(body=QWEN_BODY, tenant=None, headers=[("authorization", "Bearer forged")])
    assert (refused.status, refused.noted) == (401, {"code": "invalid_api_key"})
    assert refused.text == "no valid API key: send Authorization: Bearer <key>"
    assert not refused.buffered


@pytest.mark.parametrize(
    "claims",
    [{"sub": 5}, {"sub": None}, {"jti": None}, {"jti": 7}, {"iss": "somebody-else"}, {"iss": None}],
    ids=str,
)
def test_claims_that_are_not_ours_are_no_key(worker: Worker, claims: dict[str, object]) -> None:
    assert worker.request(body=QWEN_BODY, claims=claims).status == 401


def test_a_revoked_key_is_refused_and_named_in_the_log(worker: Worker) -> None:
    refused = worker.request(body=QWEN_BODY, key="revoked-key-1")
    assert (refused.status, refused.noted["key"], refused.noted["tenant"]) == (401, "revoked-key-1", "acme")
    assert "tier" not in refused.noted


def test_a_tenant_that_is_not_in_the_tables_is_refused(worker: Worker) -> None:
    refused = worker.request(body=QWEN_BODY, tenant="removed")
    assert (refused.status, refused.noted["code"], refused.noted["tenant"]) == (
        403,
        "unknown_tenant",
        "removed",
    )


def test_identity_comes_before_everything_else(worker: Worker) -> None:
    for method, path in (
        ("DELETE", "/v1/models"),
        ("GET", "/v1/models"),
        ("GET", "/nothing"),
        ("GET", "/health"),
    ):
        assert worker.request(method, path, tenant=None).status == 401


def test_an_admitted_request_carries_its_identity(worker: Worker) -> None:
    admitted = worker.request(body=QWEN_BODY)
    assert admitted.status is None and admitted.error is None
    assert admitted.noted == {
        "tenant": "acme",
        "tier": "premium",
        "model": "qwen",
        "key": "some-key-1",
        "kind": "/v1/chat/completions",
        # Until something comes back: whoever goes away before has made an attempt.
        "cost": 1,
    }


def test_a_client_cannot_write_an_identity_of_its_own(worker: Worker) -> None:
    forged = [("x-tenant-id", "big"), ("x-maas-tier", "enterprise"), ("llmp", "tier=enterprise")]
    assert worker.request(body=QWEN_BODY, headers=forged).noted["tier"] == "premium"


# Headers

FORGED = (
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-subset",
    "x-gateway-inference-objective",
    "x-gateway-inference-fairness-id",
    "x-gateway-model-name-rewrite",
    "x-llm-d-anything",
    "x-tokens-limit",
    "x-tokens-remaining",
    "x-requests-used",
    "x-envoy-retry-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-decorator-operation",
    "x-tenant-id",
    "x-maas-tier",
    "x-inference-anything",
    "x-session-token",
    "x-data-parallel-host-port",
    "x-data-parallel-rank",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-slo-ttft-ms",
    "x-ttft-slo",
    "x-avg-tpot-slo",
    "test-epp-endpoint-selection",
    "accept-encoding",
    "authorization",
)
KEPT = (
    "content-type",
    "content-length",
    "accept",
    "user-agent",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "traceparent",
    "x-stainless-lang",
    "openai-organization",
)


@pytest.mark.parametrize("path", ["/v1/completions", "/llm/gemma-2b/v1/completions"])
def test_d53_nothing_that_a_client_says_reaches_what_would_believe_it(worker: Worker, path: str) -> None:
    sent = [(name, "forged") for name in (*FORGED, *FORGED, *KEPT)]
    admitted = worker.request(path=path, body='{"model":"google/gemma-2b"}', headers=sent)
    mine = {HEADER, "x-gateway-prompt", ":method", ":path", ":authority"}
    assert admitted.status is None
    assert set(admitted.headers) - mine == set(KEPT)
    assert admitted.headers[HEADER] == GEMMA.header


@pytest.mark.parametrize("headers", [[], [(HEADER, "qwen")]], ids=["by body", "by header"])
@pytest.mark.parametrize(("length", "long"), [(1000, False), (3145728, False), (3145729, True)])
def test_a_prompt_that_no_picker_takes_is_marked(
    worker: Worker, headers: list[tuple[str, str]], length: int, long: bool
) -> None:
    body = json.dumps({"model": "qwen", "prompt": ""})
    body = body.replace('"prompt": "', '"prompt": "' + "x" * (length - len(body)))
    for path in ("/v1/completions", "/other/qwen/v1/completions"):
        got = worker.request(path=path, body=body, headers=[*headers, ("content-length", str(length))])
        assert got.headers.get("x-gateway-prompt") == ("long" if long else None)


def test_a_prompt_that_does_not_say_how_long_it_is_counts_as_long_where_nobody_reads_it(
    worker: Worker,
) -> None:
    assert "x-gateway-prompt" not in worker.request(body=QWEN_BODY).headers
    assert worker.request(path="/other/qwen/v1/completions").headers["x-gateway-prompt"] == "long"
    assert "x-gateway-prompt" not in worker.request("GET", "/other/qwen/v1/models").headers


def test_d57_compressed_answers_are_never_asked_for(open_worker: Worker) -> None:
    for wish in ("gzip", "br", "identity;q=0", "gzip;q=1.0, identity; q=0.5, *;q=0"):
        sent = [("accept-encoding", wish)]
        assert "accept-encoding" not in open_worker.request(body=QWEN_BODY, headers=sent).headers


# Paths


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.key)
@pytest.mark.parametrize("path", INFERENCE_PATHS)
def test_every_inference_path_works_under_a_models_prefix_without_reading_the_body(
    worker: Worker, model: object, path: str
) -> None:
    admitted = worker.request(path=f"{model.prefix}{path}?x=1", body="not even JSON")
    assert admitted.status is None and not admitted.buffered
    assert admitted.headers[HEADER] == model.header
    assert (admitted.noted["model"], admitted.noted["kind"]) == (model.key, path)


@pytest.mark.parametrize("path", INFERENCE_PATHS)
def test_every_inference_path_works_under_the_base_address(worker: Worker, path: str) -> None:
    admitted = worker.request(path=path, body='{"model":"meta/Llama-3-8B"}')
    assert admitted.status is None and admitted.buffered
    assert admitted.headers[HEADER] == LLAMA.header


@pytest.mark.parametrize("path", ["/other/qwen/v1/models", "/other/qwen/health"])
def test_b50_questions_about_a_model_cost_nothing_but_need_leave(worker: Worker, path: str) -> None:
    admitted = worker.request("GET", path)
    assert (admitted.status, admitted.noted["tier"], admitted.noted["tenant"]) == (None, "-", "acme")
    assert worker.request("GET", path, tenant="nothing").status == 403


@pytest.mark.parametrize(
    "path",
    [
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "/V1/chat/completions",
        "/v1/Chat/completions",
        "/v1/%63hat/completions",
        "/%2e%2e/v1/chat/completions",
        "/v1/../v1/chat/completions",
        "/v1/chat/completions;a=b",
        "/v1/chat/completions%3fx",
        "/v1/embeddings",
        "/v1/chat",
        "/v1",
        "/",
        "",
        "*",
        "/health",
        "/metrics",
        "/invocations",
        "/tokenize",
        "/score",
        "/v1/load_lora_adapter",
        "/other/qwen",
        "/other/qwen/v1/embeddings",
        "/other/qwen/metrics",
        "/other/qwen/v1/chat/completions/",
        "/other//qwen/v1/chat/completions",
        "/llm/qwen/v1/chat/completions",
        "/other/QWEN/v1/chat/completions",
        "/publishers/other/models/qwen/v1/chat/completions",
        "?/v1/chat/completions",
    ],
)
def test_d59_a_path_that_is_not_exactly_known_reaches_nothing(worker: Worker, path: str) -> None:
    for method in ("GET", "POST"):
        refused = worker.request(method, path, body=QWEN_BODY)
        assert (refused.status, refused.noted["code"]) == (404, "not_found")
        assert HEADER not in refused.headers and "tier" not in refused.noted


def test_d59_a_query_changes_nothing(worker: Worker) -> None:
    assert (
        worker.request(path="/v1/chat/completions?api-version=1&x=/v1/models", body=QWEN_BODY).status is None
    )
    assert worker.request("GET", "/v1/models?limit=2").status == 200


def test_d59_nothing_is_upgraded(worker: Worker) -> None:
    for method, path in (
        ("GET", "/v1/chat/completions"),
        ("GET", "/other/qwen/health"),
        ("POST", "/v1/responses"),
    ):
        assert worker.request(method, path, headers=[("upgrade", "websocket")]).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("GET", "/other/qwen/v1/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/v1/models/qwen", "GET"),
        ("POST", "/other/qwen/health", "GET"),
        ("PUT", "/v1/chat/completions", "GET, POST"),
        ("HEAD", "/v1/models", "GET, POST"),
        ("OPTIONS", "/v1/chat/completions", "GET, POST"),
        ("CONNECT", "/", "GET, POST"),
        ("get", "/v1/models", "GET, POST"),
    ],
)
def test_other_methods_are_refused_with_those_that_work(
    worker: Worker, method: str, path: str, allow: str
) -> None:
    refused = worker.request(method, path, body=QWEN_BODY)
    assert (refused.status, refused.reply_headers["allow"]) == (405, allow)


# Which models


def test_the_list_holds_what_the_tenant_may_use(worker: Worker, open_worker: Worker) -> None:
    def listed(by: Worker, tenant: str | None) -> list[str]:
        answered = by.request("GET", "/v1/models", tenant=tenant)
        assert (answered.status, answered.reply_headers["content-type"]) == (200, "application/json")
        assert answered.json["object"] == "list"
        return [entry["id"] for entry in answered.json["data"]]

    everything = ["google/gemma-2b", "llama3-8b", "qwen"]
    assert listed(worker, "acme") == listed(open_worker, None) == everything
    assert listed(worker, "small") == ["google/gemma-2b", "qwen"]
    assert listed(worker, "nothing") == []


@pytest.mark.parametrize(
    "written", ["google/gemma-2b", "google%2Fgemma-2b", "publishers/llm/models/google/gemma-2b"]
)
def test_one_model_is_shown_by_any_of_its_names(worker: Worker, written: str) -> None:
    shown = worker.request("GET", f"/v1/models/{written}")
    assert shown.status == 200
    assert shown.json == {
        "id": "google/gemma-2b",
        "object": "model",
        "created": 0,
        "owned_by": "llm-platform",
    }


def test_one_model_is_not_shown_to_who_may_not_use_it(worker: Worker) -> None:
    assert worker.request("GET", "/v1/models/llama3-8b", tenant="small").status == 403
    refused = worker.request("GET", "/v1/models/nope", tenant="small")
    assert (refused.status, refused.noted["code"]) == (404, "model_not_found")


def test_a_model_that_sleeps_says_so_at_no_cost_and_is_still_listed() -> None:
    sleeping = Worker(requests_source([replace(m, asleep=m is QWEN) for m in MODELS], ACCESS))
    refused = sleeping.request(body=QWEN_BODY)
    assert (refused.status, refused.noted["code"], refused.noted["tenant"]) == (503, "model_asleep", "acme")
    assert refused.text == "the model qwen sleeps: no replica runs until it is woken up"
    assert "tier" not in refused.noted and HEADER not in refused.headers
    assert sleeping.request("GET", QWEN.prefix + "/health").noted["code"] == "model_asleep"
    assert "qwen" in {model["id"] for model in sleeping.request("GET", "/v1/models").json["data"]}
    assert sleeping.request(body='{"model":"llama3-8b"}').status is None
    assert sleeping.request(body=QWEN_BODY, tenant=None).status == 401


@pytest.mark.parametrize(
    "call",
    [
        {"path": LLAMA.prefix + "/v1/completions"},
        {"body": '{"model":"llama3-8b"}'},
        {"headers": [(HEADER, LLAMA.header)]},
    ],
    ids=["path", "body", "header"],
)
def test_a_model_outside_the_tenants_list_is_refused_in_every_form(worker: Worker, call: dict) -> None:
    refused = worker.request(tenant="small", **call)
    assert (refused.status, refused.noted["code"], refused.noted["model"]) == (
        403,
        "model_not_allowed",
        LLAMA.key,
    )
    assert refused.text == "this API key's tenant may not use the model llama3-8b"
    assert HEADER not in refused.headers and "tier" not in refused.noted
    assert worker.request(tenant="acme", **call).status is None


@pytest.mark.parametrize("name", [*QWEN.names, QWEN.header])
def test_the_header_chooses_the_model_and_the_body_streams(worker: Worker, name: str) -> None:
    admitted = worker.request(headers=[(HEADER, name)], body='{"model":"llama3-8b"}')
    assert admitted.headers[HEADER] == QWEN.header and not admitted.buffered
    assert admitted.noted["model"] == "qwen"


def test_a_header_that_names_no_model_or_two_is_refused(worker: Worker) -> None:
    for sent in ([(HEADER, "nope")], [(HEADER, "")], [(HEADER, "qwen"), (HEADER, "llama3-8b")]):
        assert worker.request(headers=sent, body=QWEN_BODY).status == 404


def test_c49_a_body_that_waits_for_leave_is_asked_for_only_where_it_must_be_read(worker: Worker) -> None:
    waits = [("expect", "100-continue")]
    refused = worker.request(headers=waits, body=QWEN_BODY)
    assert (refused.status, refused.noted["code"]) == (417, "expectation_failed")
    assert worker.request(headers=[*waits, (HEADER, "qwen")], body=QWEN_BODY).status is None
    assert worker.request(path="/other/qwen/v1/completions", headers=waits, body=QWEN_BODY).status is None


@pytest.mark.parametrize("named", ["llama3-8b", "nope", ""])
def test_d62_a_header_and_a_path_that_disagree_are_refused(worker: Worker, named: str) -> None:
    refused = worker.request(path="/other/qwen/v1/completions", headers=[(HEADER, named)])
    assert (refused.status, refused.noted["code"]) == (400, "bad_request")
    agreed = worker.request(path="/other/qwen/v1/completions", headers=[(HEADER, "qwen")])
    assert agreed.headers[HEADER] == QWEN.header


def test_without_access_everything_is_open_and_costs_nothing(open_worker: Worker) -> None:
    admitted = open_worker.request(body=QWEN_BODY, tenant=None)
    assert admitted.noted == {
        "tenant": "",
        "tier": "-",
        "key": "",
        "model": "qwen",
        "kind": "/v1/chat/completions",
    }
    assert open_worker.request("GET", "/nothing", tenant=None).status == 404


def test_what_a_client_wrote_comes_back_sanitised(worker: Worker) -> None:
    wild = "<script>\\u0022%s{}" + "a" * 100
    refused = worker.request(headers=[(HEADER, wild)])
    assert refused.text.startswith("the model ?script??u0022?s??aaaa")
    assert len(refused.text) < 120 and not set(refused.text) & set('"\\<>{}%')


# Defects


def test_b36_a_defect_refuses_the_request_and_is_counted(worker: Worker) -> None:
    for broken in ("headers", "streamInfo", "body"):
        refused = worker.request(body=QWEN_BODY, broken=[broken])
        assert refused.status == 503, broken
        assert "broken" not in refused.text
    # Even a refusal that cannot be written down is one.
    assert Worker(requests_source(MODELS, None)).request("GET", "/no", broken=["streamInfo"]).status == 503
    # The answer to the refusal passes the way back, where an error is counted and changes nothing.
    noted = worker.request(body=QWEN_BODY, broken=["body"]).noted
    assert "broken body" in noted["failed"]
    counted = worker.answer("unavailable", "text/plain", 503, noted=noted)
    assert "broken body" in counted.error
    assert "charge" not in counted.noted


def test_b36_requests_leave_nothing_behind() -> None:
    worker = Worker()
    before = worker.globals()
    first = worker.request(body=QWEN_BODY)
    worker.request(body='{"model":"llama3-8b"}', tenant="small")
    worker.request(body="{", headers=[(HEADER, "nope")])
    assert worker.request(body=QWEN_BODY) == first
    assert worker.globals() == before
    assert {"envoy_on_request", "envoy_on_response"} <= before


def test_the_program_makes_two_globals_and_no_more() -> None:
    closed = Worker("").globals()
    assert Worker().globals() - closed == {"envoy_on_request", "envoy_on_response"}


def test_budgets_in_requests_change_nothing_on_the_way_in_but_the_price() -> None:
    by_requests = Worker(requests_source(MODELS, LuaAccess(tenants=TENANTS, measure="requests")))
    by_tokens = Worker(requests_source(MODELS, ACCESS))
    tokens, requests = (worker.request(body=QWEN_BODY) for worker in (by_tokens, by_requests))
    assert tokens.noted.pop("cost") == 1
    assert requests == tokens
