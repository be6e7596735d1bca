"""Which address a pod gets, and which pods are behind labels."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from rehearsal.node import kubelet as kubelet_module
from rehearsal.node.kubelet import Kubelet
from rehearsal.node.programs import Host


class Worker:
    """A pod whose program ends when the test says so."""

    def __init__(self, host: Host, pod: dict[str, Any], address: str, former: Worker | None = None):
        self.pod, self.address, self.former = pod, address, former
        self.labels = pod["metadata"].get("labels") or {}
        self.key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        self.deleted, self.ready_since, self.alive = threading.Event(), None, True

    def start(self) -> None:
        """The program does nothing."""

    def is_alive(self) -> bool:
        return self.alive

    def endpoint(self, port: int | str) -> tuple[str, int]:
        return (self.address, port) if isinstance(port, int) else (self.address, {"http": 80}.get(port, 0))


class Api:
    def list(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "node"}}]


@pytest.fixture
def kubelet(monkeypatch: pytest.MonkeyPatch) -> Kubelet:
    monkeypatch.setattr(kubelet_module, "PodWorker", Worker)
    host = Host(*(None,) * 7)  # type: ignore[arg-type]
    return Kubelet(Api(), host, 77)  # type: ignore[arg-type]


def pod(name: str, deployment: str = "", before: str = "", **labels: str) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "namespace": "apps", "uid": name, "labels": labels}
    if deployment:
        meta["labels"]["pod-template-hash"] = template = name.split("-")[1]
        meta["ownerReferences"] = [{"kind": "ReplicaSet", "name": f"{deployment}-{template}"}]
    return {
        "metadata": meta,
        "spec": {"nodeName": "node", "containers": []},
        "status": {"podIP": before} if before else {},
    }


def begin(kubelet: Kubelet, manifest: dict[str, Any]) -> Worker:
    kubelet._handle("ADDED", manifest)
    worker = kubelet.worker("apps", manifest["metadata"]["name"])
    assert isinstance(worker, Worker)
    return worker


def end(kubelet: Kubelet, manifest: dict[str, Any]) -> None:
    kubelet._handle(
        "MODIFIED", {**manifest, "metadata": {**manifest["metadata"], "deletionTimestamp": "now"}}
    )


def test_a_deployments_next_pod_takes_the_address_of_its_former_even_of_another_template(
    kubelet: Kubelet,
) -> None:
    first = pod("store-aa-1", "store")
    worker = begin(kubelet, first)
    end(kubelet, first)
    successor = begin(kubelet, pod("store-bb-1", "store"))
    assert successor.address == worker.address
    # The former may still hold its ports: the next one waits for its end.
    assert successor.former is worker


def test_nobody_else_takes_an_address_that_a_deployment_had(kubelet: Kubelet) -> None:
    first = pod("store-aa-1", "store")
    address = begin(kubelet, first).address
    end(kubelet, first)
    others = [begin(kubelet, pod(f"web-{n}", "web")) for n in range(3)] + [begin(kubelet, pod("job"))]
    assert address not in {w.address for w in others}
    assert begin(kubelet, pod("store-aa-2", "store")).address == address


def test_pods_that_run_at_the_same_time_never_share_an_address(kubelet: Kubelet) -> None:
    workers = [begin(kubelet, pod(f"web-{n}", "web")) for n in range(300)]
    assert len({w.address for w in workers}) == 300
    assert all(w.address.startswith("127.77.") for w in workers)


def test_a_restarted_kubelet_leaves_pods_where_they_were(kubelet: Kubelet) -> None:
    assert begin(kubelet, pod("web-aa-1", "web", before="127.77.0.9")).address == "127.77.0.9"
    assert begin(kubelet, pod("web-aa-2", "web", before="127.78.0.9")).address.startswith("127.77.")


def test_a_pod_that_is_ending_is_not_deleted_before_its_program_has_ended(kubelet: Kubelet) -> None:
    manifest = pod("store-aa-1", "store")
    worker = begin(kubelet, manifest)
    end(kubelet, manifest)
    end(kubelet, manifest)
    assert worker.deleted.is_set() and list(kubelet._ending) == ["store-aa-1"]


def test_endpoints_are_ready_pods_of_the_namespace_with_all_the_labels_and_the_port(kubelet: Kubelet) -> None:
    workers = [
        begin(kubelet, pod("web-1", app="web", part="of")),
        begin(kubelet, pod("web-2", app="web")),
        begin(kubelet, pod("db-1", app="db")),
    ]
    assert kubelet.endpoints("apps", {"app": "web"}, 80) == []
    for worker in workers:
        worker.ready_since = 0.0
    assert kubelet.endpoints("apps", {"app": "web"}, "http") == [(w.address, 80) for w in workers[:2]]
    assert kubelet.endpoints("apps", {"app": "web", "part": "of"}, 80) == [(workers[0].address, 80)]
    assert kubelet.endpoints("other", {"app": "web"}, 80) == []
    assert kubelet.endpoints("apps", {"app": "web"}, "no-such-port") == []
    assert kubelet.endpoints("apps", {"app": "web"}, 80, ready_seconds=1e12) == []
