"""Reading of Secrets Manager; the secrets themselves are in the settings, as somebody else has made them.

The sentences are those of terraform-provider-aws v6 (internal/service/secretsmanager/secret_version_data_source.go),
in which a secret that does not exist, or is in another region, is a resource that could not be found.
"""

from __future__ import annotations

import hashlib
from typing import Any

from rehearsal.cloud.aws_secrets import is_elsewhere, name_of
from rehearsal.providers.cloud.functions import Function, Question
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import Properties, Secret

VERSION, CURRENT = "secretsmanager/secretVersion", "AWSCURRENT"


def _name(question: Question) -> str:
    return name_of(str(question.arguments.get("secretId") or ""))


def _region(question: Question) -> str:
    return str(question.arguments.get("region") or question.defaults.region)


def _version(question: Question) -> Properties:
    asked, region = str(question.arguments.get("secretId") or ""), _region(question)
    kept = question.settings.secret(_name(question), region=region)
    if kept is None or is_elsewhere(asked, region):
        raise Refusal("couldn't find resource")
    identity = hashlib.sha256(f"{region} {_name(question)}".encode()).hexdigest()
    account = question.defaults.account
    arn = f"arn:aws:secretsmanager:{region}:{account}:secret:{_name(question)}-{identity[:6]}"
    stage: Any = question.arguments.get("versionStage") or CURRENT
    return {
        "id": f"{asked}|{stage}",
        "arn": arn,
        "secretArn": arn,
        "secretId": asked,
        "region": region,
        "secretString": Secret(str(kept.get("text", ""))),
        "secretBinary": Secret(""),
        "versionId": identity[:32],
        "versionStage": stage,
        "versionStages": [stage],
        "createdDate": "2026-01-01T00:00:00Z",
    }


def _failed(question: Question, refusal: str) -> str:
    stage = question.arguments.get("versionStage") or CURRENT
    return f"reading Secrets Manager Secret Version ({question.arguments.get('secretId')}|{stage}): {refusal}"


FUNCTIONS = {
    "aws:secretsmanager/getSecretVersion:getSecretVersion": Function(VERSION, _name, _version, _failed)
}
