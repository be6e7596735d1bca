"""What a model entry says about itself and beside the others."""

from __future__ import annotations

from collections.abc import Iterator

from components.core.accelerators import ACCELERATORS
from stacks.config.errors import Problem
from stacks.config.rules.draft import Draft, problem

# Namespaces with controllers or credentials of the cluster itself.
SYSTEM_NAMESPACES = frozenset(
    {
        "default",
        "cert-manager",
        "istio-system",
        "kserve",
        "lws-system",
        "gpu-operator",
        "gmp-system",
        "gmp-public",
    }
)
# Compute capability 7.5 has no BF16, and vLLM stops when it is asked for.
WITHOUT_BFLOAT16 = frozenset({"nvidia-t4"})


def output_length(draft: Draft) -> Iterator[Problem]:
    """The longest answer is shorter than the context."""
    for name, model in draft.config.models.items():
        longest, context = model.max_output_tokens, model.max_model_len
        if longest is not None and context is not None and longest >= context:
            yield problem(
                ("models", name, "maxOutputTokens"),
                f"{longest} tokens leave no room for a prompt within maxModelLen ({context})",
                "every request for so long an answer is refused by the engine",
                f"use less than {context}",
            )


def request_timeout(draft: Draft) -> Iterator[Problem]:
    """The gateway waits as long as the longest generation takes."""
    for name, model in draft.config.models.items():
        tokens = model.max_output_tokens or model.max_model_len
        if tokens is None:
            continue
        seconds = int(-(-tokens // model.min_tokens_per_second))
        if seconds > model.request_timeout_seconds:
            yield problem(
                ("models", name, "requestTimeoutSeconds"),
                f"{tokens} tokens / {model.min_tokens_per_second:g} tokens per second = {seconds} s, "
                f"longer than the time-out of {model.request_timeout_seconds} s",
                "long answers would be cut off",
                f"use {seconds} or more, or set maxOutputTokens to "
                f"{int(model.request_timeout_seconds * model.min_tokens_per_second)} or less",
            )


def load_budget(draft: Draft) -> Iterator[Problem]:
    """The budget covers what the accelerator needs before it can be ready."""
    for name, model, pool in draft.placed():
        floor = ACCELERATORS[pool.accelerator].startup_budget_seconds
        if model.load_budget_seconds < floor:
            yield problem(
                ("models", name, "loadBudgetSeconds"),
                f"{model.load_budget_seconds} s is less than the {floor} s that {pool.accelerator} may need "
                "to start (download, load, compile)",
                "healthy pods would be killed while they start, again and again",
                f"use {floor} or more",
            )


def number_format(draft: Draft) -> Iterator[Problem]:
    """The accelerator can compute in the format."""
    for name, model, pool in draft.placed():
        if model.dtype == "bfloat16" and pool.accelerator in WITHOUT_BFLOAT16:
            yield problem(
                ("models", name, "dtype"),
                f"{pool.accelerator} has no bfloat16",
                "the engine stops at its start",
                "use float16",
            )


def prefix_cache(draft: Draft) -> Iterator[Problem]:
    """Routing by cached prefix needs a cache."""
    for name, model in draft.config.models.items():
        for index, argument in enumerate(model.args):
            if argument.replace("_", "-") == "--no-enable-prefix-caching" and model.routing == "prefix-cache":
                yield problem(
                    ("models", name, "args", index),
                    "it switches off the cache that routing: prefix-cache counts on",
                    "replicas would be picked by a cache that is always empty",
                    "remove the argument, or set routing: load",
                )


def block_size(draft: Draft) -> Iterator[Problem]:
    """Prompts are long enough for the blocks by which a cached prefix is found."""
    for name, model in draft.config.models.items():
        words = [word for argument in model.args for word in argument.replace("_", "-").split("=")]
        sizes = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--block-size"]
        size = int(sizes[-1]) if sizes and sizes[-1].isdigit() else 0
        if model.routing == "prefix-cache" and model.max_model_len and 2 * size > model.max_model_len:
            yield problem(
                ("models", name, "routing"),
                f"blocks of {size} tokens are hardly ever filled by prompts of at most {model.max_model_len}",
                "no replica would be found by its cache",
                "use a smaller --block-size, or set routing: load",
            )


def pickers(draft: Draft) -> Iterator[Problem]:
    """Settings of the endpoint picker need one."""
    for name, model in draft.config.models.items():
        for field, key in (("pickers", "pickers"), ("picker_failure_mode", "pickerFailureMode")):
            if model.routing == "none" and field in model.model_fields_set:
                yield problem(
                    ("models", name, key),
                    "routing is none, so no picker runs",
                    "the setting would have no effect",
                    "remove it, or set routing: load or prefix-cache",
                )


def output_cap(draft: Draft) -> Iterator[Problem]:
    """The longest answer is said once."""
    for name, model in draft.config.models.items():
        for index, argument in enumerate(model.args):
            flag = argument.split("=", 1)[0].replace("_", "-")
            if flag == "--override-generation-config" and model.max_output_tokens is not None:
                yield problem(
                    ("models", name, "args", index),
                    "maxOutputTokens is handed to the engine by this flag as well",
                    "one of the two would be lost",
                    "remove the argument, or remove maxOutputTokens and set max_new_tokens in it",
                )


def namespaces(draft: Draft) -> Iterator[Problem]:
    """Models stay out of system namespaces and the gateway's."""
    gateway = draft.config.gateway.namespace
    places = {("models", name, "namespace"): model.namespace for name, model in draft.config.models.items()}
    for place, namespace in {**places, ("gateway", "namespace"): gateway}.items():
        if namespace in SYSTEM_NAMESPACES or namespace.startswith("kube-"):
            yield problem(
                place,
                f'"{namespace}" belongs to the cluster',
                "default-deny policies and quotas there would stop its controllers",
                "use a namespace of your own",
            )
        elif place[0] == "models" and namespace == gateway:
            yield problem(
                place,
                f'"{namespace}" is the namespace of the gateway',
                "the models' default-deny policies would cut the gateway off",
                "use another namespace",
            )


def served_names(draft: Draft) -> Iterator[Problem]:
    """No two models answer to one name."""
    owners: dict[str, str] = {}
    for name, model in draft.config.models.items():
        served = model.served_name or name
        if served in owners:
            place = (
                ("models", name, "servedName")
                if model.served_name
                else ("models", owners[served], "servedName")
            )
            yield problem(
                place,
                f'both {owners[served]} and {name} are served as "{served}"',
                "a request for it could reach either",
                "give each model a name of its own",
            )
        owners.setdefault(served, name)


RULES = (
    output_length,
    request_timeout,
    load_budget,
    number_format,
    prefix_cache,
    block_size,
    pickers,
    output_cap,
    namespaces,
    served_names,
)
