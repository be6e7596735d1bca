"""Claims, what fills them, and stores: the builders, and what a recorded stack registers of them."""

from __future__ import annotations

import ast
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.core import labels
from components.serving.manifests import fill as fills
from components.serving.manifests import llm_service, network_policy, picker, storage
from components.serving.manifests.claim import ClaimSpec, claim, parts
from components.serving.manifests.fill import FillSpec, fill
from components.serving.manifests.storage import Store
from rehearsal.reachability import External, Pod, Reachability
from stacks.config import Secrets
from tests.components.test_serving import MODEL, POLICY
from tests.support.recorder import Recording, Registration
from tests.support.stacks import raw_stack, record_stack

HOME = "llm-models"
FILL = FillSpec(
    model="qwen",
    namespace=HOME,
    claim="weights",
    path="fp16",
    source="hf://Qwen/Qwen3-0.6B",
    include=(),
    exclude=("consolidated*",),
    image="registry.example/storage-initializer:v0.20.0",
    budget_seconds=600,
    node_selector={"topology.kubernetes.io/zone": "us-east-1a"},
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
    rather={labels.POOL: "system"},
)
MINE = Store(endpoint="https://store.example.com:9000", region="eu-1", secret="s3-credentials", port=9000)
TOKEN, ACCESS, HIDDEN = "hf_" + "x" * 20, "access-of-a-test", "hidden-of-a-test"


def job(spec: FillSpec = FILL) -> dict[str, Any]:
    return dict(fill(spec))["job"]


def container(spec: FillSpec = FILL) -> dict[str, Any]:
    (only,) = job(spec)["spec"]["template"]["spec"]["containers"]
    return only


def variables(holder: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in holder["env"]}


# -- the claim and its job -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("pvc://weights/", ("weights", "")),
        ("pvc://weights", ("weights", "")),
        ("pvc://weights/a/b/", ("weights", "a/b")),
    ],
)
def test_a_uri_names_a_claim_and_a_path(uri: str, found: tuple[str, str]) -> None:
    assert parts(uri) == found


@pytest.mark.parametrize(("shared", "mode"), [(False, "ReadWriteOnce"), (True, "ReadWriteMany")])
def test_a_claim_is_not_waited_for_as_its_first_pod_binds_it(shared: bool, mode: str) -> None:
    made = claim(
        ClaimSpec(name="w", namespace=HOME, model="qwen", size="1Gi", storage_class=None, shared=shared)
    )
    assert made["metadata"]["annotations"] == {labels.SKIP_AWAIT: "true"}
    assert made["spec"]["accessModes"] == [mode] and "storageClassName" not in made["spec"]


def test_a_job_is_another_when_it_does_something_else_and_only_then() -> None:
    name = job()["metadata"]["name"]
    assert name == job()["metadata"]["name"]
    for change in (
        {"exclude": ()}, {"include": ("*.json",)}, {"source": "hf://Qwen/Qwen3-8B"}, {"path": ""},
        {"image": "registry.example/storage-initializer:v0.21.0"}, {"claim": "others"},
    ):  # fmt: skip
        assert job(dataclasses.replace(FILL, **change))["metadata"]["name"] != name, change


def test_a_set_of_weights_is_known_by_what_is_fetched_and_not_by_how() -> None:
    assert FILL.fingerprint == dataclasses.replace(FILL, image="other:v1", budget_seconds=1).fingerprint
    assert FILL.fingerprint != dataclasses.replace(FILL, exclude=()).fingerprint


def test_a_job_stays_when_it_is_done_and_a_failed_one_is_made_anew() -> None:
    assert "ttlSecondsAfterFinished" not in job()["spec"]
    assert job()["metadata"]["annotations"] == {labels.REPLACE_UNREADY: "true"}
    assert job()["spec"]["activeDeadlineSeconds"] == 600


def test_the_job_runs_beside_whoever_has_the_volume_and_asks_for_no_chip() -> None:
    pod = job()["spec"]["template"]["spec"]
    (rule,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    wanted = {e["key"]: e["values"] for e in rule["labelSelector"]["matchExpressions"]}
    own = job()["spec"]["template"]["metadata"]["labels"]
    for marks in (own, {**labels.model_workload("qwen"), labels.COMPONENT: labels.KSERVE_WORKLOAD}):
        assert all(marks[key] in values for key, values in wanted.items())
    picked = {**labels.model_picker("qwen")}
    assert not all(picked[key] in values for key, values in wanted.items())
    assert not [name for name in container()["resources"]["limits"] if "/" in name]


def test_the_jobs_pod_is_none_that_serves() -> None:
    """Else it would get requests, and the model's policies."""
    marks = job()["spec"]["template"]["metadata"]["labels"]
    for selector in (labels.model_workload("qwen"), labels.model_picker("qwen")):
        assert not selector.items() <= marks.items()


def test_a_shared_volume_needs_no_neighbour() -> None:
    pod = job(dataclasses.replace(FILL, shared=True))["spec"]["template"]["spec"]
    assert "podAffinity" not in pod["affinity"]


def test_everything_is_asked_for_so_that_a_quota_lets_it_run() -> None:
    asked = container()["resources"]
    assert {"cpu", "memory"} <= asked["requests"].keys() and "memory" in asked["limits"]


def test_credentials_are_references() -> None:
    given = variables(container(dataclasses.replace(FILL, hf_secret="hf-token", store=MINE)))
    assert given["HF_TOKEN"] == {"secretKeyRef": {"name": "hf-token", "key": "HF_TOKEN"}}
    for name in (storage.ACCESS_KEY, storage.SECRET_KEY):
        assert given[name] == {"secretKeyRef": {"name": "s3-credentials", "key": name}}
    assert given["AWS_ENDPOINT_URL"] == "https://store.example.com:9000"


def test_the_program_takes_nothing_but_kserves_own_package() -> None:
    """It runs in KServe's image, which has the standard library and that."""
    found = set()
    for node in ast.walk(ast.parse(fills.PROGRAM.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {*names, *([node.module] if isinstance(node, ast.ImportFrom) else [])}
    assert {str(name).partition(".")[0] for name in found} - sys.stdlib_module_names == {"kserve_storage"}


# -- paths ---------------------------------------------------------------------------------------------------------

FILLER = Pod(name="f", namespace=HOME, labels=labels.filler("qwen"), address="10.1.0.1")
WORKLOAD = Pod(name="w", namespace=HOME, labels=labels.model_workload("qwen"), address="10.1.0.2")
PICKER = Pod(name="p", namespace=HOME, labels=labels.model_picker("qwen"), address="10.1.0.3")
MINIO = Pod(name="m", namespace="model-storage", labels={"app": "minio"}, address="10.1.0.4")
SPACES = [
    {"metadata": {"name": name, "labels": {labels.NAMESPACE_NAME: name}}} for name in (HOME, "model-storage", "other")
]  # fmt: skip
INTERNET, IDENTITY, METADATA = External("52.1.1.1"), External("169.254.170.23"), External("169.254.169.254")


def rules(store: Store | None) -> Reachability:
    spec = dataclasses.replace(POLICY, store=store)
    made = [network_policy.default_deny(HOME), network_policy.workload(spec), network_policy.picker(spec)]
    return Reachability([*made, network_policy.downloader(HOME, "qwen", store)], SPACES)


@pytest.mark.parametrize("who", [FILLER, WORKLOAD])
def test_a_role_of_eks_is_asked_for_at_the_nodes_agent_and_metadata_never(who: Pod) -> None:
    with_role, without = rules(Store(pod_identity=True)), rules(None)
    assert with_role.allowed(who, IDENTITY, 80) and not without.allowed(who, IDENTITY, 80)
    assert with_role.allowed(who, INTERNET, 443)
    assert not with_role.allowed(who, METADATA, 80) and not with_role.allowed(who, INTERNET, 80)


@pytest.mark.parametrize("who", [FILLER, WORKLOAD])
def test_a_store_of_ones_own_is_reached_where_it_is_and_nothing_else(who: Pod) -> None:
    inside = rules(
        Store(endpoint="http://minio.model-storage.svc:9000", port=9000, namespace="model-storage")
    )
    assert inside.allowed(who, MINIO, 9000) and not inside.allowed(who, INTERNET, 443)
    private = rules(Store(endpoint="https://10.9.0.5", networks=("10.9.0.0/24",)))
    assert private.allowed(who, External("10.9.0.5"), 443)
    assert not private.allowed(who, External("10.8.0.5"), 443) and not private.allowed(who, INTERNET, 443)
    public = rules(MINE)
    assert public.allowed(who, INTERNET, 9000) and not public.allowed(who, INTERNET, 443)


def test_nobody_asks_the_filler_anything_and_the_picker_fetches_nothing() -> None:
    found = rules(None)
    assert not [who for who in (WORKLOAD, PICKER, MINIO, INTERNET) if found.allowed(who, FILLER, 8000)]
    # 443 is the API server's, wherever it is.
    assert not rules(MINE).allowed(PICKER, INTERNET, 9000)
    assert not rules(Store(pod_identity=True)).allowed(PICKER, IDENTITY, 80)


# -- services ------------------------------------------------------------------------------------------------------


def test_other_weights_make_new_pods_by_an_annotation() -> None:
    """KServe puts a service's labels into the selector of its Deployment, which cannot be changed."""
    filled = dataclasses.replace(MODEL, uri="pvc://weights/", weights="0123456789ab")
    spec = llm_service.llm_service(filled, "door", "gateway", ("a",))["spec"]
    assert spec["annotations"] == {labels.WEIGHTS: "0123456789ab"} and "labels" not in spec


def test_a_download_is_told_where_the_store_is_and_given_no_other_secret() -> None:
    stored = dataclasses.replace(MODEL, uri="s3://models/qwen", store=MINE)
    (download,) = llm_service.llm_service(stored, "door", "gateway", ("a",))["spec"]["template"][
        "initContainers"
    ]
    assert variables(download)["AWS_ENDPOINT_URL"] == MINE.endpoint
    assert llm_service.download_secrets(stored, ("hf-token",)) == ("s3-credentials",)
    assert llm_service.download_secrets(MODEL, ("hf-token",)) == ("hf-token",)
    assert llm_service.download_secrets(dataclasses.replace(MODEL, uri="pvc://w/"), ("hf-token",)) == ()


def test_a_picker_has_no_weights_and_nothing_that_needs_them() -> None:
    pod = picker.scheduler(HOME, "registry.example/epp:v1")["spec"]["router"]["scheduler"]["template"]
    assert [c["name"] for c in pod["containers"]] == ["main"] and "initContainers" not in pod
    assert [volume["name"] for volume in pod["volumes"]] == ["tls-certs"]


# -- a stack -------------------------------------------------------------------------------------------------------


def objects(recording: Recording, kind: str) -> list[Registration]:
    return [
        r for r in recording.registrations if r.inputs.get("kind") == kind and not r.type.endswith("Patch")
    ]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    raw = raw_stack("gpu")
    return record_stack(
        raw, tmp_path_factory.mktemp("gpu"), lambda: Secrets(hf_token=pulumi.Output.secret(TOKEN))
    )


def test_the_model_waits_for_its_weights_and_they_for_no_operator(recording: Recording) -> None:
    (made,) = [r for r in objects(recording, "Job") if "fill" in r.inputs["metadata"]["name"]]
    services = {r.name: r for r in objects(recording, "LLMInferenceService")}
    assert made.urn in services["mistral-24b"].dependencies
    assert made.urn not in services["mistral-24b-quantized"].dependencies
    assert not [urn for urn in made.dependencies if "helm.sh" in urn]
    assert dict(made.timeouts)["create"] == "7260s"


def test_the_volume_goes_before_the_machines_that_mount_it(recording: Recording) -> None:
    (found,) = objects(recording, "PersistentVolumeClaim")
    groups = {r.urn for r in recording.registrations if r.type == "aws:eks/nodeGroup:NodeGroup"}
    by_urn = {r.urn: r for r in recording.registrations}
    reached, wanted = set(), [found.urn]
    while wanted:
        urn = wanted.pop()
        if urn not in reached:
            reached.add(urn)
            wanted += by_urn[urn].dependencies if urn in by_urn else ()
    assert groups <= reached


def test_the_filler_is_in_the_models_zone_and_needs_no_gpu_node(recording: Recording) -> None:
    (made,) = [r for r in objects(recording, "Job") if "fill" in r.inputs["metadata"]["name"]]
    pod = made.inputs["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"topology.kubernetes.io/zone": "us-east-1a"}
    (rather,) = pod["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert rather["preference"]["matchExpressions"][0]["values"] == ["system"]


def test_asleep_nothing_of_the_weights_changes(recording: Recording, tmp_path: Path) -> None:
    asleep = record_stack(
        {**raw_stack("gpu"), "power": "asleep"},
        tmp_path,
        lambda: Secrets(hf_token=pulumi.Output.secret(TOKEN)),
    )
    for kind in ("PersistentVolumeClaim", "Job"):
        assert [r.inputs for r in objects(recording, kind)] == [r.inputs for r in objects(asleep, kind)]


def test_the_arithmetic_of_memory_is_an_output(recording: Recording) -> None:
    told = recording.outputs["memory"]
    assert told["mistral-24b"].startswith("weights 43.9 GiB") and "4 x 22.4 GiB" in told["mistral-24b"]
    assert told["mistral-24b-quantized"].startswith("weights 13.2 GiB")


def test_every_container_that_asks_for_accelerators_is_limited_to_what_it_asks(tmp_path: Path) -> None:
    """Kubernetes refuses a pod whose requests for them are not its limits; no stack can say otherwise."""
    found = 0
    for stack in ("dev", "tpu", "gpu", "multihost", "inference-service"):
        secrets = lambda: Secrets(hf_token=pulumi.Output.secret(TOKEN))
        where = tmp_path / stack
        where.mkdir()
        for registration in record_stack(raw_stack(stack), where, secrets).registrations:
            for resources in _resources(registration.inputs):
                asked, limits = resources.get("requests", {}), resources.get("limits", {})
                chips = {name for name in (*asked, *limits) if "/" in name}
                found += len(chips)
                assert all(asked.get(name) == limits.get(name) for name in chips), registration.name
    assert found >= 6


def _resources(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        own = (
            [value["resources"]]
            if isinstance(value.get("resources"), dict) and "limits" in value["resources"]
            else []
        )
        return [*own, *(item for child in value.values() for item in _resources(child))]
    return [item for child in value for item in _resources(child)] if isinstance(value, list) else []


def test_the_key_of_a_store_is_a_secret_and_reaches_the_downloads_alone(tmp_path: Path) -> None:
    raw = raw_stack("dev")
    (name,) = raw["models"]
    raw["models"][name]["uri"] = "s3://models/qwen"
    raw["storage"] = {"s3": {"endpoint": "https://store.example.com"}}

    def secrets() -> Secrets:
        hidden = pulumi.Output.secret(HIDDEN)
        return Secrets(store_access_key=pulumi.Output.secret(ACCESS), store_secret_key=hidden)

    recording = record_stack(raw, tmp_path, secrets)
    (made,) = [r for r in objects(recording, "Secret") if r.inputs["metadata"]["name"] == storage.SECRET]
    assert any(path.startswith("stringData") for path in made.secrets)
    assert (
        made.inputs["metadata"]["annotations"]["serving.kserve.io/s3-endpoint"] == "https://store.example.com"
    )
    others = [r for r in recording.registrations if r.urn != made.urn]
    assert HIDDEN not in json.dumps([r.inputs for r in others], default=str)
    assert HIDDEN not in json.dumps(recording.outputs, default=str)
    (account,) = [r for r in objects(recording, "ServiceAccount") if r.inputs["metadata"]["name"] == name]
    assert account.inputs["secrets"] == [{"name": storage.SECRET}]


def test_every_account_that_reads_the_bucket_has_the_role(tmp_path: Path) -> None:
    raw = raw_stack("gpu")
    raw["models"]["mistral-24b"]["claim"]["fill"] = {"from": "s3://llm-models/fp16"}
    recording = record_stack(raw, tmp_path, lambda: Secrets(hf_token=pulumi.Output.secret(TOKEN)))
    kind = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
    given = {r.inputs["serviceAccount"] for r in recording.registrations if r.type == kind}
    assert {"mistral-24b-quantized", "mistral-24b-fill"} <= given and "mistral-24b" not in given


def test_a_claim_of_somebody_else_is_named_in_the_preview() -> None:
    from stacks.config import load_config
    from stacks.storage import announcement

    raw = raw_stack("gpu")
    assert announcement(load_config(raw)) == ""
    del raw["models"]["mistral-24b"]["claim"]
    raw["models"]["mistral-24b"]["gated"] = False
    told = announcement(load_config(raw))
    assert "mistral-24b-pvc, which this stack does not make" in told and "namespace llm-models" in told
