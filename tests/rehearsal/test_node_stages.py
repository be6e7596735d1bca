"""A model's pod passes its stages as on a cluster, is held and fails in each, and ends without cutting answers off."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rehearsal import engine
from rehearsal.node.faults import BadFaults, Faults
from tests.support.simulated_node import SPACE, Node, eventually

LABELS = {"app": "qwen"}
DOWNLOAD = {
    "name": "storage-initializer",
    "image": "kserve/storage-initializer:v0.20.0",
    "args": ["hf://Qwen/Qwen3-0.6B", "/mnt/models"],
    "terminationMessagePolicy": "FallbackToLogsOnError",
}
HEALTH = {"httpGet": {"path": "/health", "port": 8000}}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    root = tmp_path / "rehearsal"
    result = Node(root, lambda name: root / "bin" / name)
    engine.install_commands(result.paths)
    yield result
    result.close()


def start(node: Node, *flags: str, chip: str = "google.com/tpu", **container: Any) -> None:
    """One replica of a model, as KServe's preset makes it."""
    engine_ = {
        "image": "vllm/vllm-tpu:v0.22.0",
        "args": ["/mnt/models", "--served-model-name=qwen", "--port=8000", *flags],
        "resources": {"limits": {chip: "4"}},
        "readinessProbe": HEALTH,
        "startupProbe": {**HEALTH, "failureThreshold": 90},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **container,
    }
    node.api.start("qwen-1", LABELS, engine_, initContainers=[DOWNLOAD], terminationGracePeriodSeconds=60)


def stages(node: Node, **entry: Any) -> None:
    """Put an entry for every model's pod into force, in one step."""
    fresh = node.paths.faults.with_suffix(".new")
    fresh.write_text(yaml.safe_dump({"stages": [{"match": f"{SPACE}/*", **entry}]}))
    fresh.replace(node.paths.faults)


def containers(node: Node) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reported status of the init container and of the engine; empty until there is one."""
    told = node.api.status("qwen-1")
    found = [told.get(key) or [{}] for key in ("initContainerStatuses", "containerStatuses")]
    return found[0][0], found[1][0]


def shown(node: Node) -> str:
    """What `kubectl get pods` shows under STATUS and READY, from the reported status alone."""
    first, main = (c.get("state") or {} for c in containers(node))
    if "terminated" not in first:
        waiting = first.get("waiting", {}).get("reason")
        return "Init:0/1" if waiting in (None, "PodInitializing") else f"Init:{waiting}"
    if "waiting" in main:
        return main["waiting"]["reason"]
    return f"{node.api.status('qwen-1')['phase']} {int(containers(node)[1]['ready'])}/1"


def log(node: Node, container: str) -> list[str]:
    file = node.paths.logs / f"{SPACE}_qwen-1_{container}.log"
    return file.read_text().splitlines() if file.exists() else []


def test_a_models_pod_passes_every_stage_and_stays_in_each_for_as_long_as_it_is_held(node: Node) -> None:
    stages(node, hold="download")
    start(node)
    eventually(lambda: containers(node)[0].get("state", {}).get("running"), "the download begins")
    assert (shown(node), log(node, "storage-initializer")) == (
        "Init:0/1", ["Copying contents of hf://Qwen/Qwen3-0.6B to local"],
    )  # fmt: skip
    stages(node, hold="pull")
    eventually(lambda: shown(node) == "PodInitializing", "the engine's image is pulled")
    assert "Successfully copied hf://Qwen/Qwen3-0.6B to /mnt/models" in log(node, "storage-initializer")
    stages(node, hold="load")
    eventually(lambda: log(node, "main"), "the engine begins")
    eventually(lambda: shown(node) == "Running 0/1", "it is seen to run")
    assert containers(node)[1]["started"] is False and containers(node)[1]["state"]["running"]["startedAt"]
    stages(node, hold="compile")
    eventually(lambda: "Compiling the model" in log(node, "main")[-1], "it compiles")
    assert shown(node) == "Running 0/1"
    stages(node)
    eventually(lambda: shown(node) == "Running 1/1", "it is ready")
    order = ("shards:   0%", "shards: 100%", "Loading weights took", "GPU KV cache size: ", "Compiling the model",
             "Compiled the model", "Starting vLLM API server")  # fmt: skip
    assert [part for line in log(node, "main") for part in order if part in line] == list(order)


def test_a_gpus_engine_captures_graphs_where_a_tpus_compiles(node: Node) -> None:
    start(node, chip="nvidia.com/gpu")
    eventually(lambda: shown(node) == "Running 1/1", "it is ready")
    said = "\n".join(log(node, "main"))
    assert "Graph capturing finished" in said and "different input shapes" not in said


FAILURES = {
    "download": ("Init:CrashLoopBackOff", 1, "Storage initialization failed: 401 gated"),
    "compile": ("CrashLoopBackOff", 1, "Engine core initialization failed. 401 gated"),
}


@pytest.mark.parametrize("stage", FAILURES)
def test_a_stage_that_fails_is_tried_again_and_again_and_says_why(node: Node, stage: str) -> None:
    shows, code, words = FAILURES[stage]
    index = 0 if stage == "download" else 1
    stages(node, fail=stage, message="401 gated")
    start(node)
    eventually(lambda: containers(node)[index].get("restartCount"), "it is tried again")
    eventually(lambda: shown(node) == shows, f"it shows {shows}")
    ended = containers(node)[index]["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (code, "Error") and words in ended["message"]
    stages(node)
    eventually(lambda: shown(node) == "Running 1/1", "it starts once the reason is gone")


@pytest.mark.parametrize(("stage", "index"), [("download", 0), ("load", 1)])
def test_a_container_that_needs_too_much_memory_is_reported_as_killed_for_it(
    node: Node, stage, index
) -> None:
    stages(node, fail=stage, outOfMemory=True)
    start(node)
    ended = eventually(lambda: containers(node)[index].get("lastState", {}).get("terminated"), "it is killed")
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


def test_an_image_that_cannot_be_pulled_is_waited_for(node: Node) -> None:
    stages(node, fail="pull", message="quota of pulls exceeded")
    start(node)
    eventually(lambda: shown(node) == "ImagePullBackOff", "the pull is tried again")
    assert containers(node)[1]["state"]["waiting"]["message"] == "quota of pulls exceeded"
    assert containers(node)[0]["ready"] and node.api.status("qwen-1")["phase"] == "Pending"
    stages(node)
    eventually(lambda: shown(node) == "Running 1/1", "it is pulled in the end")


def test_an_engine_that_starts_for_longer_than_its_startup_probe_allows_is_started_anew(node: Node) -> None:
    stages(node, hold="load")
    start(node, startupProbe={**HEALTH, "failureThreshold": 1, "periodSeconds": 1})
    ended = eventually(lambda: containers(node)[1].get("lastState", {}).get("terminated"), "it is ended")
    assert ended["exitCode"] == 137
    again = containers(node)[1]["restartCount"]
    eventually(lambda: containers(node)[1]["restartCount"] > again, "it is started anew and ended again")


def test_seconds_are_spent_in_a_stage(tmp_path: Path) -> None:
    faults = Faults(tmp_path / "faults.yaml")
    faults.file.write_text("stages:\n- {match: 'llm/*', load: 20, hold: compile}\n- {match: '*', load: 1}\n")
    load = faults.stage("llm/qwen-1", "load")
    assert [load.over(19.9, otherwise=0.5), load.over(20.0, otherwise=0.5)] == [False, True]
    assert not faults.stage("llm/qwen-1", "compile").over(1e9)
    assert faults.stage("else/qwen-1", "load").seconds == 1
    assert not faults.stage("llm/qwen-1", "pull").over(0.4, otherwise=0.5)


@pytest.mark.parametrize("entry", ["{match: '*', lode: 1}", "{match: '*', hold: loading}", "{load: 1}"])
def test_settings_that_mean_nothing_are_refused_by_name(tmp_path: Path, entry: str) -> None:
    faults = Faults(tmp_path / "faults.yaml")
    faults.file.write_text(f"stages:\n- {entry}\n")
    with pytest.raises(BadFaults, match="a stage has (lode|loading|no match); there are: compile, download"):
        faults.stage("llm/qwen-1", "load")


class Answer(threading.Thread):
    """A streamed answer of so many tokens, read by a client of its own."""

    def __init__(self, node: Node, tokens: int):
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection(node.address("qwen-1"), 8000, timeout=30)
        body = {"prompt": "Hello", "max_tokens": tokens, "ignore_eos": True, "stream": True}
        self._connection.request(
            "POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"}
        )
        self._response = self._connection.getresponse()
        self.first = self._response.readline()
        self.whole = False

    def run(self) -> None:
        try:
            self.whole = b"data: [DONE]" in self._response.read()
        except (http.client.HTTPException, OSError):
            self.whole = False
        finally:
            self._connection.close()


SLOW = [{"name": "REHEARSAL_DECODE_SECONDS", "value": "0.02"}]
LAST_WISH = {"preStop": {"exec": {"command": ["/bin/sleep", "15"]}}}


@pytest.mark.parametrize(("flags", "whole"), [(("--shutdown-timeout=40",), True), ((), False)])
def test_a_pod_that_ends_finishes_its_answers_where_the_engine_is_told_to(node: Node, flags, whole) -> None:
    start(node, *flags, env=SLOW)
    eventually(lambda: shown(node) == "Running 1/1", "it is ready")
    answer = Answer(node, tokens=100)
    node.api.end("qwen-1")
    answer.start()
    eventually(lambda: not node.api.status("qwen-1"), "the pod is gone")
    answer.join()
    assert answer.first.startswith(b"data:") and answer.whole is whole


def test_requests_are_taken_while_the_hook_before_the_end_sleeps(node: Node) -> None:
    start(node, "--shutdown-timeout=40", env=SLOW, lifecycle=LAST_WISH)
    eventually(lambda: shown(node) == "Running 1/1", "it is ready")
    node.api.end("qwen-1")
    eventually(lambda: not node.kubelet.workers(), "the node has seen that the pod ends")
    late = Answer(node, tokens=100)
    late.run()
    assert late.whole


def test_a_pod_without_a_period_of_grace_ends_at_once(node: Node) -> None:
    start(node, "--shutdown-timeout=40", env=SLOW, lifecycle=LAST_WISH)
    eventually(lambda: shown(node) == "Running 1/1", "it is ready")
    answer = Answer(node, tokens=1000)
    node.api.end("qwen-1", deletionGracePeriodSeconds=0)
    answer.run()
    assert not answer.whole
