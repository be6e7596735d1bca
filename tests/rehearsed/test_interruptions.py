"""What a killed engine, a slow webhook and a killed controller leave, the next `up` puts right."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rehearsal.processes import MARKER
from tests.rehearsed.conftest import Stack, conditions, eventually, kill, processes_with, program_of

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]
MODEL = "qwen3-0-6b"
WEBHOOK = "kserve/llmisvc-webhook-server-service"


def objects(stack: Stack, api_version: str, kind: str) -> bool:
    """Whether the cluster has an object of the kind."""
    return bool(stack.kube.list(api_version, kind))


# Three moments of an `up`: early, between the operators, and while the model loads.
POINTS = {
    "the first operator installs": ("apps/v1", "Deployment"),
    "KServe's definitions are there": ("serving.kserve.io/v1alpha2", "LLMInferenceServiceConfig"),
    "the model starts": ("serving.kserve.io/v1alpha2", "LLMInferenceService"),
}


@pytest.mark.parametrize("moment", POINTS)
def test_a_killed_engine_needs_only_recover_and_the_next_up(stack, moment):
    # A webhook that refuses for a while after its Deployment is Ready is part of every try.
    stack.inject({"services": [{"match": WEBHOOK, "refuseSeconds": 20}]})
    process = stack.begin("up")
    eventually(lambda: objects(stack, *POINTS[moment]), moment, 120)
    stack.kill_engine(process)
    answer = stack.ops("recover", "--stack", "dev")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_up_after_three_kills_finishes_and_names_what_it_skipped(stack):
    # The one chart that cannot be had here is asked for too.
    stack.configure("llm-platform:platform", lambda _: {"gpuOperator": "managed"})
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    assert "SKIPPED in rehearsal: gpu-operator" in outcome.output, outcome.output
    assert conditions(stack.model(MODEL))["Ready"] == "True"
    assert stack.run("preview", "--expect-no-changes").status == 0


def test_a_controller_killed_during_up_recovers(stack):
    stack.inject({})
    stack.add_nodes()
    stack.configure("llm-platform:models", lambda m: {**m, MODEL: {**m[MODEL], "maxNumSeqs": 16}})
    before = generation(stack)
    process = stack.begin("up")
    eventually(lambda: generation(stack) != before, "KServe writes the change", 60)
    kill_program(stack.paths.root, "kserve-llmisvc")
    outcome = stack.finish(process)
    assert outcome.status == 0, outcome.output
    assert conditions(stack.model(MODEL))["Ready"] == "True"


def generation(stack: Stack) -> int:
    """Counts the changes of the model's Deployment."""
    found = stack.kube.get("apps/v1", "Deployment", f"{MODEL}-kserve", "llm-models")
    assert found is not None
    return found["metadata"]["generation"]


def kill_program(root: Path, name: str) -> None:
    """Kill the program of a pod; its node starts it again."""

    def find() -> list[int]:
        return [pid for pid in processes_with(f"{MARKER}={root}") if program_of(pid) == name]

    for pid in eventually(find, f"{name} runs", 60):
        kill(pid)


def test_an_await_that_timed_out_continues_with_an_update(stack):
    stack.inject({"images": [{"match": "*llm-d-cuda:*", "at": "unready"}]})
    late = "late"
    stack.configure("llm-platform:models", lambda m: {**m, late: {**m[MODEL], "loadBudgetSeconds": 30}})
    outcome = stack.run("up")
    assert outcome.status != 0 and late in outcome.output
    stack.paths.faults.unlink()
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    assert conditions(stack.model(late))["Ready"] == "True"
    assert outcome.changed().get(late) in (None, "update"), "created twice"


def test_git_status_is_clean_after_all_that(stack):
    from rehearsal.paths import CHECKOUT

    command = ["git", "status", "--porcelain", "--", "Pulumi.yaml", "Pulumi.dev.yaml", "stacks", "components"]
    before = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    stack.rehearsal.preview("dev")
    after = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    assert after == before
