"""Simulated hosts of a TPU slice, started by the scripts of our own preset: they join, serve together, and end together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.serving.manifests import preset
from rehearsal import engine
from rehearsal.model_server.slices import BadSlice, place
from rehearsal.node.images import IMPORTABLE
from rehearsal.paths import Paths

HOSTS = {"set-0": "127.250.77.1", "set-0-1": "127.250.77.2"}
NAMES = ",".join(f"{name}.set" for name in HOSTS)
FILLED = {
    "{{ .Spec.Model.Name }}": "large",
    "{{ .ObjectMeta.Namespace }}": "models",
    "{{ .Spec.Parallelism.Tensor }}": "8",
    "{{ shutdownTimeout .Spec.Template 15 }}": "1",
    "{{ if .GlobalConfig.EnableTLS }}--enable-ssl-refresh": "",
    f"--ssl-certfile={preset.TLS_PATH}/tls.crt --ssl-keyfile={preset.TLS_PATH}/tls.key{{{{ end }}}}": "",
}


def eventually(check: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Slice:
    """Pods of one group, without a cluster."""

    def __init__(self, directory: Path):
        self._paths = Paths(directory)
        self._paths.create()
        engine.install_commands(self._paths)
        self._begun: list[subprocess.Popen[bytes]] = []

    def start(self, pod: str, script: str, **changes: str) -> subprocess.Popen[bytes]:
        """Run a pod's script, with what LeaderWorkerSet gives it, in a process group of its own."""
        for template, value in FILLED.items():
            script = script.replace(template, value)
        own = {
            "PATH": f"{self._paths.bin}:/usr/bin:/bin",
            "PYTHONPATH": str(IMPORTABLE),
            "POD_IP": HOSTS[pod],
            "REHEARSAL_ADDRESS": HOSTS[pod],
            "REHEARSAL_POD": f"models/{pod}",
            "REHEARSAL_LOAD_SECONDS": "0",
            "LWS_LEADER_ADDRESS": HOSTS["set-0"],
            "LWS_GROUP_SIZE": "2",
            "TPU_WORKER_HOSTNAMES": NAMES,
            "TPU_WORKER_ID": str(list(HOSTS).index(pod)),
            "TPU_MULTIHOST_BACKEND": "ray",
            preset.CHIPS_VARIABLE: "4",
            **changes,
        }
        process = subprocess.Popen(["bash", "-c", script, "--"], env=own, start_new_session=True)
        self._begun.append(process)
        return process

    def end(self) -> None:
        for process in self._begun:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def slice_(tmp_path: Path) -> Iterator[Slice]:
    made = Slice(tmp_path / "rehearsal")
    yield made
    made.end()


def listens(port: int) -> bool:
    """Whether the leader has opened a port."""
    with socket.socket() as connection:
        return connection.connect_ex((HOSTS["set-0"], port)) == 0


def serves() -> bool:
    """Whether the leader's server answers."""
    try:
        with urllib.request.urlopen(f"http://{HOSTS['set-0']}:8000/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def test_the_leader_serves_once_all_have_joined_and_ends_when_one_is_lost(slice_: Slice) -> None:
    # The worker comes first, and waits for its leader.
    worker = slice_.start("set-0-1", preset.WORKER)
    leader = slice_.start("set-0", preset.LEADER)
    eventually(serves, "the leader serves")
    assert worker.poll() is None
    os.killpg(worker.pid, signal.SIGKILL)
    assert leader.wait(timeout=30) == 1
    assert not serves()


def test_the_leader_waits_for_its_workers_and_a_worker_ends_with_its_leader(slice_: Slice) -> None:
    leader = slice_.start("set-0", preset.LEADER)
    eventually(lambda: listens(preset.RAY_PORT), "the leader's Ray")
    assert not serves() and leader.poll() is None
    worker = slice_.start("set-0-1", preset.WORKER)
    eventually(serves, "the leader serves")
    leader.kill()
    # The head ends as a container's processes do, with the first of them.
    assert worker.wait(timeout=30) == 1


def test_a_worker_that_does_not_know_its_slice_never_joins(slice_: Slice) -> None:
    leader = slice_.start("set-0", preset.LEADER)
    worker = slice_.start("set-0-1", preset.WORKER, TPU_WORKER_HOSTNAMES="")
    assert worker.wait(timeout=30) == 1
    assert leader.poll() is None and not serves()


def test_too_few_chips_for_the_model_are_refused_as_by_the_engine(slice_: Slice) -> None:
    slice_.start("set-0-1", preset.WORKER, **{preset.CHIPS_VARIABLE: "2"})
    assert slice_.start("set-0", preset.LEADER).wait(timeout=30) == 1


TOLD = {
    "LWS_GROUP_SIZE": "2",
    "TPU_WORKER_HOSTNAMES": NAMES,
    "TPU_WORKER_ID": "1",
    "REHEARSAL_POD": "models/set-0-1",
}


def test_a_host_finds_its_place_in_the_slice() -> None:
    assert place(TOLD) == 1
    assert place({**TOLD, "TPU_WORKER_ID": "0", "REHEARSAL_POD": "models/set-0"}) == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"TPU_WORKER_HOSTNAMES": ""}, "is not set"),
        ({"TPU_WORKER_HOSTNAMES": "set-0.set"}, "names 1 hosts, but the group has 2"),
        ({"TPU_WORKER_ID": ""}, "is not set"),
        ({"TPU_WORKER_ID": "one"}, "not a number"),
        ({"TPU_WORKER_ID": "0"}, "is not number 0"),
        ({"TPU_WORKER_ID": "2"}, "is not number 2"),
    ],
)
def test_a_host_that_is_told_something_wrong_does_not_start(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(BadSlice, match=said):
        place({**TOLD, **wrong})
