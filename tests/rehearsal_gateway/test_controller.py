"""The controller programs a Gateway, says how it stands, and touches nothing without need."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from ops.kube import ApiError, UnknownKind
from rehearsal.stand_ins.gateway import GatewayController
from rehearsal.stand_ins.mirror import Mirror
from tests.rehearsal_gateway import example
from tests.rehearsal_gateway.conftest import Rig

ADDRESS = "127.0.0.1"


@pytest.fixture
def fresh(tmp_path: Path) -> Rig:
    return Rig(tmp_path, ADDRESS)


def condition(rig: Rig, kind: str = "Programmed") -> tuple[str, str, str]:
    conditions = rig.api.statuses["Gateway", example.GATEWAY]["conditions"]
    found = next(c for c in conditions if c["type"] == kind)
    return found["status"], found["reason"], found["message"]


def listener(rig: Rig, name: str) -> dict[str, tuple[str, str]]:
    listeners = rig.api.statuses["Gateway", example.GATEWAY]["listeners"]
    found = next(x for x in listeners if x["name"] == name)
    return {c["type"]: (c["status"], c["reason"]) for c in found["conditions"]}


def store(rig: Rig) -> None:
    """What was applied is in the API server now, as the controller will see."""
    for made in rig.api.applied:
        rig.controller.objects.put({**made, "metadata": {"generation": 1, **made["metadata"]}})
    rig.api.applied.clear()


def directory(rig: Rig, address: str = ADDRESS) -> Path:
    return rig.root / "gateway" / address


def test_a_gateway_is_programmed_once_a_pod_of_it_takes_traffic(fresh: Rig) -> None:
    fresh.put(example.gateway_pod(ADDRESS, ready=False))
    fresh.api.statuses.clear()
    fresh.controller.reconcile()
    assert condition(fresh)[:2] == ("False", "AddressNotAssigned")
    assert "addresses" not in fresh.api.statuses["Gateway", example.GATEWAY]
    # It is told what to do before it is ready, or it would never be.
    assert (directory(fresh) / "bootstrap.json").exists()
    fresh.put(example.gateway_pod(ADDRESS))
    assert condition(fresh)[0] == "True"


@pytest.mark.parametrize(
    ("annotations", "address"),
    [
        ({}, {"type": "IPAddress", "value": "127.0.0.1"}),
        (
            {"networking.istio.io/service-type": "ClusterIP"},
            {"type": "Hostname", "value": "llm-gateway-istio.llm-gateway.svc.cluster.local"},
        ),
    ],
)
def test_the_address_is_where_the_gateways_service_answers(
    fresh: Rig, annotations: dict[str, str], address: dict[str, str]
) -> None:
    fresh.put(example.gateway(annotations=annotations))
    assert fresh.api.statuses["Gateway", example.GATEWAY]["addresses"] == [address]


def test_a_refusal_names_object_and_field_and_its_end_is_noticed(
    fresh: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (directory(fresh) / "lds.json").read_text()
    broken = example.chain()
    broken["spec"]["configPatches"][0]["patch"]["operation"] = "REPLACE"
    fresh.put(broken)
    fresh.controller.reconcile()
    status, reason, message = condition(fresh)
    assert (status, reason) == ("False", "Invalid")
    assert "EnvoyFilter llm-gateway/llm-gateway-chain: spec.configPatches[0].patch.operation" in message
    assert listener(fresh, "http")["Programmed"] == ("False", "Invalid")
    assert (directory(fresh) / "lds.json").read_text() == before
    # Said once, not at every round.
    assert capsys.readouterr().out.count("refused") == 1
    fresh.put(example.chain())
    assert condition(fresh)[0] == "True"
    assert "accepted again" in capsys.readouterr().out


def test_an_object_that_cannot_be_read_does_not_end_the_controller(fresh: Rig) -> None:
    fresh.put(example.envoy_filter("odd", {"applyTo": "LISTENER", "patch": 7}))
    assert condition(fresh)[:2] == ("False", "Invalid")
    fresh.put(example.envoy_filter("odd"))
    assert condition(fresh)[0] == "True"


def test_a_listener_without_its_certificate_says_so_and_the_gateway_serves(fresh: Rig) -> None:
    fresh.api.secrets.clear()
    fresh.controller._secrets.clear()
    fresh.controller.reconcile()
    assert condition(fresh)[0] == "True"
    assert listener(fresh, "https")["ResolvedRefs"] == ("False", "InvalidCertificateRef")
    assert listener(fresh, "http")["ResolvedRefs"] == ("True", "ResolvedRefs")


def test_pods_and_service_are_made_once_and_again_when_they_are_gone(fresh: Rig) -> None:
    kinds = [m["kind"] for m in fresh.api.applied if m["metadata"]["name"] == "llm-gateway-istio"]
    assert kinds[:3] == ["ServiceAccount", "Deployment", "Service"]
    store(fresh)
    fresh.controller.reconcile()
    assert fresh.api.applied == []
    fresh.drop(example.item("Deployment", "llm-gateway-istio", example.HOME))
    assert [m["kind"] for m in fresh.api.applied] == ["ServiceAccount", "Deployment"]


def test_a_new_image_of_istiod_is_a_new_image_of_the_proxy(fresh: Rig) -> None:
    store(fresh)
    newer = example.istiod_pod()
    newer["spec"]["containers"][0]["image"] = "docker.io/istio/pilot:1.31.0"
    fresh.put(newer)
    (deployment,) = (m for m in fresh.api.applied if m["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "docker.io/istio/proxyv2:1.31.0"


@pytest.mark.parametrize("kind", ["Gateway", "Namespace"])
def test_nothing_is_made_for_a_gateway_that_goes_away(fresh: Rig, kind: str) -> None:
    fresh.api.applied.clear()
    name, home = (example.GATEWAY, example.HOME) if kind == "Gateway" else (example.HOME, "")
    going = fresh.controller.objects.get(kind, name, home)
    assert going is not None
    fresh.put({**going, "metadata": {**going["metadata"], "deletionTimestamp": "now"}})
    assert [m["kind"] for m in fresh.api.applied] == ["GatewayClass"]


def test_every_pod_of_a_gateway_is_told_and_forgotten_when_it_is_gone(fresh: Rig) -> None:
    second = example.gateway_pod("127.0.0.2", "second")
    fresh.put(second)
    bootstrap = json.loads((directory(fresh, "127.0.0.2") / "bootstrap.json").read_text())
    assert bootstrap["node"]["id"].startswith("router~127.0.0.2~second.llm-gateway~")
    fresh.drop(second)
    assert not directory(fresh, "127.0.0.2").exists()
    assert directory(fresh).exists()


def test_a_new_pod_at_an_old_address_is_told_everything(fresh: Rig) -> None:
    old = example.gateway_pod(ADDRESS)
    new = example.gateway_pod(ADDRESS, "successor")
    fresh.controller.objects.drop(old)
    fresh.put(new)
    bootstrap = json.loads((directory(fresh) / "bootstrap.json").read_text())
    assert "~successor.llm-gateway~" in bootstrap["node"]["id"]


def test_nothing_is_done_while_istiod_does_not_run_or_nothing_has_changed(tmp_path: Path) -> None:
    running = [False]
    rounds: list[int] = []

    class Counted(GatewayController):
        def reconcile(self) -> None:
            rounds.append(1)

    api: Any = None
    controller = Counted(api, lambda: running[0], example.nowhere, tmp_path)
    controller.act()
    assert not rounds
    running[0] = True
    for _ in range(5):
        controller.act()
    # Once for the change, and once more in case somebody else was slower to see it.
    assert len(rounds) == 2
    controller.objects.put(example.gateway())
    for _ in range(5):
        controller.act()
    assert len(rounds) == 4


def test_a_round_that_failed_is_tried_again(fresh: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = fresh.api.apply
    failures = [ApiError(500, "InternalError", "no")]

    def once(*arguments: Any, **more: Any) -> None:
        if failures:
            raise failures.pop()
        apply(*arguments, **more)

    monkeypatch.setattr(fresh.api, "apply", once)
    fresh.controller._applied.clear()
    fresh.api.applied.clear()
    with pytest.raises(ApiError):
        fresh.put(example.gateway_pod(ADDRESS))
    fresh.controller.act()
    assert fresh.api.applied


def test_a_kind_whose_definition_comes_later_is_followed_then() -> None:
    """Charts bring the kinds that the controller reads, while it already runs."""
    seen, stop = threading.Event(), threading.Event()

    class Late:
        asked = 0

        def kind(self, api_version: str, kind: str) -> None:
            self.asked += 1
            if self.asked < 3:
                raise UnknownKind(api_version, kind)

        def follow(self, *_: Any) -> Any:
            yield "ADDED", example.item("EnvoyFilter", "f", example.HOME)
            seen.set()
            stop.wait(10)

    mirror = Mirror(Late(), [("networking.istio.io/v1alpha3", "EnvoyFilter")])  # type: ignore[arg-type]
    thread = threading.Thread(target=mirror.run, args=(stop, lambda: None))
    thread.start()
    try:
        assert seen.wait(10)
        assert mirror.get("EnvoyFilter", "f", example.HOME) is not None
    finally:
        stop.set()
        thread.join(10)
