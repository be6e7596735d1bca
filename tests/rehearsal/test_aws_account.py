"""The stand-in of `aws` answers from the simulated account: no more forgiving than what it stands for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rehearsal.cloud import aws_account, aws_cli, aws_questions, node_groups
from rehearsal.engine import COMMANDS, LAUNCHER
from rehearsal.paths import CHECKOUT
from tests.support.simulated_aws import Amazon

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Asks the stand-in: its exit code, and the answer or what it complains of."""
    monkeypatch.setattr(aws_cli, "require_rehearsal", lambda _: tmp_path)

    def asked(line: str, **aws: Any) -> tuple[int, Any]:
        (tmp_path / "cloud").mkdir(exist_ok=True)
        if aws:
            (tmp_path / "cloud" / "settings.yaml").write_text(yaml.safe_dump({"aws": aws}))
        code, out, err = aws_cli.run(line.split(), {})
        return code, json.loads(out) if code == 0 else err.strip()

    return asked


def test_a_token_does_not_wait_for_the_whole_account():
    assert aws_cli.CLUSTER == node_groups.CLUSTER


@pytest.mark.parametrize(
    ("line", "aws", "code", "words"),
    [
        (
            "ec2 describe-vpcs", {"lacks": ["ec2:*"]}, aws_questions.REFUSED,
            "An error occurred (UnauthorizedOperation) when calling the DescribeVpcs operation: You are not authorized to "
            + "perform this operation. User: arn:aws:sts::000000000000:assumed-role/rehearsal/rehearsal is not",
        ),
        (
            "eks describe-cluster-versions", {"lacks": ["eks:*"]}, aws_questions.REFUSED,
            "(AccessDeniedException) when calling the DescribeClusterVersions operation",
        ),
        ("sts get-caller-identity", {"login": "expired"}, aws_questions.REFUSED, "(ExpiredToken) when calling the GetCall"),
        ("sts get-caller-identity", {"login": "none"}, aws_questions.NOBODY, "Unable to locate credentials"),
        (
            "ec2 describe-vpcs --region eu-south-2", {"regions": {"eu-south-2": "not-opted-in"}}, aws_questions.REFUSED,
            "(AuthFailure)",
        ),
        ("iam get-role --role-name x", {}, aws_questions.REFUSED, "(NoSuchEntity) when calling the GetRole operation"),
        ("iam get-role", {}, aws_questions.USAGE, "the following arguments are required: --role-name"),
        ("ec2 describe-vpcs --verbose", {}, aws_questions.USAGE, "Unknown options: --verbose"),
        (
            "service-quotas get-service-quota --service-code ec2 --quota-code L-1", {"defaults": ["L-1"]},
            aws_questions.REFUSED, "(NoSuchResourceException) when calling the GetServiceQuota operation",
        ),
        ("ec2 terminate-instances", {}, 1, "is not rehearsed; there are: eks get-token, --version, sts get-caller"),
    ],
)  # fmt: skip
def test_refusals_have_the_words_and_the_exit_codes_of_the_command(ask, line, aws, code, words):
    found, said = ask(line, **aws)
    assert found == code and words in said


def test_the_account_has_what_the_provider_made(ask, tmp_path):
    Amazon(tmp_path).make_network()
    assert len(ask("ec2 describe-addresses")[1]["Addresses"]) == 1
    (nat,) = ask("ec2 describe-nat-gateways")[1]["NatGateways"]
    zones = {s["SubnetId"]: s["AvailabilityZone"] for s in ask("ec2 describe-subnets")[1]["Subnets"]}
    assert zones[nat["SubnetId"]] == "us-east-1a"
    ranges = [vpc["CidrBlock"] for vpc in ask("ec2 describe-vpcs")[1]["Vpcs"]]
    assert ranges == ["172.31.0.0/16", "10.0.0.0/16"]
    # In another region there is only what every account has.
    assert len(ask("ec2 describe-vpcs --region eu-west-1")[1]["Vpcs"]) == 1


def test_machines_of_node_groups_run_and_the_quota_is_what_the_provider_refuses_by(ask, tmp_path):
    amazon = Amazon(tmp_path, quotas=[{"metric": "L-DB2E81BA", "limit": 16}])
    amazon.make_cluster()
    amazon.make_nodes(
        instanceTypes=["g6.4xlarge"], scalingConfig={"minSize": 0, "desiredSize": 1, "maxSize": 2}
    )
    (reservation,) = ask("ec2 describe-instances")[1]["Reservations"]
    (instance,) = reservation["Instances"]
    assert instance["InstanceType"] == "g6.4xlarge"
    assert instance["CpuOptions"]["CoreCount"] * instance["CpuOptions"]["ThreadsPerCore"] == 16
    told = ask("service-quotas get-service-quota --service-code ec2 --quota-code L-DB2E81BA")[1]["Quota"][
        "Value"
    ]
    state, settings = amazon.plugin.project.read(), amazon.plugin.settings
    (group,) = node_groups.all_groups(state)
    with pytest.raises(node_groups.Short, match=f"limit of {told:.0f}"):
        group.require(state, settings, 2)


CONTEXT = "ContextKeyName=aws:RequestedRegion,ContextKeyValues={},ContextKeyType=string"
SIMULATE = (
    "iam simulate-principal-policy --policy-source-arn arn:aws:iam::0:role/me --action-names {} --resource-arns {} "
    f"--context-entries {CONTEXT}"
)


@pytest.mark.parametrize(
    ("action", "resource", "region", "decision"),
    [
        ("eks:CreateCluster", "*", "us-east-1", "allowed"),
        ("eks:CreateCluster", "*", "eu-west-1", "implicitDeny"),
        ("iam:CreateRole", "arn:aws:iam::000000000000:role/cluster-x", "us-east-1", "allowed"),
        ("iam:CreateRole", "arn:aws:iam::000000000000:role/admin", "us-east-1", "implicitDeny"),
        # To which service is not known.
        ("iam:PassRole", "arn:aws:iam::000000000000:role/cluster-x", "us-east-1", "implicitDeny"),
        ("s3:DeleteBucket", "*", "us-east-1", "implicitDeny"),
    ],
)
def test_the_caller_may_do_what_the_bootstrap_page_gives(ask, action, resource, region, decision):
    _, answer = ask(SIMULATE.format(action, resource, region))
    assert [r["EvalDecision"] for r in answer["EvaluationResults"]] == [decision]


def test_it_runs_as_a_command_and_asks_nobody_outside_of_a_rehearsal(tmp_path):
    file = tmp_path / "aws"
    file.write_text(LAUNCHER.format(checkout=CHECKOUT, python=sys.executable, module=COMMANDS["aws"]))
    file.chmod(0o755)
    command = [file, "sts", "get-caller-identity"]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "LLMP_REHEARSAL is not set" in done.stderr


def test_every_question_that_is_answered_names_its_action():
    unnamed = {words for words, command in aws_account.COMMANDS.items() if not command.action}
    # Who one is may always be asked, and a bucket's head has its own way of refusing.
    assert unnamed == {("sts", "get-caller-identity"), ("s3api", "head-bucket")}
