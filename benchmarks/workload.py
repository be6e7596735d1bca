"""Chats of many turns over shared system prompts, and what replicas with perfect routing would have cached of them. Pure.

Everything follows from a shape and its seed. A turn sends the whole chat so far, as OpenAI's clients do, so that
each prompt begins with the one before it; answers are made up here, not taken from the server, so that every
routing and the replays below see the same prompts in the same order.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rehearsal.model_server.cache import BYTES_PER_TOKEN, PrefixCache, count

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = 2000

Message = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a workload; lengths in tokens, ranges inclusive.

    `active` chats are open at a time; a new one begins when one ends. Each begins with the system prompt of one
    of `groups`, the first the most popular one (its chats are as many as 1/rank says).
    """

    sessions: int
    turns: int
    active: int
    groups: int = 8
    system: tuple[int, int] = (400, 1200)
    question: tuple[int, int] = (30, 150)
    answer: tuple[int, int] = (50, 250)
    seed: int = 4


@dataclass(frozen=True)
class Turn:
    """One request: the chat that it belongs to, and its messages."""

    session: int
    messages: tuple[Message, ...]

    @property
    def prompt(self) -> str:
        """The text that the simulated server makes of the messages (rehearsal/model_server/api.py)."""
        return "".join(f"<|{m['role']}|>{m['content']}\n" for m in self.messages)


def workload(shape: Shape) -> list[Turn]:
    """All requests, in the order in which they are sent: turns of a chat in order, chats mixed."""
    chance = random.Random(shape.seed)
    words = ["".join(chance.choices(LETTERS, k=chance.randint(2, 10))) for _ in range(WORDS)]

    def text(length: tuple[int, int]) -> str:
        size = chance.randint(*length) * BYTES_PER_TOKEN
        said = " ".join(chance.choices(words, k=size // 3))
        return said[:size]

    systems = [text(shape.system) for _ in range(shape.groups)]
    popularity = [1 / (rank + 1) for rank in range(shape.groups)]
    chats: list[list[Message]] = [
        [{"role": "system", "content": chance.choices(systems, popularity)[0]}] for _ in range(shape.sessions)
    ]
    turns = []
    for session in _order(shape, chance):
        chat = chats[session]
        chat.append({"role": "user", "content": text(shape.question)})
        turns.append(Turn(session, tuple(chat)))
        chat.append({"role": "assistant", "content": text(shape.answer)})
    return turns


def _order(shape: Shape, chance: random.Random) -> Iterable[int]:
    """The chat of each request: any of the open ones is next, and the oldest that waits follows one that ends."""
    left = dict.fromkeys(range(min(shape.active, shape.sessions)), shape.turns)
    waiting = iter(range(len(left), shape.sessions))
    while left:
        session = chance.choice(list(left))
        yield session
        left[session] -= 1
        if not left[session]:
            del left[session]
            left.update({new: shape.turns for new in [next(waiting, None)] if new is not None})


# -- perfect knowledge ----------------------------------------------------------------------------------------------


class Replica(PrefixCache):
    """A replica's cache that can be asked before it is used; `load` counts the tokens that it had to compute."""

    def __init__(self, block_size: int, blocks: int):
        super().__init__(block_size, blocks)
        self.load = 0

    def known(self, prompt: str) -> int:
        """Blocks at the prompt's beginning that are cached."""
        hashes = self._hashes(prompt.encode())
        return next((i for i, block in enumerate(hashes) if block not in self._known), len(hashes))

    def serve(self, prompt: str) -> int:
        """Answer a prompt; returns how many of its tokens were cached."""
        hits = self.take(prompt)
        self.load += count(prompt) - hits
        return hits


Choice = Callable[[Turn, Sequence[Replica]], Replica]


def longest_prefix(turn: Turn, replicas: Sequence[Replica]) -> Replica:
    """The replica that has most of the prompt; among equals the one that computed least."""
    return min(replicas, key=lambda replica: (-replica.known(turn.prompt), replica.load))


def by_chat() -> Choice:
    """Each chat stays where it began: on the replica that had computed least by then."""
    homes: dict[int, Replica] = {}

    def choose(turn: Turn, replicas: Sequence[Replica]) -> Replica:
        if turn.session not in homes:
            homes[turn.session] = min(replicas, key=lambda replica: replica.load)
        return homes[turn.session]

    return choose


def replay(turns: Iterable[Turn], choose: Choice, replicas: int, block_size: int, blocks: int) -> float:
    """The share of all prompt tokens that is cached when `choose` routes one request at a time."""
    caches = [Replica(block_size, blocks) for _ in range(replicas)]
    hits = queries = 0
    for turn in turns:
        hits += choose(turn, caches).serve(turn.prompt)
        queries += count(turn.prompt)
    return hits / queries


def oracle(turns: Sequence[Turn], replicas: int, block_size: int, blocks: int) -> float:
    """The better of the two choices that know every cache.

    The longest prefix is best until a system prompt that all chats share draws all of them to one replica, whose
    cache they overflow; then chats that stay where they began have more hits.
    """
    return max(replay(turns, choose, replicas, block_size, blocks) for choose in (longest_prefix, by_chat()))


def ceiling(turns: Iterable[Turn], block_size: int) -> float:
    """The share with one cache that forgets nothing."""
    return replay(turns, longest_prefix, 1, block_size, sys.maxsize)
