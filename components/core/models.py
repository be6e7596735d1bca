"""Whether a model fits an accelerator: the numbers of known models, and the arithmetic.

Everything is pure. Sizes are in GiB (2^30 bytes), weights and cache are summed over all chips
that share one replica:

    weights       = parameters x bytes per parameter
    KV per token  = 2 (key and value) x layers x KV heads x head size x bytes per number
    budget        = memory of a chip x utilisation x chips
    tokens        = (budget - weights) / KV per token

The engine refuses to start unless one request of the greatest length fits, which is what `fit`
checks. Activations and compiled graphs come on top and are not estimated: a model that only
just fits here may still be too large.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from components.core.accelerators import Accelerator

GIB = 2**30
DEFAULT_UTILISATION = 0.9  # vLLM's own --gpu-memory-utilization
KV_BYTES = 2.0  # FP16 or BF16, what vLLM uses unless --kv-cache-dtype says otherwise


@dataclass(frozen=True, kw_only=True)
class ModelArchitecture:
    """The numbers of a model that memory depends on; the fields of its config.json.

    `context` is the model's own greatest length in tokens and `attention_heads` its query
    heads; None where unknown.
    """

    parameters_billions: float
    layers: int
    kv_heads: int
    head_dim: int
    bytes_per_parameter: float = 2.0
    attention_heads: int | None = None
    context: int | None = None


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The outcome of the arithmetic for one replica; see the module for the formulas.

    `max_tokens` is what the KV cache holds at a time, over all requests; 0 when not even the
    weights fit. `explanation` is one sentence with every number, fit for a message.
    """

    weights_gib: float
    kv_gib_per_token: float
    budget_gib: float
    free_gib: float
    max_tokens: int
    ok: bool
    explanation: str


def _dense(parameters: float, layers: int, kv: int, head: int, heads: int, context: int) -> ModelArchitecture:
    return ModelArchitecture(
        parameters_billions=parameters,
        layers=layers,
        kv_heads=kv,
        head_dim=head,
        attention_heads=heads,
        context=context,
    )


# Published config.json and safetensors index of each repository on huggingface.co, read 2026-08.
_MISTRAL_SMALL = _dense(23.57, 40, 8, 128, 32, 32768)
KNOWN_MODELS: Mapping[str, ModelArchitecture] = MappingProxyType(
    {
        # parameters (10^9), layers, KV heads, head size, query heads, context
        "Qwen/Qwen3-0.6B": _dense(0.60, 28, 8, 128, 16, 40960),
        "Qwen/Qwen2.5-3B-Instruct": _dense(3.09, 36, 2, 128, 16, 32768),
        # Not gated, and too large for one machine with four TPU v6e chips.
        "Qwen/Qwen2.5-72B-Instruct": _dense(72.71, 80, 8, 128, 64, 32768),
        "google/gemma-2b": _dense(2.51, 18, 1, 256, 8, 8192),
        "meta-llama/Meta-Llama-3-8B-Instruct": _dense(8.03, 32, 8, 128, 32, 8192),
        "mistralai/Mistral-Small-24B-Instruct-2501": _MISTRAL_SMALL,
        "mistralai/Mistral-Small-24B-Instruct": _MISTRAL_SMALL,
    }
)


def architecture_of(uri: str) -> ModelArchitecture | None:
    """The known architecture behind a model URI such as `hf://owner/model[:revision]`, else None."""
    scheme, _, rest = uri.partition("://")
    return KNOWN_MODELS.get(rest.split(":", 1)[0]) if scheme == "hf" else None


def tensor_parallel_fault(architecture: ModelArchitecture, tensor_parallel: int) -> str | None:
    """Why the engine would refuse to split the model over `tensor_parallel` chips, or None.

    Query heads are dealt out evenly; KV heads are dealt out evenly or copied evenly.
    """
    heads, kv = architecture.attention_heads, architecture.kv_heads
    if heads is not None and heads % tensor_parallel:
        return f"{heads} attention heads cannot be split over {tensor_parallel} chips"
    if max(kv, tensor_parallel) % min(kv, tensor_parallel):
        return f"{kv} KV heads can be neither split nor copied evenly over {tensor_parallel} chips"
    return None


def fit(
    architecture: ModelArchitecture,
    accelerator: Accelerator,
    chips: int,
    max_model_len: int | None = None,
    max_num_seqs: int | None = None,
    utilisation: float | None = None,
) -> Fit:
    """Whether one replica on `chips` chips of `accelerator` can start, and how many tokens it holds.

    `max_model_len` defaults to the model's own context; without either only the weights are
    checked. `max_num_seqs` only enters the explanation: the cache is paged, so that many
    requests of the full length need not fit at once.
    """
    share = DEFAULT_UTILISATION if utilisation is None else utilisation
    weights = architecture.parameters_billions * 1e9 * architecture.bytes_per_parameter / GIB
    # A chip holds at least one KV head: with more chips than heads, heads are copied.
    kv_heads = max(architecture.kv_heads, chips)
    per_token = 2 * architecture.layers * kv_heads * architecture.head_dim * KV_BYTES / GIB
    budget = accelerator.memory_gib * share * chips
    free = budget - weights
    tokens = max(0, int(free / per_token))
    length = architecture.context if max_model_len is None else max_model_len
    numbers = (
        f"weights {weights:.1f} GiB ({architecture.parameters_billions:g} x 10^9 parameters of "
        f"{architecture.bytes_per_parameter:g} bytes), budget {budget:.1f} GiB "
        f"({chips} x {accelerator.memory_gib:.1f} GiB of {accelerator.name} x {share:g})"
    )
    return Fit(
        weights_gib=weights,
        kv_gib_per_token=per_token,
        budget_gib=budget,
        free_gib=free,
        max_tokens=tokens,
        ok=free > 0 and tokens >= (length or 1),
        explanation=f"{numbers}{_cache(per_token, free, tokens, length, max_num_seqs)}",
    )


def _cache(per_token: float, free: float, tokens: int, length: int | None, seqs: int | None) -> str:
    """The second half of the explanation: what is left for the KV cache."""
    if free <= 0:
        return f": {-free:.1f} GiB too much"
    text = f"; {free:.1f} GiB left for the KV cache, {tokens} tokens of {per_token * 2**20:.0f} KiB"
    if length is None:
        return text
    text += f", of which one request of the greatest length needs {length}"
    if seqs is not None and tokens >= length:
        text += f"; {min(seqs, tokens // length)} of {seqs} requests of that length fit at a time"
    return text
