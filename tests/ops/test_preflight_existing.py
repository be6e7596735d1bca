"""`python -m ops preflight` for a cluster that is there already: each check with its condition set."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.preflight import existing_checks, existing_facts
from ops.preflight.existing_facts import Definition, Node, Version
from ops.preflight.site import Site, explain
from ops.preflight.verdicts import State, collect, judge
from tests.support.stacks import raw_stack

L4 = {"cloud.google.com/gke-accelerator": "nvidia-l4", "nvidia.com/gpu.product": "NVIDIA-L4"}
SERVER = "http://127.0.0.1:1"


class Cluster:
    """As much of an API server as preflight asks: objects by path, and what the caller may not do."""

    def __init__(self) -> None:
        self.lists: dict[str, list[Any]] = {"namespaces": [], "nodes": [], "customresourcedefinitions": []}
        self.refused: set[tuple[str, str]] = set()
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(cluster.get(self.path.partition("?")[0]))

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                wanted = asked["spec"]["resourceAttributes"]
                refused = (wanted["verb"], wanted["resource"]) in cluster.refused
                self._send({**asked, "status": {"allowed": not refused}})

            def log_message(self, *_: object) -> None:
                """Silent."""

            def _send(self, content: Any) -> None:
                text = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def get(self, path: str) -> Any:
        kinds = {
            "/api/v1": (("Namespace", "namespaces"), ("Node", "nodes")),
            "/apis/apiextensions.k8s.io/v1": (("CustomResourceDefinition", "customresourcedefinitions"),),
        }
        if path == "/version":
            return {"major": "1", "minor": "34+", "gitVersion": "v1.34.1"}
        if path in kinds:
            return {"resources": [{"kind": k, "name": n, "namespaced": False} for k, n in kinds[path]]}
        return {"metadata": {}, "items": self.lists[path.rsplit("/", 1)[1]]}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Cluster, Site]]:
    made = Cluster()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    raw = raw_stack("dev")
    address = f"http://127.0.0.1:{made.server.server_port}"
    named = {
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {}}],
    }
    context = {"name": raw["cluster"]["context"], "context": {"cluster": "c", "user": "u"}}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "contexts": [context], **named})
    )
    raw["cluster"]["kubeconfig"] = str(kubeconfig)
    config = {f"llm-platform:{name}": value for name, value in raw.items()}
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": config}))
    yield made, Site("dev", tmp_path, {})
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_a_cluster_tells_what_preflight_wants_to_know(cluster):
    made, site = cluster
    made.refused.add(("create", "clusterroles"))
    crd = {"metadata": {"name": "certificates.cert-manager.io"}, "spec": {"group": "cert-manager.io"}}
    made.lists["customresourcedefinitions"] = [crd]
    made.lists["namespaces"] = [
        {"metadata": {"name": "default"}},
        {"metadata": {"name": "istio-system", "labels": {"app.kubernetes.io/part-of": "llm-platform"}}},
    ]
    facts = collect(existing_facts.COLLECTORS, site, explain)
    assert facts["version"].full == "v1.34.1"
    assert facts["namespaces"] == {"default": False, "istio-system": True}
    assert facts["refused"] == ("create clusterroles.rbac.authorization.k8s.io",)
    said = {v.subject: v.finding for v in judge(existing_checks.CHECKS, facts)}
    assert said["cluster"].state is State.PASSED
    assert said["operator: istio"].state is State.PASSED
    assert "certificates.cert-manager.io is there already" in said["operator: cert-manager"].evidence
    assert said["operator: cert-manager"].fix.startswith("set platform.certManager to provided")
    assert said["accelerator: l4"].state is State.OPEN
    assert said["permissions"].evidence == "you may not create clusterroles.rbac.authorization.k8s.io"


def test_a_cluster_that_does_not_answer_leaves_everything_open_and_says_why(cluster):
    _, site = cluster
    file = Path(site.config.cluster.kubeconfig)
    content = yaml.safe_load(file.read_text())
    content["clusters"][0]["cluster"]["server"] = SERVER
    file.write_text(yaml.safe_dump(content))
    facts = collect(existing_facts.COLLECTORS, site, explain)
    found = judge(existing_checks.CHECKS, facts)
    assert {v.finding.state for v in found} == {State.OPEN}
    assert all(f"{SERVER} cannot be reached" in v.finding.evidence for v in found)


@pytest.mark.parametrize(
    ("version", "state"), [((1, 32), State.ADVICE), ((1, 36), State.PASSED), ((1, 37), State.ADVICE)]
)
def test_versions_outside_of_what_operators_support_are_advice(version, state):
    (found,) = existing_checks.reachable(Version("https://c", *version, "v"))
    assert found.state is state


@pytest.fixture
def needs(cluster) -> Any:
    return existing_facts.needs(cluster[1])


OURS = "cert-manager/cert-manager"


@pytest.mark.parametrize(
    ("definition", "namespaces", "state", "evidence"),
    [
        (None, {}, State.PASSED, "installed by `up`"),
        (None, {"cert-manager": True}, State.PASSED, "installed by `up`"),
        (None, {"cert-manager": False}, State.FAILED, "the namespace cert-manager is there"),
        (
            Definition("c", "cert-manager.io", OURS, ""),
            {},
            State.PASSED,
            "its definitions are here from before",
        ),
        (
            Definition("c", "cert-manager.io", "infra/cm", ""),
            {},
            State.FAILED,
            "by the Helm release infra/cm",
        ),
    ],
)
def test_an_operator_of_somebody_elses_is_a_clash(needs, definition, namespaces, state, evidence):
    found = existing_checks._managed(
        "cert-manager", needs, (definition,) if definition else (), {"default": False, **namespaces}
    )
    assert found.state is state and evidence in found.evidence


@pytest.mark.parametrize(("bundle", "state"), [("v1.4.0", State.PASSED), ("v1.6.0", State.FAILED)])
def test_shared_definitions_never_go_back_to_an_older_version(needs, bundle, state):
    here = (Definition("gateways", "gateway.networking.k8s.io", "", bundle),)
    assert existing_checks._managed("gateway-api", needs, here, {}).state is state


def test_an_operator_that_should_be_there_and_is_not_fails():
    (found,) = existing_checks._provided("kserve", ())
    assert found.state is State.FAILED and "remove platform.kserve: provided" in found.fix
    (found,) = existing_checks._provided("kserve", (Definition("x", "serving.kserve.io", "", ""),))
    assert found.state is State.PASSED


@pytest.mark.parametrize(
    ("chips", "ready", "state", "evidence"),
    [
        ("1", True, State.PASSED, "1 nodes with"),
        ("1", False, State.OPEN, "0 nodes with"),
        ("0", True, State.FAILED, "none with 1 nvidia.com/gpu"),
    ],
)
def test_nodes_must_be_there_and_give_what_a_replica_takes(needs, chips, ready, state, evidence):
    node = Node("n", {**L4, **needs.pools["l4"].node_selector}, ready, {"nvidia.com/gpu": chips})
    (found,) = existing_checks.accelerators(needs, (node,))
    assert found.state is state and evidence in found.evidence


def test_every_operator_is_known_by_its_groups(needs):
    assert {*needs.managed, *needs.provided} <= existing_checks.GROUPS.keys()
