"""What is generated from the models, and the committed stack files."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from stacks.config import __main__ as command
from stacks.config import load_stack_file, reference, schema
from stacks.config.describe import keys_of, models_in
from stacks.config.root import StackConfig

ROOT = Path(__file__).resolve().parents[2]
STACK_FILES = sorted(ROOT.glob("Pulumi.*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(schema.stack_file_schema())

stack_files = pytest.mark.parametrize("path", STACK_FILES, ids=lambda path: path.name)


def test_the_stacks_of_the_project_are_there() -> None:
    assert {"Pulumi.dev.yaml", "Pulumi.tpu.yaml", "Pulumi.gpu.yaml"} <= {path.name for path in STACK_FILES}


@stack_files
def test_a_committed_stack_file_obeys_every_rule(path: Path) -> None:
    assert load_stack_file(path).models


@stack_files
def test_the_json_schema_accepts_a_committed_stack_file(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text()))


@stack_files
def test_a_committed_stack_file_holds_no_encrypted_value_and_points_to_the_schema(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=./config.schema.json\n")
    assert not re.search(r"^\s*(secure|encryptionsalt|secretsprovider|encryptedkey):", text, re.MULTILINE)


def test_the_dev_stack_is_the_small_model_on_one_gpu() -> None:
    config = load_stack_file(ROOT / "Pulumi.dev.yaml")
    assert (config.cluster.kind, config.cluster.context) == ("existing", "llm-platform-dev")
    pool = config.cluster.accelerators["l4"]
    assert (pool.type, pool.per_node, pool.max_nodes) == ("nvidia-l4", 1, 1)
    (model,) = config.models.values()
    assert (model.uri, model.replicas, model.max_model_len, model.max_num_seqs) == (
        "hf://Qwen/Qwen3-0.6B",
        1,
        8192,
        64,
    )
    assert (model.gpu_memory_utilization, model.load_budget_seconds) == (0.85, 900)
    assert model.resources.memory == "16Gi"
    assert config.gpu_operator == "provided"


def test_the_gpu_operator_is_ours_on_a_new_cluster_with_nvidia_nodes_only() -> None:
    owners = {
        name: load_stack_file(ROOT / f"Pulumi.{name}.yaml").gpu_operator for name in ("dev", "tpu", "gpu")
    }
    assert owners == {"dev": "provided", "tpu": "provided", "gpu": "managed"}


def test_the_project_disables_default_providers() -> None:
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    assert project["name"] == "llm-platform"
    assert project["config"]["pulumi:disable-default-providers"] == ["*"]


def test_the_json_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.stack_file_schema())


BAD = {
    "misspelt key of the stack": ("config", "llm-platform:modles", {}),
    "misspelt key of a model": ("config/llm-platform:models/qwen3-0-6b", "acelerator", "l4"),
    "misspelt key of a pool": ("config/llm-platform:cluster/accelerators/l4", "maxnodes", 1),
    "name that is no DNS label": (
        "config/llm-platform:models",
        "Qwen",
        {"uri": "hf://a/b", "accelerator": "l4"},
    ),
    "number as text": ("config/llm-platform:models/qwen3-0-6b", "replicas", "1"),
    "power as a switch": ("config", "llm-platform:power", True),
    "unknown accelerator": ("config/llm-platform:cluster/accelerators/l4", "type", "nvidia-l5"),
    "token in plain text": ("config", "llm-platform:hfToken", "hf_x"),
    "key beside config": ("", "configs", {}),
}


@pytest.mark.parametrize("name", BAD)
def test_the_json_schema_refuses_what_the_models_refuse(name: str) -> None:
    place, key, value = BAD[name]
    document = copy.deepcopy(yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text()))
    target = document
    for step in filter(None, place.split("/")):
        target = target[step]
    target[key] = value
    assert not VALIDATOR.is_valid(document)


def test_the_json_schema_leaves_keys_of_pulumi_and_other_projects_alone() -> None:
    document = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())
    document["config"] |= {"aws:region": "us-east-1", "llm-platform:hfToken": {"secure": "v1:…"}}
    VALIDATOR.validate(document | {"encryptionsalt": "v1:…", "secretsprovider": "passphrase"})


@pytest.mark.parametrize("what", command.OUTPUTS)
def test_the_generated_files_are_current(what: str, capsys) -> None:
    assert command.main([what, "--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("what", command.OUTPUTS)
def test_a_stale_generated_file_is_refused_with_the_command_that_writes_it(
    what, tmp_path, monkeypatch, capsys
) -> None:
    path, render = command.OUTPUTS[what]
    stale = tmp_path / path.name
    stale.write_text("old\n")
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setitem(command.OUTPUTS, what, (stale, render))
    assert command.main([what, "--check"]) == 1
    assert f"python -m stacks.config {what}" in capsys.readouterr().err
    assert command.main([what]) == 0
    assert command.main([what, "--check"]) == 0


def test_the_command_checks_stack_files(tmp_path, capsys) -> None:
    bad = tmp_path / "Pulumi.bad.yaml"
    bad.write_text("config: {llm-platform:power: on}\n")
    assert command.main(["check", str(ROOT / "Pulumi.dev.yaml")]) == 0
    assert command.main(["check", str(ROOT / "Pulumi.dev.yaml"), str(bad)]) == 1
    assert "llm-platform:cluster: is missing" in capsys.readouterr().err


def _models(model=StackConfig, seen=None):
    seen = {} if seen is None else seen
    seen[model.__name__] = model
    for field in keys_of(model).values():
        for annotation in (field.annotation, *getattr(field.annotation, "__args__", ())):
            for inner in models_in(annotation):
                if inner.__name__ not in seen:
                    _models(inner, seen)
    return seen


@pytest.mark.parametrize("name", _models())
def test_every_key_is_described_on_the_reference_page(name: str) -> None:
    page = reference.render()
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0] if name != "StackConfig" else page
    for key, field in keys_of(_models()[name]).items():
        prefix = "llm-platform:" if name == "StackConfig" else ""
        assert f"| `{prefix}{key}` |" in section
        assert field.description in section


def test_the_examples_of_the_reference_page_are_accepted(tmp_path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text(), re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"Pulumi.example{number}.yaml"
        path.write_text(block)
        assert load_stack_file(path).models
        VALIDATOR.validate(yaml.safe_load(block))
