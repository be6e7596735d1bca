"""The gateway of a stack, real from Envoy to the store: keys for it, questions to it, and what it counted."""

from __future__ import annotations

import copy
import functools
import json
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ops.keys import tokens
from rehearsal.data_plane import DataPlane, without_picker
from tests.data_plane import client
from tests.data_plane.client import Answer
from tests.support.stacks import raw_stack, record_stack

GEMMA, LLAMA = "gemma-2b", "llama-3-8b"
CHEAP = 0.1
AUDIENCE = "test/llm-gateway/llm-gateway"
BUDGETS = {"free": 200, "premium": 1000, "enterprise": 5000, "none": 0, "plenty": 1_000_000_000}
TENANTS = {"free": 150, "premium": 20, "enterprise": 5, "none": 5, "plenty": 320}
# Names that could be read as parts of each other where several are put together.
RESEMBLING = ("a", "a-tenant", "a-tenant-b", "b", "free-tenant-a")
# A budget counts within a minute of the clock, so a test begins while enough of one is left.
LEFT_SECONDS = 6.0
PATIENCE_SECONDS = 15.0
POLL_SECONDS = 0.02
# Prompts of any length fit; the answers come at once.
ENGINE = {"REHEARSAL_FAULTS": "1", "REHEARSAL_PREFILL_SECONDS": "0", "REHEARSAL_DECODE_SECONDS": "0"}
ENGINE_ARGS = ("--max-model-len=30000000", "--no-enable-prefix-caching")
# Model servers have certificates that only KServe knows.
UNVERIFIED = ssl._create_unverified_context()

Raw = dict[str, Any]


class Signer:
    """A signing key, and keys made with it."""

    def __init__(self, kid: str):
        self.kid = kid
        self.private = ec.generate_private_key(ec.SECP256R1())
        jwk = tokens.jwk_of(self.private.public_key())
        self.public = {"x": jwk["x"], "y": jwk["y"]}

    def key(self, tenant: str, **changes: Any) -> str:
        """A key of a tenant; `changes` are claims, None for one that is left out."""
        now = int(time.time())
        claims = {
            "iss": "llm-platform",
            "aud": AUDIENCE,
            "sub": tenant,
            "jti": tokens.new_id(),
            "iat": now,
            "exp": now + 3600,
            **changes,
        }
        given = {name: value for name, value in claims.items() if value is not None}
        sign = functools.partial(self.private.sign, signature_algorithm=ec.ECDSA(hashes.SHA256()))
        return tokens.issue(given, self.kid, self.private.public_key(), sign)


@dataclass(frozen=True)
class Tenant:
    """Somebody with a key and a budget that nobody has used."""

    name: str
    key: str

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What a client of the tenant sends."""
        return [("authorization", f"Bearer {self.key}"), ("content-type", "application/json")]


def configuration(signer: Signer, **access: Any) -> Raw:
    """Two models, a tier per budget with many tenants; `access` overrides entries of that section."""
    raw = raw_stack("dev")
    raw["cluster"]["accelerators"]["l4"]["maxNodes"] = 3
    model = {"accelerator": "l4", "maxModelLen": 8192}
    raw["models"] = {
        GEMMA: {**model, "uri": "hf://google/gemma-2b", "replicas": 1},
        LLAMA: {**model, "uri": "hf://meta-llama/Meta-Llama-3-8B-Instruct", "replicas": 2},
    }
    unit = "requestsPerMinute" if access.get("limitBy") == "requests" else "tokensPerMinute"
    names = {tier: [f"{tier}-{n}" for n in range(TENANTS[tier])] for tier in BUDGETS}
    raw["access"] = {
        "limitBy": "tokens",
        "tiers": {tier: {unit: budget} for tier, budget in BUDGETS.items()},
        "tenants": {name: {"tier": tier} for tier, members in names.items() for name in members}
        | {"only-gemma": {"tier": "plenty", "models": [GEMMA]}}
        | {name: {"tier": "free"} for name in RESEMBLING},
        "multipliers": {GEMMA: CHEAP},
        "publicKeys": {signer.kid: signer.public},
        **access,
    }
    return raw


def without_access(raw: Raw) -> None:
    """Take keys and limits out of a configuration."""
    del raw["access"]


def prompt_of(tokens_: int) -> str:
    """A prompt of so many tokens."""
    return "abc " * tokens_


def completion(cost: int, model: str = LLAMA, prompt: int = 4, **more: Any) -> Raw:
    """The body of a request for an answer that makes exactly `cost` tokens with its prompt."""
    text = {"prompt": prompt_of(prompt), "max_tokens": cost - prompt, "ignore_eos": True}
    return {"model": model, **text, **more}


def wait_until(holds: Callable[[], bool], what: Callable[[], str] | str) -> None:
    """Wait for what happens a moment after an answer; fails with `what` is the case instead."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(POLL_SECONDS)


@dataclass
class Chain:
    """A running data plane of one configuration."""

    plane: DataPlane
    raw: Raw
    signer: Signer
    directory: Path
    host: str | None = None
    _used: dict[str, int] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def running(
        cls,
        directory: Path,
        gateways: int = 1,
        workers: int = 2,
        host: str | None = None,
        configure: Callable[[Raw], None] = lambda _: None,
        amend: Callable[[Raw], Raw] = lambda item: item,
        **access: Any,
    ) -> Iterator[Self]:
        """Start everything; `host` is what clients write as the gateway's name. `configure` changes the stack's configuration, `amend` each of its objects."""
        signer = Signer("first-test-key")
        raw = configuration(signer, **access)
        configure(raw)
        objects = [amend(item) for item in recorded(raw, directory)]
        plane = DataPlane(directory / "plane", objects, gateways, workers, ENGINE, ENGINE_ARGS)
        with plane:
            chain = cls(plane, raw, signer, directory, host)
            if plane.limited:
                chain.await_limits(200 if raw["access"].get("shadow") else 429)
            yield chain
            chain.release()
            assert chain.lua_errors() == 0

    # -- who asks ------------------------------------------------------------------------------------------------

    def tenant(self, tier: str = "plenty", seconds: float = LEFT_SECONDS) -> Tenant:
        """A tenant that has not asked for anything, with `seconds` of the minute left to do so."""
        number = self._used[tier] = self._used.get(tier, -1) + 1
        assert number < TENANTS[tier], f"more than {number} tenants of {tier} are asked for: raise TENANTS"
        left = 60 - time.time() % 60
        if left < seconds:
            time.sleep(left)
        return self.named(f"{tier}-{number}")

    def named(self, name: str, **claims: Any) -> Tenant:
        """A tenant by name, with a new key."""
        return Tenant(name, self.signer.key(name, **claims))

    @property
    def nobody(self) -> Tenant:
        """Somebody without a key; what is sent as one is none."""
        return Tenant("", "none")

    # -- asking --------------------------------------------------------------------------------------------------

    def ask(
        self,
        tenant: Tenant,
        body: Any = None,
        path: str = "/v1/completions",
        gateway: int = 0,
        more: client.Headers = (),
    ) -> Answer:
        """One request of a tenant: POST with a body, GET without."""
        method = "GET" if body is None else "POST"
        headers = [*tenant.headers, *more]
        if self.host and "host" not in dict(headers):
            headers.append(("host", self.host))
        return client.ask(self.plane.urls[gateway], method, path, headers, body)

    def streaming(self, tenant: Tenant, body: Raw, path: str = "/v1/completions") -> Any:
        """A stream that is read as it comes; see `client.streaming`."""
        return client.streaming(self.plane.url, path, tenant.headers, {"stream": True, **body})

    # -- what was counted ----------------------------------------------------------------------------------------

    @functools.cached_property
    def store(self) -> redis.Redis:
        """The store itself."""
        host, port, password = self.plane.store
        return redis.Redis(host, port, password=password, decode_responses=True)

    def counters(self, tenant: Tenant) -> dict[str, int]:
        """The tenant's counters by key; one for each minute in which it asked."""
        names = sorted(self.store.keys(f"*_tenant_{tenant.name}_*"))
        return {name: int(self.store.get(name) or 0) for name in names}

    def spent(self, tenant: Tenant) -> int:
        """What was counted for a tenant."""
        return sum(self.counters(tenant).values())

    def settled(self, tenant: Tenant, amount: int) -> None:
        """Wait until exactly so much is counted: what an answer cost is charged right after it."""
        wait_until(
            lambda: self.spent(tenant) == amount, lambda: f"{self.spent(tenant)} was spent, not {amount}"
        )

    def log(self, tenant: Tenant, entries: int) -> list[dict[str, Any]]:
        """The tenant's lines of the access log, once there are so many; over all gateways."""

        def lines() -> list[dict[str, Any]]:
            every = (self.plane.log(index) for index in range(self.plane.count))
            return [line for found in every for line in found if line["tenant"] == tenant.name]

        wait_until(lambda: len(lines()) >= entries, lambda: f"only {lines()} in the log")
        found = lines()
        assert len(found) == entries
        return found

    def asked(self) -> dict[str, int]:
        """How many requests the gateways sent on, by what they were sent to: models, and `ratelimit`."""
        found = dict.fromkeys(("ratelimit", *self.raw["models"]), 0)
        for index in range(self.plane.count):
            for name, value in self.plane.stats(index, r"^cluster\..*\.upstream_rq_total$").items():
                host = name.rpartition("||")[2].split(".")[0]
                target = host.removesuffix("-kserve-workload-svc")
                found[target] = found.get(target, 0) + int(value)
        return found

    def lua_errors(self) -> int:
        """Defects of the request program that Envoy saw, over all gateways."""
        assert self.counted(r"\.lua\.llmp\.executions$")
        return self.counted(r"\.lua\.llmp\.errors$")

    def counted(self, pattern: str) -> int:
        """The sum of Envoy's counters whose names hold the pattern, over all gateways."""
        return int(sum(sum(self.plane.stats(n, pattern).values()) for n in range(self.plane.count)))

    def await_limits(self, status: int) -> None:
        """Wait until somebody without a budget is refused for it on every gateway, or answered in shadow mode."""
        self._used["none"] = 0
        for gateway in range(self.plane.count):
            self._await_limit(gateway, self.named("none-0"), status)

    def _await_limit(self, gateway: int, probe: Tenant, status: int) -> None:
        answers: list[Answer] = []

        def limits() -> bool:
            answers.append(self.ask(probe, completion(5), gateway=gateway))
            return answers[-1].status == status

        def instead() -> str:
            tails = (self.plane.processes.tail(name) for name in ("limits", "store", f"envoy-{gateway}"))
            return "\n".join([f"the gateway does not limit: {answers[-1]}", *tails])

        wait_until(limits, instead)

    # -- behind it -----------------------------------------------------------------------------------------------

    def seen(self, model: str = GEMMA, replica: int = 0) -> dict[str, Any]:
        """Path and headers of the latest request that a model server got."""
        with urllib.request.urlopen(self._engine(model, replica, "seen"), context=UNVERIFIED) as answer:
            return dict(json.load(answer))

    def release(self) -> None:
        """Let all answers go that are held."""
        for model in self.raw["models"]:
            for replica in range(self.raw["models"][model]["replicas"]):
                url = self._engine(model, replica, "release")
                urllib.request.urlopen(urllib.request.Request(url, method="POST"), context=UNVERIFIED).close()

    def _engine(self, model: str, replica: int, what: str) -> str:
        return f"https://{self.plane.pods(model)[replica]}:8000/rehearsal/{what}"

    def metric(self, model: str, name: str) -> float:
        """A metric of a model's servers, summed."""
        total = 0.0
        for replica in range(self.raw["models"][model]["replicas"]):
            url = f"https://{self.plane.pods(model)[replica]}:8000/metrics"
            with urllib.request.urlopen(url, context=UNVERIFIED) as answer:
                lines = answer.read().decode().splitlines()
            total += sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))
        return total

    # -- changing it ---------------------------------------------------------------------------------------------

    def change(self, configure: Callable[[Raw], None]) -> None:
        """Change the stack's configuration, as an `up` would bring it to the gateway."""
        configure(self.raw)
        self.plane.apply(recorded(self.raw, self.directory))


def recorded(raw: Mapping[str, Any], directory: Path) -> list[Raw]:
    """The objects of a stack, with models' routes leading to their Services."""
    found = record_stack(copy.deepcopy(dict(raw)), directory).objects
    own = (r.inputs for r in found if not r.type.endswith("Patch") and "kind" in r.inputs)
    return without_picker([{k: v for k, v in item.items() if k != "status"} for item in own])
