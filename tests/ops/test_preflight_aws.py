"""`python -m ops preflight` for AWS, against the simulated account: each check with its condition set."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.clusters.eks import addons, amazon, component
from ops import cli
from ops.aws import Aws, AwsError, refusal, run
from ops.preflight import (
    aws_checks,
    aws_facts,
    aws_permissions,
    local_checks,
    local_facts,
    web_checks,
    web_facts,
)
from ops.preflight.aws_needs import GPU, STANDARD, aws_needs, quota_of
from ops.preflight.site import Site, explain
from ops.preflight.verdicts import Finding, State, Verdict, collect, exit_code, judge
from rehearsal.cloud import aws_account, aws_cli, google_api
from rehearsal.cloud.project import Project
from rehearsal.paths import CHECKOUT
from stacks.config import load_config
from tests.ops.test_preflight import TOKEN, FakePulumi, Preflight
from tests.support.stacks import raw_stack

ACCOUNT, ME = "000000000000", "arn:aws:iam::000000000000:role/rehearsal"
POOL = ("cluster", "accelerators", "l4")
RESERVED = {
    "instanceType": "g6.4xlarge",
    "maxNodes": 2,
    "capacity": "reservation",
    "reservation": {"id": "cr-0123456789abcdef0", "zone": "us-east-1a"},
}
KEPT_ARN = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:prod/hf-token-AbCdEf"
CAPACITY = {"id": "cr-0123456789abcdef0", "type": "g6.4xlarge", "zone": "us-east-1a", "count": 2}


ROWS = (*local_checks.CHECKS, *aws_checks.CHECKS, *web_checks.CHECKS)
COLLECTORS = {**local_facts.COLLECTORS, **web_facts.COLLECTORS, **aws_facts.COLLECTORS}


class AwsPreflight(Preflight):
    """A stack file of kind eks, a simulated account and a machine with every command; tests change what they mean."""

    def __init__(self, directory: Path, address: str):
        super().__init__(directory, address)
        (self.commands / "aws").touch(mode=0o755)
        self.raw = raw_stack("gpu")
        self.raw["cluster"]["adminRoles"] = [f"arn:aws:iam::{ACCOUNT}:role/pipeline"]
        self.extra = {"secretsprovider": "awskms://alias/pulumi?region=us-east-1"}
        self.pulumi = FakePulumi()
        self.pulumi.plugins = {"aws": "7.51.1", "kubernetes": "4.34.2", "random": "4.21.4"}
        self.pulumi.secrets["hfToken"] = TOKEN
        self.environ = {
            **google_api.environment(address),
            "LLMP_REHEARSAL": str(self.root),
            "PATH": str(self.commands),
        }
        self.asked: list[tuple[str, ...]] = []
        self.amazon()

    def amazon(self, settings: Mapping[str, Any] | None = None, **aws: Any) -> None:
        """Settings of the simulated account, beside a role that somebody has made for the pipeline."""
        self.google(**(settings or {}), aws={"roles": ["pipeline"], **aws})

    def answer(self, command: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """What the stand-in of `aws` says, in this process."""
        self.asked.append(tuple(command[1:]))
        return subprocess.CompletedProcess(command, *aws_cli.run(command[1:], environ))

    def site(self) -> Site:
        config = {f"llm-platform:{name}": value for name, value in self.raw.items()}
        (self.project / "Pulumi.gpu.yaml").write_text(yaml.safe_dump({"config": config, **self.extra}))
        site = Site("gpu", self.project, self.environ, self.resolve)
        site.__dict__["pulumi"] = self.pulumi
        site.__dict__["aws"] = Aws("us-east-1", self.environ, self.answer)
        return site

    def judged(self, check: str) -> list[Verdict]:
        """The verdicts of one check, without asking for what the others read."""
        rows = [row for row in ROWS if row.name == check]
        wanted = {name: COLLECTORS[name] for row in rows for name in row.reads}
        return judge(rows, collect(wanted, self.site(), explain))


@pytest.fixture
def preflight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsPreflight]:
    root = tmp_path / "rehearsal"
    monkeypatch.setattr(aws_cli, "require_rehearsal", lambda _: root)
    with google_api.running(root) as address:
        yield AwsPreflight(tmp_path, address)


def test_everything_passes_for_the_gpu_stack(preflight):
    found = preflight.verdicts()
    assert {v.finding.state for v in found} == {State.PASSED}, [v for v in found if v.finding.fix]
    assert exit_code(found) == cli.DONE
    said = {v.subject: v.finding.evidence for v in found}
    assert said[f"GPU quota: {GPU.title}"].startswith("64 (1 x g6.4xlarge, 1 x g6.12xlarge); 1024 of 1024")
    assert said["offered: pool l4-on-demand"] == "g6.4xlarge in us-east-1a"
    assert said["credentials"].startswith(
        f"arn:aws:sts::{ACCOUNT}:assumed-role/rehearsal/rehearsal, by the default"
    )


def test_only_questions_are_asked_and_each_is_allowed_to_those_who_review(preflight):
    preflight.raw["cluster"]["accelerators"]["l4"] = RESERVED
    preflight.raw["secrets"] = {"hfToken": {"awsSecretsManager": "prod/hf-token"}}
    preflight.pulumi.backend = "s3://state?region=us-east-1"
    preflight.amazon(
        {"secrets": [{"name": "prod/hf-token", "region": "us-east-1"}]},
        defaults=["L-DB2E81BA"],
        reservations=[CAPACITY],
    )
    preflight.verdicts()
    asked = {(words[0], words[1]) for words in preflight.asked if words[0] != "--version"}
    assert asked == aws_account.COMMANDS.keys()
    reading = aws_permissions.wanted("preview", ACCOUNT, "us-east-1")
    actions = {aws_account.COMMANDS[words].action for words in asked} - {""}
    assert actions <= set(reading)


QUOTA = "aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA --desired-value 64"
HTTPS = "cluster.endpoint.publicCidrs"
# What is set beside and for AWS, the check, its state, and words of the evidence and of the fix.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str, State, str, str]] = {
    "nobody is logged in": (
        {}, {"login": "none"}, "credentials", State.OPEN, "nobody is logged in to AWS", "run: aws sso login",
    ),
    "login expired": (
        {}, {"login": "expired"}, "credentials", State.OPEN, "AWS does not know these credentials, or no longer",
        "run: aws sso login",
    ),
    "root": (
        {}, {"caller": f"arn:aws:iam::{ACCOUNT}:root"}, "credentials", State.ADVICE, "root may do everything",
        "docs/bootstrap-aws.md",
    ),
    "region off": (
        {}, {"regions": {"us-east-1": "not-opted-in"}}, "region", State.OPEN, "AWS does not know these credentials", "",
    ),
    "no third zone": (
        {}, {"zones": {"us-east-1b": {"id": "use1-az3"}}}, "zone: us-east-1b", State.FAILED,
        "EKS has no control planes", "choose other zones in cluster.zones",
    ),
    "zone impaired": (
        {}, {"zones": {"us-east-1a": {"id": "use1-az1", "state": "impaired"}}}, "zone: us-east-1a", State.ADVICE,
        "its state is impaired", "choose another zone",
    ),
    "may not pass roles": (
        {}, {"lacks": ["iam:PassRole", "ec2:RunInstances"]}, "permissions", State.FAILED,
        "2 of 143 are missing: ec2:RunInstances (implicitDeny), iam:PassRole", "--print-role deploy > deploy.json",
    ),
    "may not simulate": (
        {}, {"lacks": ["iam:SimulatePrincipalPolicy"]}, "permissions", State.ADVICE,
        "not asked: you lack iam:SimulatePrincipalPolicy", "--print-role deploy",
    ),
    "services may have no role": (
        {}, {"lacks": ["iam:CreateServiceLinkedRole"]}, "service role: AWSServiceRoleForAutoScaling", State.FAILED,
        "you may not let it make one", "aws iam create-service-linked-role --aws-service-name autoscaling.amazonaws.com",
    ),
    "services have their roles": (
        {}, {"roles": ["pipeline", "AWSServiceRoleForAmazonEKS"], "lacks": ["iam:CreateServiceLinkedRole"]},
        "service role: AWSServiceRoleForAmazonEKS", State.PASSED, "there", "",
    ),
    "no such role": (
        {}, {"roles": []}, "cluster access: cluster.adminRoles", State.FAILED,
        f"there is no role arn:aws:iam::{ACCOUNT}:role/pipeline", "correct cluster.adminRoles",
    ),
    "may not read quotas": (
        {}, {"lacks": ["servicequotas:*"]}, "GPU quota", State.OPEN, "you lack servicequotas:GetServiceQuota",
        "--print-role preview",
    ),
    "no GPUs for new accounts": (
        {}, {"defaults": ["L-DB2E81BA"]}, f"GPU quota: {GPU.title}", State.FAILED, "0 of 0 are free in us-east-1", QUOTA,
    ),
    "too few vCPUs for GPUs": (
        {"quotas": [{"metric": "L-DB2E81BA", "region": "us-east-1", "limit": 48}]}, {}, f"GPU quota: {GPU.title}",
        State.FAILED, "64 (1 x g6.4xlarge, 1 x g6.12xlarge); 48 of 48", QUOTA,
    ),
    "vCPUs are used": (
        {"quotas": [{"metric": "L-DB2E81BA", "limit": 64}]}, {"instances": [{"type": "g5.xlarge"}, {"type": "g6.xlarge"}]},
        f"GPU quota: {GPU.title}", State.OPEN, "60 of 64 are free in us-east-1: enough only if this stack holds the others",
        "--desired-value 68",
    ),
    "spot does not count": (
        {"quotas": [{"metric": "L-DB2E81BA", "limit": 64}]}, {"instances": [{"type": "g6.xlarge", "spot": True}]},
        f"GPU quota: {GPU.title}", State.PASSED, "64 of 64 are free", "",
    ),
    "too few vCPUs for the system pool": (
        {"quotas": [{"metric": "L-1216C47A", "limit": 2}]}, {}, f"system quota: {STANDARD.title}", State.FAILED,
        "8 (2 x m6i.xlarge); 2 of 2", "--quota-code L-1216C47A --desired-value 8",
    ),
    "no room for upgrades": (
        {"quotas": [{"metric": "L-1216C47A", "limit": 12}]}, {}, "system quota: upgrades", State.ADVICE,
        "24 while the system pool is upgraded", "--desired-value 24",
    ),
    "no address": (
        {"quotas": [{"metric": "L-0263D0A3", "limit": 5}]}, {"addresses": 5}, "network quota: elastic addresses",
        State.OPEN, "1 (one way out); 0 of 5 are free", "--quota-code L-0263D0A3 --desired-value 6",
    ),
    "no VPC": (
        {"quotas": [{"metric": "L-F678F1CE", "limit": 0}]}, {}, "network quota: VPCs", State.FAILED, "0 of 0 are free",
        "--service-code vpc --quota-code L-F678F1CE",
    ),
    "no internet gateway": (
        {"quotas": [{"metric": "L-A4707A72", "limit": 5}]}, {"gateways": 4}, "network quota: internet gateways",
        State.OPEN, "0 of 5 are free", "--quota-code L-A4707A72 --desired-value 6",
    ),
    "no NAT gateway": (
        {"quotas": [{"metric": "L-FE5A380F", "limit": 5}]}, {"natGateways": {"us-east-1a": 5}},
        "network quota: NAT gateways per zone", State.OPEN, "1 (in us-east-1a); 0 of 5 are free", "L-FE5A380F",
    ),
    "no g6 here": (
        {"offers": [{"machine": "g6.12xlarge", "zone": "us-east-1a", "offered": False}]}, {},
        "offered: pool l4x4-on-demand", State.FAILED, "AWS does not offer g6.12xlarge in us-east-1a",
        "aws ec2 describe-instance-type-offerings --location-type availability-zone",
    ),
    "no m6i in the other zone": (
        {"offers": [{"machine": "m6i.*", "zone": "us-east-1b", "offered": False}]}, {}, "offered: the system pool",
        State.FAILED, "m6i.xlarge in us-east-1b", "choose another zone or instance type",
    ),
    "shares addresses": (
        {}, {"vpcs": [{"name": "office", "cidr": "10.0.128.0/20"}]}, "address ranges", State.ADVICE,
        "the VPC (10.0.0.0/16) and office (10.0.128.0/20)", "choose cluster.vpcCidr and cluster.services anew",
    ),
    "no bucket": (
        {}, {"buckets": [{"name": "llm-models", "exists": False}]}, "bucket: llm-models", State.FAILED,
        "there is no such bucket", "correct cluster.bucket",
    ),
    "somebody else's bucket": (
        {}, {"buckets": [{"name": "llm-models", "foreign": True}]}, "bucket: llm-models", State.OPEN,
        "you may not look into it", "holds the weights",
    ),
    "bucket far away": (
        {}, {"buckets": [{"name": "llm-models", "region": "eu-west-1"}]}, "bucket: llm-models", State.ADVICE,
        "it is in eu-west-1, and the nodes in us-east-1", "copy it into a bucket of us-east-1",
    ),
    "no weights": (
        {}, {"buckets": [{"name": "llm-models", "holds": ["other/"]}]}, "bucket: weights of mistral-24b-quantized",
        State.FAILED, "there is nothing at s3://llm-models/Mistral-Small-24B-Instruct/quantized-w4a16/",
        "correct the model's uri",
    ),
    "old command": (
        {}, {"cli": "2.4.27"}, "AWS CLI: aws", State.FAILED, "2.7.0 is the first that does not", "update it: https://",
    ),
    "old first version of the command": (
        {}, {"cli": "1.22.34"}, "AWS CLI: aws", State.FAILED, "1.24.0 is the first that does not", "update it",
    ),
    "from elsewhere": (
        {"web": {"address": "198.51.100.7"}}, {}, "API server", State.FAILED,
        "this machine comes from 198.51.100.7, and only 192.0.2.0/24", f"add 198.51.100.7/32 to {HTTPS}",
    ),
    "key disabled": (
        {}, {"keys": [{"name": "alias/pulumi", "state": "PendingDeletion"}]}, "backend: encryption", State.FAILED,
        "the key is PendingDeletion", "docs/bootstrap-aws.md",
    ),
    "no key": (
        {}, {"keys": [{"name": "alias/*", "exists": False}]}, "backend: encryption", State.FAILED,
        "alias/pulumi is not found", "docs/bootstrap-aws.md",
    ),
}  # fmt: skip


def only(preflight: AwsPreflight, subject: str, state: State) -> Finding:
    """The one finding of that check with that state."""
    found = preflight.judged(subject.partition(":")[0])
    said = [v.finding for v in found if subject in (v.subject, v.check) and v.finding.state == state]
    assert len(said) == 1, [v for v in found if subject in (v.subject, v.check)]
    return said[0]


@pytest.mark.parametrize("case", CASES)
def test_each_condition_is_found_with_its_fix(preflight, case):
    settings, aws, subject, state, evidence, fix = CASES[case]
    preflight.amazon(settings, **aws)
    found = only(preflight, subject, state)
    assert evidence in found.evidence and fix in found.fix, found


# The configuration is changed as well: keys and value.
CHANGED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str, State, str, str]] = {
    "another account": (
        ("cluster", "accountId", "123456789012"), {}, "credentials", State.FAILED,
        f"account {ACCOUNT}, and cluster.accountId allows 123456789012 only", "AWS_PROFILE",
    ),
    "the right account": (
        ("cluster", "accountId", "123456789012"), {"account": "123456789012"}, "credentials", State.PASSED,
        "arn:aws:sts::123456789012:assumed-role", "",
    ),
    "no such region": (
        ("cluster", {"region": "us-east-9", "zones": ["us-east-9a", "us-east-9b"]}), {}, "region", State.FAILED,
        "AWS has no region us-east-9", "correct cluster.region",
    ),
    "another partition": (
        ("cluster", {"region": "us-gov-west-1", "zones": ["us-gov-west-1a", "us-gov-west-1b"]}), {}, "region",
        State.FAILED, "in a partition of its own", "choose a region of the partition aws",
    ),
    "no such zone": (
        ("cluster", "zones", ["us-east-1a", "us-east-1f"]), {}, "zone", State.FAILED, "us-east-1 has no us-east-1f",
        "us-east-1a, us-east-1b, us-east-1c",
    ),
    "nobody from outside": (
        ("cluster", "endpoint", {}), {}, "API server", State.FAILED, "`up` could install nothing in the cluster",
        "cluster.endpoint.publicCidrs: [192.0.2.10/32]",
    ),
    "its own administrator": (
        ("cluster", "adminRoles", [ME]), {}, "cluster access: cluster.adminRoles", State.FAILED,
        "a second entry is refused", "remove it from cluster.adminRoles",
    ),
    "a role of others": (
        ("cluster", "viewerRoles", ["arn:aws:iam::111111111111:role/review"]), {}, "cluster access: cluster.viewerRoles",
        State.PASSED, "of another account, which is not looked at", "",
    ),
    "nobody else": (
        ("cluster", "adminRoles", []), {}, "cluster access: cluster.adminRoles", State.ADVICE,
        f"only {ME} will be an administrator", "name the others in cluster.adminRoles",
    ),
    "spot has its own quota": (
        (*POOL, "capacity", "spot"), {}, "service role: AWSServiceRoleForEC2Spot", State.PASSED, "spot.amazonaws.com", "",
    ),
    "a way out per zone": (
        ("cluster", "nat", "per-zone"), {}, "network quota: elastic addresses", State.PASSED, "2 (2 ways out)", "",
    ),
    "machines with another quota": (
        ("cluster", "system", "machineType", "x2idn.16xlarge"), {}, "offered: the system pool", State.FAILED,
        "does not offer x2idn.16xlarge", "",
    ),
    "extended support": (
        ("cluster", "version", "1.30"), {}, "Kubernetes version", State.FAILED, "1.30 is in extended support",
        "one of 1.33, 1.34, 1.35",
    ),
    "no such version": (
        ("cluster", "version", "1.40"), {}, "Kubernetes version", State.FAILED, "EKS does not offer 1.40",
        "set cluster.version to one of",
    ),
    "newer than the operators": (
        ("cluster", "version", "1.37"), {"versions": ["1.36", "1.37"]}, "Kubernetes version", State.FAILED,
        "1.37, and the operators work with 1.33 to 1.36", "one of 1.36",
    ),
    "no such reservation": (
        (*POOL, RESERVED), {}, "reservation", State.FAILED, "none of this id in the region", "reservation.id",
    ),
    "reservation of others": (
        (*POOL, RESERVED), {"reservations": [{**CAPACITY, "type": "g6.xlarge"}]}, "reservation", State.FAILED,
        "it is of g6.xlarge in us-east-1a", "instanceType and zone the reservation's",
    ),
    "reservation too small": (
        (*POOL, RESERVED), {"reservations": [{**CAPACITY, "count": 1}]}, "reservation", State.FAILED,
        "it holds 1 machines, and maxNodes is 2", "aws ec2 modify-capacity-reservation",
    ),
    "reservation over": (
        (*POOL, RESERVED), {"reservations": [{**CAPACITY, "state": "expired"}]}, "reservation", State.FAILED,
        "it is expired", "one that is active",
    ),
    "reservation in use": (
        (*POOL, RESERVED), {"reservations": [{**CAPACITY, "free": 1}]}, "reservation", State.OPEN,
        "1 of 2 machines are free", "lower maxNodes",
    ),
    "reservation that fits": (
        (*POOL, RESERVED), {"reservations": [CAPACITY]}, "reservation", State.PASSED, "2 of 2 machines free", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGED)
def test_each_wish_is_compared_with_what_there_is(preflight, case):
    (*path, value), aws, subject, state, evidence, fix = CHANGED[case]
    if isinstance(value, dict) and len(path) == 1:
        for name, one in value.items():
            preflight.set(*path, name, one)
    else:
        preflight.set(*path, value)
    preflight.amazon(**aws)
    found = only(preflight, subject, state)
    assert evidence in found.evidence and fix in found.fix, found


def test_machines_of_a_reservation_and_of_spot_count_in_no_on_demand_quota(preflight):
    preflight.set(*POOL, RESERVED)
    preflight.set("cluster", "accelerators", "l4x4", "capacity", "spot")
    preflight.amazon({"quotas": [{"metric": "L-DB2E81BA", "limit": 0}]}, reservations=[CAPACITY])
    (spot,) = preflight.judged("GPU quota")
    assert spot.finding.evidence.startswith("48 (1 x g6.12xlarge)")


def test_what_the_stack_has_made_itself_counts_and_is_no_clash(preflight):
    preflight.amazon({"quotas": [{"metric": "L-F678F1CE", "limit": 2}]})
    with Project.of(preflight.root).change() as state:
        inputs = {"cidrBlock": "10.0.0.0/16", "tags": {"Name": "cluster-network"}}
        state.of("ec2/vpc")["vpc-1"] = {"inputs": inputs, "outputs": {"region": "us-east-1"}}
    assert (
        "enough only if this stack holds the others"
        in only(preflight, "network quota: VPCs", State.OPEN).evidence
    )
    assert only(preflight, "address ranges", State.PASSED)


@pytest.mark.parametrize(
    ("asked", "entry", "deleted", "state", "evidence", "fix"),
    [
        (
            "prod/hf-token", None, {}, State.FAILED, "there is no prod/hf-token in AWS Secrets Manager",
            "aws secretsmanager create-secret",
        ),
        (
            KEPT_ARN, None, {}, State.FAILED, f"there is no {KEPT_ARN} in AWS Secrets Manager",
            "run: aws secretsmanager list-secrets, or correct secrets.hfToken",
        ),
        (KEPT_ARN, "us-east-1", {}, State.PASSED, "its value is not read here", ""),
        ("prod/hf-token", "us-east-1", {}, State.PASSED, "its value is not read here", ""),
        ("prod/hf-token", "eu-west-1", {}, State.FAILED, "in the cluster's region", "create-secret --name prod/hf-token"),
        (
            "prod/hf-token", "us-east-1", {"prod/hf-token": "2026-12-01T00:00:00Z"}, State.FAILED,
            "marked for deletion on 2026-12-01",
            "aws secretsmanager restore-secret --secret-id prod/hf-token",
        ),
    ],
)  # fmt: skip
def test_a_secret_that_is_kept_elsewhere_must_be_there(
    preflight, asked, entry, deleted, state, evidence, fix
):
    preflight.pulumi.secrets.clear()
    preflight.raw["secrets"] = {"hfToken": {"awsSecretsManager": asked}}
    kept = [{"name": "prod/hf-token", "region": entry, "text": TOKEN}] if entry else []
    preflight.amazon({"secrets": kept}, deleted=deleted)
    found = only(preflight, "kept secret: hfToken", state)
    assert evidence in found.evidence and fix in found.fix
    assert only(preflight, "secret: hfToken", State.PASSED).evidence.startswith("kept elsewhere")


LOCAL: dict[str, tuple[Callable[[AwsPreflight], Any], str, State, str, str]] = {
    "no command": (
        lambda p: (p.commands / "aws").unlink(), "command: aws", State.FAILED, "nobody could log in",
        "install the AWS CLI: https://",
    ),
    "no stack": (
        lambda p: (setattr(p.pulumi, "exists", False), setattr(p.pulumi, "backend", "s3://state")), "stack",
        State.FAILED, "s3://state has no stack gpu",
        'pulumi stack init gpu --secrets-provider="awskms://alias/NAME?region=REGION"',
    ),
    "state on this machine": (
        lambda p: setattr(p.pulumi, "backend", "file:///home/me"), "backend: state", State.ADVICE,
        "is on this machine", "pulumi login s3://BUCKET?region=REGION (docs/bootstrap-aws.md)",
    ),
    "passphrase": (
        lambda p: setattr(p, "extra", {"encryptionsalt": "v1:abc"}), "backend: encryption", State.ADVICE,
        "with a passphrase", "pulumi stack change-secrets-provider awskms://alias/NAME",
    ),
    "no bucket": (
        lambda p: (
            setattr(p.pulumi, "backend", "s3://state?region=us-east-1"),
            p.amazon(buckets=[{"name": "state", "exists": False}]),
        ),
        "backend: state", State.FAILED, "cannot be read: The specified bucket does not exist", "make the bucket",
    ),
    "bucket without versions": (
        lambda p: (
            setattr(p.pulumi, "backend", "s3://state/sub"),
            p.amazon(buckets=[{"name": "state", "versioning": False, "private": False}]),
        ),
        "backend: state", State.ADVICE, "lacks versioning, public access block",
        "aws s3api put-bucket-versioning --bucket state --versioning-configuration Status=Enabled && aws s3api put-publ",
    ),
    "good bucket": (
        lambda p: setattr(p.pulumi, "backend", "s3://state?region=us-east-1&awssdk=v2"), "backend: state",
        State.PASSED, "awssdk=v2: versioned, never public", "",
    ),
    "plugin that may not come": (
        lambda p: (
            p.pulumi.plugins.pop("aws"),
            p.environ.update(PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION="true"),
        ),
        "plugin: aws", State.FAILED, "fetching is switched off", "pulumi plugin install resource aws 7.51.1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LOCAL)
def test_the_machine_and_the_backend_are_looked_at(preflight, case):
    change, subject, state, evidence, fix = LOCAL[case]
    change(preflight)
    found = only(preflight, subject, state)
    assert evidence in found.evidence and fix in found.fix, found


def test_a_region_that_is_off_says_so_where_it_can_be_asked(preflight):
    """Its own services take nobody's credentials, so only the list of regions can tell."""
    needs = replace(aws_needs(load_config(preflight.raw)), region="eu-south-2")
    (found,) = aws_checks.region(needs, {"eu-south-2": "not-opted-in"})
    assert found.state is State.FAILED and "aws account enable-region --region-name eu-south-2" in found.fix


@pytest.mark.parametrize(
    ("name", "quota"),
    [("g6.12xlarge", GPU), ("gr6.4xlarge", GPU), ("m6i.large", STANDARD), ("im4gn.large", STANDARD), ("p5.48xlarge", None),
     ("inf2.xlarge", None), ("u-6tb1.metal", None)],
)  # fmt: skip
def test_families_count_in_their_quotas(name, quota):
    assert quota_of(name) == quota


# -- policies ------------------------------------------------------------------------------------------------------


def test_every_resource_that_a_stack_registers_has_its_permissions():
    golden = (CHECKOUT / "tests" / "stacks" / "golden").glob("*.yaml")
    types = {
        name for file in golden for name in re.findall(r"^  (aws:\S+): ", file.read_text(), re.MULTILINE)
    }
    assert "aws:eks/nodeGroup:NodeGroup" in types
    assert types <= aws_permissions.BY_TYPE.keys()


def test_the_preview_policy_only_reads_and_no_secret():
    deploy, preview = (
        set(aws_permissions.wanted(name, ACCOUNT, "us-east-1")) for name in ("deploy", "preview")
    )
    assert preview < deploy
    assert all(action.partition(":")[2].startswith(aws_permissions.READING) for action in preview)
    assert "secretsmanager:GetSecretValue" in deploy - preview
    assert {"iam:PassRole", "ec2:RunInstances"} <= deploy - preview


@pytest.mark.parametrize("name", ["deploy", "preview"])
def test_a_policy_fits_into_what_aws_allows_and_names_no_action_twice(name):
    text = aws_permissions.document(name, ACCOUNT, "ap-southeast-2")
    assert len("".join(text.split())) <= aws_permissions.MAX_POLICY
    actions = [action for statement in json.loads(text)["Statement"] for action in statement["Action"]]
    assert len(actions) == len(set(actions))


def test_whoever_deploys_may_change_own_roles_only_and_give_them_no_other_policies():
    content = json.loads(aws_permissions.document("deploy", ACCOUNT, "us-east-1"))
    by_action = {action: s for s in content["Statement"] for action in s["Action"]}
    for action in (
        "iam:CreateRole",
        "iam:PutRolePolicy",
        "iam:DeleteRole",
        "iam:AttachRolePolicy",
        "iam:PassRole",
    ):
        assert by_action[action]["Resource"] == f"arn:aws:iam::{ACCOUNT}:role/cluster-*"
    wanted = {*component.CLUSTER_POLICIES, *component.NODE_POLICIES}
    wanted |= {spec.policy for spec in (*addons.BEFORE_NODES, *addons.AFTER_NODES) if spec.policy}
    attached = by_action["iam:AttachRolePolicy"]["Condition"]["StringEquals"]["iam:PolicyARN"]
    assert sorted(attached) == sorted(f"{amazon.MANAGED}/{policy}" for policy in wanted)
    services = by_action["iam:PassRole"]["Condition"]["StringEquals"]["iam:PassedToService"]
    assert sorted(services) == sorted((amazon.CLUSTERS, amazon.MACHINES, amazon.PODS))
    assert by_action["eks:CreateCluster"]["Condition"]["StringEquals"]["aws:RequestedRegion"] == ["us-east-1"]


def test_the_roles_that_the_program_makes_are_called_as_the_policy_says():
    golden = (CHECKOUT / "tests" / "stacks" / "golden" / "gpu.yaml").read_text()
    roles = re.findall(r"^- resource: Role (\S+)\n  type: aws:", golden, re.MULTILINE)
    assert roles and all(role.startswith(aws_permissions.ROLES_PREFIX) for role in roles)


def test_a_policy_is_printed_as_aws_reads_it_and_nothing_is_asked(preflight, capsys):
    preflight.set("cluster", "accountId", "123456789012")
    preflight.site()
    command = ["preflight", "--stack", "gpu", "--project", str(preflight.project), "--print-role", "preview"]
    assert cli.main(command) == cli.DONE
    assert json.loads(capsys.readouterr().out)["Version"] == "2012-10-17"


def test_a_cluster_without_a_cloud_has_no_role(tmp_path, capsys):
    config = {f"llm-platform:{name}": value for name, value in raw_stack("dev").items()}
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": config}))
    command = ["preflight", "--stack", "dev", "--project", str(tmp_path), "--print-role", "preview"]
    assert cli.main(command) != cli.DONE
    assert "those of kind gke, eks do" in capsys.readouterr().err


# -- the client ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (
            "\nAn error occurred (UnauthorizedOperation) when calling the DescribeVpcs operation: You are not "
            + "authorized to perform this operation. User: arn:x is not authorized to perform: ec2:DescribeVpcs because",
            "UnauthorizedOperation", "not authorized to perform: ec2:DescribeVpcs",
        ),
        (
            "aws: [ERROR]: An error occurred (ThrottlingException) when calling the GetServiceQuota operation (reached "
            + "max retries: 4): Rate exceeded", "ThrottlingException", "Rate exceeded (ThrottlingException)",
        ),
        ("An error occurred (404) when calling the HeadBucket operation: Not Found", "404", "Not Found (404)"),
        ("The config profile (x) could not be found", "NoCredentials", "run: aws sso login"),
        ("Error when retrieving token from sso: Token has expired and refresh failed", "NoCredentials", "aws sso login"),
        (
            "usage: aws [options]\naws: error: argument operation: Invalid choice, valid choices are:", "TooOld",
            "this `aws` does not know `ec2 describe-vpcs`: update it",
        ),
        ('Could not connect to the endpoint URL: "https://ec2.us-east-1.amazonaws.com/"', "", "Could not connect"),
        ("", "", "said nothing"),
    ],
)  # fmt: skip
def test_the_last_words_of_the_command_are_understood(said, code, words):
    error = refusal("ec2", "describe-vpcs", said)
    assert error.code == code and words in error.message and "retries" not in error.message
    assert (error.reason == "PERMISSION_DENIED") == ("not authorized" in said)


def test_a_command_is_run_without_a_pager_in_the_region_that_is_meant(tmp_path):
    (tmp_path / "aws").write_text('#!/bin/sh\nprintf \'{"said": "%s %s"}\' "$*" "<$AWS_PAGER>"\n')
    (tmp_path / "aws").chmod(0o755)
    aws = Aws("eu-west-1", {"PATH": f"{tmp_path}:/bin", "AWS_PAGER": "less"}, run)
    said = aws.call("ec2", "describe-regions", all_regions=True, filters=("a", "b"))["said"]
    assert said == "ec2 describe-regions --region eu-west-1 --output json --all-regions --filters a b <>"


def test_somebody_without_the_command_is_told_where_to_get_it(tmp_path):
    with pytest.raises(
        AwsError, match="there is no `aws` on PATH, so AWS cannot be asked: install it .https://docs.aws"
    ):
        Aws("eu-west-1", {"PATH": str(tmp_path)}).call("sts", "get-caller-identity")
