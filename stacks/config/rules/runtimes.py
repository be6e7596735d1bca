"""What a model can say that names a runtime, and is therefore an InferenceService."""

from __future__ import annotations

from collections.abc import Iterator

from components.core.accelerators import ACCELERATORS
from stacks.config.errors import Problem
from stacks.config.model import Model
from stacks.config.rules.draft import Draft, problem

# What KServe 0.20 reads as the beginning of a placeholder (`ReplacePlaceholders`), and the variables that it refuses
# (`DefaultBlockedEnvVars`).
PLACEHOLDER = "{{"
BLOCKED = ("PYTHONPATH",)
_WITHOUT = "or remove runtime, and the model is an LLMInferenceService"


def _with_runtime(draft: Draft) -> Iterator[tuple[str, Model]]:
    return ((name, model) for name, model in draft.config.models.items() if model.runtime)


def routing(draft: Draft) -> Iterator[Problem]:
    """An InferenceService has no picker."""
    for name, model in _with_runtime(draft):
        if model.routing != "none":
            yield problem(
                ("models", name, "routing"),
                f"{model.routing} needs a picker, and with runtime: {model.runtime} none runs",
                "replicas would be taken in turn all the same",
                f"remove routing, {_WITHOUT}",
            )


def accelerators(draft: Draft) -> Iterator[Problem]:
    """The runtime is for NVIDIA GPUs; replicas of several machines have only TPUs."""
    for name, model, pool in draft.placed():
        vendor = ACCELERATORS[pool.accelerator].vendor
        if model.runtime and vendor != "nvidia":
            yield problem(
                ("models", name, "runtime"),
                f"{model.runtime} is for NVIDIA GPUs, and {pool.accelerator} is none",
                "the engine would find no device and stop",
                f"name an accelerator with NVIDIA GPUs, {_WITHOUT}",
            )


def caches(draft: Draft) -> Iterator[Problem]:
    """KServe mounts the weights of an InferenceService itself, and takes no volume of ours for them."""
    for name, model in _with_runtime(draft):
        if model.cache is not None:
            yield problem(
                ("models", name, "cache"),
                f"with runtime: {model.runtime} there is no cache",
                "every start would download all the same",
                f"remove cache and take the weights from a claim (uri: pvc://claim/path), {_WITHOUT}",
            )


def arguments(draft: Draft) -> Iterator[Problem]:
    """KServe takes arguments and variables of an InferenceService for templates, and refuses some variables."""
    for name, model in _with_runtime(draft):
        places = {("args", index): text for index, text in enumerate(model.args)}
        places |= {("env", key): text for key, text in model.env.items()}
        for place, text in places.items():
            if PLACEHOLDER in text:
                yield problem(
                    ("models", name, *place),
                    f"KServe takes {PLACEHOLDER} in an InferenceService for a placeholder",
                    "it could not fill it in and would make no pods",
                    f"put a space between the braces, {_WITHOUT}",
                )
        for key in sorted(model.env.keys() & set(BLOCKED)):
            yield problem(
                ("models", name, "env", key),
                f"KServe refuses an InferenceService that sets {key}",
                "`up` would fail",
                "remove it, and bring what it points to with the image",
            )


RULES = (routing, accelerators, caches, arguments)
