"""Keys of the configuration against the ledger of this checkout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stacks.config import StackConfig, load_config
from stacks.ledger import key_problems, ledger_file
from tests.support.stacks import raw_stack

ISSUED = "0123456789abcdef"


def config(*revoked: str) -> StackConfig:
    raw = raw_stack("dev")
    raw["access"]["revoked"] = list(revoked)
    return load_config(raw)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose ledger knows one key."""
    file = ledger_file("dev", tmp_path)
    file.parent.mkdir()
    events = [{"event": "signer", "kid": "k"}, {"event": "issued", "jti": ISSUED, "tenant": "acme"}]
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return tmp_path


def test_an_id_that_was_never_issued_cannot_be_revoked(project: Path) -> None:
    (problem,) = key_problems(config(ISSUED, "fedcba9876543210"), "dev", project)
    assert str(problem.path) == "llm-platform:access.revoked[1]"
    assert "ops keys list --stack dev" in problem.fix


def test_ids_of_the_ledger_are_fine(project: Path) -> None:
    assert key_problems(config(ISSUED), "dev", project) == []


def test_without_a_ledger_nothing_can_be_said(tmp_path: Path) -> None:
    assert key_problems(config(ISSUED), "dev", tmp_path) == []
