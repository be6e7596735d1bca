"""The simulated project's file, the machine catalogue, the stand-in of Google's exec plugin, and the guard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from rehearsal.cloud import auth_plugin, aws_cli, machines
from rehearsal.cloud.pools import Pool
from rehearsal.cloud.project import Project
from rehearsal.cloud.settings import Settings
from rehearsal.cluster import certificates
from rehearsal.node.shapes import shapes
from rehearsal.paths import CHECKOUT
from rehearsal.providers.guard import OutsideRehearsal
from stacks.config import load_stack_file

SERVER = "https://127.0.0.1:6443"


def test_changes_of_many_writers_all_arrive(tmp_path):
    project = Project.of(tmp_path)

    def count(name: str) -> None:
        for _ in range(20):
            with project.change() as state:
                record = state.of("kind").setdefault("id", {})
                record["n"] = record.get("n", 0) + 1

    writers = [threading.Thread(target=count, args=(str(i),)) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert project.read().of("kind")["id"]["n"] == 80


def test_a_change_that_fails_changes_nothing(tmp_path):
    project = Project.of(tmp_path)
    with project.change() as state:
        state.of("kind")["kept"] = {}
    with pytest.raises(ZeroDivisionError), project.change() as state:
        state.of("kind")["lost"] = {"size": 1 // 0}
    assert project.read().of("kind").keys() == {"kept"}


def test_nobody_else_may_read_the_project(tmp_path):
    project = Project.of(tmp_path)
    with project.change():
        pass
    assert (project.directory / "project.json").stat().st_mode & 0o077 == 0


def test_settings_are_read_at_every_look(tmp_path):
    settings = Settings.of(tmp_path)
    assert settings.seconds("container/nodePool") == 0
    settings.file.parent.mkdir()
    settings.file.write_text("operations: {container/nodePool: 2}")
    assert settings.seconds("container/nodePool") == 2


@pytest.mark.parametrize(
    ("name", "vcpus", "chips"),
    [("ct6e-standard-4t", 180, 4), ("n1-standard-4", 4, 0), ("e2-medium", 2, 0), ("n2-highmem-16", 16, 0)],
)
def test_machine_types_say_their_size(name, vcpus, chips):
    machine = machines.find(name)
    assert machine is not None and (machine.vcpus, machine.chips) == (vcpus, chips)


@pytest.mark.parametrize(
    "name", ["", "n1-standard", "n1-standard-x", "n1-standard-0", "m9-standard-4", "ct6e-standard-2t"]
)
def test_machine_types_that_are_none(name):
    assert machines.find(name) is None


def test_n1_is_missing_where_google_does_not_have_it():
    n1, e2 = machines.find("n1-standard-4"), machines.find("e2-standard-4")
    assert n1 is not None and e2 is not None
    assert not machines.catalogued(n1, "us-south1-a") and machines.catalogued(n1, "europe-west4-a")
    assert machines.catalogued(e2, "us-south1-a")


def test_names_of_nodes_are_all_different_and_fit():
    pool = Pool.of(
        "projects/p/locations/us-east1-d/clusters/" + "c" * 40 + "/nodePools/" + "n" * 40,
        {"inputs": {"nodeConfig": {"machineType": "ct6e-standard-4t"}}, "size": 0},
        {"inputs": {}, "outputs": {}},
    )
    names = pool.node_names(1000)
    assert len(set(names)) == 1000 and max(map(len, names)) <= 63
    assert pool.node_names(3) == names[:3]


@pytest.mark.parametrize("stack", ["tpu", "gpu"])
def test_a_cluster_that_the_stack_makes_has_no_nodes_before(stack):
    assert shapes(load_stack_file(CHECKOUT / f"Pulumi.{stack}.yaml")) == []


# -- the exec plugin ---------------------------------------------------------------------------------


@pytest.fixture
def environ(tmp_path):
    """The environment of a rehearsal with a control plane."""
    for name in ("home", "cluster"):
        (tmp_path / name).mkdir()
    ca = certificates.authority("rehearsal")
    user = certificates.issue(ca, "somebody")
    path = tmp_path / "cluster" / "kubeconfig"
    certificates.write_kubeconfig(path, SERVER, ca.certificate, certificates.client(user), ("rehearsal",))
    return {
        "LLMP_REHEARSAL": str(tmp_path),
        "HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"file://{tmp_path}/state",
        "user": user,
    }


def exec_info(**cluster: str) -> str:
    version = "client.authentication.k8s.io/v1"
    return json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": {"cluster": cluster}})


def test_the_exec_plugin_gives_the_client_certificate_of_the_rehearsal(environ):
    status = auth_plugin.credential(environ)["status"]
    assert status["clientCertificateData"].encode() == environ["user"].certificate
    assert status["clientKeyData"].encode() == environ["user"].key


def test_it_answers_in_the_version_that_it_is_asked_in_and_for_a_kubeconfig_without_authority(environ):
    answer = auth_plugin.credential({**environ, "KUBERNETES_EXEC_INFO": exec_info(server=SERVER)})
    assert answer["apiVersion"] == "client.authentication.k8s.io/v1"


@pytest.mark.parametrize("server", ["https://gke-0123.europe-west4.gke.goog", "https://127.0.0.1:6444"])
def test_it_gives_nothing_for_another_api_server(environ, server):
    with pytest.raises(OutsideRehearsal, match="API server"):
        auth_plugin.credential({**environ, "KUBERNETES_EXEC_INFO": exec_info(server=server)})


@pytest.mark.parametrize("missing", ["LLMP_REHEARSAL", "HOME", "PULUMI_BACKEND_URL"])
def test_it_refuses_outside_a_rehearsal(environ, missing):
    with pytest.raises(OutsideRehearsal, match=missing):
        auth_plugin.credential({**environ, missing: ""})


def test_it_says_that_nothing_runs(environ, tmp_path):
    (tmp_path / "cluster" / "kubeconfig").unlink()
    with pytest.raises(OutsideRehearsal, match="no control plane running"):
        auth_plugin.credential(environ)


def run(module: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    everything = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), **environ}
    argv = [sys.executable, "-m", module, "127.0.0.1:1"]
    return subprocess.run(argv, check=False, env=everything, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_amazons_command_gives_a_token_for_a_cluster_of_the_account_only(environ, tmp_path, region):
    access = {"bootstrapClusterCreatorAdminPermissions": True}
    record = {"inputs": {}, "outputs": {"region": "us-east-1", "accessConfig": access}, "created": 0}
    with Project.of(tmp_path).change() as state:
        state.of("eks/cluster")["c"] = record
    command = ["eks", "get-token", "--cluster-name", "c", "--region", region, "--output", "json"]
    if region == "us-east-1":
        answer = json.loads(aws_cli.answer(command, environ))
        assert answer["status"] == auth_plugin.credential(environ)["status"]
    else:
        with pytest.raises(OutsideRehearsal, match="the simulated account has no cluster 'c' in eu-west-1"):
            aws_cli.answer(command, environ)


def test_whoever_created_a_cluster_and_has_no_entry_gets_nothing(environ, tmp_path):
    access = {"bootstrapClusterCreatorAdminPermissions": False}
    record = {"inputs": {}, "outputs": {"region": "us-east-1", "accessConfig": access}, "created": 0}
    with Project.of(tmp_path).change() as state:
        state.of("eks/cluster")["c"] = record
    with pytest.raises(OutsideRehearsal, match="Unauthorized"):
        aws_cli.answer(["eks", "get-token", "--cluster-name", "c", "--region", "us-east-1"], environ)


@pytest.mark.parametrize(
    "module",
    [
        "rehearsal.cloud.auth_plugin",
        "rehearsal.cloud.aws_cli",
        "rehearsal.providers.aws",
        "rehearsal.providers.gcp",
    ],
)
def test_outside_a_rehearsal_a_sentence_and_nothing_else(module, tmp_path):
    done = run(module, {"HOME": str(tmp_path)})
    assert done.returncode == 1 and done.stdout == ""
    assert "refuses" in done.stderr and "LLMP_REHEARSAL is not set" in done.stderr


def test_the_plugin_starts_in_a_rehearsal_and_prints_its_port(environ):
    everything = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)}
    everything |= {name: value for name, value in environ.items() if isinstance(value, str)}
    argv = [sys.executable, "-m", "rehearsal.providers.gcp", "127.0.0.1:1"]
    with subprocess.Popen(argv, env=everything, stdout=subprocess.PIPE, text=True) as process:
        assert int(process.stdout.readline()) > 0
        process.terminate()
