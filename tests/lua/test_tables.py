"""The tables of the request program: what goes in, what is refused, and that it stays data."""

from __future__ import annotations

import math

import pytest
from lupa.luajit21 import LuaError, LuaRuntime

from components.serving.manifests import verification
from components.serving.manifests.lua import CLOSED, LuaAccess, LuaModel, LuaTenant, requests_source
from tests.lua.envoy import ACCESS, GEMMA, LLAMA, MODELS, QWEN, TENANTS, Worker

BROKEN_TEXTS = (
    'a"b',
    "a'b",
    "a\\b",
    "a]]b",
    "a[[b",
    "a\nb",
    "a\0b",
    "a b",
    "a%b",
    "a{b",
    "ä",
    "",
    "a" * 254,
    '"] = true}} os.exit() --',
)


def with_access(**changes: object) -> LuaAccess:
    return LuaAccess(**{"tenants": TENANTS, "revoked": (), "measure": "tokens", **changes})


@pytest.mark.parametrize("text", BROKEN_TEXTS)
@pytest.mark.parametrize("place", ["key", "namespace", "name", "tenant", "tier", "revoked"])
def test_a13_text_that_lua_could_misread_is_refused_wherever_it_stands(text: str, place: str) -> None:
    model = LuaModel(
        key=text if place == "key" else "m",
        namespace=text if place == "namespace" else "n",
        names=(text if place == "name" else "m",),
    )
    access = LuaAccess(
        tenants={text if place == "tenant" else "t": LuaTenant(tier=text if place == "tier" else "free")},
        revoked=(text,) if place == "revoked" else (),
    )
    with pytest.raises(ValueError, match="cannot go into the gateway's tables"):
        requests_source([model], access)


@pytest.mark.parametrize("text", ["a.b", "a_tenant_b", "a*", "a--b", "a-1", "A|b", "a:b@c,d;e"])
def test_a13_odd_but_harmless_text_stays_what_it_is(text: str) -> None:
    access = LuaAccess(tenants={text: LuaTenant(tier="free", models=(text,))}, revoked=("x" + text,))
    model = LuaModel(key=text, namespace="n", names=(text,))
    worker = Worker(requests_source([model], access))
    admitted = worker.request(path=f"/n/{text}/v1/completions", tenant=text)
    assert (admitted.noted["tenant"], admitted.noted["model"]) == (text, text)
    assert worker.request(path=f"/n/{text}/v1/completions", tenant=text, key="x" + text).status == 401


@pytest.mark.parametrize("multiplier", [0, -1, math.nan, math.inf, -math.inf, 1e-7, 1001])
def test_a_price_that_is_no_price_is_refused(multiplier: float) -> None:
    model = LuaModel(key="m", namespace="n", names=("m",), multiplier=multiplier)
    with pytest.raises(ValueError, match="model m: the multiplier .* choose a price"):
        requests_source([model], None)


def test_what_two_models_would_share_is_refused() -> None:
    first = LuaModel(key="a", namespace="n", names=("shared",))
    for second in (
        LuaModel(key="b", namespace="m", names=("b", "shared")),
        LuaModel(key="b", namespace="m", names=("publishers/n/models/shared",)),
    ):
        with pytest.raises(ValueError, match="models a and b share the name"):
            requests_source([first, second], None)
    with pytest.raises(ValueError, match="two models a;"):
        requests_source([first, LuaModel(key="a", namespace="m", names=("other",))], None)


def test_a_model_needs_a_name_and_plain_path_parts() -> None:
    with pytest.raises(ValueError, match="nobody can ask for it"):
        requests_source([LuaModel(key="a", namespace="n", names=())], None)
    with pytest.raises(ValueError, match="remove the slash"):
        requests_source([LuaModel(key="a/b", namespace="n", names=("a",))], None)


def test_a_tenant_cannot_be_given_what_does_not_exist() -> None:
    with pytest.raises(ValueError, match="tenant t: there is no model gone; models are gemma-2b, llama3"):
        requests_source(MODELS, with_access(tenants={"t": LuaTenant(tier="free", models=("gone",))}))
    for tier in ("-", "?"):
        with pytest.raises(ValueError, match="is reserved"):
            requests_source(MODELS, with_access(tenants={"t": LuaTenant(tier=tier)}))
    with pytest.raises(ValueError, match="tokens or requests"):
        requests_source(MODELS, with_access(measure="euros"))


def test_verification_has_a_tenant_per_tier_one_without_models_and_one_without_budget() -> None:
    worker = Worker(requests_source(MODELS, with_access(verified=("free", "none"))))
    path = f"{GEMMA.prefix}/v1/completions"
    tiers = {
        name: worker.request(path=path, tenant=name) for name in verification.tenants(("free", "none"), "-")
    }
    noted = {name: refused.noted.get("tier") for name, refused in tiers.items() if refused.status is None}
    assert noted == {
        "llmp-verify-tier-free": "free",
        "llmp-verify-tier-none": "none",
        "llmp-verify-load": "-",
    }
    assert tiers["llmp-verify-none"].status == 403
    for name in tiers:
        assert Worker(requests_source(MODELS, with_access())).request(path=path, tenant=name).status == 403


def test_nobody_else_can_have_a_tenant_of_verifications() -> None:
    with pytest.raises(ValueError, match="reserved; rename it"):
        requests_source(MODELS, with_access(tenants={"llmp-verify-none": LuaTenant(tier="free")}))


def test_the_text_depends_on_what_is_said_and_not_on_its_order() -> None:
    backwards = LuaAccess(tenants=dict(reversed(TENANTS.items())), revoked=("b-key-000", "a-key-000"))
    forwards = LuaAccess(tenants=TENANTS, revoked=("a-key-000", "b-key-000", "a-key-000"))
    assert requests_source(MODELS[::-1], backwards) == requests_source(MODELS, forwards)
    assert requests_source(MODELS, forwards) != requests_source(MODELS, ACCESS)


def test_a_new_tenant_adds_one_line() -> None:
    more = LuaAccess(tenants={**TENANTS, "new": LuaTenant(tier="free")}, revoked=ACCESS.revoked)
    before, after = (set(requests_source(MODELS, access).splitlines()) for access in (ACCESS, more))
    assert after - before == {'    ["new"] = {["tier"] = "free"},'} and before < after


def test_a_thousand_tenants_with_lists_of_their_own_and_ten_thousand_revoked_keys_compile() -> None:
    models = [LuaModel(key=f"m{i}", namespace="n", names=(f"served/m{i}",)) for i in range(100)]
    tenants = {
        f"tenant-{i}": LuaTenant(tier=f"tier-{i % 7}", models=tuple(f"m{(i * k) % 100}" for k in range(1, 9)))
        for i in range(1000)
    }
    revoked = tuple(f"{i:022d}" for i in range(10_000))
    source = requests_source(models, LuaAccess(tenants=tenants, revoked=revoked))
    worker = Worker(source)
    # One object of Kubernetes holds 1.5 MB.
    assert len(source) < 1_000_000
    last = worker.request(path="/n/m99/v1/completions", tenant="tenant-999")
    assert (last.noted["tenant"], last.noted["tier"], last.noted["model"]) == ("tenant-999", "tier-5", "m99")
    assert worker.request(path="/n/m98/v1/completions", tenant="tenant-0").status == 403
    assert worker.request(path="/n/m99/v1/completions", tenant="tenant-999", key=revoked[-1]).status == 401


def test_without_tables_nothing_passes() -> None:
    for method, path in (("GET", "/health"), ("GET", "/v1/models"), ("POST", "/other/qwen/v1/completions")):
        refused = Worker(CLOSED).request(method, path)
        assert (refused.status, refused.text) == (503, "the gateway's tables are missing")


def test_the_program_without_its_tables_does_not_even_load() -> None:
    source = requests_source(MODELS, ACCESS)
    start = source.index("local TABLES")
    stripped = source[:start] + "local TABLES = {}\n" + source[source.index("local NAMESPACE") :]
    with pytest.raises(LuaError):
        LuaRuntime().execute(stripped)


def test_paths_and_headers_of_a_model_follow_its_key_and_its_served_name() -> None:
    assert (GEMMA.prefix, GEMMA.header) == ("/llm/gemma-2b", "publishers/llm/models/google/gemma-2b")
    assert (QWEN.prefix, QWEN.header) == ("/other/qwen", "publishers/other/models/qwen")
    assert LLAMA.header == "publishers/llm/models/llama3-8b"
