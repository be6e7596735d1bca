"""Pods on a simulated node run the real ratelimit and Redis, find each other, and follow changes."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from rehearsal import toolchain
from rehearsal.node import images, probes
from tests.support.simulated_node import SPACE, Node, eventually

PASSWORD = "not-much-of-a-secret"
STORE = {"app": "valkey"}
COUNTER = {"app": "ratelimit"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    tools = toolchain.ensure(only=["ratelimit", "redis-server"])
    result = Node(tmp_path_factory.mktemp("node") / "rehearsal", tools.binary)
    yield result
    result.close()


def variable(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


def start_store(node: Node, name: str) -> None:
    """Valkey as an image's own entry point takes it, with the password from a Secret."""
    arguments = "valkey-server --requirepass $(VALKEY_PASSWORD) --maxmemory-policy noeviction --appendonly no"
    reference = {"secretKeyRef": {"name": "valkey-auth", "key": "password"}}
    container = {
        "image": "docker.io/valkey/valkey:8.1.4",
        "args": [*arguments.split(), "--save", ""],
        "env": [{"name": "VALKEY_PASSWORD", "valueFrom": reference}],
        "ports": [{"containerPort": 6379}],
        "readinessProbe": {"tcpSocket": {"port": 6379}},
    }
    node.api.start(name, STORE, container)


def start_counter(node: Node, name: str) -> None:
    reference = {"secretKeyRef": {"name": "valkey-auth", "key": "password"}}
    settings = {
        "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": f"valkey.{SPACE}.svc.cluster.local:6379",
        "RUNTIME_ROOT": "/data",
        "RUNTIME_SUBDIRECTORY": "ratelimit",
        "RUNTIME_WATCH_ROOT": "false",
        "RUNTIME_IGNOREDOTFILES": "true",
        "USE_STATSD": "false",
        "USE_PROMETHEUS": "true",
        "DEBUG_HOST": "127.0.0.1",
    }
    container = {
        "image": "docker.io/envoyproxy/ratelimit:3fb70258",
        "command": ["/bin/ratelimit"],
        "env": [
            *(variable(n, v) for n, v in settings.items()),
            {"name": "REDIS_AUTH", "valueFrom": reference},
        ],
        "ports": [{"name": "grpc", "containerPort": 8081}, {"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthcheck", "port": "http"}},
        "volumeMounts": [{"name": "config", "mountPath": "/data/ratelimit/config"}],
    }
    volume = {"name": "config", "configMap": {"name": "ratelimit-config"}}
    node.api.start(name, COUNTER, container, volumes=[volume])


def budget(requests: int) -> dict[str, str]:
    """The service's configuration; a day never ends during a test, or once in thousands of them."""
    limit = {"unit": "day", "requests_per_unit": requests}
    return {
        "config.yaml": yaml.safe_dump({"domain": "llmp", "descriptors": [{"key": "t", "rate_limit": limit}]})
    }


def ask(node: Node, name: str, tenant: str) -> int:
    """The status that a request of the tenant gets: 200 or 429, 500 without a store."""
    question = {"domain": "llmp", "descriptors": [{"entries": [{"key": "t", "value": tenant}]}]}
    request = urllib.request.Request(f"http://{node.address(name)}:8080/json", json.dumps(question).encode())
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.fixture(scope="module")
def counting(node: Node) -> Node:
    """A counting service that was started before its store."""
    password = base64.b64encode(PASSWORD.encode()).decode()
    node.api.add("Secret", "valkey-auth", data={"password": password})
    node.api.add("ConfigMap", "ratelimit-config", data=budget(1))
    port = {"port": 6379, "targetPort": 6379}
    node.api.add("Service", "valkey", spec={"selector": STORE, "ports": [port]})
    start_counter(node, "ratelimit-1")
    state = eventually(lambda: node.api.waiting("ratelimit-1"), "ratelimit waits for its store")
    assert state["reason"] == "CrashLoopBackOff"
    assert state["message"] == f"no Ready pod is behind the Service {SPACE}/valkey"
    start_store(node, "valkey-1")
    eventually(lambda: node.api.ready("ratelimit-1"), "ratelimit is Ready")
    return node


def test_the_store_listens_on_its_pods_address_and_has_the_password_of_its_secret(counting: Node) -> None:
    address = counting.address("valkey-1")
    with redis.Redis(address, 6379, password=PASSWORD) as store:
        assert store.ping() and store.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    once = Retry(NoBackoff(), 0)
    with redis.Redis(address, 6379, retry=once) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_the_counting_service_counts_in_the_store(counting: Node) -> None:
    assert [ask(counting, "ratelimit-1", "counted") for _ in range(3)] == [200, 429, 429]
    with redis.Redis(counting.address("valkey-1"), 6379, password=PASSWORD) as store:
        (key,) = store.keys("*counted*")
        assert int(store.get(key)) == 3


def test_a_grpc_probe_asks_the_program(counting: Node) -> None:
    place = counting.address("ratelimit-1")
    probe = {"grpc": {"port": 8081, "service": "ratelimit"}}
    assert probes.passes(probe, lambda port: (place, port), age=1)
    assert not probes.passes({"grpc": {"port": 8081, "service": "else"}}, lambda port: (place, port), age=1)
    assert not probes.passes(probe, lambda port: (place, 8090), age=1)


def test_its_servers_are_all_on_the_pods_address_so_that_two_fit_on_one_machine(counting: Node) -> None:
    start_counter(counting, "ratelimit-2")
    eventually(lambda: counting.api.ready("ratelimit-2"), "a second ratelimit is Ready")
    found = counting.kubelet.endpoints(SPACE, COUNTER, "grpc")
    assert found == [(counting.address(n), 8081) for n in ("ratelimit-1", "ratelimit-2")]
    for host, _ in found:
        with urllib.request.urlopen(f"http://{host}:9090/metrics", timeout=5) as answer:
            assert answer.status == 200


def test_a_changed_budget_reaches_the_running_service(counting: Node) -> None:
    before = counting.api.status("ratelimit-1")["containerStatuses"][0]["restartCount"]
    counting.api.add("ConfigMap", "ratelimit-config", data=budget(0))
    eventually(lambda: ask(counting, "ratelimit-1", f"late-{time.monotonic()}") == 429, "the budget is zero")
    counting.api.add("ConfigMap", "ratelimit-config", data=budget(1))
    eventually(lambda: ask(counting, "ratelimit-1", f"late-{time.monotonic()}") == 200, "the budget is back")
    assert counting.api.status("ratelimit-1")["containerStatuses"][0]["restartCount"] == before


def test_a_replaced_store_has_the_address_of_the_former_and_is_used_again(counting: Node) -> None:
    before = counting.address("valkey-1")
    counting.api.end("valkey-1")
    start_store(counting, "valkey-2")
    eventually(lambda: counting.api.ready("valkey-2"), "the new store is Ready")
    assert counting.address("valkey-2") == before
    eventually(lambda: ask(counting, "ratelimit-1", f"new-{time.monotonic()}") == 200, "it counts again")
    eventually(lambda: not counting.api.status("valkey-1"), "the old pod is gone")


def test_every_program_has_an_image_and_the_data_plane_is_real() -> None:
    real = {what.binary for what in images.IMAGES.values() if isinstance(what, images.Program)}
    assert {"proxyv2", "ratelimit", "redis-server", "epp"} <= real
