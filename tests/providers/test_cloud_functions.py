"""What the simulated clouds answer to reading a secret, by the words of the bridged providers."""

from __future__ import annotations

import importlib
from typing import Any
from unittest.mock import patch

import pulumi
import pytest
from pulumi.runtime import mocks
from pulumi.runtime.proto import provider_pb2

from components.clusters.eks.secrets import read_secret as read_amazon
from components.clusters.gke.secrets import read_secret as read_google
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import Secret, from_struct, to_struct
from tests.support import recorder
from tests.support.simulated_aws import REGION, Amazon
from tests.support.simulated_cloud import Cloud
from tests.support.simulated_google import PROJECT, Google

AWS = "aws:secretsmanager/getSecretVersion:getSecretVersion"
GCP = "gcp:secretmanager/getSecretVersionAccess:getSecretVersionAccess"
ARN = "arn:aws:secretsmanager:{}:000000000000:secret:prod/hf-AbCdEf"
KEPT = {"name": "prod/hf", "region": REGION, "text": "hush"}
NAME = f"projects/{PROJECT}/secrets/hf"


@pytest.fixture
def amazon(tmp_path: Any) -> Amazon:
    return Amazon(tmp_path, secrets=[KEPT])


@pytest.fixture
def google(tmp_path: Any) -> Google:
    kept = [{"name": NAME, "version": "4", "text": "new"}, {"name": NAME, "version": "3", "text": "old"}]
    return Google(tmp_path, secrets=kept)


def ask(cloud: Cloud, token: str, **arguments: Any) -> dict[str, Any]:
    request = provider_pb2.InvokeRequest(tok=token, args=to_struct(arguments))
    return from_struct(getattr(cloud.plugin.Invoke(request, None), "return"))


@pytest.mark.parametrize("asked", ["prod/hf", ARN.format(REGION)])
def test_a_secret_of_amazons_is_read_by_name_and_by_arn(amazon: Amazon, asked: str) -> None:
    answer = ask(amazon, AWS, secretId=asked)
    assert answer["secretString"] == Secret("hush")
    assert answer["id"] == f"{asked}|AWSCURRENT" and answer["region"] == REGION


@pytest.mark.parametrize(
    "arguments",
    [
        {"secretId": "prod/other"},
        {"secretId": "prod/hf", "region": "eu-west-1"},
        # Of another region, asked in the provider's.
        {"secretId": ARN.format("eu-west-1")},
    ],
)
def test_what_is_not_there_could_not_be_found_as_the_provider_says_it(amazon: Amazon, arguments) -> None:
    with pytest.raises(Refusal) as refusal:
        ask(amazon, AWS, **arguments)
    said = (
        f"reading Secrets Manager Secret Version ({arguments['secretId']}|AWSCURRENT): couldn't find resource"
    )
    assert str(refusal.value) == f"invoking {AWS}: 1 error occurred:\n\t* {said}\n\n"


def test_a_permission_can_be_missing_and_come(amazon: Amazon) -> None:
    refusal = {
        "kind": "secretsmanager/secretVersion", "name": "prod/hf", "operation": "read", "times": 1,
        "code": "AccessDeniedException", "message": "not you",
    }  # fmt: skip
    amazon.set(refusals=[refusal])
    with pytest.raises(Refusal, match="AccessDeniedException: not you"):
        ask(amazon, AWS, secretId="prod/hf")
    assert ask(amazon, AWS, secretId="prod/hf")["secretString"] == Secret("hush")


@pytest.mark.parametrize(("version", "text"), [(None, "new"), ("latest", "new"), ("3", "old")])
def test_a_secret_of_googles_is_read_by_version(google: Google, version: str | None, text: str) -> None:
    given = {"version": version} if version else {}
    assert ask(google, GCP, secret="hf", project=PROJECT, **given)["secretData"] == Secret(text)


def test_googles_refusal_is_its_apis(google: Google) -> None:
    with pytest.raises(Refusal, match=r"googleapi: Error 404: Secret Version \[.*/versions/9\] not found"):
        ask(google, GCP, secret="hf", project=PROJECT, version="9")


def test_a_version_that_is_disabled_is_not_read(google: Google) -> None:
    google.set(secrets=[{"name": NAME, "version": "4", "text": "hush", "state": "DISABLED"}])
    with pytest.raises(Refusal, match=r"Error 400: Secret Version \[.*/versions/4\] is in DISABLED state"):
        ask(google, GCP, secret="hf", project=PROJECT)


def test_a_function_that_is_not_simulated_is_refused_by_name(amazon: Amazon) -> None:
    with pytest.raises(Refusal, match="the function aws:index/getRegion:getRegion is not simulated"):
        ask(amazon, "aws:index/getRegion:getRegion")


# -- what the product asks, through the pinned SDKs ------------------------------------------------


@pytest.mark.parametrize(
    ("package", "read", "name", "token", "arguments", "answer"),
    [
        ("aws", read_amazon, "prod/hf", AWS, {"secretId": "prod/hf"}, {"secretString": "hush"}),
        (
            "aws",
            read_amazon,
            ARN.format(REGION),
            AWS,
            {"secretId": ARN.format(REGION)},
            {"secretString": "hush"},
        ),
        ("gcp", read_google, NAME, GCP, {"project": PROJECT, "secret": "hf"}, {"secretData": "hush"}),
        (
            "gcp",
            read_google,
            f"{NAME}/versions/3",
            GCP,
            {"project": PROJECT, "secret": "hf", "version": "3"},
            {"secretData": "hush"},
        ),
    ],
)
def test_the_sdk_takes_what_the_program_asks_and_gives_a_secret(
    package, read, name: str, token: str, arguments: dict[str, str], answer: dict[str, str]
) -> None:
    calls: list[mocks.MockCallArgs] = []
    secret: list[bool] = []

    def call(_: Any, args: mocks.MockCallArgs) -> dict[str, Any]:
        calls.append(args)
        return answer

    def program() -> dict[str, Any]:
        provider = importlib.import_module(f"pulumi_{package}").Provider("own")
        value = read(name, provider)
        kept = pulumi.Output.from_input(value.is_secret())
        return {"value": pulumi.Output.unsecret(value), "kept": kept.apply(secret.append)}

    with patch.object(recorder._Echo, "call", call):
        recording = recorder.record(program)
    assert recording.outputs["value"] == "hush" and secret == [True]
    (asked,) = calls
    assert asked.token == token and "own" in asked.provider
    assert {key: value for key, value in asked.args.items() if value is not None} == arguments
