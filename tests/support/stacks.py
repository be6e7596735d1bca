"""Stacks for tests: raw configuration, artifacts that stand in for charts, and a recorded run."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from components.platform.lock import load_lock
from rehearsal.paths import stack_file
from stacks.build import build
from stacks.config import Secrets, StackConfig, config_of, load_config, read_stack_file
from tests.support.recorder import Recording, record

# One definition of each bundle is enough to see how bundles are handled.
DEFINITIONS = {
    "gateway-api": ("gateways", "gateway.networking.k8s.io"),
    "gateway-api-inference-extension": ("inferencepools", "inference.networking.k8s.io"),
}


# The base point of the curve.
KEY_ID = "test-key"
PUBLIC_KEY = {
    "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
    "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
}


def raw_stack(name: str) -> dict[str, Any]:
    """The configuration of a committed stack file, as `load_config` takes it, after `ops keys init`."""
    content, problems = read_stack_file(stack_file(name))
    assert not problems
    raw = copy.deepcopy(dict(config_of(content)))
    if "access" in raw:
        raw["access"]["publicKeys"] = {KEY_ID: PUBLIC_KEY}
    return raw


def make_artifacts(directory: Path) -> Path:
    """An artifacts directory with an empty file for each chart and one definition in each manifest."""
    lock = load_lock()
    for chart in lock.charts.values():
        path = directory / chart.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    for manifest in lock.manifests.values():
        path = directory / manifest.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(definition(*DEFINITIONS[manifest.name])))
    return directory


def definition(plural: str, group: str) -> dict[str, Any]:
    """A custom resource definition with what every one has."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "creationTimestamp": None},
        "spec": {"group": group, "scope": "Namespaced"},
        "status": {"acceptedNames": {}},
    }


def on_artifacts(raw: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The configuration, installing from `directory`."""
    result = copy.deepcopy(dict(raw))
    platform = result.setdefault("platform", {})
    platform["artifacts"] = {"directory": str(directory), "verifyDigests": False}
    return result


def record_stack(
    raw: Mapping[str, Any], directory: Path, secrets: Callable[[], Secrets] = Secrets
) -> Recording:
    """Runs the program of a stack on stand-in artifacts; `secrets` is called inside of the run."""
    return record_build(load_config(on_artifacts(raw, make_artifacts(directory))), directory, secrets)


def record_build(config: StackConfig, directory: Path, secrets: Callable[[], Secrets] = Secrets) -> Recording:
    """Runs the program with a configuration; a kubeconfig is found where kubectl would look."""
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text("")
    with patch.dict(os.environ, KUBECONFIG=str(kubeconfig)):
        return record(lambda: build(config, secrets()))
