"""The whole inventory of each stack that this release can build, reviewed like a preview."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.recorder import Recording, Registration
from tests.support.stacks import raw_stack, record_stack

GOLDEN = Path(__file__).with_name("golden")
STACKS = ("dev", "tpu", "gpu", "pattern1", "multihost", "inference-service")
UPDATE = "make golden"


def inventory(recording: Recording, directory: Path) -> dict[str, Any]:
    """Everything that a run registered, by parent and name, in an order that does not depend on timing."""
    names = {r.urn: f"{_kind(r)} {r.name}" for r in recording.registrations}
    ordered = sorted(recording.registrations, key=lambda r: (names.get(r.parent, ""), names[r.urn]))
    resources = [_entry(r, names) for r in ordered if r.type != "pulumi:pulumi:Stack"]
    counts: dict[str, int] = {}
    for registration in recording.registrations:
        counts[registration.type] = counts.get(registration.type, 0) + 1
    text = yaml.safe_dump({"counts": dict(sorted(counts.items())), "resources": resources}, sort_keys=False)
    return yaml.safe_load(text.replace(str(directory), "<artifacts>"))


def _kind(registration: Registration) -> str:
    return registration.type.rsplit(":", 1)[-1]


def _entry(registration: Registration, names: dict[str, str]) -> dict[str, Any]:
    options = {
        "retain_on_delete": registration.retain_on_delete,
        "delete_before_replace": registration.delete_before_replace,
        "protect": registration.protect,
        "timeouts": dict(registration.timeouts),
        "secrets": list(registration.secrets),
    }
    return {
        "resource": names[registration.urn],
        "type": registration.type,
        "in": names.get(registration.parent, ""),
        "after": sorted(names[urn] for urn in registration.dependencies),
        **{key: value for key, value in options.items() if value},
        "inputs": _sorted(registration.inputs),
    }


# The text of the program is a file of this repository; what a stack makes of it are the tables.
PROGRAM = re.compile(r"^local TABLES = \{.*?^\}", re.DOTALL | re.MULTILINE)


# Beyond this many characters a text is a file of this repository, of which its first line is enough.
LONG = 3000


def _sorted(value: Any) -> Any:
    """Maps in the order of their keys: on the wire they have none. Of a program only its tables, or its first line."""
    if isinstance(value, str) and PROGRAM.search(value):
        return PROGRAM.search(value).group(0)
    if isinstance(value, str) and len(value) > LONG:
        return value.partition("\n")[0]
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_registers_exactly_its_golden_inventory(
    stack: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    actual = inventory(record_stack(raw_stack(stack), tmp_path), tmp_path)
    file = GOLDEN / f"{stack}.yaml"
    if request.config.getoption("--update-golden"):
        file.write_text(f"# Written by `{UPDATE}`; review it as you would a preview.\n" + _dump(actual))
    expected = yaml.safe_load(file.read_text())
    assert actual["counts"] == expected["counts"], f"after an intended change run: {UPDATE}"
    by_name = {entry["resource"]: entry for entry in expected["resources"]}
    for entry in actual["resources"]:
        assert entry == by_name.get(entry["resource"]), (
            f"{entry['resource']}; after an intended change run: {UPDATE}"
        )


def _dump(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=110)
