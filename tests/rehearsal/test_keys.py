"""A rehearsal makes one signing key, and publishes its public half in its private copy of the stack file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from rehearsal import keys
from rehearsal.engine import PROJECT
from rehearsal.keys import ACCESS, NoKey
from rehearsal.paths import CHECKOUT, Paths

OWN = {"a" * 43: {"x": "b" * 43, "y": "c" * 43}}
TIERS = {"tiers": {"free": {"tokensPerMinute": 1}}, "tenants": {"acme": {"tier": "free"}}}


class Ops:
    """Runs the real `python -m ops`, and counts."""

    def __init__(self, paths: Paths):
        self._paths, self.calls = paths, 0

    def __call__(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        return subprocess.run(
            [sys.executable, "-m", "ops", *arguments],
            env={"PYTHONPATH": str(CHECKOUT), "HOME": str(self._paths.home), "PATH": "/usr/bin:/bin"},
            cwd=self._paths.work,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    result = Paths(tmp_path / "rehearsal")
    result.create()
    (result.work / "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
    return result


def copy(paths: Paths, access: dict[str, Any] | None) -> None:
    config = {ACCESS: access} if access is not None else {}
    (paths.work / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": config}))


def access(paths: Paths) -> dict[str, Any]:
    return yaml.safe_load((paths.work / "Pulumi.dev.yaml").read_text())["config"].get(ACCESS)


def start(paths: Paths, ops: Ops, committed: dict[str, Any] | None) -> dict[str, Any]:
    """What a start does: a new copy of the committed file, completed."""
    before = keys.remembered(paths, "dev")
    copy(paths, committed)
    keys.publish(paths, "dev", before, ops)
    return access(paths)


def test_the_key_is_made_once_for_its_owner_only_and_published_by_its_public_half(paths: Paths) -> None:
    ops = Ops(paths)
    first = start(paths, ops, TIERS)
    ((kid, public),) = first["publicKeys"].items()
    assert len(kid) == 43 and set(public) == {"x", "y"}
    file = keys.private_key(paths, "dev")
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    assert start(paths, ops, TIERS) == first and ops.calls == 1


def test_the_private_key_is_nowhere_but_in_its_file(paths: Paths) -> None:
    start(paths, Ops(paths), TIERS)
    secret = keys.private_key(paths, "dev").read_text().splitlines()[1]
    holders = [f for f in paths.root.rglob("*") if f.is_file() and secret in f.read_text(errors="replace")]
    assert holders == [keys.private_key(paths, "dev")]


def test_an_interrupted_start_goes_on_with_the_key_that_it_made(paths: Paths) -> None:
    first = start(paths, Ops(paths), TIERS)
    (paths.work / "Pulumi.dev.yaml").unlink()
    assert start(paths, Ops(paths), TIERS) == first


def test_rotated_and_revoked_keys_stay_so_in_the_next_copy(paths: Paths) -> None:
    made = start(paths, Ops(paths), TIERS)["publicKeys"]
    copy(paths, {**TIERS, "publicKeys": {**made, **OWN}, "revoked": ["one", "two"]})
    again = start(paths, Ops(paths), {**TIERS, "revoked": ["two", "three"]})
    assert again["publicKeys"] == {**made, **OWN}
    assert again["revoked"] == ["two", "three", "one"]


@pytest.mark.parametrize("committed", [None, {**TIERS, "keys": "opaque"}, {**TIERS, "publicKeys": OWN}])
def test_a_stack_that_needs_no_key_of_ours_is_left_alone(
    paths: Paths, committed: dict[str, Any] | None
) -> None:
    ops = Ops(paths)
    assert start(paths, ops, committed) == committed
    assert ops.calls == 0


def test_a_failure_says_what_the_command_said(paths: Paths) -> None:
    file = keys.private_key(paths, "dev")
    file.parent.mkdir(mode=0o700)
    file.write_text("rubbish")
    file.chmod(0o600)
    with pytest.raises(NoKey, match=r"could not be made:\n.+"):
        start(paths, Ops(paths), TIERS)
    assert access(paths) == TIERS
