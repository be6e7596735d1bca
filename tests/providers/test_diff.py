"""Diffs: which differences count, which need a new object, and how they are told."""

from __future__ import annotations

import json

import pytest

from rehearsal.providers.kubernetes import settings
from rehearsal.providers.kubernetes.diff import (
    ADD,
    DELETE,
    UPDATE,
    Change,
    compare,
    forces_replacement,
    parse_path,
    quantity,
    spelled,
)
from rehearsal.providers.values import UNKNOWN, Asset, Secret, from_struct, to_struct


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1}, {"a": 2}, [Change(("a",), UPDATE, 2)]),
        ({"a": 1}, {}, [Change(("a",), DELETE, None)]),
        ({}, {"a": {"b": 1}}, [Change(("a",), ADD, {"b": 1})]),
        ({"a": [1, 2]}, {"a": [1]}, [Change(("a", 1), DELETE, None)]),
        (
            {"a": [{"b": 1}]},
            {"a": [{"b": 2}, 3]},
            [Change(("a", 0, "b"), UPDATE, 2), Change(("a", 1), ADD, 3)],
        ),
        ({"a": {"b": 1}}, {"a": [1]}, [Change(("a",), UPDATE, [1])]),
        ({"a": 1}, {"a": UNKNOWN}, [Change(("a",), UPDATE, UNKNOWN)]),
        ({}, {"a": UNKNOWN}, [Change(("a",), ADD, UNKNOWN)]),
        ({"a": 1}, {"a": None}, [Change(("a",), DELETE, None)]),
    ],
)
def test_changes_are_as_deep_as_both_sides_have_the_same_shape(old, new, expected):
    assert list(compare(old, new)) == expected


@pytest.mark.parametrize(
    ("left", "right"),
    [("0.5", "500m"), ("1024Mi", "1Gi"), (1, "1"), ("1000", "1k"), ("1e3", "1k"), ("2.0", 2)],
)
def test_the_same_quantity_may_be_written_differently_where_quantities_are(left, right):
    assert quantity(left) == quantity(right)
    assert list(compare({"limits": {"x": left}}, {"limits": {"x": right}}, quantities=True)) == []
    assert list(compare({"labels": {"x": left}}, {"labels": {"x": right}}, quantities=True)) != []


@pytest.mark.parametrize("value", ["", "x", "1Gb", "1.2.3", None])
def test_what_is_no_quantity_is_none(value):
    assert quantity(value) is None


@pytest.mark.parametrize(
    ("path", "value", "forced"),
    [
        (("spec", "selector", "matchLabels", "app"), "x", True),
        (("spec", "selector"), {"matchLabels": {}}, True),
        (("spec",), {"selector": {}}, True),
        (("spec",), {"replicas": 1}, False),
        (("spec",), None, False),
        (("spec", "replicas"), 1, False),
        (("spec", "containers", 2, "env", 0, "name"), "x", True),
        (("spec", "containers", 2), {"env": []}, True),
        (("spec", "containers"), [{"name": "x"}], False),
    ],
)
def test_a_change_replaces_when_it_touches_or_contains_an_immutable_property(path, value, forced):
    forcing = [("spec", "selector"), ("spec", "containers", "*", "env")]
    assert forces_replacement(Change(path, UPDATE, value), forcing) is forced


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("spec", "ports", 0, "name"), "spec.ports[0].name"),
        (("data", "a.b"), 'data["a.b"]'),
        (("data", 'say "x"', "y"), 'data["say \\"x\\""].y'),
        (("spec", "containers", "*", "image"), "spec.containers[*].image"),
    ],
)
def test_paths_read_as_they_are_written(path, text):
    assert parse_path(text) == path
    if "*" not in path:
        assert spelled(path) == text


def test_property_values_survive_the_wire_with_their_marks():
    given = {
        "a": [1, 2.5, None, True, "x"],
        "s": Secret({"k": "v"}),
        "u": UNKNOWN,
        "f": Asset((("text", "t"),)),
        "e": {},
    }
    assert from_struct(to_struct(given)) == given


def kubeconfig(server: str, user: str = "u") -> str:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": user}}],
        "clusters": [{"name": "k", "cluster": {"server": server}}],
        "users": [{"name": user, "user": {}}],
    }
    return json.dumps(document)


@pytest.mark.parametrize(
    ("olds", "news", "replaces"),
    [
        ({"kubeconfig": kubeconfig("a")}, {"kubeconfig": kubeconfig("a")}, []),
        ({"kubeconfig": kubeconfig("a")}, {"kubeconfig": kubeconfig("b")}, ["kubeconfig"]),
        ({"kubeconfig": kubeconfig("a")}, {"kubeconfig": kubeconfig("a", "other-user")}, []),
        ({"kubeconfig": kubeconfig("a")}, {"kubeconfig": UNKNOWN}, ["kubeconfig"]),
        (
            {"kubeconfig": kubeconfig("a")},
            {"kubeconfig": kubeconfig("b"), "clusterIdentifier": "x"},
            ["kubeconfig"],
        ),
        (
            {"kubeconfig": kubeconfig("a"), "clusterIdentifier": "x"},
            {"kubeconfig": kubeconfig("b"), "clusterIdentifier": "x"},
            [],
        ),
        (
            {"kubeconfig": kubeconfig("a"), "clusterIdentifier": "x"},
            {"kubeconfig": UNKNOWN, "clusterIdentifier": "x"},
            [],
        ),
        ({"clusterIdentifier": "x"}, {"clusterIdentifier": "y"}, ["clusterIdentifier"]),
        ({}, {"clusterIdentifier": "y"}, []),
    ],
)
def test_what_replaces_a_provider_and_so_everything_in_its_cluster(olds, news, replaces, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    assert settings.diff(olds, news)[1] == replaces


@pytest.mark.parametrize("name", ["renderYamlToDirectory", "strictMode", "enablePatchForce"])
def test_what_cannot_be_rehearsed_is_refused_by_name(name):
    assert [refused for refused, _ in settings.refused({name: "true"})] == [name]
    assert settings.refused({name: "false"}) == []
