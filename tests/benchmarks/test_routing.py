"""The chat workload of benchmarks/routing.py, what perfect routing would make of it, and the claims."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from benchmarks.routing import Broken, Case, Measurement, _measurement, broken
from benchmarks.workload import Shape, Turn, ceiling, longest_prefix, oracle, replay, workload
from rehearsal.model_server.cache import count
from rehearsal.model_server.dialects import chat_prompt

SHAPE = Shape(sessions=12, turns=4, active=6, groups=2, system=(100, 200))
TURNS = workload(SHAPE)
GOOD = Measurement("prefix-cache", 16, 960, 0.9, 0.9, 0.9, 0.4, 0.1, 0.2)


def test_the_seed_decides_the_workload() -> None:
    assert workload(SHAPE) == TURNS
    assert workload(dataclasses.replace(SHAPE, seed=5)) != TURNS


def test_every_chat_has_its_turns_and_each_begins_with_the_one_before() -> None:
    chats: dict[int, list[Turn]] = {}
    for turn in TURNS:
        chats.setdefault(turn.session, []).append(turn)
    assert {len(turns) for turns in chats.values()} == {SHAPE.turns} and len(chats) == SHAPE.sessions
    for turns in chats.values():
        for before, after in itertools.pairwise(turns):
            assert after.prompt.startswith(before.prompt)


def test_no_more_chats_are_open_than_the_shape_says() -> None:
    places: dict[int, list[int]] = {}
    for index, turn in enumerate(TURNS):
        places.setdefault(turn.session, []).append(index)
    spans = [(found[0], found[-1]) for found in places.values()]
    assert max(sum(a <= i <= b for a, b in spans) for i in range(len(TURNS))) <= SHAPE.active


def test_the_prompt_is_the_one_that_the_server_makes() -> None:
    assert {t.prompt == chat_prompt({"messages": list(t.messages)}) for t in TURNS} == {True}


@pytest.mark.parametrize("block_size", [16, 128])
def test_knowledge_lies_between_chance_and_the_ceiling(block_size: int) -> None:
    chance, blocks = random.Random(1), 4096 // block_size
    blind = replay(TURNS, lambda _, replicas: chance.choice(replicas), 3, block_size, blocks)
    assert blind < oracle(TURNS, 3, block_size, blocks) <= ceiling(TURNS, block_size) < 1


def test_one_system_prompt_for_all_does_not_lower_the_oracle() -> None:
    turns = workload(dataclasses.replace(SHAPE, groups=1))
    assert oracle(turns, 3, 16, 150) > replay(turns, longest_prefix, 3, 16, 150)


@pytest.mark.parametrize(
    ("change", "word"), [({"hit_ratio": 0.85}, "oracle"), ({"busiest": 0.6}, "one replica")]
)
def test_a_broken_claim_is_named(change: dict[str, float], word: str) -> None:
    assert broken([GOOD]) == []
    (said,) = broken([dataclasses.replace(GOOD, **change)])
    assert word in said
    assert broken([dataclasses.replace(GOOD, routing="load", **change)]) == []


def test_tokens_that_the_servers_did_not_see_are_an_error() -> None:
    tokens = sum(count(turn.prompt) for turn in TURNS)
    counters = {"vllm:prefix_cache_queries_total": tokens - 1.0, "vllm:prefix_cache_hits_total": 0.0}
    with pytest.raises(Broken, match="prompt tokens"):
        _measurement(Case("load", 16), TURNS, [counters], [0.1])
