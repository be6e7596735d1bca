"""Names, manifests, quantities."""

from __future__ import annotations

import hashlib

import pytest

from components.core import naming, quantities
from components.core.manifest import deep_merge, drop_none, manifest, revision
from stacks.config.model import MAX_MODEL_NAME


def test_fields_that_are_none_go_and_empty_ones_stay() -> None:
    item = manifest(
        "v1", "Thing", "a", spec={"podSelector": {}, "none": None, "list": [{"x": None}], "zero": 0}
    )
    assert item == {
        "apiVersion": "v1",
        "kind": "Thing",
        "metadata": {"name": "a"},
        "spec": {"podSelector": {}, "list": [{}], "zero": 0},
    }
    assert drop_none(None) is None


def test_merging_goes_into_maps_and_replaces_everything_else() -> None:
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    assert deep_merge(base, {"a": {"y": [3]}, "c": 2}) == {"a": {"x": 1, "y": [3]}, "b": 1, "c": 2}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 1}


def test_a_revision_depends_on_the_content_and_not_on_its_order() -> None:
    assert revision({"a": 1, "b": [1, 2]}) == revision({"b": [1, 2], "a": 1})
    assert revision({"a": 1}) != revision({"a": "1"})
    assert len(revision({})) == 12


def test_every_name_derived_from_the_longest_model_name_is_a_dns_label() -> None:
    model = "m" * MAX_MODEL_NAME
    pool = naming.inference_pool(model)
    names = (naming.workload(model), naming.workload_service(model), pool, naming.picker_service(model))
    assert all(len(name) <= naming.DNS_LABEL_LENGTH for name in names)
    digest = hashlib.sha256(pool.encode()).hexdigest()[:8]
    # Not cut, so that the name is what istiod makes of it, whichever way it would cut.
    assert naming.shadow_service(pool) == f"{pool}-ip-{digest}"


def test_a_pool_too_long_for_its_shadow_is_cut_to_a_dns_label() -> None:
    shadow = naming.shadow_service("p" * 60)
    assert len(shadow) == naming.DNS_LABEL_LENGTH
    assert shadow.startswith("p" * 51 + "-ip-")


@pytest.mark.parametrize(("text", "value"), [("4", 4), ("500m", 0.5), ("16Gi", 16 * 2**30), ("1.5k", 1500)])
def test_quantities_are_read_in_their_base_unit(text: str, value: float) -> None:
    assert quantities.value(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "4 Gi", "-1", "4gb"])
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="16Gi"):
        quantities.value(text)
