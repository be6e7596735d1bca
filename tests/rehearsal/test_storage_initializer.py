"""A job that fills a claim on a simulated node: the product's own program, with simulated downloads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.serving.manifests.fill import PROGRAM, FillSpec, fill
from rehearsal import engine
from rehearsal.cloud.settings import Settings
from rehearsal.model_server.settings import parse
from rehearsal.model_server.startup import StartUp
from rehearsal.storage_initializer import weights
from tests.support.simulated_node import SPACE, Node, eventually

SOURCE = "hf://acme/model"


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
    )  # fmt: skip


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
    file = Settings.of(node.paths.root).file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        yaml.safe_dump({"web": {"models": [{"name": "acme/*", "gated": True, "approved": True}]}})
    )
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


def test_patterns_choose_as_the_hubs_client_does() -> None:
    assert weights.chosen(None, None) == list(weights.FILES)
    assert weights.chosen(["*.safetensors"], ["model-*"]) == ["consolidated.safetensors"]
