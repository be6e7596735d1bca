"""The simulated plugins start in a rehearsal and nowhere else, and talk to no other API server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rehearsal.paths import CHECKOUT
from rehearsal.providers.guard import OutsideRehearsal, require_own_cluster, require_rehearsal

OURS = ("https://127.0.0.1:6443", b"our CA")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a rehearsal."""
    home = tmp_path / "home"
    home.mkdir()
    return {
        "LLMP_REHEARSAL": str(tmp_path),
        "HOME": str(home),
        "PULUMI_BACKEND_URL": f"file://{tmp_path}/state",
    }


def start(plugin: str, environ: dict[str, str]) -> subprocess.Popen[str]:
    everything = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), **environ}
    argv = [sys.executable, "-m", f"rehearsal.providers.{plugin}", "127.0.0.1:1"]
    return subprocess.Popen(argv, env=everything, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("plugin", ["kubernetes", "random"])
def test_a_plugin_starts_in_a_rehearsal_and_prints_its_port(plugin, environ):
    with start(plugin, environ) as process:
        assert int(process.stdout.readline()) > 0
        process.terminate()


@pytest.mark.parametrize("plugin", ["kubernetes", "random"])
def test_a_plugin_outside_a_rehearsal_says_so_and_ends(plugin, environ):
    with start(plugin, {"HOME": environ["HOME"]}) as process:
        out, problems = process.communicate(timeout=30)
    assert process.returncode == 1 and out == ""
    assert "refuses to start" in problems and "LLMP_REHEARSAL is not set" in problems


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLMP_REHEARSAL", ""),
        ("LLMP_REHEARSAL", "relative/path"),
        ("LLMP_REHEARSAL", "/no/such/directory"),
        ("HOME", ""),
        ("HOME", "/home/somebody"),
        ("PULUMI_BACKEND_URL", ""),
        ("PULUMI_BACKEND_URL", "https://api.pulumi.com"),
        ("PULUMI_BACKEND_URL", "s3://bucket/state"),
        ("PULUMI_BACKEND_URL", "file:///home/somebody/state"),
        ("PULUMI_BACKEND_URL", "file://~"),
    ],
)
def test_every_sign_of_somewhere_else_is_refused_by_name(environ, name, value):
    with pytest.raises(OutsideRehearsal, match=name):
        require_rehearsal({**environ, name: value})


def test_a_way_out_of_the_directory_is_no_way(environ, tmp_path):
    outside = f"file://{tmp_path}/../elsewhere"
    with pytest.raises(OutsideRehearsal, match="PULUMI_BACKEND_URL"):
        require_rehearsal({**environ, "PULUMI_BACKEND_URL": outside})
    link = tmp_path / "link"
    link.symlink_to("/")
    with pytest.raises(OutsideRehearsal, match="HOME"):
        require_rehearsal({**environ, "HOME": str(link)})


def test_only_the_rehearsals_own_api_server_will_do():
    require_own_cluster(OURS, *OURS)
    for server, authority in (
        ("https://127.0.0.1:6444", b"our CA"),
        ("https://127.0.0.1:6443", b"another CA"),
        ("https://10.0.0.1:6443", b"our CA"),
        ("https://cluster.example.com", b"our CA"),
    ):
        with pytest.raises(OutsideRehearsal, match="API server"):
            require_own_cluster(OURS, server, authority)


def test_an_own_api_server_that_is_not_on_this_machine_is_refused_too():
    with pytest.raises(OutsideRehearsal, match="not on this machine"):
        require_own_cluster(("https://10.0.0.1:6443", b"CA"), "https://10.0.0.1:6443", b"CA")
