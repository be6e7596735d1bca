"""The proxy's entry point waits for its own configuration, and says what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rehearsal.gateway.proxy import NoEnvoy, command, configuration, ready
from rehearsal.gateway.translate import Proxy as Pod
from rehearsal.gateway.translate import bootstrap
from tests.rehearsal_gateway import example
from tests.rehearsal_gateway.servers import CHECKOUT

ADDRESS = "127.0.0.1"


def environment(root: Path, **more: str) -> dict[str, str]:
    return {"REHEARSAL_ADDRESS": ADDRESS, "LLMP_REHEARSAL_PROCESS": str(root), **more}


def test_a_pod_waits_for_a_configuration_that_names_it(tmp_path: Path) -> None:
    own = environment(tmp_path, POD_NAME="mine", POD_NAMESPACE=example.HOME)
    file, owner = configuration(own)
    assert not ready(file, owner)
    file.parent.mkdir(parents=True)
    for name, expected in (("former", False), ("mine", True)):
        pod = example.gateway_pod(ADDRESS, name)
        file.write_text(json.dumps(bootstrap(Pod(example.gateway(), pod, ADDRESS, file.parent))))
        assert ready(file, owner) is expected


def test_where_no_pod_is_named_any_configuration_at_the_address_will_do(tmp_path: Path) -> None:
    file, owner = configuration(environment(tmp_path))
    assert owner is None
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"node": {"id": "anyone"}}))
    assert ready(file, owner)


def test_envoy_is_started_without_what_needs_shared_memory(tmp_path: Path) -> None:
    envoy = tmp_path / "envoy"
    envoy.touch(0o755)
    arguments = command(tmp_path / "bootstrap.json", {"PATH": str(tmp_path)})
    assert arguments[:3] == [str(envoy), "-c", str(tmp_path / "bootstrap.json")]
    assert "--disable-hot-restart" in arguments


def test_a_missing_envoy_is_said_at_once_with_what_installs_it(tmp_path: Path) -> None:
    with pytest.raises(NoEnvoy, match="make"):
        command(tmp_path, {"PATH": str(tmp_path)})
    said = subprocess.run(
        [sys.executable, "-m", "rehearsal.gateway"],
        env=environment(tmp_path, PATH=str(tmp_path), PYTHONPATH=str(CHECKOUT)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert said.returncode == 1 and said.stderr.startswith("error: envoy is not on the search path")
