"""What is refused before the first resource exists."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.platform.artifacts import ArtifactError
from stacks.build import build
from stacks.config import ConfigError, Secrets, load_config
from tests.support.recorder import record
from tests.support.stacks import make_artifacts, on_artifacts, raw_stack, record_build, record_stack

TLS_LISTENER = {
    "exposure": "public",
    "host": "llm.example.com",
    "tls": {"issuer": "letsencrypt", "email": "a@example.com"},
}


def dev(**changes: Any) -> dict[str, Any]:
    """The dev stack's raw configuration with other top-level keys."""
    return {**copy.deepcopy(raw_stack("dev")), **changes}


def opaque_keys() -> dict[str, Any]:
    raw = dev()
    raw["access"]["keys"] = "opaque"
    return raw


def without_public_keys() -> dict[str, Any]:
    raw = dev()
    del raw["access"]["publicKeys"]
    return raw


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (opaque_keys(), "no component for opaque keys yet"),
        (without_public_keys(), "ops keys init --stack test"),
        (
            dev(power="schedule", schedule={"timezone": "UTC", "awake": ["Mon-Fri 08:00-20:00"]}),
            "does not follow a schedule yet",
        ),
    ],
    ids=["opaque", "no signing key", "schedule"],
)
def test_what_this_release_cannot_build_is_said_and_not_ignored(
    raw: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said) as refusal:
        record_stack(raw, tmp_path)
    assert all(problem.fix for problem in refusal.value.problems)


def test_missing_charts_are_all_named_before_the_first_resource(tmp_path: Path) -> None:
    config = load_config(on_artifacts(dev(), make_artifacts(tmp_path)))
    shutil.rmtree(tmp_path / "charts")
    with pytest.raises(ArtifactError) as refusal:
        record_build(config, tmp_path)
    for name in ("cert-manager", "istiod", "kserve-llmisvc-resources", "lws"):
        assert name in str(refusal.value)


def test_a_missing_kubeconfig_warns_in_a_preview_and_stops_an_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    config = load_config(on_artifacts(dev(), make_artifacts(tmp_path)))
    with pytest.raises(ConfigError, match="absent does not exist"):
        record(lambda: build(config, Secrets()))
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    assert record(lambda: build(config, Secrets())).objects
    assert len(warnings) == 1 and "`up` will refuse" in warnings[0]
