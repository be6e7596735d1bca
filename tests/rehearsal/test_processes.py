"""Only the processes that this rehearsal started are ever ended, and all of them are."""

import json
import os
import subprocess
import sys
import time

import pytest

from rehearsal.paths import Paths
from rehearsal.processes import Processes, ProcessFailed

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def processes(tmp_path):
    paths = Paths(tmp_path / "rehearsal")
    paths.create()
    result = Processes(paths)
    yield result
    result.stop_all()


def until(check):
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline, "not within 10 s"
        time.sleep(0.02)


def test_one_of_several_is_ended_and_forgotten(processes):
    for name in ("goes", "stays"):
        processes.start(name, SLEEP)
    processes.stop("goes")
    assert (processes.running("goes"), processes.running("stays")) == (False, True)
    assert processes.names() == ["stays"]
    # What was never there, or is gone, is nothing to end.
    processes.stop("goes")


def test_stop_ends_what_was_started_and_nothing_else(processes):
    bystander = subprocess.Popen(SLEEP)
    try:
        processes.start("sleeper", SLEEP)
        assert processes.running("sleeper")
        processes.stop_all()
        assert not processes.running("sleeper")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_children_of_a_killed_parent_are_still_ended(processes, tmp_path):
    pid_file = tmp_path / "grandchild"
    spawn = (
        "import subprocess, sys, time;"
        f"p = subprocess.Popen({SLEEP!r});"
        f"open({str(pid_file)!r}, 'w').write(str(p.pid));"
        "time.sleep(600)"
    )
    processes.start("parent", [sys.executable, "-c", spawn])
    until(lambda: pid_file.exists() and pid_file.read_text())
    grandchild = int(pid_file.read_text())
    processes._children["parent"].kill()
    assert grandchild in processes.stop_all()


def test_a_recycled_process_id_is_not_taken_for_ours(processes):
    (processes._paths.run / "etcd.json").write_text(json.dumps({"pid": os.getpid()}))
    assert not processes.running("etcd")


def test_another_rehearsals_processes_are_not_ours(processes, tmp_path):
    other = Processes(Paths(tmp_path / "other"))
    other._paths.create()
    other.start("sleeper", SLEEP)
    try:
        processes.stop_all()
        assert other.running("sleeper")
    finally:
        other.stop_all()


def test_a_second_start_of_a_running_process_changes_nothing(processes):
    processes.start("sleeper", SLEEP)
    first = processes._children["sleeper"].pid
    processes.start("sleeper", SLEEP)
    assert processes._children["sleeper"].pid == first


def test_a_stopped_process_is_reported_with_its_last_words(processes):
    processes.start("etcd", [sys.executable, "-c", "import sys; sys.exit('disk is full')"])
    until(lambda: not processes.running("etcd"))
    with pytest.raises(ProcessFailed, match="disk is full"):
        processes.check("etcd")


def test_nothing_of_the_users_environment_reaches_a_process(processes, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/home/user/.kube/config")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "real")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "real")
    seen = tmp_path / "environment"
    processes.start(
        "env", [sys.executable, "-c", f"import os; open({str(seen)!r}, 'w').write(str(dict(os.environ)))"]
    )
    until(lambda: seen.exists() and seen.read_text())
    assert "real" not in seen.read_text() and ".kube/config" not in seen.read_text()
