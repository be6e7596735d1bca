"""Two models behind one gateway: which address leads to which, and who may use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data_plane.chain import GEMMA, LLAMA, Chain, completion, without_access
from tests.data_plane.conftest import Start

NAMESPACE = "llm-models"
HEADER = "x-gateway-model-name"
MODELS = (GEMMA, LLAMA)


def full_name(model: str) -> str:
    """KServe's form of a model's name."""
    return f"publishers/{NAMESPACE}/models/{model}"


@pytest.fixture(scope="module")
def free_for_all(start: Start) -> Iterator[Chain]:
    """The same two models without keys and limits."""
    with start(configure=without_access) as running:
        yield running


BODIES = {
    "/v1/completions": {"prompt": "hello", "max_tokens": 3},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3},
    "/v1/responses": {"input": "hello", "max_output_tokens": 3},
    "/v1/messages": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3},
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", BODIES)
def test_one_base_url_serves_all_models_by_the_bodys_model(chain: Chain, model: str, path: str) -> None:
    for name in (model, full_name(model)):
        answer = chain.ask(chain.tenant(), {**BODIES[path], "model": name}, path)
        assert (answer.status, answer.json["model"]) == (200, name)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", BODIES)
def test_one_base_url_serves_all_models_by_the_header(chain: Chain, model: str, path: str) -> None:
    for name in (model, full_name(model)):
        answer = chain.ask(chain.tenant(), BODIES[path], path, more=[(HEADER, name)])
        assert (answer.status, answer.json["model"]) == (200, model)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", BODIES)
def test_every_model_has_a_path_of_its_own(chain: Chain, model: str, path: str) -> None:
    answer = chain.ask(chain.tenant(), BODIES[path], f"/{NAMESPACE}/{model}{path}")
    assert (answer.status, answer.json["model"]) == (200, model)
    assert any(chain.seen(model, n)["path"] == path for n in range(chain.raw["models"][model]["replicas"]))


@pytest.mark.parametrize(
    ("path", "header", "body", "status"),
    [
        # The gateway sees these itself; where it cannot see the body, the engine refuses another model's name.
        (f"/{NAMESPACE}/{GEMMA}/v1/completions", LLAMA, None, 400),
        (f"/{NAMESPACE}/{GEMMA}/v1/completions", None, LLAMA, 404),
        (f"/{NAMESPACE}/{GEMMA}/v1/completions", GEMMA, LLAMA, 404),
        (f"/{NAMESPACE}/{GEMMA}/v1/completions", LLAMA, GEMMA, 400),
        ("/v1/completions", GEMMA, LLAMA, 404),
        ("/v1/completions", full_name(LLAMA), GEMMA, 404),
        ("/v1/completions", GEMMA, full_name(LLAMA), 404),
    ],
)
def test_body_header_and_path_that_disagree_are_refused(
    chain: Chain, path: str, header: str | None, body: str | None, status: int
) -> None:
    made = {model: chain.metric(model, "vllm:generation_tokens_total") for model in MODELS}
    request = {"prompt": "hello", **({"model": body} if body else {})}
    more = [(HEADER, header)] if header else []
    assert chain.ask(chain.tenant(), request, path, more=more).status == status
    assert {model: chain.metric(model, "vllm:generation_tokens_total") for model in MODELS} == made


@pytest.mark.parametrize("name", ["nothing", full_name("nothing"), "publishers/other/models/" + GEMMA, ""])
def test_an_unknown_model_is_not_found_by_body_or_header(chain: Chain, name: str) -> None:
    tenant = chain.tenant()
    by_body = chain.ask(tenant, {"prompt": "x", "model": name})
    assert (by_body.status, by_body.code) == (404, "model_not_found")
    by_header = chain.ask(tenant, {"prompt": "x", "model": GEMMA}, more=[(HEADER, name)])
    assert (by_header.status, by_header.code) == (404, "model_not_found")
    assert chain.spent(tenant) == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"model", b'{"model":', b'"gemma-2b"'])
def test_a_body_that_is_no_object_is_refused_before_any_model(chain: Chain, body: bytes) -> None:
    tenant = chain.tenant()
    answer = chain.ask(tenant, body)
    assert (answer.status, answer.code) == (400, "bad_request")
    assert chain.spent(tenant) == 0


def test_a_body_without_a_model_is_told_where_models_are_listed(chain: Chain) -> None:
    answer = chain.ask(chain.tenant(), {"prompt": "x"})
    assert (answer.status, answer.code) == (404, "model_not_found")
    assert "/v1/models" in answer.json["error"]["message"]


# -- what a tenant may use ------------------------------------------------------------------------------------------


def listed(chain: Chain, name: str) -> list[str]:
    answer = chain.ask(chain.named(name), path="/v1/models")
    assert (answer.status, answer.json["object"]) == (200, "list")
    return [model["id"] for model in answer.json["data"]]


def test_the_list_of_models_is_the_tenants(chain: Chain) -> None:
    assert listed(chain, chain.tenant().name) == [GEMMA, LLAMA]
    assert listed(chain, "only-gemma") == [GEMMA]


@pytest.mark.parametrize("name", [LLAMA, full_name(LLAMA)])
def test_a_model_that_is_not_the_tenants_is_refused_by_every_address(chain: Chain, name: str) -> None:
    before = chain.asked()[LLAMA]
    tenant, body = chain.named("only-gemma"), completion(9, name)
    answers = [
        chain.ask(tenant, body),
        chain.ask(tenant, body, more=[(HEADER, name)]),
        chain.ask(tenant, body, f"/{NAMESPACE}/{LLAMA}/v1/completions"),
        chain.ask(tenant, path=f"/{NAMESPACE}/{LLAMA}/v1/models"),
        chain.ask(tenant, path=f"/v1/models/{LLAMA}"),
    ]
    assert [(a.status, a.code) for a in answers] == [(403, "model_not_allowed")] * 5
    assert chain.asked()[LLAMA] == before
    assert chain.ask(tenant, completion(9, GEMMA)).status == 200


def test_one_model_is_shown_under_each_of_its_names(chain: Chain) -> None:
    for name in (GEMMA, full_name(GEMMA), full_name(GEMMA).replace("/", "%2F")):
        answer = chain.ask(chain.tenant(), path=f"/v1/models/{name}")
        assert (answer.status, answer.json["id"]) == (200, GEMMA)
    assert chain.ask(chain.tenant(), path="/v1/models/nothing").code == "model_not_found"


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
def test_a_model_tells_of_itself_under_its_path(chain: Chain, path: str) -> None:
    assert chain.ask(chain.tenant(), path=f"/{NAMESPACE}/{GEMMA}{path}").status == 200


def test_without_access_everybody_is_served_by_every_address(free_for_all: Chain) -> None:
    nobody, body = free_for_all.nobody, completion(9, GEMMA)
    answers = [
        free_for_all.ask(nobody, body),
        free_for_all.ask(nobody, {**body, "model": full_name(GEMMA)}, more=[(HEADER, full_name(GEMMA))]),
        free_for_all.ask(nobody, body, f"/{NAMESPACE}/{GEMMA}/v1/completions"),
        free_for_all.ask(nobody, path="/v1/models"),
    ]
    assert [a.status for a in answers] == [200] * 4
    assert all(a.header("x-tokens-limit") is None for a in answers)
    assert free_for_all.ask(nobody, {"prompt": "x", "model": "nothing"}).code == "model_not_found"
