"""`python -m ops preflight` for Google, against the simulated project: each check with its condition set."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import cli
from ops.errors import OpsError
from ops.google import Google, GoogleError, credential
from ops.preflight import google_checks, google_permissions, plans
from ops.preflight.google_needs import google_needs
from ops.preflight.site import Site
from ops.preflight.verdicts import Finding, State, Verdict, exit_code
from rehearsal.cloud import google_api
from rehearsal.cloud.project import Project
from rehearsal.paths import CHECKOUT, STACK_DIRECTORIES
from stacks.config import load_config
from tests.support.stacks import raw_stack

TOKEN, LOGIN = "hf_" + "secretsecret", '{"auths": {"docker.io": {"auth": "dXNlcjpodXNo"}}}'
PLUGINS = {"gcp": "10.2.0", "kubernetes": "4.34.2", "random": "4.21.4"}
POOL = ("cluster", "accelerators", "v6e")


class FakePulumi:
    """As much of the Pulumi CLI as preflight asks: versions, plugins, backend, secrets."""

    def __init__(self) -> None:
        self.backend = "https://api.pulumi.com/me"
        self.exists, self.secrets, self.version = True, {}, "v3.232.0"
        self.plugins = dict(PLUGINS)

    def call(self, *arguments: str) -> str:
        if arguments == ("version",):
            return self.version
        listed = [{"name": n, "kind": "resource", "version": v} for n, v in self.plugins.items()]
        return json.dumps([*listed, {"name": "python", "kind": "language", "version": "3"}])

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        if not self.exists:
            return subprocess.CompletedProcess(arguments, 255, "", "error: no stack named 'tpu' found")
        if arguments[:2] == ("config", "get"):
            return subprocess.CompletedProcess(
                arguments, 0, self.secrets[arguments[2].split(":")[1]] + "\n", ""
            )
        values = {f"llm-platform:{name}": {"secret": True} for name in self.secrets}
        return subprocess.CompletedProcess(arguments, 0, json.dumps(values), "")


class Preflight:
    """A stack file, a simulated project and a machine with every command; tests change what they mean."""

    def __init__(self, directory: Path, address: str):
        self.root, self.project = directory / "rehearsal", directory / "project"
        self.project.mkdir()
        commands = directory / "commands"
        commands.mkdir()
        for name in ("gcloud", "kubectl", "gke-gcloud-auth-plugin"):
            (commands / name).touch(mode=0o755)
        self.commands = commands
        self.raw = raw_stack("tpu")
        self.extra: dict[str, Any] = {
            "secretsprovider": "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k"
        }
        self.pulumi, self.known = FakePulumi(), True
        self.environ = {
            **google_api.environment(address),
            "GOOGLE_OAUTH_ACCESS_TOKEN": google_api.TOKEN,
            "PATH": str(commands),
        }

    def resolve(self, host: str, port: int) -> list[Any]:
        """The DNS."""
        assert host == "llm.example.com"
        if not self.known:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.7", port))]

    def set(self, *path: Any) -> None:
        """Change the configuration: keys, and the value last."""
        *keys, last, value = path
        place = self.raw
        for key in keys:
            place = place.setdefault(key, {})
        place[last] = value

    def google(self, **settings: Any) -> None:
        """Settings of the simulated project and of the web."""
        file = self.root / "cloud" / "settings.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(settings))

    def site(self) -> Site:
        config = {f"llm-platform:{name}": value for name, value in self.raw.items()}
        (self.project / "Pulumi.tpu.yaml").write_text(yaml.safe_dump({"config": config, **self.extra}))
        site = Site("tpu", self.project, self.environ, self.resolve)
        site.__dict__["pulumi"] = self.pulumi
        return site

    def verdicts(self) -> list[Verdict]:
        return plans.verdicts(self.site())

    def found(self, subject: str) -> Finding:
        """The one finding of a check, by its subject or the name of the check."""
        said = {v.subject: v.finding for v in self.verdicts() if subject in (v.subject, v.check)}
        assert len(said) == 1, said
        return next(iter(said.values()))


@pytest.fixture
def preflight(tmp_path: Path) -> Iterator[Preflight]:
    with google_api.running(tmp_path / "rehearsal") as address:
        yield Preflight(tmp_path, address)


def test_everything_passes_for_the_tpu_stack(preflight):
    found = preflight.verdicts()
    assert {v.finding.state for v in found} == {State.PASSED}, [v for v in found if v.finding.fix]
    assert exit_code(found) == cli.DONE
    said = {v.subject: v.finding.evidence for v in found}
    assert said["TPU quota"].startswith("12 chips of 1024 for CT6E in europe-west4 (12 on demand")
    assert said["credentials"] == "you@rehearsal.invalid, by the variable GOOGLE_OAUTH_ACCESS_TOKEN"
    assert said["offered: pool v6e-on-demand"] == "ct6e-standard-4t in europe-west4-a"


QUOTA = "TPUS-PER-TPU-FAMILY-per-project-region"
# What is set, the check, its state, and words of the evidence and of the fix.
CASES: dict[str, tuple[dict[str, Any], str, State, str, str]] = {
    "login expired": (
        {"account": {"expired": True}}, "credentials", State.FAILED,
        "not valid", "gcloud auth application-default login",
    ),
    "no project": (
        {"account": {"project": False}}, "project", State.FAILED,
        "there is no project my-project", "gcloud projects create my-project",
    ),
    "no billing": (
        {"account": {"billing": False}}, "billing", State.FAILED,
        "off", "gcloud billing projects link my-project",
    ),
    "service usage off": (
        {"services": ["cloudresourcemanager.googleapis.com"]}, "APIs before `up`", State.FAILED,
        "serviceusage must be on", "gcloud services enable",
    ),
    "may not enable": (
        {"account": {"lacks": ["serviceusage.services.enable"]}}, "APIs of the stack", State.FAILED,
        "artifactregistry, logging", "gcloud services enable artifactregistry.googleapis.com",
    ),
    "compute off": (
        {"services": ["serviceusage.googleapis.com", "cloudresourcemanager.googleapis.com"]}, "offered", State.OPEN,
        "compute.googleapis.com is off", "gcloud services enable compute.googleapis.com",
    ),
    "may not act as nodes": (
        {"account": {"lacks": ["iam.serviceAccounts.actAs"]}}, "permissions", State.FAILED,
        "1 of 167 are missing: iam.serviceAccounts.actAs", "--stack tpu --print-role deploy",
    ),
    "may not read quotas": (
        {"account": {"lacks": ["cloudquotas.quotas.get"]}}, "TPU quota", State.OPEN,
        "you lack cloudquotas.quotas.get", "--print-role preview",
    ),
    "too few chips": (
        {"quotas": [{"metric": "TPUS_PER_TPU_FAMILY", "limit": 8}]}, "TPU quota", State.FAILED,
        "12 chips of 8 for CT6E", f"--quota-id={QUOTA} --preferred-value=12 --dimensions=region=europe-west4,tpu_fam",
    ),
    "too few cores": (
        {"quotas": [{"metric": "CPUS", "region": "europe-west4", "limit": 8}]}, "CPU quota: CPUS", State.FAILED,
        "22 (5 x n1-standard-4", "--quota-id=CPUS-per-project-region",
    ),
    "too few cores anywhere": (
        {"quotas": [{"metric": "CPUS_ALL_REGIONS", "limit": 12}]}, "CPU quota: CPUS_ALL_REGIONS", State.FAILED,
        "12 of 12 are free in the project", "--quota-id=CPUS-ALL-REGIONS-per-project",
    ),
    "too little disk": (
        {"quotas": [{"metric": "SSD_TOTAL_GB", "limit": 500}]}, "disk quota: SSD_TOTAL_GB", State.FAILED,
        "600 (boot disks of the system pool)", "--quota-id=SSD-TOTAL-GB-per-project-region",
    ),
    "too little hyperdisk": (
        {"quotas": [{"metric": "HDB_TOTAL_GB", "limit": 500}]}, "disk quota: HDB_TOTAL_GB", State.FAILED,
        "600 (boot disks of the TPU pools)", "--preferred-value=600",
    ),
    "no address": (
        {"quotas": [{"metric": "IN_USE_ADDRESSES", "limit": 1}]}, "network quota: IN_USE_ADDRESSES", State.FAILED,
        "2 (the way out and the gateway)", "--quota-id=IN-USE-ADDRESSES-per-project-region",
    ),
    "no TPU here": (
        {"offers": [{"machine": "ct6e-*", "zone": "europe-west4-a", "offered": False}]},
        "offered: pool v6e-on-demand", State.FAILED,
        "does not offer ct6e-standard-4t in europe-west4-a", "machine-types list --filter=name=ct6e-standard-4t",
    ),
    "no n1 here": (
        {"offers": [{"machine": "n1-*", "offered": False}]}, "offered: the system pool", State.FAILED,
        "n1-standard-4", "choose another zone or machine type",
    ),
    "shares addresses": (
        {"account": {"subnets": [
            {"name": "office", "network": "x/office", "ipCidrRange": "10.5.0.0/24", "region": "europe-west4"}
        ]}},
        "address ranges", State.ADVICE, "pods (10.4.0.0/14) and office (10.5.0.0/24)", "cluster.network",
    ),
    "permission renamed": (
        {"account": {"unknown": ["compute.projects.get"]}}, "permissions", State.OPEN,
        "Google does not know compute.projects.get", "another name",
    ),
    "gated without a token": (
        {"web": {"models": [{"name": "Qwen/*", "gated": True}]}}, "weights: qwen2-5-3b", State.FAILED,
        "needs a licence, and hfToken is not set", "set gated: true in models.qwen2-5-3b",
    ),
    "no such model": (
        {"web": {"models": [{"name": "Qwen/*", "status": 404}]}}, "weights: qwen2-5-3b", State.FAILED,
        "there is no Qwen/Qwen2.5-3B-Instruct, or it is private", "correct the model's uri",
    ),
    "no such revision": (
        {"web": {"models": [{"name": "Qwen/*", "lacks": ["main"]}]}}, "weights: qwen2-5-3b", State.FAILED,
        "has no revision main", "correct the model's uri",
    ),
    "Hugging Face is down": (
        {"web": {"models": [{"name": "Qwen/*", "status": 503}]}}, "weights: qwen2-5-3b", State.OPEN,
        "Hugging Face answers 503", "try again",
    ),
    "image gone": (
        {"web": {"images": [{"name": "docker.io/valkey/*", "status": 404}]}}, "image: their store", State.FAILED,
        "does not exist in its registry", "python -m ops artifacts check",
    ),
    "image wants a login": (
        {"web": {"images": [{"name": "docker.io/vllm/*", "login": "user:hush"}]}}, "image: engine of qwen2-5-3b",
        State.FAILED, "it wants a login", "pulumi config set --secret llm-platform:pullSecret",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_condition_is_found_with_its_fix(preflight, case):
    settings, subject, state, evidence, fix = CASES[case]
    preflight.google(**settings)
    said = [v for v in preflight.verdicts() if subject in (v.subject, v.check) and v.finding.state == state]
    assert len(said) == 1, said
    assert evidence in said[0].finding.evidence
    assert fix in said[0].finding.fix


# The configuration is changed as well: keys and value; settings; check, state, evidence, fix.
CHANGED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str, State, str, str]] = {
    "spot spends its own quota first": (
        (*POOL, "capacity", "spot"),
        {"quotas": [
            {"metric": "PREEMPTIBLE_TPU_V6E", "limit": 8}, {"metric": "TPUS_PER_TPU_FAMILY", "limit": 4},
        ]},
        "TPU quota", State.PASSED, "4 chips of 4 for CT6E", "",
    ),
    "spot asks for its own quota": (
        (*POOL, "capacity", "spot"),
        {"quotas": [
            {"metric": "PREEMPTIBLE_TPU_V6E", "limit": 4}, {"metric": "TPUS_PER_TPU_FAMILY", "limit": 0},
        ]},
        "TPU quota", State.FAILED, "8 chips of 0", "--quota-id=PREEMPTIBLE-TPU-V6E-per-project-region --preferred-v",
    ),
    "version not offered": (
        ("cluster", "version", "1.31"), {}, "GKE version", State.FAILED,
        "version 1.31 is not offered in channel regular", "one of 1.33, 1.34, 1.35, or remove it",
    ),
    "channel without pools": (
        ("gateway", {"kind": "gke", "exposure": "public", "openReason": "A baseline with an open model only."}),
        {"versions": ["1.33"]}, "GKE version", State.FAILED,
        "1.33.2-gke.1335000 has no InferencePool", "set cluster.version to a newer one",
    ),
    "newer machines": (
        ("cluster", "system", "machineType", "n4-standard-4"), {}, "CPU quota", State.OPEN,
        "series N4 have a quota of their own", "gcloud beta quotas info list",
    ),
    "no such reservation": (
        (*POOL, {"machineType": "ct6e-standard-4t", "topology": "2x2", "maxNodes": 3, "capacity": "reservation",
                 "reservation": "mine"}),
        {}, "reservation: mine", State.FAILED, "there is none of this name in europe-west4-a", "correct cluster.acc",
    ),
    "reservation too small": (
        (*POOL, {"machineType": "ct6e-standard-4t", "topology": "2x2", "maxNodes": 3, "capacity": "reservation",
                 "reservation": "mine"}),
        {"account": {"reservations": [{"name": "mine", "zone": "europe-west4-a", "count": 2}]}},
        "reservation: mine", State.FAILED, "it holds 2 machines, and maxNodes is 3", "set maxNodes to 2",
    ),
    "host name without address": (
        ("gateway", "host", "llm.example.com"), {}, "host name", State.PASSED, "stands for 203.0.113.7", "",
    ),
    "secret missing": (
        ("models", "qwen2-5-3b", "gated", True), {}, "secret: hfToken", State.FAILED,
        "the weights of qwen2-5-3b need a licence", "pulumi config set --secret llm-platform:hfToken",
    ),
    "pull secret missing": (
        ("platform", "imagePullSecret", True), {}, "secret: pullSecret", State.FAILED,
        "platform.imagePullSecret is true", "llm-platform:pullSecret < config.json",
    ),
    "no signing key": (
        ("access", "publicKeys", {}), {}, "configuration: llm-platform:access.publicKeys", State.FAILED,
        "no key could be verified", "python -m ops keys init --stack tpu",
    ),
    "weights elsewhere": (
        ("models", "qwen2-5-3b", "uri", "s3://bucket/model"), {}, "weights: qwen2-5-3b", State.ADVICE,
        "is not looked at from here", "account may read it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGED)
def test_each_wish_is_compared_with_what_there_is(preflight, case):
    change, settings, subject, state, evidence, fix = CHANGED[case]
    preflight.set(*change)
    if case == "channel without pools":
        preflight.raw.pop("access")
    preflight.google(**settings)
    found = preflight.found(subject)
    assert (found.state, evidence in found.evidence, fix in found.fix) == (state, True, True), found


SECRET, PINNED = "projects/my-project/secrets/hf", "projects/my-project/secrets/hf/versions/3"
THEIRS = "projects/other/secrets/hf"
SERVICES = [f"{name}.googleapis.com" for name in (*google_api.BOOTSTRAPPED, "secretmanager")]
NO_LOOK = {"account": {"lacks": ["secretmanager.versions.get"]}}
NEWER = {"name": SECRET, "version": "4", "text": TOKEN}
# What the stack refers to; what is kept, the newest version first; settings; state, evidence, fix.
KEPT: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any], State, str, str]] = {
    "there": (SECRET, [NEWER], {}, State.PASSED, f"{SECRET} in Google Secret Manager; its value is not read here", ""),
    "a version": (PINNED, [{**NEWER, "version": "3"}], {}, State.PASSED, "its value is not read here", ""),
    "no secret": (
        SECRET, [], {}, State.FAILED, f"there is no {SECRET}/versions/latest in Google Secret Manager",
        "run: gcloud secrets create hf --project=my-project --data-file=FILE, or",
    ),
    "no version": (
        SECRET, [], {}, State.FAILED, "there is no ",
        "gcloud secrets versions add hf --project=my-project --data-file=FILE, or correct secrets.hfToken",
    ),
    "no first version": (f"{SECRET}/versions/1", [NEWER], {}, State.FAILED, "versions/1 in Google", "gcloud secrets create"),
    "another version": (
        PINNED, [NEWER], {}, State.FAILED, f"there is no {PINNED} in Google Secret Manager",
        "run: gcloud secrets versions list hf --project=my-project, and correct secrets.hfToken",
    ),
    "disabled": (
        SECRET, [{**NEWER, "state": "DISABLED"}], {}, State.FAILED, f"version 4 of {SECRET} in",
        "run: gcloud secrets versions enable 4 --secret=hf --project=my-project, or name another version in secrets.hf",
    ),
    "destroyed": (
        PINNED, [{**NEWER, "version": "3", "state": "DESTROYED"}], {}, State.FAILED, "is DESTROYED, and cannot be read",
        "run: gcloud secrets versions add hf --project=my-project --data-file=FILE, and name the new version, or none",
    ),
    "may not look": (
        SECRET, [NEWER], NO_LOOK, State.OPEN, "you lack secretmanager.versions.get", "--print-role preview",
    ),
    "API off": (
        SECRET, [NEWER], {"services": SERVICES[:-1]}, State.OPEN, "secretmanager.googleapis.com is off",
        "run: gcloud services enable secretmanager.googleapis.com",
    ),
    "may not read": (
        SECRET, [NEWER], {"account": {"lacks": ["secretmanager.versions.access"]}}, State.FAILED, f"you may not read {SECRET}",
        "run: gcloud secrets add-iam-policy-binding hf --project=my-project --member=WHO --role=roles/secretmanager.secretA",
    ),
    "theirs": (THEIRS, [{**NEWER, "name": THEIRS}], {}, State.PASSED, "its value is not read here", ""),
    "none of theirs": (THEIRS, [NEWER], {}, State.FAILED, f"there is no {THEIRS}/", "gcloud secrets create hf --project=other"),
    "may not look at theirs": (
        THEIRS, [], NO_LOOK, State.OPEN, "you lack secretmanager.versions.get",
        "run: gcloud secrets add-iam-policy-binding hf --project=other --member=WHO --role=roles/secretmanager.viewer",
    ),
    "their API off": (
        THEIRS, [], {"services": SERVICES[:-1]}, State.OPEN, "secretmanager.googleapis.com is off",
        "run: gcloud services enable secretmanager.googleapis.com --project=other",
    ),
}  # fmt: skip


def kept(preflight: Preflight, asked: str, entries: list[dict[str, Any]], **settings: Any) -> None:
    """A stack whose token is in Secret Manager."""
    preflight.raw["secrets"] = {"hfToken": {"googleSecretManager": asked}}
    preflight.google(**{"services": SERVICES, "secrets": entries, **settings})


@pytest.mark.parametrize("case", KEPT)
def test_a_secret_that_is_kept_elsewhere_must_be_there(preflight, case):
    asked, entries, settings, state, evidence, fix = KEPT[case]
    kept(preflight, asked, entries, **settings)
    (found,) = [v.finding for v in preflight.verdicts() if v.check == "kept secret"]
    assert (found.state, evidence in found.evidence, fix in found.fix) == (state, True, True), found
    assert preflight.found("secret: hfToken").evidence.startswith("kept elsewhere")


def test_two_secrets_are_looked_for_each_by_itself(preflight):
    kept(preflight, SECRET, [NEWER])
    preflight.raw["secrets"]["pullSecret"] = {"googleSecretManager": THEIRS}
    preflight.set("platform", "imagePullSecret", True)
    assert preflight.found("kept secret: hfToken").state is State.PASSED
    assert preflight.found("kept secret: pullSecret").state is State.FAILED


def test_the_api_of_a_kept_secret_must_be_on_before_up(preflight):
    kept(preflight, SECRET, [NEWER], services=SERVICES[:-1])
    found = preflight.found("APIs before `up`")
    assert found.state is State.FAILED and found.evidence == "secretmanager must be on before `up`"
    assert found.fix == "run: gcloud services enable secretmanager.googleapis.com --project=my-project", found
    kept(preflight, THEIRS, [], services=SERVICES[:-1])
    assert preflight.found("APIs before `up`").state is State.PASSED


def test_without_a_reference_no_secret_is_looked_for(preflight):
    preflight.google(services=SERVICES)
    assert not [v for v in preflight.verdicts() if v.check == "kept secret"]


def gated(preflight: Preflight, **entry: Any) -> Finding:
    """The verdict on gated weights, with a token."""
    preflight.set("models", "qwen2-5-3b", "gated", True)
    preflight.pulumi.secrets["hfToken"] = TOKEN
    preflight.google(web={"models": [{"name": "Qwen/*", "gated": True, **entry}]})
    return preflight.found("weights: qwen2-5-3b")


def test_a_token_is_asked_for_each_gated_model(preflight):
    assert gated(preflight, approved=True).evidence.endswith("can be read with the token")
    found = gated(preflight)
    assert found.state is State.FAILED
    assert "accept it at https://huggingface.co/Qwen/Qwen2.5-3B-Instruct" in found.fix


def test_a_token_that_hugging_face_does_not_know_is_named(preflight):
    preflight.pulumi.secrets["hfToken"] = TOKEN
    preflight.google(web={"tokens": [{"status": 401}]})
    said = {v.finding.what: v.finding for v in preflight.verdicts() if v.check == "secret"}
    assert [v.finding.state for v in preflight.verdicts() if v.subject == "secret: hfToken"] == [
        State.PASSED, State.FAILED,
    ]  # fmt: skip
    assert said["hfToken"].evidence == "Hugging Face does not know it, or no longer"


def test_the_pull_secret_is_tried_at_the_registries_that_it_names(preflight):
    preflight.pulumi.secrets["pullSecret"] = LOGIN
    preflight.google(web={"images": [{"name": "docker.io/vllm/*", "login": "user:hush"}]})
    assert preflight.found("image: engine of qwen2-5-3b").evidence.endswith("with the pull secret")
    assert preflight.found("image: kubectl").evidence == "registry.k8s.io/kubectl:v1.34.1"
    preflight.google(web={"images": [{"name": "docker.io/vllm/*", "login": "user:other"}]})
    assert "the pull secret does not open it" in preflight.found("image: engine of qwen2-5-3b").evidence


def test_a_pull_secret_that_is_none_is_named_without_its_content(preflight):
    preflight.pulumi.secrets["pullSecret"] = "hush"
    found = preflight.found("image")
    assert found.state is State.OPEN and "is not a Docker config JSON" in found.evidence
    assert "hush" not in found.evidence


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_no_secret_is_ever_printed(preflight, monkeypatch, capsys, flags):
    preflight.pulumi.secrets.update(hfToken=TOKEN, pullSecret=LOGIN)
    preflight.google(web={"tokens": [{"status": 401}], "images": [{"name": "*", "login": "user:other"}]})
    site = preflight.site()
    monkeypatch.setattr("ops.preflight.command.Site", lambda *_: site)
    assert cli.main(["preflight", "--stack", "tpu", *flags]) == cli.FAILED
    said = "".join(capsys.readouterr())
    assert "image: kubectl" in said or '"what": "kubectl"' in said
    assert not any(secret in said for secret in (TOKEN, "hush", "dXNlcjpodXNo", google_api.TOKEN + " "))


LOCAL: dict[str, tuple[Callable[[Preflight], Any], str, State, str, str]] = {
    "no stack": (
        lambda p: setattr(p.pulumi, "exists", False), "stack", State.FAILED,
        "https://api.pulumi.com/me has no stack tpu", "pulumi stack init tpu",
    ),
    "state on this machine": (
        lambda p: setattr(p.pulumi, "backend", "file:///home/me"), "backend: state", State.ADVICE,
        "is on this machine", "pulumi login gs://BUCKET",
    ),
    "passphrase": (
        lambda p: setattr(p, "extra", {"encryptionsalt": "v1:abc"}), "backend: encryption", State.ADVICE,
        "with a passphrase", "pulumi stack change-secrets-provider gcpkms://KEY",
    ),
    "no bucket": (
        lambda p: setattr(p.pulumi, "backend", "gs://state"), "backend: state", State.FAILED,
        "gs://state cannot be read: The specified bucket does not exist", "make the bucket",
    ),
    "bucket without versions": (
        lambda p: (
            setattr(p.pulumi, "backend", "gs://state/sub"),
            p.google(account={"buckets": [{"name": "state", "uniform": True, "private": True}]}),
        ),
        "backend: state", State.ADVICE, "lacks versioning", "gcloud storage buckets update gs://state --versioning",
    ),
    "good bucket": (
        lambda p: (
            setattr(p.pulumi, "backend", "gs://state"),
            p.google(account={"buckets": [{"name": "state", "versioning": True, "uniform": True, "private": True}]}),
        ),
        "backend: state", State.PASSED, "versioned, uniform access, never public", "",
    ),
    "no plugin for the API server": (
        lambda p: (p.commands / "gke-gcloud-auth-plugin").unlink(), "command: gke-gcloud-auth-plugin", State.FAILED,
        "not on PATH", "gcloud components install gke-gcloud-auth-plugin",
    ),
    "no kubectl": (
        lambda p: (p.commands / "kubectl").unlink(), "command: kubectl", State.ADVICE, "`up` works without", "",
    ),
    "old CLI": (
        lambda p: setattr(p.pulumi, "version", "v3.100.0"), "version: pulumi", State.ADVICE,
        "3.100.0, older than the SDK's 3.232.0", "update it",
    ),
    "other CLI": (
        lambda p: setattr(p.pulumi, "version", "v4.0.0"), "version: pulumi", State.FAILED, "the CLI is 4.0.0", "",
    ),
    "plugin that will come": (
        lambda p: p.pulumi.plugins.pop("gcp"), "plugin: gcp", State.PASSED, "10.2.0, which `up` fetches", "",
    ),
    "plugin that may not come": (
        lambda p: (
            p.pulumi.plugins.pop("gcp"),
            p.environ.update(PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION="true"),
        ),
        "plugin: gcp", State.FAILED, "fetching is switched off", "pulumi plugin install resource gcp 10.2.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LOCAL)
def test_the_machine_and_the_backend_are_looked_at(preflight, case):
    change, subject, state, evidence, fix = LOCAL[case]
    change(preflight)
    found = preflight.found(subject)
    assert (found.state, evidence in found.evidence, fix in found.fix) == (state, True, True), found


def test_a_host_name_that_stands_for_nothing_is_advice(preflight):
    preflight.known = False
    found = preflight.found("host name")
    assert found.state is State.ADVICE
    assert "certificate is not issued before" in found.evidence and "gateway_address" in found.fix


def test_a_quota_that_is_used_up_is_a_question_unless_it_is_too_small_anyway(preflight):
    preflight.google(quotas=[{"metric": "NETWORKS", "limit": 1}])
    with Project.of(preflight.root).change() as state:
        state.of("compute/network")["projects/my-project/global/networks/mine"] = {
            "inputs": {},
            "outputs": {},
        }
    found = preflight.found("network quota: NETWORKS")
    assert found.state is State.OPEN and "enough only if this stack holds the others" in found.evidence
    preflight.google(quotas=[{"metric": "NETWORKS", "limit": 0}])
    assert preflight.found("network quota: NETWORKS").state is State.FAILED


def test_the_stacks_own_subnets_are_no_clash(preflight):
    with Project.of(preflight.root).change() as state:
        inputs = {
            "ipCidrRange": "10.0.0.0/20",
            "network": "projects/my-project/global/networks/cluster-network-1ab",
        }
        state.of("compute/subnetwork")["projects/p/regions/r/subnetworks/cluster-subnet-2cd"] = {
            "inputs": inputs, "outputs": {"region": "europe-west4"},
        }  # fmt: skip
    assert preflight.found("address ranges").state is State.PASSED


@pytest.mark.parametrize(
    ("entry", "state", "evidence"),
    [
        ({}, State.FAILED, "there is no subnet of this name"),
        ({"purpose": "PRIVATE"}, State.FAILED, "no active proxy-only subnet"),
        ({"purpose": "REGIONAL_MANAGED_PROXY", "role": "ACTIVE"}, State.PASSED, "192.168.0.0/23, active"),
    ],
)
def test_a_shared_proxy_only_subnet_must_be_one(preflight, entry, state, evidence):
    needs = google_needs(load_config(preflight.raw))
    needs = needs.__class__(**{**needs.__dict__, "shared_proxy_subnet": "proxies"})
    subnet = {"name": "proxies", "region": "x/europe-west4", "ipCidrRange": "192.168.0.0/23", **entry}
    *_, found = google_checks.ranges(needs, (subnet,) if entry else ())
    assert found.state is state and evidence in found.evidence


@pytest.mark.parametrize(
    ("dimensions", "limit"),
    [
        ((), 0),
        (({"details": {"value": "7"}},), 7),
        (({"dimensions": {"region": "us-east1", "tpu_family": "CT6E"}, "details": {"value": "9"}},), 0),
        (
            (
                {"details": {"value": "7"}},
                {
                    "dimensions": {"region": "europe-west4", "tpu_family": "CT6E"},
                    "details": {"value": "-1"},
                },
                {"dimensions": {"tpu_family": "CT5P"}, "details": {"value": "64"}},
            ),
            google_checks.UNLIMITED,
        ),
        (({"details": {"value": "7"}, "applicableLocations": ["us-east1"]},), 0),
    ],
)
def test_the_entry_that_names_most_of_the_quota_counts_and_none_is_nothing(dimensions, limit):
    assert google_checks.limit_of(dimensions, region="europe-west4", tpu_family="CT6E") == limit


# -- roles ---------------------------------------------------------------------------------------------------------


def test_every_resource_that_a_stack_registers_has_its_permissions():
    golden = (CHECKOUT / "tests" / "stacks" / "golden").glob("*.yaml")
    types = {name for file in golden for name in yaml.safe_load(file.read_text())["counts"] if "gcp:" in name}
    assert types - {"pulumi:providers:gcp"} <= google_permissions.BY_TYPE.keys()


def test_the_preview_role_only_reads_and_no_secret():
    deploy, preview = (set(role(True, True)) for role in google_permissions.ROLES.values())
    assert preview < deploy
    verbs = {permission.rsplit(".", 1)[1] for permission in preview}
    assert verbs == {"get", "list", "getIamPolicy", "getLogs", "connect", "use"}
    assert not any(permission.startswith("container.secrets") for permission in preview)
    assert "iam.serviceAccounts.actAs" in deploy
    assert "secretmanager.versions.access" in deploy - preview
    assert "secretmanager.versions.get" in preview


@pytest.mark.parametrize("secret", [None, SECRET, THEIRS])
def test_a_role_is_printed_as_gcloud_reads_it_and_nothing_is_asked(preflight, capsys, secret):
    preflight.raw["secrets"] = {"hfToken": {"googleSecretManager": secret}} if secret else {}
    preflight.site()
    command = ["preflight", "--stack", "tpu", "--project", str(preflight.project), "--print-role", "deploy"]
    assert cli.main(command) == cli.DONE
    role = yaml.safe_load(capsys.readouterr().out)
    assert role["includedPermissions"] == list(google_permissions.deploy(False, secret == SECRET))
    assert role["stage"] == "GA"


# -- the client ----------------------------------------------------------------------------------------------------


@pytest.fixture
def gcloud(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Variables with a `gcloud` whose logins are those given."""

    def make(application: str = "", user: str = "") -> dict[str, str]:
        file = tmp_path / "gcloud"
        file.write_text(
            f'#!/bin/sh\ncase "$*" in\n"auth application-default print-access-token") token="{application}";;\n'
            f'"auth print-access-token") token="{user}";;\nesac\n'
            '[ -n "$token" ] && echo "$token" || { echo "you are nobody" >&2; exit 1; }\n'
        )
        file.chmod(0o755)
        return {"PATH": f"{tmp_path}:/bin"}

    return make


def test_the_login_is_the_one_that_pulumi_uses_where_there_is_one(gcloud):
    both = gcloud("application", "user")
    assert credential({**both, "GOOGLE_OAUTH_ACCESS_TOKEN": "given"}).token == "given"
    assert credential(both).token == "application"
    other = credential(gcloud("", "user"))
    assert (other.token, other.pulumi) == ("user", False)
    assert "user" not in repr(other)


def test_somebody_who_is_not_logged_in_is_told_how(gcloud, tmp_path):
    with pytest.raises(
        OpsError, match="nobody is logged in to Google .you are nobody.: run: gcloud auth app"
    ):
        credential(gcloud())
    with pytest.raises(OpsError, match="there is no `gcloud` on PATH"):
        credential({"PATH": str(tmp_path / "none")})


def test_a_login_that_pulumi_does_not_use_fails_the_check(preflight):
    token = google_api.TOKEN
    del preflight.environ["GOOGLE_OAUTH_ACCESS_TOKEN"]
    (preflight.commands / "gcloud").write_text(
        f'#!/bin/sh\n[ "$1 $2" = "auth print-access-token" ] && echo {token} || exit 1\n'
    )
    found = preflight.found("credentials")
    assert found.state is State.FAILED and "there are none" in found.evidence
    assert preflight.found("project").state is State.PASSED


def test_a_token_is_only_sent_by_https_or_on_this_machine():
    google = Google(
        "p", {"GOOGLE_OAUTH_ACCESS_TOKEN": "t", "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": "http://a.b/"}
    )
    with pytest.raises(OpsError, match="OVERRIDES_COMPUTE is http://a.b/: a token is only sent by https"):
        google.get("compute", "projects/p")


def test_a_service_that_cannot_be_reached_is_named_without_the_token():
    environ = {
        "GOOGLE_OAUTH_ACCESS_TOKEN": "hush",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": "http://127.0.0.1:1/",
    }
    with pytest.raises(GoogleError, match="127.0.0.1:1 cannot be reached") as refusal:
        Google("p", environ).get("compute", "projects/p")
    assert "hush" not in str(refusal.value)


def test_every_stack_file_of_a_kind_with_checks_can_be_looked_at():
    """No stack file here has a kind of cluster that preflight does not know."""
    files = [file for directory in STACK_DIRECTORIES for file in directory.glob("Pulumi.*.yaml")]
    kinds = {yaml.safe_load(f.read_text())["config"]["llm-platform:cluster"]["kind"] for f in files}
    assert kinds <= plans.PLANS.keys()
