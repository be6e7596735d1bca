"""References to secrets: one place each, one that can be read, and no value."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from stacks.config import ConfigError, load_config
from stacks.config.secret_sources import SecretSource
from stacks.namespaces import _checked
from tests.config.test_config_pulumi import TOKEN, _alone, read, refused  # noqa: F401 - fixtures

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/hugging-face-AbCdEf"
GOOGLE = "projects/my-project/secrets/hugging-face"
HF, PULL = "secrets/hfToken", "secrets/pullSecret"
LOGIN = json.dumps({"auths": {"registry.example.com": {"auth": "eDp5"}}})


@pytest.mark.parametrize(
    ("kind", "source", "shown"),
    [
        ("existing", {"existing": "hf.token-1"}, "hf.token-1 in every namespace of models"),
        ("gke", {"existing": "theirs"}, "theirs in every namespace of models"),
        ("eks", {"awsSecretsManager": "prod/hugging-face"}, "prod/hugging-face in AWS Secrets Manager"),
        ("eks", {"awsSecretsManager": ARN, "key": "token"}, f"{ARN} in AWS Secrets Manager"),
        ("gke", {"googleSecretManager": GOOGLE}, f"{GOOGLE} in Google Secret Manager"),
        (
            "gke",
            {"googleSecretManager": f"{GOOGLE}/versions/3"},
            f"{GOOGLE}/versions/3 in Google Secret Manager",
        ),
    ],
)
def test_a_reference_that_the_stack_can_follow_is_taken(stack, kind: str, source: Any, shown: str) -> None:
    config = load_config(stack(kind, {HF: source}))
    assert str(config.secrets.given()["hfToken"]) == shown


# kind of stack, change, path, words
CASES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "no place": ("eks", {HF: {}}, "secrets.hfToken", "no place is named"),
    "only a key": ("eks", {HF: {"key": "token"}}, "secrets.hfToken", "no place is named"),
    "two places": (
        "eks",
        {HF: {"existing": "a", "awsSecretsManager": "b"}},
        "secrets.hfToken",
        "existing and awsSecretsManager are two places",
    ),
    "a key of a Secret": (
        "existing",
        {HF: {"existing": "a", "key": "token"}},
        "secrets.hfToken",
        "remove key; the Secret must have the key HF_TOKEN",
    ),
    "AWS's store on GKE": (
        "gke",
        {HF: {"awsSecretsManager": "a"}},
        "secrets.hfToken.awsSecretsManager",
        "use googleSecretManager or existing, or run: pulumi config set --secret llm-platform:hfToken",
    ),
    "Google's store on EKS": (
        "eks",
        {HF: {"googleSecretManager": GOOGLE}},
        "secrets.hfToken.googleSecretManager",
        "use awsSecretsManager or existing",
    ),
    "a store without a cloud": (
        "existing",
        {HF: {"awsSecretsManager": "a"}},
        "secrets.hfToken.awsSecretsManager",
        "use existing, or run",
    ),
    "a login for nobody": (
        "existing",
        {PULL: {"existing": "login"}},
        "secrets.pullSecret",
        "set platform.imagePullSecret to true",
    ),
    "an ARN of something else": (
        "eks",
        {HF: {"awsSecretsManager": "arn:aws:s3:::bucket"}},
        "secrets.hfToken.awsSecretsManager",
        "name or ARN of a secret",
    ),
    "an ARN of another region": (
        "eks",
        {HF: {"awsSecretsManager": ARN.replace("us-east-1", "eu-west-1")}},
        "secrets.hfToken.awsSecretsManager",
        "--add-replica-regions Region=us-east-1 --region eu-west-1, and write us-east-1 into the ARN",
    ),
    "a bare name for Google": (
        "gke",
        {HF: {"googleSecretManager": "hugging-face"}},
        "secrets.hfToken.googleSecretManager",
        "projects/PROJECT/secrets/SECRET",
    ),
    "another secret": ("eks", {"secrets/npmToken": {"existing": "a"}}, "secrets.npmToken", "no such key"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_reference_that_leads_nowhere_is_refused(stack, name: str) -> None:
    kind, change, path, words = CASES[name]
    with pytest.raises(ConfigError) as refusal:
        load_config(stack(kind, change))
    assert [p.path.removeprefix("llm-platform:") for p in refusal.value.problems] == [path]
    assert words in str(refusal.value)


def test_a_token_where_a_name_belongs_is_refused_and_not_printed(stack) -> None:
    with pytest.raises(ConfigError) as refusal:
        load_config(stack("eks", {HF: {"awsSecretsManager": TOKEN}}))
    assert TOKEN not in str(refusal.value) and "is written in plain text" in str(refusal.value)


def test_a_reference_stands_for_the_token_of_a_gated_model(read: Callable[..., Any]) -> None:  # noqa: F811
    config, secrets = read({"models/qwen/gated": True, HF: {"existing": "theirs"}})
    assert config.secrets.hf_token is not None and secrets.hf_token is None


def test_a_missing_token_names_the_reference_as_well(read: Callable[..., Any]) -> None:  # noqa: F811
    found = refused(read, {"models/qwen/gated": True})
    assert "or refer to it in llm-platform:secrets.hfToken" in found["hfToken"]


def test_a_reference_and_a_value_for_one_secret_are_refused(read: Callable[..., Any]) -> None:  # noqa: F811
    found = refused(read, {HF: {"existing": "theirs"}}, extra={"hfToken": TOKEN}, secret=["hfToken"])
    assert list(found) == ["secrets.hfToken"]
    assert "run: pulumi config rm llm-platform:hfToken" in found["secrets.hfToken"]


def test_a_wrong_reference_is_one_problem_and_not_a_missing_secret_too(read: Callable[..., Any]) -> None:  # noqa: F811
    assert list(refused(read, {"models/qwen/gated": True, HF: {}})) == ["secrets.hfToken"]


# -- what a store answers --------------------------------------------------------------------------

WHOLE = SecretSource(awsSecretsManager="prod/hf")
PART = SecretSource(awsSecretsManager="prod/hf", key="token")


@pytest.mark.parametrize(
    ("name", "source", "text", "value"),
    [
        ("hfToken", WHOLE, f"{TOKEN}\n", TOKEN),
        ("hfToken", PART, json.dumps({"token": TOKEN, "other": "x"}), TOKEN),
        ("pullSecret", WHOLE, LOGIN, LOGIN),
        ("pullSecret", PART, json.dumps({"token": json.loads(LOGIN)}), LOGIN),
        ("pullSecret", PART, json.dumps({"token": LOGIN}), LOGIN),
    ],
)
def test_the_value_is_found_in_a_stores_answer(
    name: str, source: SecretSource, text: str, value: str
) -> None:
    assert _checked(name, source, text) == value


@pytest.mark.parametrize(
    ("name", "source", "text", "words"),
    [
        ("hfToken", WHOLE, " \n", "is empty"),
        ("hfToken", PART, TOKEN, 'is not a JSON object with the key "token"'),
        ("hfToken", PART, json.dumps({"other": TOKEN}), 'is not a JSON object with the key "token"'),
        ("hfToken", PART, json.dumps({"token": 7, "other": TOKEN}), 'with the key "token"'),
        ("hfToken", PART, json.dumps([TOKEN]), 'with the key "token"'),
        ("pullSecret", WHOLE, TOKEN, "is not a Docker config JSON with auths"),
    ],
)
def test_an_answer_that_is_of_no_use_is_refused_by_name_alone(name, source, text: str, words: str) -> None:
    with pytest.raises(pulumi.RunError) as refusal:
        _checked(name, source, text)
    assert words in str(refusal.value) and f"llm-platform:secrets.{name}: prod/hf in AWS" in str(
        refusal.value
    )
    assert TOKEN not in str(refusal.value)
    # Nor in what a traceback would show of it.
    assert refusal.value.__cause__ is None and refusal.value.__context__ is None


def test_a_value_that_is_not_read_is_a_secret_and_not_known() -> None:
    from stacks.namespaces import _unknown

    async def check() -> None:
        output = _unknown()
        assert await output.is_secret() and not await output.is_known()

    asyncio.run(check())
