"""What runs for an image, which faults are in force, and what a container finds on its disk."""

import base64
from pathlib import Path

import pytest

from rehearsal.node import images, nodes, volumes
from rehearsal.node.container import Running
from rehearsal.node.faults import Faults
from rehearsal.node.images import Container, Placement, Program
from rehearsal.node.programs import command, relocated
from rehearsal.node.report import Report


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("vllm/vllm-openai:v0.11.0", "vllm/vllm-openai"),
        ("docker.io/vllm/vllm-openai:v0.11.0", "vllm/vllm-openai"),
        ("mirror.example.com:5000/vllm/vllm-openai@sha256:aa", "vllm/vllm-openai"),
        ("localhost/kserve/llmisvc-controller", "kserve/llmisvc-controller"),
    ],
)
def test_the_registry_host_does_not_decide_what_runs(image, repository):
    assert images.repository(image) == repository


def test_a_mirror_with_a_path_serves_the_same_images():
    assert isinstance(images.find("mirror.example.com/platform/kserve/llmisvc-controller:v0.20.0"), Program)
    assert isinstance(images.find("quay.io/jetstack/cert-manager-controller:v1.21.1"), Container)


def test_an_unknown_image_cannot_be_pulled():
    assert images.find("docker.io/library/nginx:1.27") is None
    assert images.find("evil/not-vllm/vllm-openai-2:v1") is None


def test_programs_listen_on_the_pods_own_address():
    place = Placement("127.10.0.7", lambda port: 40000 + port)
    for image in ("kserve/llmisvc-controller", "kserve/kserve-controller"):
        program = images.IMAGES[image]
        assert isinstance(program, Program)
        flags = program.flags(place)
        assert "--health-probe-addr=127.10.0.7:8081" in flags and "--webhook-port=49443" in flags


def test_a_picker_gets_local_ports_since_it_binds_every_address():
    taken = {}
    program = images.find("ghcr.io/llm-d/llm-d-router-endpoint-picker:v0.9.0")
    flags = program.flags(Placement("127.10.0.7", lambda port: taken.setdefault(port, 40000 + port)))
    assert flags == ["--grpc-port=49002", "--grpc-health-port=49003", "--metrics-port=49090"]
    assert set(taken) == {9002, 9003, 9090}


def test_the_counting_service_is_bound_to_the_pod_whatever_its_container_says(tmp_path):
    program = images.find("envoyproxy/ratelimit:x")
    own = {"DEBUG_HOST": "127.0.0.1", "PROMETHEUS_ADDR": ":9191", "RUNTIME_ROOT": "/data"}
    env = program.env(Placement("127.10.0.7", lambda port: port, tmp_path), own)
    assert [env[n] for n in ("HOST", "GRPC_HOST", "DEBUG_HOST")] == ["127.10.0.7"] * 3
    assert env["PROMETHEUS_ADDR"] == "127.10.0.7:9191" and env["RUNTIME_ROOT"] == f"{tmp_path}/data"


SERVER = Program("server", arguments=("run",), called=("the-server",))


@pytest.mark.parametrize(
    ("program", "container", "result"),
    [
        (SERVER, {}, ["bin/server", "run"]),
        (SERVER, {"args": ["-v"]}, ["bin/server", "run", "-v"]),
        (SERVER, {"command": ["/app/main", "-a"], "args": ["-b"]}, ["bin/server", "run", "-a", "-b"]),
        (SERVER, {"args": ["the-server", "-v"]}, ["bin/server", "run", "-v"]),
        (
            SERVER,
            {"command": ["the-server"], "args": ["the-server.conf"]},
            ["bin/server", "run", "the-server.conf"],
        ),
        (Program("proxy", takes_arguments=False), {"command": ["x", "-a"], "args": ["y"]}, ["bin/proxy"]),
        (Program("server", shell=True), {"command": ["sh", "-c"], "args": ["x"]}, ["sh", "-c", "x"]),
        (Program("server", shell=True), {"args": ["x"]}, ["bin/server", "x"]),
    ],
)
def test_a_containers_command_stands_for_the_entry_point(program, container, result):
    assert command(container, program, lambda name: Path("bin", name)) == result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("--password=$(PASSWORD)", "--password=secret"),
        ("$(PASSWORD)$(PASSWORD)", "secretsecret"),
        ("$$(PASSWORD)", "$(PASSWORD)"),
        ("$(UNKNOWN) $(date) $PASSWORD ${PASSWORD} 5$", "$(UNKNOWN) $(date) $PASSWORD ${PASSWORD} 5$"),
        ("$(PASSWORD", "$(PASSWORD"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text, result):
    assert volumes.expand(text, {"PASSWORD": "secret"}) == result


def test_a_variable_refers_to_those_before_it():
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "C", "value": "3"}]
    found = volumes.environment(
        OneSecret({}), {"metadata": {"namespace": "kserve"}}, {"env": env}, "127.10.0.1"
    )
    assert found == {"A": "1", "B": "1$(C)", "C": "3"}


def test_faults_are_read_at_every_look(tmp_path):
    faults = Faults(tmp_path / "faults.yaml")
    assert faults.image("vllm/vllm-openai:v9", "pull") is None
    faults.file.write_text("images:\n- {match: '*:v9', at: pull, message: gone}\n")
    assert faults.image("vllm/vllm-openai:v9", "pull") == "gone"
    assert faults.image("vllm/vllm-openai:v9", "crash") is None
    assert faults.image("vllm/vllm-openai:v8", "pull") is None


class OneSecret:
    """The API, as far as mounting asks it."""

    def __init__(self, data):
        self.data = data

    def get(self, api_version, kind, name, namespace=None):
        return {"data": self.data} if (kind, name, namespace) == ("Secret", "certificate", "kserve") else None


def pod(secret, optional=False):
    volume = {"name": "cert", "secret": {"secretName": secret, "optional": optional}}
    container = {"name": "manager", "volumeMounts": [{"name": "cert", "mountPath": "/certs"}]}
    return {
        "metadata": {"namespace": "kserve"},
        "spec": {"volumes": [volume], "containers": [container]},
    }, container


def test_a_mounted_secret_is_readable_by_its_owner_only_and_follows_changes(tmp_path):
    kube = OneSecret({"tls.crt": base64.b64encode(b"one").decode()})
    manifest, container = pod("certificate")
    volumes.mount(kube, manifest, container, tmp_path)
    file = tmp_path / "certs" / "tls.crt"
    assert file.read_bytes() == b"one" and file.stat().st_mode & 0o777 == 0o600
    kube.data = {"tls.crt": base64.b64encode(b"two").decode()}
    volumes.mount(kube, manifest, container, tmp_path)
    assert file.read_bytes() == b"two"


def encoded(**files):
    return {name.replace("_", "."): base64.b64encode(text.encode()).decode() for name, text in files.items()}


def test_a_volume_changes_as_a_whole_and_by_the_swap_of_one_link(tmp_path):
    kube = OneSecret(encoded(tls_crt="one", ca_crt="one"))
    manifest, container = pod("certificate")
    volumes.mount(kube, manifest, container, tmp_path)
    directory = tmp_path / "certs"
    before = (directory / "..data").readlink()
    volumes.mount(kube, manifest, container, tmp_path)
    assert (directory / "..data").readlink() == before
    kube.data = encoded(tls_crt="two", tls_key="two")
    volumes.mount(kube, manifest, container, tmp_path)
    assert (directory / "..data").readlink() != before
    seen = {f.name: f.read_text() for f in directory.iterdir() if not f.name.startswith("..")}
    assert seen == {"tls.crt": "two", "tls.key": "two"}
    # What is no longer shown is not kept either.
    assert sorted(f.name for f in directory.glob("..*")) == sorted(
        ["..data", str((directory / "..data").readlink())]
    )


def test_a_rewritten_file_stays_rewritten_when_the_volume_is_looked_at_again(tmp_path):
    kube = OneSecret(encoded(config_yaml="port: 80"))
    manifest, container = pod("certificate")
    for _ in range(2):
        volumes.mount(kube, manifest, container, tmp_path, lambda name, data: data + name.encode())
        assert (tmp_path / "certs" / "config.yaml").read_text() == "port: 80config.yaml"


def test_a_missing_secret_holds_the_container_back_unless_it_is_optional(tmp_path):
    manifest, container = pod("absent")
    with pytest.raises(volumes.NotMountable, match='secret "absent" not found'):
        volumes.mount(OneSecret({}), manifest, container, tmp_path)
    manifest, container = pod("absent", optional=True)
    assert volumes.mount(OneSecret({}), manifest, container, tmp_path) == {"/certs": []}


@pytest.mark.parametrize(
    ("argument", "result"),
    [
        ("--config=/etc/app/config.yaml", "--config={root}/etc/app/config.yaml"),
        (
            "serve --cert /etc/app/tls.crt --key /etc/app/tls.key",
            "serve --cert {root}/etc/app/tls.crt --key {root}/etc/app/tls.key",
        ),
        ("/etc/app/config.yaml", "{root}/etc/app/config.yaml"),
        ("/etc/app:/etc/other:/etc/app", "{root}/etc/app:/etc/other:{root}/etc/app"),
        ("/opt/etc/app/config.yaml", "/opt/etc/app/config.yaml"),
        ("--config=/etc/application.yaml", "--config=/etc/application.yaml"),
        ("--models=/mnt/models", "--models=/mnt/models"),
    ],
)
def test_only_paths_of_mounted_files_are_relocated(argument, result, tmp_path):
    mounted = {"/etc/app": [tmp_path / "etc/app/config.yaml"], "/mnt/models": []}
    assert relocated(argument, mounted, tmp_path) == result.format(root=tmp_path)


class Writes:
    """The API, as far as reports write to it."""

    def __init__(self):
        self.statuses = []

    def patch(self, api_version, kind, name, namespace, body, **_):
        self.statuses.append(body["status"])


def test_a_status_is_written_once_and_keeps_the_time_of_its_last_change():
    api = Writes()
    manifest = {"metadata": {"name": "pod", "namespace": "models"}, "spec": {"containers": []}}
    report, main = Report(api, manifest, "127.10.0.1"), Running({"name": "main", "image": "x"})
    for ready in (False, False, True):
        main.ready = ready
        report.pod("Running", [], [main])
    first, second = api.statuses
    since = [{c["type"]: c["lastTransitionTime"] for c in s["conditions"]} for s in (first, second)]
    assert since[0]["PodScheduled"] == since[1]["PodScheduled"]
    assert [c["status"] for c in second["conditions"] if c["type"] == "Ready"] == ["True"]
    assert first["startTime"] == second["startTime"] and second["podIP"] == "127.10.0.1"


class Nodes:
    """The API, as far as nodes' endpoints are written to it."""

    def __init__(self):
        self.patched = {}

    def patch(self, api_version, kind, name, namespace, body, **_):
        self.patched[name] = body["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]


def test_nodes_tell_where_their_kubelet_answers_and_only_when_it_moved():
    api = Nodes()
    current = {"daemonEndpoints": {"kubeletEndpoint": {"Port": 4000}}}
    known = [
        {"metadata": {"name": "new"}, "status": {}},
        {"metadata": {"name": "told"}, "status": current},
    ]
    nodes.announce(api, known, 4000)
    assert api.patched == {"new": 4000}
