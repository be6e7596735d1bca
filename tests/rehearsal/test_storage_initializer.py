"""A job that fills a claim on a simulated node: the product's own program, with simulated downloads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.clusters.eks import amazon
from components.core import naming
from components.serving.manifests.fill import PROGRAM, FillSpec, fill
from components.serving.manifests.storage import ACCESS_KEY, SECRET_KEY, Store
from rehearsal import engine
from rehearsal.cloud import aws_roles
from rehearsal.cloud.node_groups import ADDON, CLUSTER
from rehearsal.cloud.project import Project, State
from rehearsal.cloud.settings import Settings
from rehearsal.model_server.settings import parse
from rehearsal.model_server.startup import StartUp
from rehearsal.storage_initializer import weights
from tests.support.simulated_node import SPACE, Node, eventually

SOURCE = "hf://acme/model"
FILLER = naming.filler("qwen")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    place = tmp_path / "rehearsal"
    result = Node(place, lambda name: place / "bin" / name)
    engine.install_commands(result.paths)
    result.api.add("PersistentVolumeClaim", "weights", status={"phase": "Bound"}, spec={"volumeName": "disk"})
    yield result
    result.close()


def start(node: Node, name: str = "fill", **change: Any) -> None:
    """The pod of the job that the product makes."""
    spec = FillSpec(
        **{"model": "qwen", "namespace": SPACE, "claim": "weights", "path": "fp16", "source": SOURCE,
           "include": (), "exclude": ("consolidated*",), "image": "kserve/storage-initializer:v0.20.0",
           "budget_seconds": 600, **change}
    )  # fmt: skip
    made = dict(fill(spec))
    node.api.add("ConfigMap", "qwen-fill", data={PROGRAM.name: PROGRAM.read_text()})
    pod = made["job"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    node.api.start(
        name, {"app": "fill"}, container, restartPolicy="Never", volumes=pod["volumes"],
        serviceAccountName=pod["serviceAccountName"],
    )  # fmt: skip


def settings(node: Node, **content: Any) -> None:
    """Put settings of the rehearsal into force."""
    file = Settings.of(node.paths.root).file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))


def ended(node: Node, name: str = "fill") -> tuple[str, dict[str, Any]]:
    """The phase, and how the container ended."""
    status = eventually(
        lambda: (found := node.api.status(name)).get("phase") in ("Succeeded", "Failed") and found, "an end"
    )
    return status["phase"], status["containerStatuses"][0]["state"]["terminated"]


def disk(node: Node) -> Path:
    return node.paths.root / "volumes" / "disk" / "fp16"


def test_the_claim_is_filled_with_one_set(node: Node) -> None:
    start(node)
    assert ended(node)[0] == "Succeeded"
    names = {file.name for file in disk(node).iterdir()}
    assert "model-00001-of-00010.safetensors" in names and "consolidated.safetensors" not in names


def test_the_second_job_finds_it(node: Node) -> None:
    start(node)
    ended(node)
    (disk(node) / "config.json").write_text("as it was")
    start(node, "again")
    assert ended(node, "again")[0] == "Succeeded"
    assert (disk(node) / "config.json").read_text() == "as it was"


def test_a_gated_repository_refuses_whoever_has_no_token_in_its_last_words(node: Node) -> None:
    settings(node, web={"models": [{"name": "acme/*", "gated": True, "approved": True}]})
    start(node)
    phase, state = ended(node)
    assert phase == "Failed" and state["exitCode"] == 1
    assert "authentication failed. Set HF_TOKEN or request access" in state["message"].splitlines()[-1]
    assert not weights.are_in(disk(node))


def test_an_engine_on_an_empty_claim_ends_as_vllm_does(tmp_path: Path, capsys) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    settings = parse(["serve", str(tmp_path / "models")])
    with pytest.raises(SystemExit):
        StartUp(settings, stop=None, look=None)._look_for_weights()  # type: ignore[arg-type]
    assert "Cannot find any model weights" in capsys.readouterr().out
    weights.write(tmp_path / "disk", SOURCE)
    StartUp(settings, stop=None, look=None)._look_for_weights()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("load_format", "without", "found"),
    [
        # Mistral's own set is taken by itself where it is there, and never for the other.
        ("auto", "model", True),
        ("auto", "consolidated", True),
        ("mistral", "model", True),
        ("mistral", "consolidated", False),
        ("safetensors", "model", False),
        ("hf", "consolidated", True),
    ],
)
def test_an_engine_reads_the_set_that_it_is_told_to_read(
    load_format: str, without: str, found: bool, tmp_path: Path
) -> None:
    weights.write(tmp_path / "disk", SOURCE, weights.chosen(None, [f"{without}*"]))
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    settings = parse(["serve", str(tmp_path / "models"), f"--load-format={load_format}"])
    started = StartUp(settings, stop=None, look=None)  # type: ignore[arg-type]
    with contextlib.nullcontext() if found else pytest.raises(SystemExit):
        started._look_for_weights()


BUCKET = "s3://llm-models/mistral/fp16/"
KEYS = Store(secret="s3-credentials")


@pytest.mark.parametrize(
    ("store", "buckets", "words"),
    [
        (KEYS, {"exists": False}, "S3 resource 'llm-models' not found."),
        (KEYS, {"foreign": True}, "S3 error [403]: Forbidden"),
        (KEYS, {"holds": ["mistral/quantized/"]}, "No model found in mistral/fp16/."),
        (KEYS, {"holds": ["mistral/fp16/"]}, ""),
        (Store(endpoint="https://store.example", secret="s3-credentials"), {"exists": False}, ""),
    ],
)
def test_a_bucket_gives_what_the_account_s_settings_say(
    store: Store, buckets: dict[str, Any], words: str, node: Node
) -> None:
    settings(node, aws={"buckets": [{"name": "llm-*", **buckets}]})
    node.api.add("Secret", "s3-credentials", data=dict.fromkeys((ACCESS_KEY, SECRET_KEY), "a2V5"))
    start(node, source=BUCKET, store=store)
    phase, state = ended(node)
    assert phase == ("Failed" if words else "Succeeded"), state
    assert words in state.get("message", "")


@pytest.mark.parametrize(
    ("bucket", "account", "words"),
    [
        ("llm-models", FILLER, ""),
        ("llm-models", "another", "S3 authentication failed."),
        ("others", FILLER, "S3 error [403]: Forbidden"),
    ],
)
def test_on_eks_a_pod_needs_a_role_that_may_read_the_bucket(
    bucket: str, account: str, words: str, node: Node
) -> None:
    with Project.of(node.paths.root).change() as state:
        grant(state, bucket, account)
    start(node, source=BUCKET, store=Store(pod_identity=True))
    phase, state = ended(node)
    assert phase == ("Failed" if words else "Succeeded"), state
    assert words in state.get("message", "")


def grant(state: State, bucket: str, account: str) -> None:
    """A cluster whose pods of an account act in a role that may read a bucket."""
    names = {"clusterName": "llm", "namespace": SPACE, "serviceAccount": account}
    policy = {"role": "models", "policy": json.dumps(amazon.read_bucket(bucket))}
    trusted = {"assumeRolePolicy": json.dumps(amazon.trust(amazon.PODS))}
    for kind, identity, inputs in (
        (CLUSTER, "llm", {}),
        (ADDON, f"llm:{aws_roles.AGENT}", {}),
        (aws_roles.ROLE, "models", trusted),
        (aws_roles.INLINE, "models:bucket", policy),
        (aws_roles.IDENTITY, "a-1", {**names, "roleArn": "arn:aws:iam::123456789012:role/models"}),
    ):
        state.of(kind)[identity] = {"inputs": inputs, "outputs": {}, "created": 0.0}


def test_patterns_choose_as_the_hubs_client_does() -> None:
    assert weights.chosen(None, None) == list(weights.FILES)
    assert weights.chosen(["*.safetensors"], ["model-*"]) == ["consolidated.safetensors"]
