"""The runbooks say what `doctor` says, and name no command that does not exist.

That the commands for clusters work is shown by tests/rehearsed/test_runbooks.py; those of clouds and of the
engine are compared with tables here: verbs and flags as their own references have them (read 2026-11).
"""

from __future__ import annotations

import re
import shlex

import pytest

from ops import cli
from ops.doctor.chain import Rule
from ops.doctor.rules import MODEL_RULES, STACK_RULES
from tests.ops import doctor_pages as pages

RULES = (*MODEL_RULES, *STACK_RULES)
SECTIONS = ("**Symptom.**", "| doctor says | what to do |", "## Look deeper", "## Fix", "## Prevention")
RUN = {"kubectl", "python -m ops"}
"""Programs whose commands are run."""
KNOWN = {
    # https://docs.cloud.google.com/sdk/gcloud/reference
    "gcloud": {
        "container node-pools list": {"--cluster", "--zone"},
        "container operations list": {"--zone", "--limit"},
        "logging read": {"--limit"},
        "compute regions describe": {"--project"},
        "beta quotas info list": {"--service", "--project"},
        "compute machine-types list": {"--filter", "--zones"},
        "compute backend-services list": {"--regions"},
        "compute health-checks list": {"--regions"},
        "compute forwarding-rules list": {"--regions"},
        "compute networks subnets list": {"--filter"},
    },
    # https://docs.aws.amazon.com/cli/latest/reference
    "aws": {
        "autoscaling describe-scaling-activities": {"--region", "--auto-scaling-group-name", "--max-items"},
        "ec2 describe-instance-type-offerings": {"--region", "--location-type", "--filters"},
    },
    # https://www.pulumi.com/docs/iac/cli/commands
    "pulumi": {
        "up": {"--stack", "--refresh"},
        "preview": {"--stack", "--refresh"},
        "config set": {"--stack", "--secret"},
        "stack output": {"--stack"},
    },
}
COMMON = {"of the last", "requests are answered 503 `limits_unavailable`"}
FLAG_IN_TEXT = re.compile(r"`python -m ops (\w+)")


def sentences(rule: Rule) -> list[str]:
    """The fixed parts of what a rule says, as a page may quote them."""
    parts = re.split(r"\{\w+\}|[:;,] | \(", rule.found)
    bare = [re.sub(r" (of|for|after|on)$", "", part.strip(" :;,)")) for part in parts]
    return [part for part in bare if len(part.split()) > 2 and part not in COMMON]


@pytest.mark.parametrize("page", pages.names())
def test_a_page_has_all_its_sections_in_their_order(page):
    text = pages.text(page)
    places = [text.find(section) for section in SECTIONS]
    assert -1 not in places and places == sorted(places)
    assert text.startswith("# ")
    assert pages.commands(page)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.page}: {rule.found[:60]}")
def test_a_page_quotes_what_doctor_says(rule):
    text = " ".join(pages.text(rule.page).split())
    assert any(sentence in text for sentence in sentences(rule)), sentences(rule)


def test_the_index_names_every_page():
    index = pages.text(pages.INDEX)
    assert not [page for page in pages.names() if f"]({page}.md)" not in index]


@pytest.mark.parametrize("page", [*pages.names(), pages.INDEX])
def test_every_command_is_one_that_is_run_or_known(page):
    for command in pages.commands(page):
        name = pages.program(command)
        if name in RUN:
            continue
        words = [word for word in shlex.split(command)[1:] if word != "|"]
        verbs = next((v for v in KNOWN[name] if " ".join(words).startswith(v)), None)
        assert verbs is not None, command
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags <= KNOWN[name][verbs], command


@pytest.mark.parametrize("page", [*pages.names(), pages.INDEX])
def test_commands_of_ours_that_are_only_mentioned_exist(page):
    assert set(FLAG_IN_TEXT.findall(" ".join(pages.text(page).split()))) <= set(cli.COMMANDS)


@pytest.mark.parametrize("page", [*pages.names(), pages.INDEX])
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", pages.text(page)):
        assert (pages.FOLDER / target).resolve().exists(), target
