"""Random resources: new once, the same ever after, until their inputs change."""

from __future__ import annotations

import base64
import re
import string
import uuid
from dataclasses import dataclass

import pulumi
import pulumi_random as random
import pytest

from tests.provider_contract.conftest import Contract, Outcome

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Story:
    foreseen: Outcome
    first: Outcome
    encrypted: str
    unchanged: Outcome
    second: Outcome


@pytest.fixture(scope="module")
def story(contract: Contract) -> Story:
    stack = contract.stack()
    keeper = ["a"]

    def program():
        keep = {"keeper": keeper[0]}
        text = random.RandomString("text", length=12, min_numeric=3, special=False, keepers=keep)
        password = random.RandomPassword("password", length=20, override_special="_")
        number = random.RandomInteger("number", min=5, max=7)
        identity = random.RandomId("id", byte_length=4, prefix="p-")
        pet = random.RandomPet("pet", prefix="my")
        unique = random.RandomUuid("uuid")
        pulumi.export("text", text.result)
        pulumi.export("plain", pulumi.Output.unsecret(password.result).apply(len))
        pulumi.export("password", password.result)
        pulumi.export("number", number.result)
        pulumi.export(
            "id", {"hex": identity.hex, "dec": identity.dec, "url": identity.b64_url, "id": identity.id}
        )
        pulumi.export("pet", pet.id)
        pulumi.export("uuid", unique.result)

    foreseen, first, encrypted = stack.preview(program), stack.up(program), stack.state_text()
    unchanged = stack.preview(program)
    keeper[0] = "b"
    return Story(foreseen, first, encrypted, unchanged, stack.up(program))


def test_a_preview_knows_no_value_yet(story):
    assert story.foreseen.ok, story.foreseen.output


def test_values_have_the_shape_that_was_asked_for(story):
    out = story.first.outputs
    assert len(out["text"]) == 12 and set(out["text"]) <= set(string.ascii_letters + string.digits)
    assert sum(c.isdigit() for c in out["text"]) >= 3
    assert out["plain"] == 20
    assert 5 <= out["number"] <= 7
    assert re.fullmatch(r"my-[a-z]+-[a-z]+", out["pet"])
    assert str(uuid.UUID(out["uuid"])) == out["uuid"]


def test_the_forms_of_an_id_are_the_same_bytes(story):
    forms = story.first.outputs["id"]
    raw = bytes.fromhex(forms["hex"].removeprefix("p-"))
    assert len(raw) == 4
    assert forms["dec"] == f"p-{int.from_bytes(raw)}"
    assert forms["url"] == f"p-{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"
    assert forms["url"] == f"p-{forms['id']}"


def test_a_password_is_encrypted_in_state(story):
    assert "ciphertext" in story.first.outputs["password"]


def test_an_unchanged_program_keeps_every_value(story):
    assert story.unchanged.changed == {}
    same = ("number", "pet", "uuid")
    assert [story.second.outputs[key] for key in same] == [story.first.outputs[key] for key in same]


def test_another_keeper_makes_a_new_value(story):
    assert "replace" in story.second.changed["text"]
    assert story.second.outputs["text"] != story.first.outputs["text"]


def test_impossible_inputs_fail_the_preview(contract):
    outcome = contract.stack().preview(lambda: random.RandomInteger("n", min=3, max=2))
    assert not outcome.ok and "minimum" in outcome.output
