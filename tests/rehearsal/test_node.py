"""What runs for an image, which faults are in force, and what a container finds on its disk."""

import base64

import pytest

from rehearsal.node import images, volumes
from rehearsal.node.faults import Faults
from rehearsal.node.images import Container, Placement, Program


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
