"""`python -m ops verify` on a whole stack with TLS and two replicas: all is well, and then it is not.

Whether policies are enforced is the one thing that loopback cannot show, and verify must say so by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from components.serving.manifests import verification
from ops import cli
from tests.rehearsed.conftest import MODELS, Stack, eventually

pytestmark = [pytest.mark.rehearsed, pytest.mark.stacks]

MODEL, NAMESPACE = "qwen3-0-6b", "llm-models"
HOST = "llm.example.com"
QUICK = ("--requests", "10", "--concurrent", "5")
Checks = Mapping[tuple[str, str], Mapping[str, Any]]


@pytest.fixture(scope="module")
def served(stack: Stack) -> Stack:
    """The stack, up."""

    def cluster(before: Mapping[str, Any]) -> dict[str, Any]:
        (pool,) = before["accelerators"].values()
        return {**before, "accelerators": {"l4": {**pool, "maxNodes": 2}}}

    stack.configure("llm-platform:cluster", cluster)
    stack.configure(MODELS, lambda models: {MODEL: {**models[MODEL], "replicas": 2}})
    stack.configure(
        "llm-platform:gateway", lambda _: {"host": HOST, "exposure": "public", "tls": {"issuer": "own-ca"}}
    )
    outcome = stack.run("up")
    assert outcome.status == 0, outcome.output
    return stack


def verify(stack: Stack, *arguments: str) -> tuple[int, Checks, str]:
    """Exit code, what was found by subject and check, and what was said meanwhile."""
    command = [sys.executable, "-m", "ops", "verify", "--stack", stack.name, "--json", *arguments]
    environment = {**stack.rehearsal.environment(), **stack.rehearsal.doors()}
    ended = subprocess.run(
        command, env=environment, cwd=stack.paths.work, capture_output=True, text=True, check=False
    )
    assert ended.stdout, ended.stderr
    rows = json.loads(ended.stdout)["checks"]
    return ended.returncode, {(row["subject"], row["check"]): row for row in rows}, ended.stderr


def outcomes(found: Checks, outcome: str) -> set[tuple[str, str]]:
    return {place for place, row in found.items() if row["outcome"] == outcome}


def spaces(stack: Stack) -> list[str]:
    """Namespaces that a verification made."""
    names = (item["metadata"]["name"] for item in stack.kube.list("v1", "Namespace"))
    return [name for name in names if name.startswith(verification.PREFIX)]


def test_everything_passes_but_what_loopback_cannot_show(served: Stack) -> None:
    code, found, said = verify(served, *QUICK)
    assert (code, outcomes(found, "failed")) == (cli.UNDECIDED, set()), found
    assert outcomes(found, "unchecked") == {("isolation", "as enforced")}
    assert "not enforced here" in found["isolation", "as enforced"]["evidence"]
    assert "tokens of the models" in said
    passed = outcomes(found, "passed")
    wanted = {
        ("gateway", "certificate"),
        ("gateway", "redirect"),
        (f"model {MODEL}", "stream"),
        (f"model {MODEL}", "by body"),
        (f"model {MODEL}", "by header"),
        (f"model {MODEL}", "cache routing"),
        (f"model {MODEL}", "parallel"),
        ("keys", "forged key"),
        ("keys", "expired key"),
        ("keys", "foreign model"),
        ("tier free", "boundary"),
        ("tier enterprise", "boundary"),
        ("isolation", f"model {MODEL}: pod, as written"),
        ("operator kserve", "webhooks"),
    }
    assert wanted <= passed, wanted - passed
    eventually(lambda: not spaces(served), "the probes' namespace goes", 60)


def test_what_verification_used_is_nobodys_use(served: Stack) -> None:
    plain, everybody = (
        json.loads(served.ops("usage", "--stack", served.name, "--by", "tenant", "--json", *more).stdout)
        for more in ((), ("--all",))
    )
    assert not [row for row in plain["rows"] if verification.is_reserved(row["tenant"])]
    assert {verification.LOAD, verification.of_tier("free")} <= {row["tenant"] for row in everybody["rows"]}


def test_wishes_that_are_not_met_fail(served: Stack) -> None:
    code, found, _ = verify(served, *QUICK, "--min-rps", "1000000", "--max-tokens", "0")
    assert code == cli.FAILED
    assert outcomes(found, "failed") == {(f"model {MODEL}", "parallel")}


def test_a_missing_policy_and_a_model_that_does_not_answer_are_found(served: Stack) -> None:
    for name in ("default-deny", f"{MODEL}-workload"):
        served.kube.delete("networking.k8s.io/v1", "NetworkPolicy", name, NAMESPACE)
    for route in (f"{MODEL}-inference", f"{MODEL}-models"):
        served.kube.delete("gateway.networking.k8s.io/v1", "HTTPRoute", route, NAMESPACE)
    code, found, _ = verify(served, *QUICK, "--max-tokens", "0")
    assert code == cli.FAILED
    failed = outcomes(found, "failed")
    assert ("isolation", f"model {MODEL}: pod, as written") in failed
    assert (f"model {MODEL}", "chat") in failed
    assert ("gateway", "certificate") not in failed and ("keys", "no key") not in failed


def test_operators_are_looked_at_alone(served: Stack) -> None:
    code, found, said = verify(served, "--operators-only")
    assert code == cli.DONE, found
    assert {subject.split()[0] for subject, _ in found} == {"operator"} and "tokens" not in said
