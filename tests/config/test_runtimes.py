"""A model that names a runtime: what follows from it, and what it cannot say."""

from __future__ import annotations

import pytest

from stacks.config import ConfigError, load_config

RUNTIME = {"models/qwen/runtime": "vllm-cuda"}
# kind of stack, change, path, words of what is wrong, words of the fix
CASES = {
    "routing by load": (
        "existing",
        {"models/qwen/routing": "load"},
        "routing",
        "none runs",
        "remove routing",
    ),
    "several pickers": ("existing", {"models/qwen/pickers": 2}, "pickers", "no picker runs", "remove it"),
    "on TPUs": (
        "gke",
        {"models/qwen/loadBudgetSeconds": 900},
        "runtime",
        "tpu-v6e is none",
        "an accelerator with NVIDIA GPUs",
    ),
    "with a cache": (
        "existing",
        {"models/qwen/cache": {"size": "20Gi", "shared": False}},
        "cache",
        "there is no cache",
        "pvc://claim/path",
    ),
    "a placeholder in an argument": (
        "existing",
        {"models/qwen/args": ['--override-generation-config={{"a": 1}}']},
        "args[0]",
        "for a placeholder",
        "a space between the braces",
    ),
    "a placeholder in a variable": (
        "existing",
        {"models/qwen/env": {"TEMPLATE": "{{ x }}"}},
        "env.TEMPLATE",
        "for a placeholder",
        "a space between the braces",
    ),
    "a variable that KServe refuses": (
        "existing",
        {"models/qwen/env": {"PYTHONPATH": "/x"}},
        "env.PYTHONPATH",
        "KServe refuses",
        "with the image",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_an_inference_service_cannot_do_is_refused_at_its_place_with_a_fix(name: str, stack) -> None:
    kind, change, path, wrong, fix = CASES[name]
    with pytest.raises(ConfigError) as refusal:
        load_config(stack(kind, {**RUNTIME, **change}))
    (problem,) = refusal.value.problems
    assert problem.path == f"llm-platform:models.qwen.{path}"
    assert wrong in problem.wrong and fix in problem.fix


@pytest.mark.parametrize("name", [case for case in CASES if case not in ("several pickers", "on TPUs")])
def test_without_a_runtime_the_same_is_taken(name: str, stack) -> None:
    kind, change, *_ = CASES[name]
    assert load_config(stack(kind, change)).models["qwen"].runtime is None


def test_a_runtime_means_no_picker_and_nothing_else_has_to_be_said(stack) -> None:
    assert load_config(stack("eks", RUNTIME)).models["qwen"].routing == "none"
    assert load_config(stack("eks")).models["qwen"].routing == "prefix-cache"


def test_an_unknown_runtime_is_named_with_those_that_exist(stack) -> None:
    with pytest.raises(ConfigError, match="vllm-cuda"):
        load_config(stack("eks", {"models/qwen/runtime": "vllm-cpu"}))
