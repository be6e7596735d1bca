"""Made-up answers, at the pace of a server that batches."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from rehearsal.model_server.cache import PrefixCache, count
from rehearsal.model_server.settings import Settings

WORDS = ("the", "model", "says", "that", "tokens", "flow", "and", "this", "text", "means", "very", "little")


@dataclass(frozen=True)
class Job:
    """One sequence to generate: `length` tokens, ending in `finish` (stop or length)."""

    prompt: str
    prompt_tokens: int
    length: int
    finish: str


@dataclass
class Counters:
    """What the metrics endpoint reports."""

    running: int = 0
    running_tokens: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    finished: int = 0


class Engine:
    """Runs at most `max_num_seqs` sequences at once; the rest wait."""

    def __init__(self, settings: Settings):
        self.settings, self.counters = settings, Counters()
        self.cache = PrefixCache(settings.block_size, settings.blocks, settings.prefix_caching)
        self._slots = asyncio.Semaphore(settings.max_num_seqs)

    @property
    def kv_cache_usage(self) -> float:
        """The share of all blocks that running requests hold; blocks that are only remembered are free, as in vLLM."""
        settings = self.settings
        return min(self.counters.running_tokens / (settings.blocks * settings.block_size), 1.0)

    def job(self, prompt: str, max_tokens: int | None, ignore_eos: bool) -> Job:
        """Decide how long the answer is: the model's own length, or what the request allows."""
        tokens = count(prompt)
        natural = 20 + hashlib.blake2b(prompt.encode(), digest_size=1).digest()[0] % 40
        room = self.settings.max_model_len - tokens
        room = room if self.settings.max_output is None else min(room, self.settings.max_output)
        allowed = room if max_tokens is None else min(max_tokens, room)
        if ignore_eos or allowed < natural:
            return Job(prompt, tokens, allowed, "length")
        return Job(prompt, tokens, natural, "stop")

    async def generate(self, job: Job) -> AsyncIterator[str]:
        """Yield the answer token by token."""
        c, s = self.counters, self.settings
        c.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            c.waiting -= 1
        c.running += 1
        c.running_tokens += job.prompt_tokens + job.length
        try:
            cached = self.cache.take(job.prompt)
            c.prompt_tokens += job.prompt_tokens
            c.cache_queries += job.prompt_tokens
            c.cache_hits += cached
            await asyncio.sleep(s.prefill_seconds * max(job.prompt_tokens - cached, 0))
            for index in range(job.length):
                if s.decode_seconds:
                    await asyncio.sleep(s.decode_seconds)
                c.generated_tokens += 1
                yield (" " if index else "") + WORDS[(index + job.prompt_tokens) % len(WORDS)]
            c.finished += 1
        finally:
            c.running -= 1
            c.running_tokens -= job.prompt_tokens + job.length
            self._slots.release()
