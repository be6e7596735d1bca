"""Requests through everything that a stack brings up: real Envoy, pickers, limits, store and control plane.

One rehearsal of two models serves all tests. They run in order, and each leaves the stack as it found it
or says so. Every test has tenants of its own, so no budget is shared. Numbers such as E67 are those
of docs/limits-tests.md; the numbers that are about the data plane alone are in tests/data_plane.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from components.core import labels, naming
from components.serving.manifests import gateway as gateway_manifests
from components.serving.manifests import token_limits
from components.serving.manifests.access import audience
from ops.keys import tokens
from ops.kube import Kube, Manifest
from rehearsal import keys as rehearsed_keys
from rehearsal.gateway.translate import ADMIN_PORT
from rehearsal.processes import MARKER
from rehearsal.reachability import External, Pod, Reachability
from stacks.config import ConfigError
from tests.rehearsed.conftest import (
    MODELS,
    Client,
    Load,
    Stack,
    chat,
    conditions,
    eventually,
    kill,
    processes_with,
    program_of,
)

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]

GEMMA, LLAMA = "gemma-2b", "llama-3-8b"
REPLICAS = {GEMMA: 1, LLAMA: 2}
NAMESPACE, GATEWAY = "llm-models", "llm-gateway"
ACCESS = "llm-platform:access"
SMALL, AMPLE = 200, 100_000_000
# Longer than the blocks in which pickers and engines remember prompts, many times.
PREFIX = "You are an assistant who answers from the following handbook. " * 100
ENVOY_FILTER = "kubernetes:networking.istio.io/v1alpha3:EnvoyFilter"
LIMITS_DOWN = (503, "limits_unavailable")
SERVED = (200, None)
AMPLE_TENANTS = ("told", "routed", "counted", "loaded", "keyed", "rotated", "streaming", "secured", "failing")
SMALL_TENANTS = ("spender", "divided", "raised", "stored")

# "Hello" in the simulated engine's template.
PROMPT_TOKENS = 4
PICKED = "inference_extension_scheduler_attempts_total"
REJECTED = "listener_manager.lds.update_rejected"

STORE_PODS = {labels.APP_NAME: token_limits.STORE}
LIMIT_PODS = {labels.APP_NAME: token_limits.NAME}
GATEWAY_PODS = {labels.GATEWAY_NAME: GATEWAY}


# -- the stack and how it is asked -----------------------------------------------------------------


def models(committed: Mapping[str, Any]) -> dict[str, Any]:
    """Two models; one of them slow enough for a stream to outlast an `up`."""
    resources = next(iter(committed.values()))["resources"]
    common = {"accelerator": "l4", "maxModelLen": 8192, "resources": resources}
    slow = {"REHEARSAL_DECODE_SECONDS": "0.005"}
    return {
        GEMMA: {**common, "uri": "hf://google/gemma-2b", "replicas": 1, "routing": "load", "env": slow},
        LLAMA: {
            **common,
            "uri": "hf://meta-llama/Meta-Llama-3-8B-Instruct",
            "replicas": 2,
            "routing": "prefix-cache",
        },
    }


def access(_committed: Any) -> dict[str, Any]:
    """Tenants who can spend their budget with one request, and tenants who cannot at all."""
    tiers = {"small": {"tokensPerMinute": SMALL}, "ample": {"tokensPerMinute": AMPLE}}
    tenants = {name: {"tier": "ample"} for name in AMPLE_TENANTS}
    return {"tiers": tiers, "tenants": tenants | {name: {"tier": "small"} for name in SMALL_TENANTS}}


def accelerators(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """As many accelerators as the replicas need."""
    (pool,) = cluster["accelerators"].values()
    return {**cluster, "accelerators": {"l4": {**pool, "maxNodes": sum(REPLICAS.values())}}}


@pytest.fixture(scope="module")
def served(stack: Stack) -> Stack:
    """The stack, up."""
    stack.configure("llm-platform:cluster", accelerators)
    stack.configure(MODELS, models)
    stack.configure(ACCESS, access)
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    return stack


@pytest.fixture
def client(served: Stack) -> Iterator[Client]:
    with served.client() as result:
        yield result


def signed(stack: Stack, tenant: str) -> str:
    """A key of a tenant, signed here: `ops keys issue` does the same more slowly, and has a test below."""
    private = load_pem_private_key(rehearsed_keys.private_key(stack.paths, stack.name).read_bytes(), None)
    kid = tokens.thumbprint(tokens.jwk_of(private.public_key()))
    now = int(time.time())
    claims = {
        "iss": "llm-platform",
        "aud": audience(stack.name, GATEWAY, GATEWAY),
        "sub": tenant,
        "jti": tokens.new_id(),
        "iat": now,
        "exp": now + 3600,
    }
    return tokens.issue(claims, kid, private.public_key(), lambda data: private.sign(data, ECDSA(SHA256())))


def one_minute(seconds: float) -> None:
    """Wait for the next minute where this one ends within `seconds`: budgets are those of a minute of the clock."""
    left = 60 - time.time() % 60
    if left < seconds:
        time.sleep(left)


def access_log(stack: Stack, count: int, **fields: str) -> list[dict[str, Any]]:
    """The access log's lines with these fields, of all the gateway's pods, once there are so many."""

    def found() -> list[dict[str, Any]]:
        files = stack.paths.logs.glob(f"{GATEWAY}_{GATEWAY}-istio-*_istio-proxy.log")
        lines = [line for file in files for line in file.read_text().splitlines() if line.startswith("{")]
        mine = [one for one in map(json.loads, lines) if fields.items() <= one.items()]
        return mine if len(mine) >= count else []

    result = eventually(found, f"{count} lines of the access log with {fields}")
    assert len(result) == count
    return result


def metrics(page: str) -> Counter[str]:
    """The sum of each metric over its labels, of a page in Prometheus' text format."""
    result: Counter[str] = Counter()
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            result[name.split("{")[0]] += float(value)
    return result


def stats(pod: Manifest) -> dict[str, float]:
    """The counters and gauges of a gateway's pod."""
    url = f"http://{pod['status']['podIP']}:{ADMIN_PORT}/stats?format=json"
    found = urllib3.request("GET", url).json()["stats"]
    return {one["name"]: one["value"] for one in found if "value" in one}


def certificate(pod: Manifest) -> x509.Certificate:
    """What a replica shows to whoever speaks TLS with it."""
    address = pod["status"]["podIP"], gateway_manifests.MODEL_PORT
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(address).encode())


def of_engine(model: str, pod: Manifest, path: str) -> str:
    """What a replica answers over TLS; KServe's certificates are self-signed, so each proves itself."""
    proof = certificate(pod).public_bytes(Encoding.PEM).decode()
    name = naming.host(naming.workload_service(model), NAMESPACE)
    address = pod["status"]["podIP"], gateway_manifests.MODEL_PORT
    context = ssl.create_default_context(cadata=proof)
    with urllib3.HTTPSConnectionPool(*address, ssl_context=context, server_hostname=name) as pool:
        response = pool.request("GET", path, retries=False)
    assert response.status == 200, response.data
    return response.data.decode()


def replicas(stack: Stack, model: str) -> list[Manifest]:
    """The serving pods of a model."""
    return stack.pods(NAMESPACE, labels.model_workload(model), REPLICAS[model])


def engine_metrics(stack: Stack, model: str) -> Counter[str]:
    """The metrics of all replicas of a model, added up."""
    pages = [of_engine(model, pod, "/metrics") for pod in replicas(stack, model)]
    return sum(map(metrics, pages), Counter())


@contextmanager
def scraper(kube: Kube) -> Iterator[str]:
    """A token that may read metrics, as Prometheus has one: the pickers ask the API server who is there."""
    meta = {"name": "scraper", "namespace": "default"}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": meta["name"]},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "system:monitoring",
        },
        "subjects": [{"kind": "ServiceAccount", **meta}],
    }
    for item in (account, binding):
        kube.create(item)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = "/api/v1/namespaces/default/serviceaccounts/scraper/token"
    try:
        yield kube.request("POST", path, None, request)["status"]["token"]
    finally:
        for item in (account, binding):
            kube.delete(item["apiVersion"], item["kind"], meta["name"], item["metadata"].get("namespace"))


def picker_metrics(stack: Stack, model: str, token: str) -> Counter[str]:
    """The metrics of a model's picker. Its port is moved here, to where its command line says."""
    (pod,) = stack.pods(NAMESPACE, labels.model_picker(model))
    words = [Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0") for pid in stack.programs(pod)]
    (port,) = (w.partition("=")[2] for line in words for w in line if w.startswith("--metrics-port="))
    url = f"http://127.0.0.1:{port}/metrics"
    response = urllib3.request("GET", url, headers={"authorization": f"Bearer {token}"})
    assert response.status == 200, response.data
    return metrics(response.data.decode())


@contextmanager
def store(stack: Stack) -> Iterator[redis.Redis]:
    """The store of the counters, with its password."""
    (pod,) = stack.pods(GATEWAY, STORE_PODS)
    secret = stack.kube.get("v1", "Secret", token_limits.AUTH, GATEWAY)
    password = base64.b64decode(secret["data"]["password"]).decode()
    with redis.Redis(pod["status"]["podIP"], token_limits.STORE_PORT, password=password) as result:
        yield result


def counted(stack: Stack, tenant: str) -> int:
    """What the store has for a tenant, over all minutes that it still knows."""
    with store(stack) as counters:
        return sum(int(counters.get(name) or 0) for name in counters.scan_iter(f"*_tenant_{tenant}_*"))


def spend(stack: Stack, client: Client, key: str, tenant: str) -> None:
    """Spend a small tenant's budget to the last token, and wait until the store has it."""
    answer = client.ask(key, LLAMA, tokens=SMALL - PROMPT_TOKENS)
    assert answer.status == 200 and answer.cost == SMALL, answer.body
    eventually(lambda: counted(stack, tenant) >= SMALL, "the answer is charged")


def resource_types(outcome_steps: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Types and operations of the steps that change something."""
    same = {"same", "refresh", "read"}
    return {s["type"]: s["op"] for s in outcome_steps.values() if s["op"] not in same}


# -- 1: two models over one base URL ---------------------------------------------------------------


@pytest.mark.parametrize("model", REPLICAS)
def test_one_base_url_serves_every_model_by_its_own_picker(served: Stack, client: Client, model: str) -> None:
    key = signed(served, "routed")
    with scraper(served.kube) as token:
        before = {m: picker_metrics(served, m, token)[PICKED] for m in REPLICAS}
        answer = client.ask(key, model)
        after = {m: picker_metrics(served, m, token)[PICKED] for m in REPLICAS}
    assert answer.status == 200 and answer.json["model"] == model, answer.body
    assert {m: after[m] - before[m] for m in REPLICAS} == {m: float(m == model) for m in REPLICAS}


def test_a_shared_prefix_stays_with_one_replica_and_unrelated_prompts_spread(
    served: Stack, client: Client
) -> None:
    hits = engine_metrics(served, LLAMA)["vllm:prefix_cache_hits_total"]
    count = 12
    prompts = {
        "related": [f"{PREFIX} Question {number}?" for number in range(count)],
        "unrelated": [f"{number} times {number} is? " * 100 for number in range(2 * count)],
    }
    chosen = {}
    for kind, texts in prompts.items():
        key = signed(served, "routed")
        assert {client.ask(key, LLAMA, text).status for text in texts} == {200}
        lines = access_log(served, len(texts), key=claim(key, "jti"))
        chosen[kind] = Counter(line["replica"] for line in lines)
    assert len(chosen["related"]) == 1, chosen
    assert len(chosen["unrelated"]) == REPLICAS[LLAMA], chosen
    tokens_of_prefix = len(PREFIX) // 4
    gained = engine_metrics(served, LLAMA)["vllm:prefix_cache_hits_total"] - hits
    # Every request but the first finds the prefix, but for its last block.
    assert gained >= (count - 1) * (tokens_of_prefix - 16)


@pytest.mark.parametrize("base", ["", f"/{NAMESPACE}/{LLAMA}"], ids=["base-url", "path"])
def test_a_long_prompt_reaches_the_model_or_is_refused_with_advice(
    served: Stack, client: Client, base: str
) -> None:
    key = signed(served, "routed")
    body = chat(LLAMA, "word " * 1_000_000, 1)
    seen = {client.request("POST", f"{base}/v1/chat/completions", key, body).error for _ in range(10)}
    # The engine's own refusal: longer than its context. It has the status for its code.
    reached = {(400, 400)}
    assert seen <= (reached if base else {*reached, (413, "request_too_large")})


def test_refused_requests_reach_neither_picker_nor_model(served: Stack, client: Client) -> None:
    key = signed(served, "spender")
    one_minute(10)
    with scraper(served.kube) as token:
        spend(served, client, key, "spender")

        def reached() -> tuple[float, float]:
            engines = engine_metrics(served, LLAMA)
            return picker_metrics(served, LLAMA, token)[PICKED], engines["vllm:request_success_total"]

        before = reached()
        refused = [client.ask(key, LLAMA) for _ in range(5)]
        assert {one.error for one in refused} == {(429, "rate_limit_exceeded")}
        assert {one.headers["x-tokens-remaining"] for one in refused} == {"0"}
        assert all(1 <= int(one.headers["retry-after"]) <= 60 for one in refused)
        assert reached() == before


# -- 2: keys ---------------------------------------------------------------------------------------


def claim(key: str, name: str) -> str:
    """A claim of a key, read without looking at its signature."""
    body = key.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))[name]


def issued(stack: Stack, tenant: str) -> str:
    """A key of a tenant, from the command that issues them."""
    answer = stack.ops("keys", "issue", "--stack", stack.name, "--tenant", tenant)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def listed(stack: Stack, tenant: str) -> dict[str, dict[str, Any]]:
    """The keys that the ledger has for a tenant, by id."""
    answer = stack.ops("keys", "list", "--stack", stack.name, "--tenant", tenant, "--all", "--json")
    assert answer.returncode == 0, answer.stderr
    return {entry["id"]: entry for entry in json.loads(answer.stdout)}


def everything(kube: Kube, *, selector: str = "") -> Iterator[Manifest]:
    """Every object of every kind that the API server lists."""
    groups = [v["groupVersion"] for g in kube.request("GET", "/apis")["groups"] for v in g["versions"]]
    for version in ("v1", *groups):
        root = "/api/v1" if version == "v1" else f"/apis/{version}"
        for kind in kube.request("GET", root)["resources"]:
            if "list" in kind["verbs"] and "/" not in kind["name"]:
                query = {"labelSelector": selector} if selector else None
                for item in kube.request("GET", f"{root}/{kind['name']}", query)["items"]:
                    yield {**item, "apiVersion": version, "kind": kind["kind"]}


def wanted(kube: Kube) -> dict[tuple[str, str], str]:
    """What this program has asked for: its objects without what controllers and the API server add."""
    found = {}
    for item in everything(kube, selector=f"{labels.MANAGED_BY}=pulumi"):
        meta = item["metadata"]
        parts = {k: v for k, v in item.items() if k not in ("metadata", "status")}
        found[item["kind"], meta["name"]] = json.dumps([parts, meta.get("labels")], sort_keys=True)
    return found


def test_a_revoked_key_is_refused_after_one_object_changed(served: Stack, client: Client) -> None:
    kept, revoked = issued(served, "keyed"), issued(served, "keyed")
    ids = {claim(kept, "jti"), claim(revoked, "jti")}
    assert {i for i, entry in listed(served, "keyed").items() if entry["state"] == "valid"} == ids
    assert {client.ask(key, GEMMA, tokens=1).error for key in (kept, revoked)} == {SERVED}
    before = wanted(served.kube)
    began = time.monotonic()
    with Load(lambda: client.ask(revoked, LLAMA, tokens=1), clients=1) as load:
        answer = served.ops("keys", "revoke", "--stack", served.name, claim(revoked, "jti"))
        took = time.monotonic() - began
        assert answer.returncode == 0, answer.stderr
        eventually(lambda: load.seen[-1] != SERVED, "the key is refused", 15)
        refused = time.monotonic() - began
        assert set(load.next()) == {(401, "invalid_api_key")}
    print(f"revoked: the command took {took:.1f} s, the key was refused after {refused:.1f} s")
    assert load.kinds == {SERVED, (401, "invalid_api_key")}
    after = wanted(served.kube)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {("EnvoyFilter", f"{GATEWAY}-tables")}
    assert client.ask(kept, GEMMA, tokens=1).error == SERVED
    assert listed(served, "keyed")[claim(revoked, "jti")]["state"] == "revoked"


# -- 4: secrets ------------------------------------------------------------------------------------


def shapes(private: bytes) -> list[bytes]:
    """Forms in which the secret part of a private key could turn up; `private` is its PEM."""
    scalar = load_pem_private_key(private, None).private_numbers().private_value.to_bytes(32, "big")
    first, second = private.splitlines()[1:3]
    return [scalar, scalar.hex().encode(), tokens.encode(scalar).encode(), first, second]


def files(root: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file of a rehearsal, the API server's own data among them; what is linked to is elsewhere."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()


def environments(root: Path, until: Callable[[], bool]) -> dict[str, bytes]:
    """Environment and command line of every process of a rehearsal, looked at until told to stop."""
    seen: dict[str, bytes] = {}
    while not until():
        for pid in processes_with(f"{MARKER}={root}"):
            try:
                parts = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline")]
            except OSError:
                continue
            seen[f"{program_of(pid)} {pid}"] = b"\0".join(parts)
    return seen


def test_no_private_key_and_no_issued_key_is_kept_anywhere(served: Stack, client: Client) -> None:
    key = issued(served, "secured")
    # As careful clients send it, and as careless ones do.
    assert client.ask(key, GEMMA, tokens=1).status == 200
    assert client.request("GET", f"/v1/models?api_key={key}").error == (401, "invalid_api_key")
    file = rehearsed_keys.private_key(served.paths, served.name)
    assert file.stat().st_mode & 0o777 == 0o600
    secrets = [*shapes(file.read_bytes()), key.encode(), key.split(".")[2].encode()]

    def shown(data: bytes) -> bool:
        return any(secret in data for secret in secrets)

    preview = served.begin("preview", "--expect-no-changes")
    processes = environments(served.paths.root, lambda: preview.poll() is not None)
    outcome = served.finish(preview)
    # Nothing before this test left anything to do either.
    assert outcome.status == 0, outcome.output
    assert any(name.startswith("pulumi") for name in processes), sorted(processes)
    assert not [name for name, data in processes.items() if shown(data)]
    # The search finds the key where it is, and nowhere else.
    assert [path for path, data in files(served.paths.root) if shown(data)] == [file]
    for item in everything(served.kube):
        kept = [json.dumps(item).encode()]
        if item["kind"] == "Secret":
            kept += [base64.b64decode(value) for value in (item.get("data") or {}).values()]
        assert not any(map(shown, kept)), f"{item['kind']} {item['metadata']['name']}"


# -- 5: isolation and encryption -------------------------------------------------------------------


def test_only_the_paths_that_serving_needs_are_open(served: Stack) -> None:
    kube = served.kube
    reach = Reachability(
        kube.list("networking.k8s.io/v1", "NetworkPolicy"), kube.list("v1", "Namespace")
    ).allowed
    gateway, store_, limits = (
        Pod.of(served.pods(GATEWAY, chosen, count)[0])
        for chosen, count in ((GATEWAY_PODS, 1), (STORE_PODS, 1), (LIMIT_PODS, 2))
    )
    engines = {m: Pod.of(replicas(served, m)[0]) for m in REPLICAS}
    pickers = {m: Pod.of(served.pods(NAMESPACE, labels.model_picker(m))[0]) for m in REPLICAS}
    controller = Pod.of(kube.list("v1", "Pod", "kserve")[0])
    # Like the gateway, a picker and a model, but elsewhere; and nobody in particular, in their midst.
    copies = [Pod(name="copy", namespace="default", labels=p.labels) for p in (gateway, pickers[LLAMA])]
    stranger = Pod(name="stranger", namespace=NAMESPACE)
    neighbour = Pod(name="neighbour", namespace=GATEWAY)
    others = [*copies, stranger, neighbour, controller, External("203.0.113.7")]
    for model, engine in engines.items():
        picker = pickers[model]
        assert reach(gateway, engine, 8000) and reach(gateway, picker, 9002)
        assert reach(picker, engine, 8000) and reach(engine, External("203.0.113.7"), 443)
        other = next(m for m in REPLICAS if m != model)
        for source in (*others, engines[other], pickers[other], store_, limits):
            assert not reach(source, engine, 8000), (source, model)
            assert not reach(source, picker, 9002), (source, model)
        for target in ("169.254.169.254", "10.0.0.1"):
            assert not reach(engine, External(target), 443), target
    assert reach(gateway, limits, 8081) and reach(limits, store_, 6379)
    for source in (*others, *engines.values(), *pickers.values()):
        assert not any(reach(source, limits, port) for port in (8081, 8080, 6070)), source
        assert not reach(source, store_, 6379), source
    assert not reach(gateway, store_, 6379) and not reach(gateway, limits, 8080)
    assert not reach(store_, External("203.0.113.7"), 443)


@pytest.mark.parametrize("model", REPLICAS)
def test_replicas_speak_tls_with_kserves_certificate_and_nothing_else(served: Stack, model: str) -> None:
    for pod in replicas(served, model):
        shown = certificate(pod)
        assert shown.issuer.rfc4514_string() == "O=Kserve Self Signed"
        assert model in json.loads(of_engine(model, pod, "/v1/models"))["data"][0]["id"]
        plain = http.client.HTTPConnection(pod["status"]["podIP"], gateway_manifests.MODEL_PORT, timeout=10)
        with closing(plain), pytest.raises((http.client.HTTPException, OSError)):
            plain.request("GET", "/v1/models")
            plain.getresponse()


# -- 6 and 7: what was used, and by how many gateways it was counted --------------------------------


def test_usage_of_the_access_log_is_what_answers_said_and_what_the_store_counted(
    served: Stack, client: Client
) -> None:
    key = signed(served, "counted")
    costs: Counter[str] = Counter()
    for model in REPLICAS:
        for size in (1, 20, 50):
            costs[model] += client.ask(key, model, tokens=size).cost
    eventually(lambda: counted(served, "counted") == costs.total(), "the store has every token")
    access_log(served, 3 * len(REPLICAS), tenant="counted")
    answer = served.ops("usage", "--stack", served.name, "--tenant", "counted", "--json")
    assert answer.returncode == 0, answer.stderr
    usage = json.loads(answer.stdout)
    assert {row["model"]: row["cost"] for row in usage["rows"]} == dict(costs)
    assert usage["total"]["total"] == costs.total() and usage["total"]["requests"] == 3 * len(REPLICAS)


def test_a_small_answer_says_what_is_used_with_it(served: Stack, client: Client) -> None:
    answer = client.ask(signed(served, "told"), LLAMA)
    shown = {name: int(answer.headers[f"x-tokens-{name}"]) for name in ("used", "remaining")}
    assert shown == {"used": answer.cost, "remaining": AMPLE - answer.cost}


def test_two_gateways_share_one_count(served: Stack) -> None:
    scale(served, 2)
    try:
        pods = served.pods(GATEWAY, GATEWAY_PODS, 2)
        first, second = (door(served, pod) for pod in pods)
        key = signed(served, "divided")
        one_minute(10)
        with first, second:
            for done, one in enumerate((first, second), start=1):
                half = SMALL // 2
                assert one.ask(key, LLAMA, tokens=half - PROMPT_TOKENS).cost == half
                eventually(
                    lambda d=done, h=half: counted(served, "divided") >= d * h, "the answer is charged"
                )
            refused = {one.ask(key, LLAMA).error for one in (first, second)}
        assert refused == {(429, "rate_limit_exceeded")}
    finally:
        scale(served, 1)
        served.pods(GATEWAY, GATEWAY_PODS)


def scale(stack: Stack, count: int) -> None:
    """Have so many pods of the gateway, as an autoscaler would."""
    deployment = f"/apis/apps/v1/namespaces/{GATEWAY}/deployments/{GATEWAY}-istio"
    body = {"spec": {"replicas": count}}
    stack.kube.request("PATCH", deployment, None, body, "application/merge-patch+json")


def door(stack: Stack, pod: Manifest) -> Client:
    """A client of one of the gateway's pods."""
    address = stack.rehearsal.address()
    return Client(replace(address, ip=pod["status"]["podIP"], host=pod["status"]["podIP"]))


# -- 3: failures -----------------------------------------------------------------------------------


def test_requests_pass_while_a_picker_is_away(served: Stack, client: Client) -> None:
    key = signed(served, "failing")
    with Load(lambda: client.ask(key, LLAMA, tokens=1)) as load:
        load.next()
        with crashing(served, "*endpoint-picker*"):
            gone(served, NAMESPACE, labels.model_picker(LLAMA))
            eventually(lambda: set(load.next()) == {SERVED}, "any replica answers")
            assert set(load.next(20)) == {SERVED}
            assert client.ask(key, GEMMA, tokens=1).error == SERVED
        served.pods(NAMESPACE, labels.model_picker(LLAMA))
        with scraper(served.kube) as token:
            before = picker_metrics(served, LLAMA, token)[PICKED]
            eventually(lambda: picker_metrics(served, LLAMA, token)[PICKED] > before, "it picks again")
        assert set(load.next(20)) == {SERVED}
    print("a picker killed under load:", Counter(load.seen))
    # Envoy passes a request by a dead picker only if it has not begun to send it the body, so until the pod is no
    # endpoint any more, requests are lost (https://github.com/envoyproxy/envoy/pull/41276).
    assert load.kinds <= {SERVED, (500, "internal_error")}


@contextmanager
def crashing(stack: Stack, image: str) -> Iterator[None]:
    """Kill every program of an image, and let none start."""
    stack.inject({"images": [{"match": image, "at": "crash"}]})
    try:
        yield
    finally:
        stack.inject({})


def gone(stack: Stack, namespace: str, chosen: Mapping[str, str]) -> None:
    """Wait until no pod with these labels is Ready."""
    selector = ",".join(f"{name}={value}" for name, value in chosen.items())

    def none_ready() -> bool:
        found = stack.kube.list("v1", "Pod", namespace, selector)
        return not [p for p in found if conditions(p).get("Ready") == "True"]

    eventually(none_ready, f"no pod with {selector} is Ready")


@contextmanager
def stopped(stack: Stack) -> Iterator[None]:
    """The store hangs: it takes connections and answers nothing."""
    (pod,) = stack.pods(GATEWAY, STORE_PODS)
    with ExitStack() as later:
        for pid in stack.programs(pod):
            os.kill(pid, signal.SIGSTOP)
            later.callback(os.kill, pid, signal.SIGCONT)
        yield


@contextmanager
def locked(stack: Stack) -> Iterator[None]:
    """The store wants another password, also from those who are connected."""
    with store(stack) as own:
        before = own.config_get("requirepass")["requirepass"]
        own.config_set("requirepass", "another")
        own.client_kill_filter(_type="normal", skipme=True)
        try:
            yield
        finally:
            own.config_set("requirepass", before)


FAULTS: dict[str, Callable[[Stack], AbstractContextManager[None]]] = {
    "e67_store_is_dead": lambda stack: crashing(stack, "*valkey/valkey:*"),
    "e67_store_hangs": stopped,
    "e67_store_wants_another_password": locked,
    "e68_limit_service_is_dead": lambda stack: crashing(stack, "*envoyproxy/ratelimit:*"),
}
# What the gateway answers while the limits cannot be checked, and the counter that then grows.
MODES = {"closed": (LIMITS_DOWN, "error"), "open": (SERVED, "failure_mode_allowed")}


def limit_errors(stack: Stack, counter: str) -> float:
    """How often the gateway could not ask for the limits."""
    (pod,) = stack.pods(GATEWAY, GATEWAY_PODS)
    return sum(value for name, value in stats(pod).items() if name.endswith(f"ratelimit.llmp.{counter}"))


@pytest.fixture(scope="module", params=MODES)
def mode(served: Stack, request: pytest.FixtureRequest) -> str:
    """The stack with this failure mode; changing it changes the chain and nothing else."""
    if served.in_force(ACCESS).get("failureMode", "closed") != request.param:
        served.configure(ACCESS, lambda before: {**before, "failureMode": request.param})
        outcome = served.run("up")
        assert outcome.status == 0, outcome.output
        assert resource_types(outcome.steps) == {ENVOY_FILTER: "update"}
        (urn,) = outcome.changed()
        assert urn.endswith("-filters"), urn
    return str(request.param)


@pytest.mark.parametrize("fault", FAULTS)
def test_e69_without_limits_requests_are_refused_or_pass_uncounted(
    served: Stack, client: Client, mode: str, fault: str
) -> None:
    key = signed(served, "failing")
    meanwhile, counter = MODES[mode]
    with Load(lambda: client.ask(key, LLAMA, tokens=1)) as load:
        assert set(load.next()) == {SERVED}
        before = limit_errors(served, counter)
        with FAULTS[fault](served):
            eventually(lambda: limit_errors(served, counter) > before, "the limits cannot be checked")
            # One of two that both die may be a moment later.
            eventually(lambda: set(load.next()) == {meanwhile}, "every request is answered the same")
        eventually(lambda: set(load.next()) == {SERVED}, "everything is as before", 60)
        assert set(load.next(20)) == {SERVED}
    print(f"{fault}, {mode}: {Counter(load.seen)}")
    assert load.kinds <= {SERVED, meanwhile}
    total = counted(served, "failing")

    def counts() -> bool:
        return client.ask(key, LLAMA, tokens=1).error == SERVED and counted(served, "failing") > total

    eventually(counts, "it counts again")


def test_e67_a_flushed_store_gives_new_budgets_and_counts_on(served: Stack, client: Client) -> None:
    key = signed(served, "stored")
    one_minute(10)
    spend(served, client, key, "stored")
    assert client.ask(key, LLAMA).error == (429, "rate_limit_exceeded")
    with store(served) as own:
        own.flushall()
    spend(served, client, key, "stored")
    assert client.ask(key, LLAMA).error == (429, "rate_limit_exceeded")


def test_e68_one_of_two_limit_services_is_enough(served: Stack, client: Client) -> None:
    key = signed(served, "failing")
    killed, _ = served.pods(GATEWAY, LIMIT_PODS, 2)
    with Load(lambda: client.ask(key, LLAMA, tokens=1)) as load:
        assert set(load.next()) == {SERVED}
        restarted = killing(served, killed)
        assert SERVED in load.next(20)
        restarted()
        served.pods(GATEWAY, LIMIT_PODS, 2)
        eventually(lambda: set(load.next()) == {SERVED}, "both answer")
        assert set(load.next(20)) == {SERVED}
    print("one of two limit services killed under load:", Counter(load.seen))
    # Those who had asked it, and those who ask it before it is no endpoint any more.
    assert load.kinds <= {SERVED, LIMITS_DOWN}


def test_e68_a_rolling_restart_of_the_limit_services_refuses_nobody(served: Stack, client: Client) -> None:
    key = signed(served, "failing")
    before = {p["metadata"]["uid"] for p in served.pods(GATEWAY, LIMIT_PODS, 2)}
    path = f"/apis/apps/v1/namespaces/{GATEWAY}/deployments/{token_limits.NAME}"
    marks = {"annotations": {"kubectl.kubernetes.io/restartedAt": str(time.time())}}
    with Load(lambda: client.ask(key, LLAMA, tokens=1)) as load:
        patch = {"spec": {"template": {"metadata": marks}}}
        served.kube.request("PATCH", path, None, patch, "application/merge-patch+json")
        eventually(
            lambda: not before & {p["metadata"]["uid"] for p in served.pods(GATEWAY, LIMIT_PODS, 2)},
            "new pods",
            60,
        )
        load.next(20)
    print("limit services restarted under load:", Counter(load.seen))
    assert load.kinds == {SERVED}


def config_errors(stack: Stack) -> list[float]:
    """How often each limit service could not read its budgets."""
    pages = [
        urllib3.request("GET", f"http://{p['status']['podIP']}:{token_limits.METRICS_PORT}/metrics").data
        for p in stack.pods(GATEWAY, LIMIT_PODS, 2)
    ]
    return [metrics(page.decode())["ratelimit_service_config_load_error"] for page in pages]


def test_e70_unreadable_budgets_leave_the_old_ones_in_force(served: Stack, client: Client) -> None:
    key = signed(served, "stored")
    path = f"/api/v1/namespaces/{GATEWAY}/configmaps/{token_limits.CONFIG}"
    live = served.kube.request("GET", path)

    def write(patch: Manifest) -> None:
        served.kube.request("PATCH", path, None, patch, "application/merge-patch+json")

    before = config_errors(served)
    write({"data": {"config.yaml": "domain: llmp\ndescriptors: [{kee: tier}]\n"}})
    try:
        eventually(
            lambda: all(now > then for now, then in zip(config_errors(served), before, strict=True)),
            "both services refuse it",
        )
        with store(served) as own:
            own.flushall()
        one_minute(10)
        spend(served, client, key, "stored")
        assert client.ask(key, LLAMA).error == (429, "rate_limit_exceeded")
    finally:
        write({"data": live["data"]})
        # Else the next `up` would find that somebody else owns them.
        write({"metadata": {"managedFields": live["metadata"]["managedFields"]}})


def test_e72_a_gateway_that_dies_takes_its_streams_along_and_serves_again(served: Stack) -> None:
    key = signed(served, "streaming")
    (pod,) = served.pods(GATEWAY, GATEWAY_PODS)
    with served.client() as client:
        events = client.lines(key, GEMMA, 4000)
        assert next(events).startswith(b"data: ")
        restarted = killing(served, pod)
        with pytest.raises(urllib3.exceptions.HTTPError):
            list(events)
    restarted()
    served.pods(GATEWAY, GATEWAY_PODS)
    with served.client() as client:
        assert client.ask(key, LLAMA, tokens=1).error == SERVED


def killing(stack: Stack, pod: Manifest) -> Callable[[], None]:
    """Kill a pod's programs; returns what waits until its node has started them again."""
    name = pod["metadata"]["name"]

    def restarts() -> int:
        now = stack.kube.get("v1", "Pod", name, pod["metadata"]["namespace"])
        return sum(status["restartCount"] for status in now["status"]["containerStatuses"])

    before = restarts()
    for pid in stack.programs(pod):
        kill(pid)
    return lambda: eventually(lambda: restarts() > before, f"{name} is started again")


def test_e72_the_gateway_needs_no_istiod_to_serve(served: Stack, client: Client) -> None:
    key = signed(served, "failing")
    with Load(lambda: client.ask(key, LLAMA, tokens=1)) as load:
        with crashing(served, "*istio/pilot:*"):
            gone(served, "istio-system", {"app": "istiod"})
            load.next(20)
        served.pods("istio-system", {"app": "istiod"})
        load.next(20)
    assert load.kinds == {SERVED}


def test_e73_a_patch_that_envoy_refuses_changes_nothing(served: Stack, client: Client) -> None:
    key = signed(served, "failing")
    (pod,) = served.pods(GATEWAY, GATEWAY_PODS)
    before = stats(pod)[REJECTED]
    lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
    broken = {"@type": lua, "default_source_code": {"inline_string": "function ("}}
    hcm = "envoy.filters.network.http_connection_manager"
    patch = {
        "applyTo": "HTTP_FILTER",
        "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": {"name": hcm}}}},
        "patch": {"operation": "INSERT_FIRST", "value": {"name": "canary", "typed_config": broken}},
    }
    canary = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "canary", "namespace": GATEWAY},
        "spec": {"workloadSelector": {"labels": GATEWAY_PODS}, "configPatches": [patch]},
    }
    with Load(lambda: client.ask(key, LLAMA, tokens=1)) as load:
        served.kube.create(canary)
        try:
            eventually(lambda: stats(pod)[REJECTED] > before, "Envoy refuses it")
            load.next(20)
        finally:
            served.kube.delete(canary["apiVersion"], "EnvoyFilter", "canary", GATEWAY)
    assert load.kinds == {SERVED}


# -- 3 and 6: changes by `up` under load ------------------------------------------------------------


def test_e75_a_changed_budget_is_one_configmap_and_drops_no_stream(served: Stack, client: Client) -> None:
    key = signed(served, "raised")
    raised = 3 * SMALL
    stream = Stream(client, signed(served, "streaming"), GEMMA, 7000)
    served.configure(ACCESS, lambda before: with_budget(before, raised))
    began = time.monotonic()
    outcome = served.run("up")
    assert outcome.status == 0, outcome.output
    assert resource_types(outcome.steps) == {"kubernetes:core/v1:ConfigMap": "update"}

    def budget() -> str:
        return client.ask(key, LLAMA, tokens=1).headers["x-tokens-limit"]

    eventually(lambda: budget() == str(raised), "the budget is in force", 90)
    print(f"a changed budget is in force {time.monotonic() - began:.1f} s after `up` began")
    events = stream.finish()
    assert events[-1] == b"data: [DONE]" and b'"completion_tokens":7000' in events[-2]
    outcome = served.run("up")
    assert outcome.status == 0 and outcome.changed() == {}, outcome.output


def with_budget(before: Mapping[str, Any], budget: int) -> dict[str, Any]:
    """The access section with another budget of the small tier."""
    return {**before, "tiers": {**before["tiers"], "small": {"tokensPerMinute": budget}}}


class Stream:
    """A streamed answer that is read in the background."""

    def __init__(self, client: Client, key: str, model: str, size: int):
        self._events: list[bytes] = []
        self._broken: urllib3.exceptions.HTTPError | None = None
        self._thread = threading.Thread(
            target=self._read, args=(client.lines(key, model, size),), daemon=True
        )
        self._thread.start()
        eventually(lambda: self._events, "the stream begins")

    def _read(self, events: Iterator[bytes]) -> None:
        try:
            for event in events:
                self._events.append(event)
        except urllib3.exceptions.HTTPError as broken:
            self._broken = broken

    def finish(self) -> list[bytes]:
        """Every event, at its end. Raises what broke the stream."""
        self._thread.join(timeout=60)
        assert not self._thread.is_alive(), "the stream does not end"
        if self._broken:
            raise self._broken
        return self._events


def test_https_with_a_certificate_that_the_stacks_own_authority_signed(served: Stack) -> None:
    key = signed(served, "secured")
    plain = served.rehearsal.address()
    tls = {"exposure": "internal", "host": "llm.example.com", "tls": {"issuer": "own-ca"}}
    served.configure("llm-platform:gateway", lambda _: tls)
    outcome = served.run("up")
    assert outcome.status == 0, outcome.output
    secure = served.rehearsal.address()
    assert secure.scheme == "https" and secure.host == tls["host"] and secure.ca
    with Client(secure) as client:
        assert client.ask(key, LLAMA, tokens=1).error == SERVED
    with Client(replace(plain, host=tls["host"])) as client:
        answer = client.request("POST", "/v1/chat/completions", key, chat(LLAMA, "Hello", 1))
        assert answer.status == 301
        assert answer.headers["location"] == f"{secure.url}/v1/chat/completions"
        assert not any(name.startswith("x-tokens-") for name in answer.headers)
    stranger = replace(secure, ca=served.paths.cluster / "acme.crt")
    with Client(stranger) as client, pytest.raises(urllib3.exceptions.SSLError):
        client.ask(key, LLAMA, tokens=1)


def test_a_public_authority_cannot_certify_an_internal_gateway(served: Stack) -> None:
    good = served.in_force("llm-platform:gateway")
    served.configure("llm-platform:gateway", lambda now: {**(now or {}), "tls": {"issuer": "letsencrypt"}})
    try:
        with pytest.raises(ConfigError, match="Let's Encrypt cannot reach"):
            served.begin("preview")
    finally:
        served.configure("llm-platform:gateway", lambda _: good)
        served.rehearsal.start(served.name)


def test_changing_the_signing_key_under_load_refuses_no_valid_key(served: Stack) -> None:
    old = issued(served, "rotated")
    with served.client() as client:
        ask = lambda key: client.ask(key, LLAMA, tokens=1)
        with Load(lambda: ask(old)) as load:
            rotate(served)
            new = issued(served, "rotated")
            assert header(new)["kid"] != header(old)["kid"]
            assert ask(new).error == (401, "invalid_api_key")
            outcome = served.run("up")
            assert outcome.status == 0, outcome.output
            assert resource_types(outcome.steps) == {
                "kubernetes:networking.istio.io/v1alpha3:EnvoyFilter": "update"
            }
            eventually(lambda: ask(new).error == SERVED, "the new key is known")
            load.next(20)
        assert load.kinds == {SERVED}
    # Connections from before the change know the old keys until they are drained; who gets a new key opens new ones.
    with served.client() as client:
        ask = lambda key: client.ask(key, LLAMA, tokens=1)
        with Load(lambda: ask(new)) as load:
            refused = served.ops("keys", "rotate", "--stack", served.name, f"--finish={header(old)['kid']}")
            assert refused.returncode != 0, "a valid key of the old signing key exists"
            rotate(served, f"--finish={header(old)['kid']}", "--force")
            outcome = served.run("up")
            assert outcome.status == 0, outcome.output
            eventually(lambda: ask(old).error == (401, "invalid_api_key"), "the old key is refused")
            load.next(20)
        assert load.kinds == {SERVED}


def header(key: str) -> dict[str, str]:
    """The header of a key."""
    text = key.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def rotate(stack: Stack, *arguments: str) -> None:
    answer = stack.ops("keys", "rotate", "--stack", stack.name, *arguments)
    assert answer.returncode == 0, answer.stderr
