"""A model whose replicas have several hosts: the service, our preset, what its pods may reach, and what is awaited."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.core import labels, naming
from components.serving.manifests import llm_service, network_policy, preset
from components.serving.manifests.llm_service import ModelSpec
from components.serving.manifests.network_policy import PolicySpec
from rehearsal.reachability import External, Pod, Reachability
from tests.support.stacks import raw_stack, record_stack

HOME = "llm-models"
MODEL = ModelSpec(
    name="large",
    namespace=HOME,
    uri="hf://Qwen/Qwen2.5-72B-Instruct",
    served_name="large",
    replicas=2,
    image="registry.example/vllm-tpu:v1.0.0",
    resource="google.com/tpu",
    chips=16,
    hosts=4,
    node_selector={"cloud.google.com/gke-tpu-topology": "4x4"},
    tolerations=({"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"},),
    args=("--max-model-len=8192",),
)
# What LeaderWorkerSet puts on every pod, and KServe on those that serve (workload_multi_node.go of KServe 0.20).
GROUP = {network_policy.GROUP_LABEL: naming.group_set("large")}
LEADER = Pod(name="leader", namespace=HOME, labels={**GROUP, **labels.model_workload("large")})
WORKER = Pod(
    name="worker",
    namespace=HOME,
    labels={
        **GROUP,
        labels.APP_NAME: "large",
        labels.PART_OF: labels.KSERVE_PART_OF,
        labels.COMPONENT: "llminferenceservice-workload-worker",
    },
)


def changed(**fields: Any) -> ModelSpec:
    return dataclasses.replace(MODEL, **fields)


def built(spec: ModelSpec = MODEL) -> dict[str, Any]:
    """The service."""
    return llm_service.llm_service(spec, "door", "gateway", ("a", "b"))


# -- the service ---------------------------------------------------------------------------------------------------


def test_every_host_gets_its_share_of_the_chips_and_the_engine_splits_over_all() -> None:
    spec = built()["spec"]
    assert spec["parallelism"] == {"tensor": 16, "pipeline": 4}
    for role in ("template", "worker"):
        (container,) = spec[role]["containers"]
        assert container["resources"]["limits"]["google.com/tpu"] == "4"
        assert {"name": preset.CHIPS_VARIABLE, "value": "4"} in container["env"]


def test_every_host_downloads_the_weights_with_the_model_s_own_account() -> None:
    spec = built()["spec"]
    for role in ("template", "worker"):
        assert spec[role]["serviceAccountName"] == "large"
        (download,) = spec[role]["initContainers"]
        assert download["resources"]["limits"]["memory"] == llm_service.DOWNLOAD_MEMORY


def test_only_the_leader_serves_and_has_the_engine_s_arguments() -> None:
    spec = built()["spec"]
    (leader,), (worker,) = spec["template"]["containers"], spec["worker"]["containers"]
    assert leader["args"] and "startupProbe" in leader
    assert not {"args", "startupProbe"} & worker.keys()


def test_a_group_has_a_slice_of_its_own_and_one_host_needs_none() -> None:
    annotation = {"leaderworkerset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    assert built()["metadata"]["annotations"] == annotation
    alone = built(changed(hosts=1, chips=4))
    assert "annotations" not in alone["metadata"]
    assert not {"worker", "annotations"} & alone["spec"].keys()


# -- what is awaited -----------------------------------------------------------------------------------------------


def test_scaling_leaves_the_groups_as_they_are_and_any_other_change_replaces_them() -> None:
    now = llm_service.group_revision(MODEL)
    assert llm_service.group_revision(changed(replicas=1)) == now
    others = [changed(image="x:v2"), changed(args=()), changed(env={"A": "b"}), changed(chips=8, hosts=2)]
    assert len({now, *map(llm_service.group_revision, others)}) == len(others) + 1


def test_a_changed_preset_is_a_changed_model(monkeypatch: pytest.MonkeyPatch) -> None:
    now = llm_service.group_revision(MODEL)
    monkeypatch.setattr(preset, "SHARED_MEMORY", "1Gi")
    assert llm_service.group_revision(MODEL) != now
    assert built()["spec"]["annotations"] == {labels.REVISION: llm_service.group_revision(MODEL)}


def awaited(spec: ModelSpec) -> list[str]:
    """What the patch of the leaders waits for."""
    return json.loads(llm_service.leaders(spec, "r")["metadata"]["annotations"][labels.WAIT_FOR])


def test_the_leaders_are_awaited_at_this_revision_and_in_full_number() -> None:
    mark, *counts = awaited(MODEL)
    assert mark.endswith(f"['llmp.dev/revision']}}={llm_service.group_revision(MODEL)}")
    assert counts == [f"jsonpath={{.status.{n}}}=2" for n in ("replicas", "updatedReplicas", "readyReplicas")]
    # Without any, the API leaves the other two out.
    assert awaited(changed(replicas=0))[1:] == ["jsonpath={.status.replicas}=0"]


def test_the_set_of_groups_is_awaited_and_no_deployment() -> None:
    groups = llm_service.rollout(MODEL, "r")
    assert (groups["kind"], groups["metadata"]["name"]) == ("LeaderWorkerSet", "large-kserve-mn")
    assert groups["metadata"]["annotations"][labels.WAIT_FOR] == "condition=Available"
    assert llm_service.rollout(changed(hosts=1), "r")["kind"] == "Deployment"


# -- the preset ----------------------------------------------------------------------------------------------------


def container(role: str) -> dict[str, Any]:
    """The container of the preset's leaders (template) or workers."""
    (found,) = preset.pipeline_parallel(HOME)["spec"][role]["containers"]
    return found


def test_the_preset_has_the_name_that_kserve_looks_for_beside_the_model() -> None:
    assert preset.pipeline_parallel(HOME)["metadata"]["name"] == "kserve-config-llm-worker-pipeline-parallel"
    assert preset.pipeline_parallel(HOME)["metadata"]["namespace"] == HOME


def test_nobody_waits_for_a_worker_to_answer() -> None:
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container("template").keys()
    assert not [key for key in container("worker") if key.endswith("Probe")]


def test_both_roles_run_without_privileges_unless_the_model_says_otherwise() -> None:
    for role in ("template", "worker"):
        context = container(role)["securityContext"]
        assert context["runAsNonRoot"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_shared_memory_has_room_for_ray_and_the_engine() -> None:
    for role in ("template", "worker"):
        volumes = {v["name"]: v for v in preset.pipeline_parallel(HOME)["spec"][role]["volumes"]}
        assert volumes["dshm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert preset.OBJECT_STORE < 16 * 2**30


STUB = '#!/bin/sh\nprintf "%s\\n" "$0" "$@" >> "$TRACE"\n'


def run(script: str, tmp_path: Path, *arguments: str) -> list[list[str]]:
    """The commands that a script of the preset runs, with stubs for all; KServe has filled its template in."""
    filled = {
        "{{ .Spec.Model.Name }}": "large",
        "{{ .ObjectMeta.Namespace }}": HOME,
        "{{ .Spec.Parallelism.Tensor }}": "16",
        "{{ shutdownTimeout .Spec.Template 15 }}": "40",
        "{{ if .GlobalConfig.EnableTLS }}": "",
        "{{ end }}": "",
    }
    for template, value in filled.items():
        script = script.replace(template, value)
    assert "{{" not in script
    trace = tmp_path / "trace"
    for name in ("ray", "python3", "vllm"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "TRACE": str(trace),
        "POD_IP": "10.0.0.1",
        "CHIPS_PER_HOST": "4",
    }
    subprocess.run(["bash", "-c", script, "--", *arguments], env=env, check=True, timeout=10)
    commands: list[list[str]] = []
    for line in trace.read_text().splitlines():
        commands += [[]] if line.startswith(f"{tmp_path}/") else []
        commands[-1].append(line.removeprefix(f"{tmp_path}/"))
    return commands


def test_the_leader_starts_ray_waits_for_its_hosts_and_serves(tmp_path: Path) -> None:
    ray, wait, vllm = run(preset.LEADER, tmp_path)
    assert ray[:4] == ["ray", "start", "--head", "--port=6379"]
    assert '--resources={"TPU": 4}' in ray and "--node-ip-address=10.0.0.1" in ray
    assert wait[0] == "python3" and "LWS_GROUP_SIZE" in " ".join(wait)
    assert vllm[:3] == ["vllm", "serve", "/mnt/models"]
    assert {"--tensor-parallel-size=16", "--shutdown-timeout=40", "--port=8000"} <= set(vllm)
    assert {"--ssl-certfile=/var/run/kserve/tls/tls.crt", "--ssl-keyfile=/var/run/kserve/tls/tls.key"} <= set(
        vllm
    )


def test_the_leader_does_not_serve_without_ray(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run(preset.LEADER.replace("ray start", "false start"), tmp_path)
    assert not (tmp_path / "trace").exists()


def test_the_model_s_arguments_survive_the_script(tmp_path: Path) -> None:
    tricky = ('--override={"a": "b c"}', "--x=$HOME", "--y=`id`", "--plain=1")
    (leader,) = built(changed(args=tricky))["spec"]["template"]["containers"]
    *_, vllm = run(preset.LEADER, tmp_path, *leader["args"])
    assert tuple(vllm[-len(tricky) :]) == tricky


# -- what the pods may reach ---------------------------------------------------------------------------------------

GATEWAY_PEER = network_policy.pods({labels.GATEWAY_NAME: "door"}, "gateway")
GATEWAY = Pod(name="door", namespace="gateway", labels={labels.GATEWAY_NAME: "door"})
STRANGER = Pod(name="other", namespace=HOME, labels={network_policy.GROUP_LABEL: naming.group_set("other")})
NAMESPACES = [{"metadata": {"name": n, "labels": {labels.NAMESPACE_NAME: n}}} for n in (HOME, "gateway")]


def rules() -> Reachability:
    """The policies of the model."""
    spec = PolicySpec(model="large", namespace=HOME, gateway=(GATEWAY_PEER,), pooled=True, downloads=True)
    parts = (network_policy.workload, network_policy.picker, network_policy.group)
    made = [network_policy.default_deny(HOME), *(part(spec) for part in parts)]
    return Reachability(made, NAMESPACES)


def test_leader_and_workers_talk_at_the_ports_of_ray_and_the_tpus_and_nobody_joins_them() -> None:
    judged = rules()
    for port in preset.GROUP_PORTS:
        assert judged.allowed(WORKER, LEADER, port) and judged.allowed(LEADER, WORKER, port)
        assert not [
            who for who in (STRANGER, GATEWAY) for to in (LEADER, WORKER) if judged.allowed(who, to, port)
        ]
    assert not judged.allowed(LEADER, WORKER, 22) and not judged.allowed(WORKER, STRANGER, 6379)


def test_requests_reach_leaders_and_never_workers() -> None:
    judged = rules()
    assert judged.allowed(GATEWAY, LEADER, 8000)
    assert not judged.allowed(GATEWAY, WORKER, 8000) and not judged.allowed(WORKER, LEADER, 8000)
    # Pool, Service and policies select by these.
    assert not labels.model_workload("large").items() <= dict(WORKER.labels).items()


def test_workers_fetch_weights_and_ask_nothing_else() -> None:
    judged = rules()
    assert judged.allowed(WORKER, External("142.250.1.1"), 443)
    assert not judged.allowed(WORKER, External("169.254.169.254"), 80)
    assert not judged.allowed(WORKER, External("10.9.9.9"), 443)


def test_the_ports_of_a_group_fit_one_rule_of_cilium() -> None:
    assert len(set(preset.GROUP_PORTS)) == len(preset.GROUP_PORTS) <= 40


# -- the stack -----------------------------------------------------------------------------------------------------


def test_the_preset_stands_before_the_model_and_only_where_a_model_needs_it(tmp_path: Path) -> None:
    raw = raw_stack("multihost")
    raw["cluster"]["accelerators"]["small"] = {
        "machineType": "ct6e-standard-4t", "topology": "2x2", "maxNodes": 1,
    }  # fmt: skip
    raw["models"]["alone"] = {
        "uri": "hf://Qwen/Qwen2.5-3B-Instruct", "accelerator": "small", "namespace": "others", "maxModelLen": 2048,
    }  # fmt: skip
    recording = record_stack(raw, tmp_path)
    presets = (r for r in recording.registrations if r.inputs.get("kind") == "LLMInferenceServiceConfig")
    (made,) = (r for r in presets if r.inputs["metadata"]["name"] == preset.NAME)
    assert made.inputs["metadata"]["namespace"] == HOME
    services = {r.name: r for r in recording.registrations if r.inputs.get("kind") == "LLMInferenceService"}
    services = {name: r for name, r in services.items() if not r.type.endswith("Patch")}
    assert made.urn in services["qwen2-5-72b"].dependencies
    assert made.urn not in services["alone"].dependencies
