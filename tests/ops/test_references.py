"""Secrets that somebody else keeps: found, or named with what is missing of them, and never shown."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from ops.preflight import existing_checks
from ops.preflight.verdicts import State
from ops.references import Reference, references
from ops.verify import references as verification
from ops.verify.bench import Bench
from ops.verify.passes import Passes
from ops.verify.verdicts import Outcome
from stacks.config import load_config
from tests.support.stacks import raw_stack

VALUE = base64.b64encode(b"hush").decode()
TOKEN = Reference("secrets.hfToken.existing", "llm-models", "theirs", ("HF_TOKEN",))
LOGIN = Reference(
    "secrets.pullSecret.existing",
    "llm-models",
    "login",
    (".dockerconfigjson",),
    "kubernetes.io/dockerconfigjson",
)


def secret(key: str = "HF_TOKEN", kind: str = "Opaque", value: str = VALUE) -> dict[str, Any]:
    return {"kind": "Secret", "type": kind, "data": {key: value}}


def config() -> Any:
    raw = raw_stack("dev")
    raw["models"]["other"] = {**raw["models"]["qwen3-0-6b"], "namespace": "others", "replicas": 0}
    raw["secrets"] = {"hfToken": {"existing": "theirs"}, "pullSecret": {"existing": "login"}}
    raw["platform"] = {"imagePullSecret": True}
    return load_config(raw)


def test_every_namespace_of_models_needs_each_of_them() -> None:
    elsewhere = [replace(one, namespace="others") for one in (TOKEN, LOGIN)]
    assert list(references(config())) == [TOKEN, LOGIN, *elsewhere]
    assert list(references(load_config(raw_stack("dev")))) == []


@pytest.mark.parametrize(
    ("reference", "live", "fault"),
    [
        (TOKEN, secret(), ""),
        (TOKEN, None, "there is no such Secret"),
        (TOKEN, secret("token"), "it has no key HF_TOKEN"),
        (TOKEN, secret(value=""), "it has no key HF_TOKEN"),
        (LOGIN, secret(".dockerconfigjson", "kubernetes.io/dockerconfigjson"), ""),
        (LOGIN, secret(".dockerconfigjson"), "its type is Opaque, not kubernetes.io/dockerconfigjson"),
    ],
)
def test_what_is_missing_of_a_secret_is_named(reference: Reference, live: Any, fault: str) -> None:
    assert reference.fault(live) == fault


def test_the_fix_makes_the_secret_from_a_file() -> None:
    assert "kubectl create secret generic theirs --from-file=HF_TOKEN=FILE -n llm-models" in TOKEN.fix
    assert "docker-registry login --from-file=.dockerconfigjson=FILE" in LOGIN.fix


class Kube:
    """One Secret of one namespace."""

    def get(self, api_version: str, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        return secret() if (kind, name, namespace) == ("Secret", "theirs", "llm-models") else None


def test_verify_tells_of_each_without_its_value() -> None:
    bench = Bench(config=config(), passes=Passes("a/b/c"), kube=Kube())  # type: ignore[arg-type]
    found = {result.check: result.verdict for result in verification.look(bench)}
    assert found["llm-models/theirs"].outcome is Outcome.PASSED
    assert {found[name].outcome for name in ("llm-models/login", "others/theirs", "others/login")} == {
        Outcome.FAILED
    }
    assert "hush" not in str(found) and VALUE not in str(found)


@pytest.mark.parametrize(
    ("fault", "state", "words"),
    [
        ("", State.PASSED, "it has HF_TOKEN"),
        ("there is no such Secret", State.FAILED, "the model's pods would not be made"),
        # Its namespace is this stack's, and not there before the first `up`.
        (None, State.ADVICE, "`up` makes its namespace"),
    ],
)
def test_preflight_tells_a_missing_secret_from_a_missing_namespace(fault, state, words: str) -> None:
    (found,) = existing_checks.kept_secrets({TOKEN: fault})
    assert found.state is state and words in found.evidence and found.what == "llm-models/theirs"
