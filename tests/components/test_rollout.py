"""What a change takes, and the program that makes room for it in full pools."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from components.core import labels, naming
from components.serving.manifests import make_room
from components.serving.manifests.llm_service import llm_service
from components.serving.manifests.make_room import REVISION, decide
from components.serving.manifests.rollout import PROGRAM, Rollout, RoomSpec, grace_seconds
from components.serving.manifests.rollout import make_room as objects
from stacks.config import StackConfig, load_config
from stacks.config.plans import needs_room, rollout
from stacks.rollouts import announcement, rollouts
from tests.components.test_serving import MODEL
from tests.support.stacks import raw_stack, record_stack

TPU, OTHER = {"pool": "v6e-on-demand"}, {"pool": "v6e-spot"}


class World:
    """A Deployment with its ReplicaSets and pods, and what their controllers and the scheduler do with them.

    The Deployment is KServe's: one pod above its replicas, none below. `nodes` have room for one pod each, and
    `broken` are revisions whose pods never become Ready. The pods of a `one_node` world mount a volume, which comes
    to no other node before the pods that have it are gone.
    """

    def __init__(
        self, replicas: int, nodes: int, place: dict[str, str] | None = None, one_node: bool = False
    ):
        self.one_node = one_node
        self.replicas, self.nodes, self.revision = replicas, nodes, 1
        self.sizes, self.places = {1: replicas}, {1: place or TPU}
        self.pods = {1: ["ready"] * replicas}
        self.broken: set[int] = set()
        self.fewest = replicas

    def change(self, place: dict[str, str] | None = None) -> None:
        self.revision += 1
        self.sizes[self.revision], self.pods[self.revision] = 0, []
        self.places[self.revision] = place or self.places[self.revision - 1]

    @property
    def ready(self) -> int:
        return sum(states.count("ready") for states in self.pods.values())

    def kubernetes(self) -> None:
        """One round of the Deployment's controller, the ReplicaSets' and the scheduler."""
        total = sum(self.sizes.values())
        new = self.revision
        self.sizes[new] += max(0, min(self.replicas + 1 - total, self.replicas - self.sizes[new]))
        old = [revision for revision in self.sizes if revision != new]
        waiting = self.sizes[new] - self.pods[new].count("ready")
        # First those that do not serve, then as many as serve beyond the replicas (rolling.go of Kubernetes).
        self._shrink(old, sum(self.sizes.values()) - self.replicas - waiting, useless=True)
        self._shrink(old, self.ready - self.replicas, useless=False)
        for revision, size in self.sizes.items():
            states = sorted(self.pods[revision], key=["ready", "started", "homeless"].index)[:size]
            self.pods[revision] = states + ["homeless"] * (size - len(states))
        for revision, states in self.pods.items():
            for n, state in enumerate(states):
                if state == "started" and revision not in self.broken and not self._held(revision):
                    states[n] = "ready"
                elif state == "homeless" and self._free(revision):
                    states[n] = "started"
        self.fewest = min(self.fewest, self.ready)

    def _shrink(self, old: list[int], most: int, useless: bool) -> None:
        for revision in old:
            idle = max(0, self.sizes[revision] - self.pods[revision].count("ready"))
            gone = max(0, min(most, idle if useless else self.sizes[revision]))
            self.sizes[revision] -= gone
            most -= gone

    def _held(self, revision: int) -> bool:
        return self.one_node and any("ready" in states for r, states in self.pods.items() if r != revision)

    def _free(self, revision: int) -> bool:
        here = [r for r in self.pods if self.places[r] == self.places[revision]]
        used = sum(state != "homeless" for r in here for state in self.pods[r])
        return used < self.nodes

    def step(self, ending: bool = False) -> tuple[int, int] | None:
        """Let the program look once; the revision that it shrinks, and to what."""
        if move := decide(self.deployment(), self.replica_sets(), self.living(ending), self.one_node):
            found, size = move
            self.sizes[int(found["metadata"]["uid"])] = size
            return int(found["metadata"]["uid"]), size
        return None

    def roll(self, rounds: int = 40) -> None:
        for _ in range(rounds):
            self.kubernetes()
            self.step()

    def deployment(self) -> dict[str, Any]:
        return {
            "metadata": {"uid": "d", "generation": 2, "annotations": {REVISION: str(self.revision)}},
            "spec": {"replicas": self.replicas},
            "status": {"observedGeneration": 2},
        }

    def replica_sets(self) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {
                    "uid": str(revision),
                    "annotations": {REVISION: str(revision)},
                    "ownerReferences": [{"uid": "d", "controller": True}],
                },
                "spec": {
                    "replicas": size,
                    "template": {"spec": {"nodeSelector": self.places[revision]}},
                },
            }
            for revision, size in self.sizes.items()
        ]

    def living(self, ending: bool = False) -> list[dict[str, Any]]:
        found = [pod_of(revision, state) for revision, states in self.pods.items() for state in states]
        return [*found, *([ending_pod()] if ending else [])]


def pod_of(revision: int, state: str) -> dict[str, Any]:
    scheduled = {"type": "PodScheduled", "status": "True"}
    if state == "homeless":
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    ready = {"type": "Ready", "status": "True" if state == "ready" else "False"}
    return {
        "metadata": {"ownerReferences": [{"uid": str(revision), "controller": True}]},
        "status": {"conditions": [scheduled, ready]},
    }


def ending_pod() -> dict[str, Any]:
    pod = pod_of(1, "ready")
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return pod


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_full_pool_stands_still_without_the_program(replicas: int) -> None:
    world = World(replicas, nodes=replicas)
    world.change()
    for _ in range(40):
        world.kubernetes()
    assert world.pods[2].count("ready") == 0


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_in_a_full_pool_every_replica_is_replaced_and_one_at_most_is_missing(replicas: int) -> None:
    world = World(replicas, nodes=replicas)
    world.change()
    world.roll()
    assert world.pods == {1: [], 2: ["ready"] * replicas}
    assert world.fewest == replicas - 1


def test_with_a_spare_node_the_program_does_nothing_and_none_is_missing() -> None:
    world = World(3, nodes=4)
    world.change()
    for _ in range(20):
        world.kubernetes()
        # The pool's node is there at once; where it is still to come, the program is not installed.
        assert world.step() is None
    assert world.pods == {1: [], 2: ["ready"] * 3} and world.fewest == 3


def test_a_new_replica_that_does_not_start_costs_one_replica_and_no_more() -> None:
    world = World(3, nodes=3)
    world.change()
    world.broken = {2}
    world.roll()
    assert world.pods[1] == ["ready"] * 2


def test_what_failed_makes_room_for_what_comes_after_it() -> None:
    world = World(3, nodes=3)
    world.change()
    world.broken = {2}
    world.roll()
    world.change()
    world.roll()
    assert world.pods[3] == ["ready"] * 3
    assert world.fewest == 2


def test_nothing_goes_while_a_replica_ends_or_starts() -> None:
    world = World(3, nodes=3)
    world.change()
    world.kubernetes()
    assert decide(world.deployment(), world.replica_sets(), world.living(ending=True)) is None
    assert world.step() == (1, 2)
    world.kubernetes()
    assert "started" in world.pods[2] and world.step() is None


def test_replicas_that_move_to_another_pool_keep_the_old_ones_until_its_nodes_are_there() -> None:
    world = World(3, nodes=3)
    world.change(place=OTHER)
    world.nodes = 0
    for _ in range(10):
        world.kubernetes()
        world.pods[1] = ["ready"] * 3
        assert world.step() is None


@pytest.mark.parametrize("place", [TPU, OTHER])
def test_a_volume_of_one_node_is_given_up_for_a_new_pod_that_has_a_node_in_any_pool(
    place: dict[str, str],
) -> None:
    world = World(1, nodes=2, one_node=True)
    world.change(place)
    world.kubernetes()
    assert world.pods == {1: ["ready"], 2: ["started"]}
    seen = (world.deployment(), world.replica_sets(), world.living())
    assert decide(*seen) is None
    assert decide(*seen, one_node=True) == (seen[1][0], 0)
    world.roll()
    assert world.pods == {1: [], 2: ["ready"]}


def test_without_the_flag_a_pod_that_waits_for_its_volume_waits_for_ever() -> None:
    world = World(1, nodes=2, one_node=True)
    world.change()
    for _ in range(40):
        world.kubernetes()
        assert decide(world.deployment(), world.replica_sets(), world.living()) is None
    assert world.pods == {1: ["ready"], 2: ["started"]}


def test_a_volume_stays_with_the_pod_that_serves_until_the_other_pool_has_a_node() -> None:
    world = World(1, nodes=1, one_node=True)
    world.change(place=OTHER)
    world.nodes = 0
    for _ in range(10):
        world.kubernetes()
        assert world.step() is None
    assert world.pods == {1: ["ready"], 2: ["homeless"]}
    world.nodes = 1
    world.roll()
    assert world.pods == {1: [], 2: ["ready"]}


@pytest.mark.parametrize("one_node", [False, True])
def test_the_program_looks_with_the_flag_that_its_pod_has(
    one_node: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = dict(objects(RoomSpec(model="qwen", namespace="llm-models", image="python:3", one_node=one_node)))
    (container,) = made["deployment"]["spec"]["template"]["spec"]["containers"]
    looked: list[tuple[str, str, bool]] = []

    def look(namespace: str, name: str, flag: bool) -> None:
        looked.append((namespace, name, flag))
        raise KeyboardInterrupt

    monkeypatch.setattr(make_room, "look", look)
    monkeypatch.setattr("sys.argv", [PROGRAM.name, *container["args"]])
    with pytest.raises(KeyboardInterrupt):
        make_room.main()
    assert looked == [("llm-models", naming.workload("qwen"), one_node)]


def test_a_change_that_its_controller_has_not_seen_is_left_alone() -> None:
    world = World(3, nodes=3)
    world.change()
    world.kubernetes()
    deployment = world.deployment()
    deployment["status"]["observedGeneration"] = 1
    assert decide(deployment, world.replica_sets(), world.living()) is None


def test_the_program_runs_on_the_standard_library_and_is_what_the_pod_gets() -> None:
    made = dict(objects(RoomSpec(model="qwen", namespace="llm-models", image="python:3")))
    assert made["program"]["data"] == {PROGRAM.name: PROGRAM.read_text()}
    assert make_room.__file__ == str(PROGRAM)
    assert "components" not in PROGRAM.read_text().split("from pathlib")[0].split('"""')[2]
    pod = made["deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == ["llm-models", naming.workload("qwen")]


def test_the_program_may_read_one_deployment_and_change_sizes_alone() -> None:
    made = dict(objects(RoomSpec(model="qwen", namespace="llm-models", image="python:3")))
    changes = [rule for rule in made["role"]["rules"] if set(rule["verbs"]) - {"get", "list"}]
    assert changes == [{"apiGroups": ["apps"], "resources": ["replicasets/scale"], "verbs": ["patch"]}]
    policy = made["policy"]["spec"]
    assert policy["ingress"] == [] and len(policy["egress"]) == 1
    assert policy["podSelector"]["matchLabels"].items() <= (
        made["deployment"]["spec"]["template"]["metadata"]["labels"].items()
    )
    assert labels.KSERVE_COMPONENT not in policy["podSelector"]["matchLabels"]


def test_a_pod_may_finish_the_longest_request_that_the_gateway_lets_through() -> None:
    # KServe gives the engine the grace period less its preStop of 15 s and 5 s (shutdownTimeout, kserve 0.20).
    assert grace_seconds(600) - 15 - 5 == 600
    (template,) = [
        llm_service(spec, "door", "gateway", ())["spec"]["template"]
        for spec in [MODEL.__class__(**{**MODEL.__dict__, "grace_seconds": grace_seconds(600)})]
    ]
    assert template["terminationGracePeriodSeconds"] == 620


@pytest.mark.parametrize(
    ("replicas", "spare", "hosts", "missing", "starts", "in_place"),
    [
        (0, False, 1, 0, 1, False),
        (1, False, 1, 1, 1, True),
        (1, True, 1, 0, 1, False),
        (3, False, 1, 1, 3, True),
        (3, True, 1, 0, 3, False),
        # From four on Kubernetes' own default lets a quarter be missing, room or not.
        (4, False, 1, 1, 4, False),
        (8, True, 1, 2, 4, False),
        # LeaderWorkerSets replace one group at a time in its place.
        (1, False, 4, 1, 1, False),
        (3, True, 4, 1, 3, False),
    ],
)
def test_what_a_change_takes(
    replicas: int, spare: bool, hosts: int, missing: int, starts: int, in_place: bool
) -> None:
    plan = Rollout(replicas=replicas, spare=spare, hosts=hosts)
    assert (plan.missing, plan.starts, plan.in_place) == (missing, starts, in_place)


def test_an_interruption_is_announced_exactly_where_there_is_one() -> None:
    for replicas, spare, hosts in itertools.product(range(9), (True, False), (1, 4)):
        plan = Rollout(replicas=replicas, spare=spare, hosts=hosts)
        interrupts = replicas > 0 and plan.missing == replicas
        assert str(plan).startswith("interrupts serving") == interrupts, plan


def planned(replicas: int, most: int, others: int = 0, **more: Any) -> Rollout:
    """How the TPU stack's model is replaced, in a pool of so many nodes that it shares with others of one replica."""
    raw = raw_stack("tpu")
    (name,) = raw["models"]
    model = {**raw["models"][name], "replicas": replicas}
    single = {**model, "replicas": 1}
    raw["models"] = {name: model} | {f"other-{n}": single for n in range(others)}
    raw["cluster"]["accelerators"]["v6e"]["maxNodes"] = most
    return rollouts(load_config({**raw, **more}))[name]


def test_a_pool_has_room_when_all_its_models_may_change_at_once() -> None:
    assert not planned(3, 3).spare
    assert planned(3, 4).spare
    assert not planned(2, 4, others=1).spare
    assert planned(2, 5, others=1).spare


CLAIM = {"uri": "pvc://weights/", "claim": {"size": "50Gi", "shared": False}}


def with_volume(volume: dict[str, Any], **others: Any) -> StackConfig:
    """The dev stack, whose pool has room beside its only replica, with a volume for its model."""
    raw = raw_stack("dev")
    (name,) = raw["models"]
    raw["models"] = {"model": raw["models"][name] | volume}
    raw["models"] |= {other: raw["models"]["model"] | changes for other, changes in others.items()}
    (pool,) = raw["cluster"]["accelerators"].values()
    pool["maxNodes"] = 2 * len(raw["models"])
    return load_config(raw)


@pytest.mark.parametrize(
    ("volume", "interrupts"),
    [
        ({}, False),
        (CLAIM, True),
        ({"uri": "pvc://weights/", "claim": {"size": "50Gi", "shared": True}}, False),
        # Nobody said how somebody else's claim is mounted.
        ({"uri": "pvc://weights/"}, False),
        ({"cache": {"size": "50Gi", "shared": False}}, True),
        ({"cache": {"size": "50Gi", "shared": True}}, False),
        ({**CLAIM, "runtime": "vllm-cuda"}, True),
    ],
)
def test_with_a_volume_of_one_node_the_only_replica_ends_first_whatever_room_there_is(
    volume: dict[str, Any], interrupts: bool
) -> None:
    config = with_volume(volume)
    plan = rollouts(config)["model"]
    ours = "runtime" in volume
    assert str(plan).startswith("interrupts serving") == interrupts, plan
    assert str(plan).endswith("as one node at a time mounts its volume") == interrupts, plan
    assert needs_room(config, "model") == (interrupts and not ours)
    assert (plan.strategy["type"] == "Recreate") == interrupts


def test_a_claim_that_another_entry_describes_is_of_one_node_for_all_its_readers() -> None:
    reader = {"claim": None}
    config = with_volume({**CLAIM, "replicas": 0}, reader={**reader, "replicas": 1})
    assert rollout(config, "reader").one_node
    elsewhere = with_volume({**CLAIM, "replicas": 0}, reader={**reader, "namespace": "elsewhere"})
    assert not rollout(elsewhere, "reader").one_node


def test_what_makes_room_is_told_of_the_volume(tmp_path: Path) -> None:
    raw = raw_stack("dev")
    (name,) = raw["models"]
    raw["models"] = {"bare": raw["models"][name], "claimed": raw["models"][name] | CLAIM}
    (pool,) = raw["cluster"]["accelerators"].values()
    pool["maxNodes"] = 2
    flags = {
        r.name: r.inputs["spec"]["template"]["spec"]["containers"][0]["args"][2:]
        for r in record_stack(raw, tmp_path).objects
        if r.name.endswith("-room-deployment")
    }
    assert flags == {"bare-room-deployment": [], "claimed-room-deployment": [make_room.ONE_NODE]}


def test_models_of_which_the_same_is_true_are_announced_together() -> None:
    raw = raw_stack("tpu")
    (name,) = raw["models"]
    model = raw["models"][name]
    raw["models"] |= {"another": model, "zero": {**model, "replicas": 0}}
    raw["cluster"]["accelerators"]["v6e"]["maxNodes"] = 6
    said = announcement(load_config(raw)).splitlines()
    assert [line.split(";")[0] for line in said] == [
        f"a change of another, {name} needs no spare node",
        "a change of zero interrupts nothing: no replica runs",
    ]


def test_asleep_a_change_interrupts_nothing_and_room_is_made_as_before() -> None:
    assert str(planned(3, 3, power="asleep")).startswith("interrupts nothing")
    raw = raw_stack("tpu") | {"power": "asleep"}
    (name,) = raw["models"]
    assert rollout(load_config(raw), name).in_place
