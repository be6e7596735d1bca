"""A chain that holds and is slow, fails now and then, or uses caches by chance: what metrics and access log show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

from ops.doctor.chain import Rule, Seen
from ops.doctor.facts import ModelFacts, PodFacts, Scene
from ops.doctor.traffic import Request

ENOUGH = 20
"""Requests before shares mean anything."""
FAILING = 0.2
FULL = 0.95
PREEMPTED = 0.01
"""Preempted requests per finished one: each is computed again from its beginning."""
HIT_RATE = 0.05
"""Cached tokens per asked one below which a cache is of no use; a shared system prompt alone gives far more."""
LOPSIDED = 4.0
# Envoy's response flags (docs: config/observability/access_log/usage).
UNREACHED, NO_REPLICA, NO_LIMITS, TIMEOUT = {"UF", "UC", "UR"}, {"UH"}, {"RLSE"}, {"UT", "DI"}

WAITING, RUNNING = "vllm:num_requests_waiting", "vllm:num_requests_running"
USAGE, PREEMPTIONS = "vllm:kv_cache_usage_perc", "vllm:num_preemptions_total"
FINISHED, PROMPT = "vllm:request_success_total", "vllm:prompt_tokens_total"
QUERIES, HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"

Sign = Callable[[Scene], tuple[tuple[str, ...], dict[str, object]] | None]
"""From the scene to evidence and words; None where the case does not show."""


def _look(sign: Sign) -> Callable[[Scene], Iterator[Seen]]:
    def look(scene: Scene) -> Iterator[Seen]:
        found = sign(scene)
        if found is not None:
            evidence, words = found
            yield Seen(subject=f"model {scene.one.name}", evidence=evidence, words=words, blocks=False)

    return look


def _measured(model: ModelFacts) -> list[PodFacts]:
    return [pod for pod in model.pods if pod.ready and pod.metrics]


def _total(pods: list[PodFacts], name: str) -> float:
    return sum(pod.metrics.get(name, 0.0) for pod in pods)


def _each(pods: list[PodFacts], name: str, form: str = ".0f") -> str:
    return ", ".join(f"{pod.name}: {pod.metrics.get(name, 0.0):{form}}" for pod in pods)


# -- failures --------------------------------------------------------------------------------------


def _failing(flags: set[str] | None) -> Sign:
    """A share of the last requests failed, with one of Envoy's flags."""

    def sign(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]] | None:
        last = scene.one.requests
        failed = [r for r in last if r.failed and (flags is None or _flags(r) & flags)]
        if len(last) < ENOUGH or len(failed) < FAILING * len(last):
            return None
        newest = failed[-1]
        text = f"the newest: status {newest.status}, flags {newest.flags}, replica {newest.replica}"
        return (text,), {"failed": len(failed), "last": len(last)}

    return sign


def _flags(request: Request) -> set[str]:
    return set(request.flags.split(","))


# -- speed -----------------------------------------------------------------------------------------


def _one_side(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]] | None:
    """Requests wait at one replica while another has nothing to do."""
    pods = _measured(scene.one)
    queued = [pod for pod in pods if pod.metrics.get(WAITING, 0) > 0]
    idle = [pod for pod in pods if not pod.metrics.get(WAITING) and not pod.metrics.get(RUNNING)]
    return ((f"waiting: {_each(pods, WAITING)}",), {}) if queued and idle else None


def _queue(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]] | None:
    pods = _measured(scene.one)
    queued = _total(pods, WAITING)
    return (
        ((f"waiting: {_each(pods, WAITING)}",), {"queued": f"{queued:.0f}"})
        if pods and queued >= len(pods)
        else None
    )


def _full(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]] | None:
    full = [pod for pod in _measured(scene.one) if pod.metrics.get(USAGE, 0.0) >= FULL]
    return ((f"KV cache in use: {_each(full, USAGE, '.0%')}",), {}) if full else None


def _preempted(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]] | None:
    pods = _measured(scene.one)
    count, done = _total(pods, PREEMPTIONS), _total(pods, FINISHED)
    if done < ENOUGH or count < PREEMPTED * done:
        return None
    return (f"{count:.0f} preemptions in {done:.0f} requests",), {}


def _cold(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]] | None:
    """A replica that has answered next to nothing yet: its cache is empty, and on TPUs shapes may be compiled."""
    pods = _measured(scene.one)
    asked = [pod.metrics.get(FINISHED, 0.0) for pod in pods]
    if len(pods) < 2 or sum(asked) < ENOUGH:
        return None
    now = scene.stack.now
    cold = [p for p in pods if p.metrics.get(FINISHED, 0.0) * 10 < max(asked) and p.age(now) < p.budget + 600]
    return ((f"requests answered: {_each(pods, FINISHED)}",), {}) if cold else None


# -- caches ----------------------------------------------------------------------------------------


def _cache_unused(scene: Scene) -> list[PodFacts]:
    """The replicas, where prefix routing is asked for, there is a choice, and nearly nothing is found in caches."""
    pods = _measured(scene.one)
    if scene.one.routing != "prefix-cache" or len(pods) < 2:
        return []
    asked, hits = _total(pods, QUERIES), _total(pods, HITS)
    enough = _total(pods, FINISHED) >= ENOUGH or len(scene.one.requests) >= ENOUGH
    return pods if enough and hits <= HIT_RATE * asked else []


def _caching_off(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]] | None:
    pods = _cache_unused(scene)
    off = [pod for pod in pods if pod.engine.get("enable_prefix_caching") == "False"]
    arguments = [str(a) for pod in pods for c in pod.live["spec"]["containers"] for a in c.get("args") or ()]
    if not off and "--no-enable-prefix-caching" not in " ".join(arguments):
        return None
    return ("the engine runs with its prefix cache off",), {}


def _prompt_tokens(scene: Scene, pods: list[PodFacts]) -> float | None:
    """Tokens of a usual prompt, by the access log, else by the engines' own sums."""
    known = [r.prompt for r in scene.one.requests if r.prompt]
    if known:
        return median(known)
    done = _total(pods, FINISHED)
    return _total(pods, PROMPT) / done if done else None


def _block(pods: list[PodFacts]) -> int:
    sizes = [pod.engine.get("block_size", "") for pod in pods]
    return max((int(size) for size in sizes if size.isdigit()), default=16)


def _short(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]] | None:
    pods = _cache_unused(scene)
    tokens, block = _prompt_tokens(scene, pods), _block(pods)
    if not pods or tokens is None or tokens >= 2 * block:
        return None
    return (f"a usual prompt has {tokens:.0f} tokens, a block of the cache {block}",), {"block": block}


def _without_effect(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]] | None:
    pods = _cache_unused(scene)
    if not pods:
        return None
    text = f"{_total(pods, HITS):.0f} of {_total(pods, QUERIES):.0f} tokens were found in caches"
    return (text, f"requests answered: {_each(pods, FINISHED)}"), {}


def _one_replica(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]] | None:
    pods = _measured(scene.one)
    done = sorted((pod.metrics.get(FINISHED, 0.0) for pod in pods), reverse=True)
    if scene.one.routing != "prefix-cache" or len(done) < 2 or done[0] < 5 * ENOUGH:
        return None
    if done[0] < LOPSIDED * max(sum(done[1:]), 1.0):
        return None
    return (f"requests answered: {_each(pods, FINISHED)}",), {}


def _unread(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]] | None:
    unread = [pod for pod in scene.one.pods if pod.ready and pod.unread]
    return ((unread[0].unread,), {"count": len(unread)}) if unread else None


def _rule(page: str, sign: Sign, found: str, fix: str, severity: str = "broken") -> Rule:
    return Rule(link="answers", page=page, look=_look(sign), found=found, fix=fix, severity=severity)


_FAILED = "{failed} of the last {last} requests failed: "

RULES: tuple[Rule, ...] = (
    _rule(
        "keys-and-limits",
        _failing(NO_LIMITS),
        f"{_FAILED}the limit service answers too slowly or not at all",
        "its pods run: look at their CPU, at the store's, and at the way between gateway and service (a quarter of a second "
        "is what the gateway waits)",
    ),
    _rule(
        "network-policy",
        _failing(UNREACHED),
        f"{_FAILED}the gateway cannot reach a replica",
        "its address is in the evidence: see the policies link, and whether the cluster has other policies (cloud firewall, "
        "service mesh)",
    ),
    _rule(
        "not-ready",
        _failing(NO_REPLICA),
        f"{_FAILED}the gateway knows of no replica that is well",
        "if replicas are ready now, it is over; else the pool and picker links say more",
    ),
    _rule(
        "latency",
        _failing(TIMEOUT),
        f"{_FAILED}answers took longer than the route allows",
        "lower `maxOutputTokens`, raise `requestTimeoutSeconds`, or add replicas",
    ),
    _rule(
        "not-ready",
        _failing(None),
        f"{_FAILED}see the engine's log",
        "`kubectl logs` of the replica in the evidence",
    ),
    _rule(
        "latency",
        _one_side,
        "requests wait at one replica while another has nothing to do",
        "prompts that all begin alike are kept together: `routing: load` spreads them, at the price of the caches",
    ),
    _rule(
        "latency",
        _full,
        "the KV cache is full: further requests wait until others end",
        "add replicas, lower `maxNumSeqs` or `maxModelLen`, or raise `gpuMemoryUtilization`",
    ),
    _rule(
        "latency",
        _queue,
        "{queued} requests wait at the replicas: they are at their capacity",
        "add replicas, or raise `maxNumSeqs` if the KV cache has room",
    ),
    _rule(
        "latency",
        _preempted,
        "requests are preempted and computed again, since the KV cache is too small for what runs at once",
        "lower `maxNumSeqs`, or add replicas",
    ),
    _rule(
        "cache-routing",
        _caching_off,
        "prefix routing is on, and the engine caches no prefixes",
        "take `--no-enable-prefix-caching` out of the model's `args`",
    ),
    _rule(
        "cache-routing",
        _short,
        "prompts are shorter than what a cache keeps (whole blocks of {block} tokens)",
        "nothing is wrong: caches help prompts with hundreds of tokens in common; `routing: load` is enough for these",
        "note",
    ),
    _rule(
        "cache-routing",
        _without_effect,
        "prefix routing is without effect: prompts have no beginning in common",
        "put what changes (names, dates, questions) behind what stays (instructions, documents); a time at the beginning of the "
        "system prompt is enough to spoil it",
        "note",
    ),
    _rule(
        "latency",
        _cold,
        "a replica is new: its cache is empty, and its first answers are slower",
        "wait; it gets its share as prefixes come by",
        "note",
    ),
    _rule(
        "latency",
        _one_replica,
        "nearly all requests go to one replica, since nearly all prompts begin alike",
        "nothing is wrong while it keeps up; `routing: load` spreads them",
        "note",
    ),
    _rule(
        "latency",
        _unread,
        "the metrics of {count} replicas could not be read, so speed and caches are not judged",
        "`kubectl port-forward` to port 8000 of a replica, and `curl -k` its /metrics",
        "note",
    ),
)
