"""The tables of the clouds' resource types fit their SDKs."""

from __future__ import annotations

import pytest

from rehearsal.providers.aws.provider import KINDS as AMAZON
from rehearsal.providers.gcp.provider import KINDS as GOOGLE

TABLES = (AMAZON, GOOGLE)
ROWS = [(kind, table) for table in TABLES for kind in table.values()]
every_row = pytest.mark.parametrize(("kind", "table"), ROWS, ids=[kind.token for kind, _ in ROWS])


@every_row
def test_every_row_names_only_what_the_sdk_has(kind, table):
    names = kind.names
    assert {*kind.outputs, *kind.filled, *kind.sensitive, *kind.anew} <= names.outputs
    given = {*kind.defaults, *kind.required, *(field.split(".")[0] for field in kind.references)}
    assert given <= names.inputs
    assert {path.split(".")[0] for path in kind.force_new} <= names.inputs
    assert kind.named in names.inputs | {""}


@every_row
def test_every_output_that_only_the_cloud_decides_is_made_by_the_simulation(kind, table):
    assert kind.names.computed <= kind.outputs.keys()


@every_row
def test_what_a_row_refers_to_is_simulated_as_well(kind, table):
    assert set(kind.references.values()) <= {row.module for row in table.values()}
