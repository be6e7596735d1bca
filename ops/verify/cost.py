"""What a verification takes of the models, before it begins. An estimate: answers may end early."""

from __future__ import annotations

from ops.verify import access, models, routing, throughput
from ops.verify.bench import Bench, Target

_QUESTIONS = 4 * (models.TOKENS + 12) + models.STREAMED + 12
"""Of the questions to each model: three completions, a chat and a stream, with their prompts."""


def tokens(bench: Bench) -> int:
    """Prompt and completion tokens of everything that will be asked."""
    tiers = access.tiers(bench)
    chosen = access.within(tiers, bench.wishes.max_tokens)
    return sum(_model(bench, target) for target in bench.targets()) + sum(
        tier.tokens for tier in tiers if chosen[tier.name]
    )


def _model(bench: Bench, target: Target) -> int:
    each = throughput.PROMPT_TOKENS + throughput.TOKENS
    routed = target.routing == "prefix-cache" and target.replicas > 1
    prefixes = routing.prefix_tokens(target) if routed else 0
    repeats = routing.PREFIXES * routing.REPEATS * (prefixes + routing.ANSWERED) if prefixes else 0
    return _QUESTIONS + (2 * bench.wishes.requests + 1) * each + repeats
