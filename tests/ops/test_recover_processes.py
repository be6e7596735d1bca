"""Locks, and the processes behind them."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ops.errors import OpsError
from ops.recover import locks, processes

PAST, FUTURE = "2000-01-01T00:00:00.123456789Z", "2999-01-01T00:00:00+01:00"


@pytest.fixture
def ended() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_process_that_has_ended_does_not_run(ended):
    assert not processes.is_running(ended, FUTURE)


def test_a_process_that_began_after_the_lock_only_has_its_number():
    assert processes.is_running(os.getpid(), FUTURE)
    assert not processes.is_running(os.getpid(), PAST)


def test_a_process_that_waits_to_be_collected_does_not_run():
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.is_running(process.pid, FUTURE)
    process.wait()


@pytest.fixture
def start(tmp_path):
    """Starts a copy of `sleep` under a name, in the environment that engines give their providers."""
    begun = []

    def run(name: str, project: str, **more: str) -> int:
        shutil.copy(shutil.which("sleep"), tmp_path / name)
        environment = {"PULUMI_PROJECT": project, "PULUMI_CONFIG": "{}", **more}
        begun.append(subprocess.Popen([tmp_path / name, "60"], env=environment))
        return begun[-1].pid

    yield run
    for process in begun:
        process.kill()
        process.wait()


def test_a_pulumi_of_that_number_may_hold_the_lock_whenever_it_began(start):
    assert processes.is_running(start("pulumi", "x"), PAST)


def test_providers_whose_engine_is_gone_are_found(start):
    pid = start("pulumi-resource-x", "recovered")
    start("pulumi-resource-y", "another")
    assert processes.orphans("recovered", patience=0) == (pid,)


def test_providers_of_another_backend_are_left_out(start, monkeypatch):
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///mine")
    start("pulumi-resource-x", "recovered", PULUMI_BACKEND_URL="file:///theirs")
    assert processes.orphans("recovered", patience=0) == ()


NESTED = """
import subprocess, sys
command = sys.argv[1:]
with subprocess.Popen(command) as child:
    print(child.pid, flush=True)
    sys.stdin.read()
    child.kill()
"""


def test_providers_of_a_living_engine_and_what_they_run_are_not_orphans(tmp_path):
    engine = tmp_path / "pulumi"
    engine.symlink_to(sys.executable)
    environment = {"PULUMI_PROJECT": "busy", "PULUMI_CONFIG": "{}", "PATH": os.environ["PATH"]}
    command = [engine, "-c", NESTED, sys.executable, "-c", NESTED, "sleep", "60"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        below = {int(process.stdout.readline()) for _ in range(2)}
        assert below.isdisjoint(processes.orphans("busy", patience=0))
        process.stdin.close()


class Backend:
    """As much of `ops.pulumi.Pulumi` as reading locks needs."""

    stack, project = "dev", "llm-platform"

    def __init__(self, backend: str, said: str = "", listed: str = "[]"):
        self.backend, self._said, self._listed = backend, said, listed

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, 255, "", self._said)

    def call(self, *arguments: str) -> str:
        return self._listed


def held_by(pid: int, **fields) -> dict:
    """A lock as the CLI writes it."""
    mine = {"username": getpass.getuser(), "hostname": socket.gethostname()}
    return {"pid": pid, **mine, "timestamp": datetime.now(UTC).isoformat(), **fields}


def write(state: Path, content: str, stack: str = "organization/llm-platform/dev") -> Path:
    file = state / ".pulumi/locks" / stack / "a1.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


@pytest.mark.parametrize("stack", ["organization/llm-platform/dev", "dev"])
def test_only_a_lock_of_ones_own_whose_process_has_ended_is_stale(tmp_path, ended, stack):
    backend = Backend(f"file://{tmp_path}?no_tmp_dir=true")
    for lock, stale in (
        (held_by(ended), True),
        (held_by(os.getpid(), timestamp=FUTURE), False),
        (held_by(ended, hostname="elsewhere"), False),
        (held_by(ended, username="somebody"), False),
    ):
        file = write(tmp_path, json.dumps(lock), stack)
        (found,) = locks.read(backend)
        assert (found.stale, found.where, found.pid) == (stale, str(file), lock["pid"])


def test_locks_of_other_stacks_are_not_looked_at(tmp_path, ended):
    for other in (
        "organization/llm-platform/tpu",
        "organization/another/dev",
        "organization/llm-platform/dev/deeper",
    ):
        write(tmp_path, json.dumps(held_by(ended)), other)
    assert locks.read(Backend(f"file://{tmp_path}")) == ()


def test_a_lock_that_cannot_be_read_is_not_taken_for_stale(tmp_path):
    write(tmp_path, "{")
    with pytest.raises(OpsError, match="pulumi cancel"):
        locks.read(Backend(f"file://{tmp_path}"))


def test_locks_in_a_bucket_are_read_from_the_refusal_of_the_cli(ended):
    here = f"{getpass.getuser()}@{socket.gethostname()}"
    said = f"""error: could not create stack: the stack is currently locked by 2 lock(s). Either wait …
  s3://state/.pulumi/locks/x/a.json: created by {here} (pid {ended}) at 2026-11-21T13:00:00Z
  s3://state/.pulumi/locks/x/b.json: created by DOMAIN\\me@x@elsewhere (pid 7) at 2026-11-21T13:00:00Z
"""
    mine, theirs = locks.read(Backend("s3://state", said))
    assert (mine.stale, theirs.stale) == (True, False)
    assert (theirs.username, theirs.hostname, theirs.pid) == ("DOMAIN\\me@x", "elsewhere", 7)
    free = "error: stack 'organization/llm-platform/dev' already exists"
    assert locks.read(Backend("gs://state", free)) == ()


@pytest.mark.parametrize(("busy", "count"), [(True, 1), (False, 0)])
def test_the_service_says_itself_whether_an_update_is_in_progress(busy, count):
    stacks = [{"name": "acme/dev", "updateInProgress": busy}, {"name": "tpu", "updateInProgress": True}]
    found = locks.read(Backend("https://app.pulumi.com/acme", listed=json.dumps(stacks)))
    assert [lock.stale for lock in found] == [False] * count
