"""How a refused configuration is reported."""

from __future__ import annotations

import pytest

from stacks.config import ConfigError, check_stack_file, load_config, load_stack_file
from stacks.config.credentials import SHAPES

# Put together here, so that no scanner of this repository takes them for real ones.
CREDENTIALS = {
    "a Hugging Face token": "hf_" + "a1B2" * 8,
    "a private key": "-----BEGIN EC " + "PRIVATE KEY-----\nMHcCAQEEIJ",
    "a PEM block": "-----BEGIN " + "CERTIFICATE-----\nMIIB",
    "an AWS access key": "AKIA" + "ABCDEFGHIJKLMNOP",
    "a Docker registry login": '{"auths"' + ': {"registry": {"auth": "dXNlcjpwYXNz"}}}',
    "a GitHub token": "ghp_" + "a1" * 18,
    "a GitLab token": "glpat-" + "a1" * 10,
    "an API key": "sk-" + "a1" * 16,
    "a Google API key": "AIza" + "a" * 35,
    "a signed token": "eyJ" + "hbGciOiJF" + ".eyJ" + "zdWIiOiJh" + "." + "c2lnbmF0dXJl",
}


def refused(raw) -> ConfigError:
    with pytest.raises(ConfigError) as refusal:
        load_config(raw)
    return refusal.value


def paths(error: ConfigError) -> list[str]:
    return [problem.path.removeprefix("llm-platform:") for problem in error.problems]


def test_problems_of_all_sections_are_reported_at_once(stack) -> None:
    error = refused(
        stack(
            "gke",
            {
                "cluster/zone": 4,
                "cluster/accelerators/pool/maxNodes": 0,
                "gateway": {"kind": "istoi"},
                "models/qwen/replicas": -1,
                "models/qwen/uri": "ftp://x",
                "access": {"tiers": {"free": {}}, "tenants": {"acme": {"tier": "paid"}}},
                "power": "on",
                "schedule": {"timezone": "UTC", "awake": ["always"]},
                "platfrom": {},
            },
        )
    )
    assert paths(error) == [
        "access.tenants.acme.tier",
        "access.tiers.free",
        "cluster.accelerators.pool.maxNodes",
        "cluster.zone",
        "gateway.kind",
        "models.qwen.replicas",
        "models.qwen.uri",
        "platfrom",
        "power",
        "schedule.awake[0]",
    ]


def test_a_bad_model_does_not_hide_what_is_wrong_with_another(stack) -> None:
    error = refused(
        stack(
            change={
                "models/qwen/image": 5,
                "models/other": {"uri": "hf://Qwen/Qwen3-0.6B", "accelerator": "l40", "maxModelLen": 64},
            }
        )
    )
    assert paths(error) == ["models.other.accelerator", "models.qwen.image"]


def test_a_bad_pool_is_not_reported_again_by_the_models_that_use_it(stack) -> None:
    error = refused(stack(change={"cluster/accelerators/pool/type": 5}))
    assert paths(error) == ["cluster.accelerators.pool.type"]


def test_a_bad_model_is_not_reported_again_by_the_tenants_that_use_it(stack) -> None:
    access = {
        "tiers": {"free": {"tokensPerMinute": 1}},
        "tenants": {"acme": {"tier": "free", "models": ["qwen"]}},
    }
    assert paths(refused(stack(change={"models/qwen/uri": 5, "access": access}))) == ["models.qwen.uri"]


def test_a_bad_tier_is_not_reported_again_by_its_tenants(stack) -> None:
    access = {"tiers": {"free": {"tokensPerMinute": "1"}, "paid": {"tokensPerMinute": 2}}}
    access["tenants"] = {"acme": {"tier": "free"}}
    assert paths(refused(stack(change={"access": access}))) == ["access.tiers.free.tokensPerMinute"]


def test_models_are_still_checked_when_the_cluster_cannot_be_read(stack) -> None:
    error = refused(stack(change={"cluster": "somewhere", "models/qwen/namespace": "kube-system"}))
    assert paths(error) == ["cluster", "models.qwen.namespace"]


def test_the_rules_see_the_rest_of_an_entry_with_a_misspelt_key(stack) -> None:
    error = refused(stack(change={"models/qwen/seed": 1, "models/qwen/replicas": 9}))
    assert paths(error) == ["models.qwen.replicas", "models.qwen.seed"]


def test_every_line_names_path_fault_consequence_and_fix(stack) -> None:
    text = str(refused(stack(change={"models/qwen/replicas": 9, "power": "on"})))
    head, *lines = text.splitlines()
    assert head == "the stack's configuration has 2 problems; nothing was created or changed:"
    assert lines[0] == (
        "  - llm-platform:models.qwen.replicas: 9 replicas x 1 chips (qwen) = 9 chips, but pool has 2 "
        "(2 nodes of 1); the last replicas stay Pending and `up` fails. "
        "Fix: set cluster.accelerators.pool.maxNodes to 9, or use fewer replicas."
    )
    assert lines[1].startswith("  - llm-platform:power: ")


def test_every_shape_of_credential_has_a_sample() -> None:
    assert CREDENTIALS.keys() == SHAPES.keys()


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize(
    "place", ["models/qwen/env", "models/qwen/image", "gateway/host", "models/qwen/replicas"]
)
def test_a_credential_in_plain_configuration_is_refused_and_never_printed(
    kind: str, place: str, stack
) -> None:
    secret = CREDENTIALS[kind]
    error = refused(stack(change={place: {"SETTING": secret} if place.endswith("env") else secret}))
    path = place.replace("/", ".") + (".SETTING" if place.endswith("env") else "")
    assert paths(error) == [path]
    assert "is written in plain text" in error.problems[0].wrong
    assert "pulumi config set --secret" in error.problems[0].fix
    assert secret not in str(error) and secret[10:] not in str(error)


def test_a_credential_used_as_a_name_is_never_printed(stack) -> None:
    secret = CREDENTIALS["a Hugging Face token"]
    error = refused(stack(change={f"models/{secret}": {"uri": "gs://x"}}))
    assert secret not in str(error)
    assert any("is written in plain text" in problem.wrong for problem in error.problems)


@pytest.mark.parametrize(
    "name", ["DB_PASSWORD", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_TOKEN", "TOKEN"]
)
def test_a_value_named_like_a_credential_is_refused(name: str, stack) -> None:
    error = refused(stack(change={"models/qwen/env": {name: "hunter2"}}))
    assert paths(error) == [f"models.qwen.env.{name}"]
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("name", ["RETURN_TOKEN_COUNTS", "TOKENIZERS_PARALLELISM", "SECRETARY"])
def test_a_name_that_only_resembles_a_credential_is_accepted(name: str, stack) -> None:
    assert load_config(stack(change={"models/qwen/env": {name: "true"}})).models["qwen"].env == {name: "true"}


def test_the_secret_keys_in_plain_configuration_name_the_command(stack) -> None:
    error = refused(stack(change={"hfToken": "anything"}))
    assert paths(error) == ["hfToken"]
    assert "pulumi config set --secret llm-platform:hfToken" in error.problems[0].fix


DUPLICATES = """\
config:
  llm-platform:cluster:
    kind: existing
    context: a
    context: b
  llm-platform:models:
    qwen: {uri: "hf://a/b", accelerator: l4}
    qwen: {uri: "hf://a/c", accelerator: l4}
  llm-platform:power: awake
  llm-platform:power: asleep
"""


def test_duplicated_keys_of_a_stack_file_are_refused_with_their_lines(tmp_path) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text(DUPLICATES)
    found = {problem.path: problem.wrong for problem in check_stack_file(path)}
    assert found == {
        "llm-platform:cluster.context": "is written twice, in lines 4 and 5 of Pulumi.x.yaml",
        "llm-platform:models.qwen": "is written twice, in lines 7 and 8 of Pulumi.x.yaml",
        "llm-platform:power": "is written twice, in lines 9 and 10 of Pulumi.x.yaml",
    }


def test_a_stack_file_reports_duplicates_together_with_the_other_problems(tmp_path) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text(DUPLICATES)
    with pytest.raises(ConfigError) as refusal:
        load_stack_file(path)
    assert "llm-platform:power" in {problem.path for problem in refusal.value.problems}
    assert "llm-platform:models.qwen.accelerator" in {problem.path for problem in refusal.value.problems}


@pytest.mark.parametrize("text", ["config: [", "- a\n", "", "config:\n\tx: 1\n"])
def test_a_stack_file_that_is_no_map_is_refused_by_its_name(text: str, tmp_path) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_stack_file(path)
    assert [problem.path for problem in refusal.value.problems] == ["Pulumi.x.yaml"]


def test_a_stack_file_that_is_not_there_has_no_duplicates(tmp_path) -> None:
    assert check_stack_file(tmp_path / "Pulumi.x.yaml") == []


def test_the_configuration_is_frozen(stack) -> None:
    config = load_config(stack())
    with pytest.raises(Exception, match="frozen"):
        config.models["qwen"].replicas = 5
