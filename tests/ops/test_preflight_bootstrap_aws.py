"""docs/bootstrap-aws.md: every command on the page is one that exists, and what it sets up is what preflight wants."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from ops.preflight import aws_permissions
from ops.preflight.aws_needs import GPU, GPU_SPOT, aws_needs
from rehearsal.paths import CHECKOUT
from stacks.config import load_config
from stacks.config.machines import GPU_MACHINES
from tests.support.commands import assert_exists, verb_of
from tests.support.stacks import raw_stack

PAGE = (CHECKOUT / "docs" / "bootstrap-aws.md").read_text()
# Commands of others, with the flags that the page uses; from their own help (aws-cli 1.45 and 2, Pulumi 3.232).
KNOWN: dict[str, frozenset[str]] = {
    "aws account enable-region": frozenset(("--region-name",)),
    "aws configure sso": frozenset(),
    "aws sso login": frozenset(),
    "aws sts get-caller-identity": frozenset(),
    "aws service-quotas request-service-quota-increase": frozenset(
        ("--service-code", "--quota-code", "--desired-value", "--region")
    ),
    "aws service-quotas list-requested-service-quota-change-history": frozenset(
        ("--service-code", "--region")
    ),
    "aws s3 mb": frozenset(("--region",)),
    "aws s3 sync": frozenset(),
    "aws s3api put-bucket-versioning": frozenset(("--bucket", "--versioning-configuration")),
    "aws s3api put-public-access-block": frozenset(("--bucket", "--public-access-block-configuration")),
    "aws kms create-key": frozenset(("--description", "--region", "--query", "--output")),
    "aws kms enable-key-rotation": frozenset(("--key-id", "--region")),
    "aws kms create-alias": frozenset(("--alias-name", "--target-key-id", "--region")),
    "aws iam create-policy": frozenset(("--policy-name", "--policy-document")),
    "aws iam create-open-id-connect-provider": frozenset(("--url", "--client-id-list")),
    "aws iam create-role": frozenset(
        ("--role-name", "--assume-role-policy-document", "--max-session-duration")
    ),
    "aws iam attach-role-policy": frozenset(("--role-name", "--policy-arn")),
    "aws iam put-role-policy": frozenset(("--role-name", "--policy-name", "--policy-document")),
    "aws secretsmanager create-secret": frozenset(("--name", "--secret-string", "--region")),
    "aws route53 change-resource-record-sets": frozenset(("--hosted-zone-id", "--change-batch")),
    "pulumi login": frozenset(),
    "pulumi stack init": frozenset(("--secrets-provider",)),
    "pulumi stack output": frozenset(("--stack",)),
    "pulumi config set": frozenset(("--secret", "--stack")),
    "pulumi up": frozenset(("--stack", "--yes")),
    "pulumi destroy": frozenset(("--stack",)),
}
_SHELL = ("cat", "sed", "pip")
DOCUMENTS = re.findall(r"cat > (\S+) <<END\n(.*?)\nEND", PAGE, re.DOTALL)


def commands() -> list[str]:
    """Every command of the page's shell blocks and of its sentences, and those within others."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    blocks = re.sub(r"<<END\n.*?\nEND", "", blocks, flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    inline = re.findall(r"`((?:pulumi|aws|python|make) [^`]+)`", text)
    lines = [line.split(" #")[0].strip() for line in blocks.splitlines()]
    parts = [part for line in [*lines, *inline] for part in line.split(" && ")]
    within = [found for part in parts for found in re.findall(r"\$\((.*?)\)", part)]
    whole = [part for part in parts if part and not part.startswith((*_SHELL, "export"))]
    return [*whole, *within]


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_command_on_the_page_exists(command):
    assert_exists(command, KNOWN)


def test_the_page_has_a_command_for_every_step():
    assert len(commands()) > 40
    assert {verb_of(command, KNOWN) for command in commands()} >= KNOWN.keys()


def test_the_quota_that_is_asked_for_is_that_of_the_committed_stack():
    needs = aws_needs(load_config(raw_stack("gpu")))
    vcpus = sum(pool.max_nodes * GPU_MACHINES[pool.instance_type].vcpus for pool in needs.pools.values())
    assert f"--quota-code {GPU.code} --desired-value {vcpus} " in PAGE
    assert f"`{GPU_SPOT.code}`" in PAGE


@pytest.mark.parametrize(("name", "text"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
def test_every_document_on_the_page_is_json(name, text):
    content = json.loads(re.sub(r"\$\(.*?\)|\$\w+", "x", text))
    assert content.get("Statement") or content.get("Changes")


def test_reviewers_read_the_state_and_write_nothing_to_it():
    texts = dict(DOCUMENTS)
    statements = json.loads(re.sub(r"\$\w+", "x", texts["read-state.json"]))["Statement"]
    actions = {
        a for s in statements for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    }
    assert actions == {"s3:ListBucket", "s3:GetObject", "kms:Decrypt", "kms:DescribeKey"}


def test_the_stack_file_is_edited_before_anything_is_printed_from_it():
    """A policy is for the region and the account that the file names at that time."""
    first = PAGE.index("--print-role")
    assert all(PAGE.index(words) < first for words in ("set `region`, `zones`", "accountId:", "publicCidrs:"))


def test_what_the_page_says_of_the_policy_holds():
    assert f"whose names begin with `{aws_permissions.ROLES_PREFIX}`" in PAGE
    assert len(aws_permissions.POLICIES) == 5 and "five of AWS's own policies" in " ".join(PAGE.split())


def test_the_stack_of_the_page_is_valid():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    raw = raw_stack("gpu")
    raw["cluster"] |= yaml.safe_load(text)["llm-platform:cluster"]
    assert load_config(raw).cluster.endpoint.public_cidrs == ("203.0.113.7/32",)
