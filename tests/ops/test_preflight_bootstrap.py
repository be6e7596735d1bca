"""docs/bootstrap-gcp.md: every command on the page is one that exists, and what it sets up is what preflight wants."""

from __future__ import annotations

import re

import pytest
import yaml

from components.clusters.gke.google import NODE_ROLES
from ops.preflight.google_needs import FIRST_APIS
from rehearsal.cloud import google_api
from rehearsal.paths import CHECKOUT
from tests.support.commands import assert_exists, verb_of, words

PAGE = (CHECKOUT / "docs" / "bootstrap-gcp.md").read_text()
# Verbs of others' commands, with the flags that the page uses; from their own help (gcloud 528, Pulumi 3.232).
KNOWN: dict[str, frozenset[str]] = {
    "gcloud auth login": frozenset(),
    "gcloud auth application-default login": frozenset(),
    "gcloud auth application-default set-quota-project": frozenset(),
    "gcloud components install": frozenset(),
    "gcloud projects create": frozenset(),
    "gcloud projects add-iam-policy-binding": frozenset(
        ("--member", "--role", "--condition", "--condition-from-file")
    ),
    "gcloud billing projects link": frozenset(("--billing-account",)),
    "gcloud config set": frozenset(),
    "gcloud services enable": frozenset(("--project",)),
    "gcloud beta quotas preferences create": frozenset(
        ("--service", "--project", "--quota-id", "--preferred-value", "--dimensions")
    ),
    "gcloud beta quotas preferences list": frozenset(("--project",)),
    "gcloud storage buckets create": frozenset(
        ("--location", "--uniform-bucket-level-access", "--public-access-prevention")
    ),
    "gcloud storage buckets update": frozenset(("--versioning",)),
    "gcloud storage buckets add-iam-policy-binding": frozenset(("--member", "--role")),
    "gcloud kms keyrings create": frozenset(("--location",)),
    "gcloud kms keys create": frozenset(
        ("--keyring", "--location", "--purpose", "--rotation-period", "--next-rotation-time")
    ),
    "gcloud kms keys add-iam-policy-binding": frozenset(("--keyring", "--location", "--member", "--role")),
    "gcloud iam roles create": frozenset(("--project", "--file")),
    "gcloud iam service-accounts create": frozenset(("--project",)),
    "gcloud secrets create": frozenset(("--data-file", "--project")),
    "gcloud dns record-sets create": frozenset(("--zone", "--type", "--ttl", "--rrdatas")),
    "pulumi login": frozenset(),
    "pulumi stack init": frozenset(("--secrets-provider",)),
    "pulumi stack output": frozenset(("--stack",)),
    "pulumi config set": frozenset(("--secret",)),
    "pulumi up": frozenset(("--stack",)),
    "pulumi destroy": frozenset(("--stack",)),
}
_SHELL = ("export", "cat", "title:", "expression:", "END", "pip")


def commands() -> list[str]:
    """Every command line of the page's shell blocks and of its sentences."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    blocks = re.sub(r"<<'END'\n.*?\nEND", "", blocks, flags=re.DOTALL)
    inline = re.findall(r"`((?:pulumi|gcloud|python|make) [^`]+)`", PAGE.replace(blocks, ""))
    lines = [line.split(" #")[0].strip() for line in blocks.splitlines()]
    return [line for line in [*lines, *inline] if line and not line.startswith(_SHELL)]


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_command_on_the_page_exists(command):
    assert_exists(command, KNOWN)


def test_the_page_has_a_command_for_every_step():
    assert len(commands()) > 35
    assert {verb_of(command, KNOWN) for command in commands()} >= KNOWN.keys()


def test_the_page_switches_on_what_must_be_on_and_the_simulated_project_has_just_that():
    line = next(c for c in commands() if c.startswith("gcloud services enable"))
    on = {word.removesuffix(".googleapis.com") for word in words(line)[3:]}
    assert on == set(google_api.BOOTSTRAPPED)
    assert set(FIRST_APIS) <= on


def test_the_deployer_may_give_the_roles_of_nodes_and_no_others():
    (condition,) = re.findall(r"<<'END'\n(.*?)\nEND", PAGE, re.DOTALL)
    named = re.findall(r"'roles/([\w.]+)'", yaml.safe_load(condition)["expression"])
    assert sorted(named) == sorted(NODE_ROLES)
