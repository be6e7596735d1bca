"""`make preflight` of the GPU stack, from nothing: the real commands and the simulated account behind them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rehearsal.paths import CHECKOUT
from tests.rehearsed.conftest import Stack

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("preflight") / ".rehearsal", "gpu")
    stack.configure("llm-platform:cluster", lambda cluster: {**cluster, "accountId": "123456789012"})
    yield stack
    stack.rehearsal.down(force=True)


def preflight(stack: Stack, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The command as `make preflight` runs it."""
    file: Path = stack.paths.root / "cloud" / "settings.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(settings))
    return subprocess.run(
        [sys.executable, "-m", "rehearsal", "preflight", "--stack", stack.name],
        env={**os.environ, "REHEARSAL_DIR": str(stack.paths.root)},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_stands_in_the_way_of_the_gpu_stack_and_the_stand_in_is_the_account_that_it_allows(gpu):
    done = preflight(gpu)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout and "NOT CHECKED" not in done.stdout
    assert "arn:aws:sts::123456789012:assumed-role/rehearsal" in done.stdout
    assert "64 (1 x g6.4xlarge, 1 x g6.12xlarge)" in done.stdout


def test_what_is_missing_in_the_account_is_found_before_anything_is_made(gpu):
    quota = {"metric": "L-DB2E81BA", "region": "us-east-1", "limit": 16}
    done = preflight(gpu, quotas=[quota], aws={"lacks": ["iam:PassRole"]})
    assert done.returncode == 1, done.stdout + done.stderr
    assert "--quota-code L-DB2E81BA --desired-value 64" in done.stdout
    assert "1 of 143 are missing: iam:PassRole" in " ".join(done.stdout.split())
    project = gpu.paths.root / "cloud" / "project.json"
    assert not project.exists() or not any(json.loads(project.read_text())["resources"].values())
