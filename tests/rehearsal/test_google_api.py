"""The simulated REST APIs of Google and the stand-in of `gcloud`: no more forgiving than what they stand for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ops.google import BASES, OVERRIDE, Google, GoogleError, backends
from ops.preflight.google_facts import held_of
from rehearsal.cloud import gcloud, google_api
from rehearsal.cloud.project import Project
from rehearsal.paths import CHECKOUT
from rehearsal.providers.guard import OutsideRehearsal

PLACE = "projects/my-project"


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    with google_api.running(tmp_path) as address:
        yield {**google_api.environment(address), "GOOGLE_OAUTH_ACCESS_TOKEN": google_api.TOKEN}


@pytest.fixture
def google(environ) -> Google:
    return Google("my-project", environ)


def settings(root: Path, **wanted: object) -> None:
    (root / "cloud").mkdir(exist_ok=True)
    (root / "cloud" / "settings.yaml").write_text(yaml.safe_dump(wanted))


def test_every_service_that_we_ask_is_led_here(environ):
    assert {f"{OVERRIDE}{service.upper()}" for service in BASES} <= environ.keys()


def test_only_the_simulated_token_is_taken(environ):
    stranger = Google("my-project", {**environ, "GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.real"})
    with pytest.raises(GoogleError) as refusal:
        stranger.get("compute", PLACE)
    assert (refusal.value.code, refusal.value.reason) == (401, "ACCESS_TOKEN_EXPIRED")


def test_what_is_not_simulated_is_refused_by_name(google):
    with pytest.raises(GoogleError, match="has no GET projects/my-project/global/images in compute"):
        google.get("compute", f"{PLACE}/global/images")


def test_an_api_that_is_off_says_so_as_google_does(google, tmp_path):
    settings(tmp_path, services=["serviceusage.googleapis.com"])
    with pytest.raises(GoogleError) as refusal:
        google.get("compute", PLACE)
    assert (refusal.value.code, refusal.value.reason) == (403, "SERVICE_DISABLED")
    assert refusal.value.details["service"] == "compute.googleapis.com"


def test_an_api_that_the_program_switched_on_is_on(google, tmp_path):
    settings(tmp_path, services=["serviceusage.googleapis.com"])
    with Project.of(tmp_path).change() as state:
        state.services["compute.googleapis.com"] = 0.0
    assert google.get("compute", PLACE)["name"] == "my-project"


def test_permissions_are_those_that_are_not_taken_away(google, tmp_path):
    settings(tmp_path, account={"lacks": ["iam.*"], "unknown": ["compute.no.such"]})
    wanted = [f"iam.some{n}.get" for n in range(150)] + ["compute.no.such", "compute.networks.get"]
    held, unknown = held_of(google, "cloudresourcemanager", f"v3/{PLACE}:testIamPermissions", wanted)
    assert (held, unknown) == ({"compute.networks.get"}, {"compute.no.such"})


def test_a_question_without_the_permission_is_refused_with_its_name(google, tmp_path):
    settings(tmp_path, account={"lacks": ["compute.regions.get"]})
    with pytest.raises(GoogleError) as refusal:
        google.get("compute", f"{PLACE}/regions/europe-west4")
    assert refusal.value.details["permission"] == "compute.regions.get"


# -- Secret Manager ------------------------------------------------------------------------------------------------

SECRET = f"{PLACE}/secrets/hf"
KEPT = [
    {"name": SECRET, "version": "4", "text": "hush", "state": "DISABLED"},
    {"name": SECRET, "version": "3", "text": "hush"},
    {"name": f"{PLACE}/secrets/plain", "text": "hush"},
]
SECRETS_ON = ["secretmanager.googleapis.com"]


@pytest.mark.parametrize(
    ("name", "asked", "number", "state"),
    [
        ("hf", "latest", "4", "DISABLED"),
        ("hf", "4", "4", "DISABLED"),
        ("hf", "3", "3", "ENABLED"),
        ("plain", "latest", "1", "ENABLED"),
    ],
)
def test_a_version_of_a_secret_is_told_without_its_value(google, tmp_path, name, asked, number, state):
    settings(tmp_path, services=SECRETS_ON, secrets=KEPT)
    found = google.get("secretmanager", f"v1/{PLACE}/secrets/{name}/versions/{asked}")
    assert found["name"] == f"projects/{google_api.NUMBER}/secrets/{name}/versions/{number}"
    assert found["state"] == state and "hush" not in str(found)


@pytest.mark.parametrize(
    ("path", "changed", "code", "reason", "words"),
    [
        ("hf/versions/9", {}, 404, "NOT_FOUND", r"^Secret Version \[projects/\d+/secrets/hf/versions/9\] not found"),
        ("no/versions/latest", {}, 404, "NOT_FOUND", r"^Secret \[projects/\d+/secrets/no\] not found or has no versions"),
        ("hf/versions/3", {"services": ["compute.googleapis.com"]}, 403, "SERVICE_DISABLED", "secretmanager.googleapis.com"),
        (
            "hf/versions/9", {"account": {"lacks": ["secretmanager.*"]}}, 403, "IAM_PERMISSION_DENIED",
            "'secretmanager.versions.get'",
        ),
        ("hf/versions/3:access", {}, 404, "NOT_FOUND", "has no GET .*:access in secretmanager"),
    ],
)  # fmt: skip
def test_a_version_is_refused_as_google_does(google, tmp_path, path, changed, code, reason, words):
    settings(tmp_path, **{"services": SECRETS_ON, "secrets": KEPT, **changed})
    with pytest.raises(GoogleError, match=words) as refusal:
        google.get("secretmanager", f"v1/{PLACE}/secrets/{path}")
    assert (refusal.value.code, refusal.value.reason) == (code, reason)


# -- load balancers ------------------------------------------------------------------------------------------------

SERVICE = {
    "region": "europe-west4",
    "gateway": "llm-gateway/llm-gateway",
    "backends": [
        {"group": "neg-1", "instance": "n1", "address": "127.10.0.1", "pod": "a/b", "healthState": "HEALTHY"},
        {
            "group": "neg-1",
            "instance": "n2",
            "address": "127.10.0.2",
            "pod": "a/c",
            "healthState": "UNHEALTHY",
        },
        {"group": "neg-2", "instance": "n3", "pod": "a/d", "healthState": "HEALTHY"},
    ],
}


def test_the_health_of_backends_is_what_the_gateway_recorded(google, tmp_path):
    with Project.of(tmp_path).change() as state:
        state.backend_services = {"gkegw1-x": SERVICE, "elsewhere": {**SERVICE, "region": "us-east1"}}
    found = [(b.service, b.group, b.address, b.state) for b in backends(google, "europe-west4")]
    assert found == [
        ("gkegw1-x", "neg-1", "127.10.0.1", "HEALTHY"),
        ("gkegw1-x", "neg-1", "127.10.0.2", "UNHEALTHY"),
        ("gkegw1-x", "neg-2", "n3", "HEALTHY"),
    ]


def test_it_serves_no_one_outside_of_a_rehearsal(tmp_path):
    command = [sys.executable, "-m", "rehearsal.cloud.google_api"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    answer = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1 and "LLMP_REHEARSAL is not set" in answer.stderr


# -- gcloud --------------------------------------------------------------------------------------------------------


def test_gcloud_gives_the_simulated_token_in_a_rehearsal_only(tmp_path, monkeypatch, capsys):
    command = ["auth", "application-default", "print-access-token"]
    for name in ("LLMP_REHEARSAL", "PULUMI_BACKEND_URL"):
        monkeypatch.delenv(name, raising=False)
    assert gcloud.main(command) == 1
    assert "LLMP_REHEARSAL is not set" in capsys.readouterr().err
    monkeypatch.setenv("LLMP_REHEARSAL", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}/state")
    assert gcloud.main(command) == 0
    assert capsys.readouterr().out.strip() == google_api.TOKEN


def test_gcloud_refuses_by_name_what_it_does_not_know():
    with pytest.raises(OutsideRehearsal, match="`gcloud container clusters delete x` is not rehearsed"):
        gcloud.parse(["container", "clusters", "delete", "x"])


def test_gcloud_tells_the_health_as_the_api_does(environ, tmp_path):
    with Project.of(tmp_path).change() as state:
        state.backend_services = {"gkegw1-x": SERVICE}
    arguments = ["gkegw1-x", "--region=europe-west4", "--project", "my-project", "--format=json"]
    command, flags = gcloud.parse(["compute", "backend-services", "get-health", *arguments])
    told = json.loads(command(flags, environ))
    assert [len(entry["status"]["healthStatus"]) for entry in told] == [2, 1]
