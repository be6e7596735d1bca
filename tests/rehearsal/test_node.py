"""What runs for an image, which faults are in force, and what a container finds on its disk."""

import base64

import pytest

from rehearsal.node import images, volumes
from rehearsal.node.faults import Faults
from rehearsal.node.images import Container, Placement, Program
from rehearsal.node.programs import relocated
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
    report = Report(api, manifest, "127.10.0.1")
    for ready in (False, False, True):
        report.containers("Running", [], ready)
    first, second = api.statuses
    since = [{c["type"]: c["lastTransitionTime"] for c in s["conditions"]} for s in (first, second)]
    assert since[0]["PodScheduled"] == since[1]["PodScheduled"]
    assert [c["status"] for c in second["conditions"] if c["type"] == "Ready"] == ["True"]
    assert first["startTime"] == second["startTime"] and second["podIP"] == "127.10.0.1"
