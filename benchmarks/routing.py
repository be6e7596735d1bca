"""How much of the prompts replicas find in their prefix caches, for each way of picking a replica.

    python -m benchmarks.routing [--quick] [--sessions 120] [--turns 8] [--blocks 16 64 128] [--json]

A chat workload (benchmarks/workload.py: shared system prompts, several turns, each prompt many blocks long) runs
against three replicas of one model in a rehearsal of its own: real Envoy, real endpoint picker with the
configuration that the stack gives it, simulated model servers with vLLM's block arithmetic. A cache holds a
third of what the open chats need, so that a replica which sees all of them drops what it needs next.
Hits and tokens are the model servers' own counters (vllm:prefix_cache_*_total). Compared are

    prefix-cache, load, none    the values of `routing`; none is Envoy over the model's Service
    random                      the client picks a pod itself
    oracle                      computed, with full knowledge of every cache and one request at a time: to the
                                replica with the longest cached prefix, the one that computed least among
                                equals; or, if that has more hits, each chat where it began
    ceiling                     computed: one cache without an end; what no routing can exceed

Every run begins with new pods and their empty caches. The block sizes show that the picker counts in the
engine's blocks, which it reads from vllm:cache_config_info. Latencies are information: the prefill's pace is
simulated (PREFILL_SECONDS per token that is not cached), and nothing else here is an accelerator.

Claimed: routing prefix-cache reaches at least 0.95 of the oracle with every block size, and at most half of
all requests meet one replica. The exit status is 1 when a claim does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.workload import Shape, Turn, ceiling, oracle, workload
from components.core import labels
from components.serving.manifests.gateway import MODEL_PORT
from rehearsal.gateway.workload import is_ready
from rehearsal.model_server.cache import count
from rehearsal.paths import CHECKOUT, Paths
from rehearsal.progress import Progress
from rehearsal.rehearsal import Rehearsal
from rehearsal.toolchain.store import default_root

CLAIMED_SHARE = 0.95
CLAIMED_LOAD = 0.5
STACK, MODEL, NAMESPACE, TENANT = "dev", "chat", "llm-models", "reader"
REPLICAS = 3
BLOCK_SIZES = (16, 64, 128)
CACHE_TOKENS = 32768
PREFILL_SECONDS = 0.0001
CONCURRENT = 12
ANSWER_TOKENS = 8
SETTLE_SECONDS = 120.0
QUERIES, HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"


@dataclass(frozen=True)
class Case:
    """One way of picking, with one block size of the engine in tokens; `direct` is without the gateway."""

    routing: str
    block_size: int

    @property
    def direct(self) -> bool:
        return self.routing == "random"

    @property
    def configured(self) -> str:
        """The stack's `routing`."""
        return "none" if self.direct else self.routing


@dataclass(frozen=True)
class Measurement:
    """What one run found: shares from 0 to 1, `busiest` of the requests at one replica, seconds of a turn."""

    routing: str
    block_size: int
    requests: int
    hit_ratio: float
    oracle: float
    ceiling: float
    busiest: float
    p50: float
    p99: float

    @property
    def share(self) -> float:
        """How much of the oracle's hit ratio was reached."""
        return self.hit_ratio / self.oracle


class Broken(Exception):
    """A measurement would mean nothing; the message says why."""


# -- the stack ------------------------------------------------------------------------------------------------------


def overrides(case: Case) -> dict[str, Any]:
    """The config of a stack with one model, three nodes for it, and a tenant that cannot run out of tokens."""
    blocks = CACHE_TOKENS // case.block_size
    model = {
        "uri": "hf://Qwen/Qwen3-0.6B",
        "accelerator": "pool",
        "replicas": REPLICAS,
        "maxModelLen": 8192,
        "maxNumSeqs": 64,
        "routing": case.configured,
        "args": [f"--block-size={case.block_size}", f"--num-gpu-blocks-override={blocks}"],
        "env": {"REHEARSAL_PREFILL_SECONDS": str(PREFILL_SECONDS)},
        "resources": {"memory": "16Gi"},
    }
    pool = {"type": "nvidia-l4", "maxNodes": REPLICAS}
    context = yaml.safe_load((CHECKOUT / f"Pulumi.{STACK}.yaml").read_text())["config"][
        "llm-platform:cluster"
    ]
    return {
        "llm-platform:cluster": {**context, "accelerators": {"pool": pool}},
        "llm-platform:models": {MODEL: model},
        # A machine that is busy may keep the counting service from answering in time.
        "llm-platform:access": {
            "failureMode": "open",
            "tiers": {"all": {"tokensPerMinute": 1_000_000_000}},
            "tenants": {TENANT: {"tier": "all"}},
        },
    }


class Stage:
    """A stack in a rehearsal of its own."""

    def __init__(self, directory: Path):
        self.rehearsal = Rehearsal(Paths(directory), Progress(default_root() / "durations.json"))
        self._key = ""

    def put(self, case: Case) -> None:
        """Bring the stack to a case, with new pods."""
        work = self.rehearsal.paths.work
        work.mkdir(parents=True, exist_ok=True)
        (work / "overrides.yaml").write_text(yaml.safe_dump(overrides(case)))
        old = {pod["metadata"]["uid"] for pod in self._pods()} if self.rehearsal.stack else set()
        self.rehearsal.start(STACK)
        with self.rehearsal.progress.phase(
            f"pulumi up (routing {case.routing}, blocks of {case.block_size})"
        ):
            self._run("rehearsal.engine", "up", STACK)
        kube = self.rehearsal.kube()
        for pod in self._pods():
            if pod["metadata"]["uid"] in old:
                kube.delete("v1", "Pod", pod["metadata"]["name"], NAMESPACE)
        kube.wait(lambda: self._fresh(old), SETTLE_SECONDS, f"{REPLICAS} new pods")

    def _fresh(self, old: set[str]) -> bool:
        pods = self._pods()
        return len(pods) == REPLICAS and all(p["metadata"]["uid"] not in old and is_ready(p) for p in pods)

    def _pods(self) -> list[dict[str, Any]]:
        selector = ",".join(f"{k}={v}" for k, v in labels.model_workload(MODEL).items())
        return self.rehearsal.kube().list("v1", "Pod", NAMESPACE, selector=selector)

    @property
    def pods(self) -> list[str]:
        """The base URLs of the model servers."""
        return sorted(f"https://{pod['status']['podIP']}:{MODEL_PORT}" for pod in self._pods())

    @property
    def gateway(self) -> str:
        """The gateway's base URL."""
        return self.rehearsal.address().url

    @property
    def key(self) -> str:
        """An API key, issued at the first use."""
        if not self._key:
            issued = self._run("ops", "keys", "issue", "--stack", STACK, "--tenant", TENANT)
            self._key = issued.split()[-1]
        return self._key

    def _run(self, module: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=self.rehearsal.environment(),
            cwd=CHECKOUT if module == "rehearsal.engine" else self.rehearsal.paths.work,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Broken(f"{module} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


# -- one run --------------------------------------------------------------------------------------------------------


@dataclass
class Client:
    """Sends the workload's requests; `targets` gives the base URL of each."""

    session: aiohttp.ClientSession
    targets: Callable[[], str]

    async def ask(self, messages: Sequence[dict[str, str]]) -> float:
        """Send one request; returns the seconds until its whole answer. Raises Broken."""
        body = {"model": MODEL, "messages": list(messages), "max_tokens": ANSWER_TOKENS}
        began = time.perf_counter()
        url = f"{self.targets()}/v1/chat/completions"
        async with self.session.post(url, json=body, ssl=False) as answer:
            said = await answer.text()
            if answer.status != 200:
                raise Broken(f"{url} answered {answer.status}: {said[:300]}")
        return time.perf_counter() - began

    async def play(self, turns: Sequence[Turn]) -> list[float]:
        """Send all turns in their order, a chat's next one after the answer; returns each one's seconds."""
        done: dict[int, asyncio.Event] = {}
        slots = asyncio.Semaphore(CONCURRENT)
        took = []

        async def one(turn: Turn, before: asyncio.Event | None, after: asyncio.Event) -> None:
            if before is not None:
                await before.wait()
            try:
                took.append(await self.ask(turn.messages))
            finally:
                slots.release()
                after.set()

        async with asyncio.TaskGroup() as tasks:
            for turn in turns:
                await slots.acquire()
                before, after = done.get(turn.session), asyncio.Event()
                done[turn.session] = after
                tasks.create_task(one(turn, before, after))
        return took

    async def counters(self, pods: Sequence[str]) -> list[dict[str, float]]:
        """Each server's counters by name."""
        return [_counters(await (await self.session.get(f"{p}/metrics", ssl=False)).text()) for p in pods]


def _counters(page: str) -> dict[str, float]:
    found = re.findall(r"^([a-z_:]+)\{[^}]*\} ([0-9.e+]+)$", page, re.MULTILINE)
    return {name: float(value) for name, value in found}


async def settle(client: Client, pods: Sequence[str], direct: bool) -> None:
    """Ask until every new pod has answered, so that the gateway and the picker know them all.

    The questions are shorter than any block, so they leave nothing in a cache.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while not direct:
        try:
            await client.ask([{"role": "user", "content": "?"}])
        except (Broken, aiohttp.ClientError) as error:
            if time.monotonic() > deadline:
                raise Broken(f"the gateway does not answer: {error}") from None
        answered = [c["vllm:request_success_total"] for c in await client.counters(pods)]
        if all(answered):
            # The picker reads the servers' block size twenty times a second.
            await asyncio.sleep(0.5)
            return
        if time.monotonic() > deadline:
            raise Broken(f"the gateway does not use every replica: {answered}")


async def measure(stage: Stage, case: Case, turns: Sequence[Turn]) -> Measurement:
    """Play the workload in one case."""
    pods = stage.pods
    chance = random.Random(case.block_size)
    gateway = stage.gateway
    targets: Callable[[], str] = (lambda: chance.choice(pods)) if case.direct else (lambda: gateway)
    headers = {"Authorization": f"Bearer {stage.key}"}
    limits = aiohttp.TCPConnector(limit=CONCURRENT)
    async with aiohttp.ClientSession(headers=headers, connector=limits) as session:
        client = Client(session, targets)
        await settle(client, pods, case.direct)
        before = await client.counters(pods)
        took = sorted(await client.play(turns))
        after = await client.counters(pods)
    grown = [{name: b[name] - a[name] for name in b} for a, b in zip(before, after, strict=True)]
    return _measurement(case, turns, grown, took)


def _measurement(
    case: Case, turns: Sequence[Turn], grown: Sequence[dict[str, float]], took: Sequence[float]
) -> Measurement:
    """The figures of a run; Raises Broken unless the servers saw exactly the workload's tokens."""
    queries = sum(c[QUERIES] for c in grown)
    expected = sum(count(turn.prompt) for turn in turns)
    if queries != expected:
        raise Broken(f"the servers saw {queries:.0f} prompt tokens, and the workload has {expected}")
    requests = [c["vllm:request_success_total"] for c in grown]
    blocks = CACHE_TOKENS // case.block_size
    return Measurement(
        routing=case.routing,
        block_size=case.block_size,
        requests=len(turns),
        hit_ratio=sum(c[HITS] for c in grown) / queries,
        oracle=oracle(turns, REPLICAS, case.block_size, blocks),
        ceiling=ceiling(turns, case.block_size),
        busiest=max(requests) / sum(requests),
        p50=took[len(took) // 2],
        p99=took[len(took) * 99 // 100],
    )


# -- all of them ----------------------------------------------------------------------------------------------------


def cases(block_sizes: Sequence[int]) -> list[Case]:
    """Every routing with the first block size, and the picker's with the others."""
    first, *others = block_sizes
    compared = [Case(routing, first) for routing in ("prefix-cache", "load", "none", "random")]
    return [*compared, *(Case("prefix-cache", size) for size in others)]


def run(shape: Shape, block_sizes: Sequence[int]) -> dict[str, Any]:
    """Every measurement, and the claims that do not hold."""
    turns = workload(shape)
    with tempfile.TemporaryDirectory() as scratch:
        stage = Stage(Path(scratch) / "rehearsal")
        rows = []
        try:
            for case in cases(block_sizes):
                stage.put(case)
                rows.append(asyncio.run(measure(stage, case, turns)))
        finally:
            stage.rehearsal.down(force=True)
    return {
        "prompt_tokens": sum(count(turn.prompt) for turn in turns),
        "rows": [{**asdict(row), "share": row.share} for row in rows],
        "broken_claims": broken(rows),
    }


def broken(rows: Sequence[Measurement]) -> list[str]:
    """The claims of this module that the measurements contradict."""
    found = []
    for row in rows:
        if row.routing != "prefix-cache":
            continue
        if row.share < CLAIMED_SHARE:
            found.append(f"blocks of {row.block_size}: {row.share:.3f} of the oracle")
        if row.busiest > CLAIMED_LOAD:
            found.append(f"blocks of {row.block_size}: {row.busiest:.2f} of the requests met one replica")
    return found


def table(result: dict[str, Any]) -> str:
    """The measurements for people."""
    heads = (
        "routing",
        "block",
        "requests",
        "hits",
        "oracle",
        "share",
        "ceiling",
        "busiest",
        "p50 ms",
        "p99 ms",
    )
    lines = [" ".join(f"{head:>{12 if head == 'routing' else 8}}" for head in heads)]
    for row in result["rows"]:
        shares = (row[name] for name in ("hit_ratio", "oracle", "share", "ceiling", "busiest"))
        lines.append(
            f"{row['routing']:>12} {row['block_size']:>8} {row['requests']:>8} "
            + " ".join(f"{share:>8.3f}" for share in shares)
            + f" {row['p50'] * 1000:>8.0f} {row['p99'] * 1000:>8.0f}"
        )
    return "\n".join([*lines, *(f"NOT AS CLAIMED: {claim}" for claim in result["broken_claims"])])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__.split("\n")[0])
    parser.add_argument("--sessions", type=int, default=120, help="chats in all")
    parser.add_argument("--turns", type=int, default=8, help="requests of a chat")
    parser.add_argument(
        "--blocks", type=int, nargs="+", default=list(BLOCK_SIZES), help="engine's block sizes"
    )
    parser.add_argument("--quick", action="store_true", help="half of the chats, the first block size only")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    sessions = options.sessions // 2 if options.quick else options.sessions
    shape = Shape(sessions=sessions, turns=options.turns, active=min(60, sessions))
    result = run(shape, options.blocks[:1] if options.quick else options.blocks)
    print(json.dumps(result) if options.json else table(result))
    return 1 if result["broken_claims"] else 0


if __name__ == "__main__":
    sys.exit(main())
