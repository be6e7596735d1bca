"""Whether weights and KV cache fit, with the arithmetic in the message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from components.core import models as core
from components.core.accelerators import ACCELERATORS
from stacks.config.errors import Problem
from stacks.config.model import Model
from stacks.config.pools import PoolShape
from stacks.config.rules.draft import Draft, problem
from stacks.config.rules.pools import replica_chips

# Bytes per parameter when vLLM quantizes published 16-bit weights while it loads them. Other
# methods need weights that are stored quantized, whose size only `architecture` can tell.
QUANTIZED_WHILE_LOADING = {"fp8": 1.0, "bitsandbytes": 0.5}


def architecture(model: Model) -> core.ModelArchitecture | None:
    """The numbers to calculate with: the entry's own, else those of a known model, else None."""
    if model.architecture is not None:
        return model.architecture.core()
    known = core.architecture_of(model.origin)
    if known is None or model.quantization is None:
        return known
    size = QUANTIZED_WHILE_LOADING.get(model.quantization)
    return replace(known, bytes_per_parameter=size) if size else None


def stored_gib(model: Model) -> float | None:
    """The size of the weights as they are stored, in GiB; None where it is not known."""
    numbers = architecture(model)
    if numbers is None:
        return None
    # What vLLM quantizes while it loads is stored in full.
    size = model.architecture.bytes_per_parameter if model.architecture else 2.0
    return numbers.parameters_billions * 1e9 * size / core.GIB


def outcome(model: Model, pool: PoolShape) -> core.Fit | None:
    """The arithmetic for one replica on its chips; None where the model's numbers are not known."""
    numbers = architecture(model)
    if numbers is None:
        return None
    return core.fit(
        numbers,
        ACCELERATORS[pool.accelerator],
        replica_chips(model, pool),
        model.max_model_len,
        model.max_num_seqs,
        model.gpu_memory_utilization,
    )


def context(draft: Draft) -> Iterator[Problem]:
    """The model knows contexts of the length that is asked for."""
    for name, model in draft.config.models.items():
        numbers = architecture(model)
        limit = numbers.context if numbers else None
        if limit is not None and model.max_model_len is not None and model.max_model_len > limit:
            yield problem(
                ("models", name, "maxModelLen"),
                f"{model.max_model_len} tokens are more than the {limit} that the model was made for",
                "the engine stops at its start",
                f"use {limit} or less",
            )


def heads(draft: Draft) -> Iterator[Problem]:
    """The model's heads can be dealt out to the chips."""
    for name, model, pool in draft.placed():
        numbers = architecture(model)
        size = replica_chips(model, pool)
        fault = core.tensor_parallel_fault(numbers, size) if numbers else None
        if fault:
            yield problem(
                ("models", name, "tensorParallel"),
                f"{fault} (tensor parallelism {size})",
                "the engine stops at its start",
                "use a number that divides the heads, or nodes or slices with another number of chips",
            )


def memory(draft: Draft) -> Iterator[Problem]:
    """Weights and one request of full length fit into the chips of a replica."""
    for name, model, pool in draft.placed():
        found = outcome(model, pool)
        if found is None or found.ok:
            continue
        if found.max_tokens:
            field, fix = "maxModelLen", f"use maxModelLen {found.max_tokens} or less, or more chips"
        else:
            field, fix = "accelerator", "use more or larger chips, or quantized weights"
        yield problem(
            ("models", name, field),
            f"the model does not fit: {found.explanation}",
            "the engine stops at its start, for lack of memory",
            fix,
        )


RULES = (context, heads, memory)
