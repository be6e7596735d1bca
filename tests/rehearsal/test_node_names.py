"""Names of Services in what a program is started with become addresses of pods behind them."""

from __future__ import annotations

import pytest

from rehearsal.node.names import Names, Unresolved

POD = {"metadata": {"namespace": "apps", "name": "web-1", "labels": {"app": "web"}}}
OWN = "127.10.0.9"
SERVICES = {
    ("apps", "web"): ({"app": "web"}, [{"port": 80, "targetPort": 8080}]),
    ("limits", "store"): ({"app": "store"}, [{"port": 6379, "targetPort": "redis"}]),
    ("limits", "moved"): ({"app": "moved"}, [{"port": 9002, "targetPort": 9002}]),
    ("limits", "empty"): ({"app": "empty"}, [{"port": 1}]),
    ("limits", "external"): (None, [{"port": 1}]),
}
PODS = {"store": ("127.10.0.1", 6379), "moved": ("127.0.0.1", 40001)}


def service(namespace: str, name: str):
    if (namespace, name) not in SERVICES:
        return None
    selector, ports = SERVICES[namespace, name]
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": selector, "ports": ports},
    }


def endpoints(_namespace, labels, _port):
    return [PODS[labels["app"]]] if labels["app"] in PODS else []


def resolve(text: str) -> str:
    return Names(service, endpoints).resolve(text, POD, OWN)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("store.limits.svc.cluster.local:6379", "127.10.0.1:6379"),
        ("store.limits.svc:6379", "127.10.0.1:6379"),
        ("store.limits:6379", "127.10.0.1:6379"),
        ("store.limits.svc.cluster.local.:6379", "127.10.0.1:6379"),
        ("--host=store.limits.svc", "--host=127.10.0.1"),
        ("redis://:secret@store.limits.svc:6379/0", "redis://:secret@127.10.0.1:6379/0"),
        ("store.limits:6379,store.limits:6379", "127.10.0.1:6379,127.10.0.1:6379"),
        ("moved.limits.svc:9002", "127.0.0.1:40001"),
    ],
)
def test_a_name_becomes_the_address_that_answers_for_its_port(text: str, result: str) -> None:
    assert resolve(text) == result


@pytest.mark.parametrize(
    "text",
    [
        "store.limits",  # without .svc or a port it may be anything
        "store.limits.example.com:6379",
        "pod-0.store.limits.svc:6379",
        "my-store.limits-2:6379",
        "https://huggingface.co:443/store",
        "127.0.0.1:6379",
        "docker.io/org/image:1.2",
        "external.limits.svc:1",
        "unknown.limits.svc:6379",
        "",
    ],
)
def test_what_is_no_service_with_pods_stays_as_it_is(text: str) -> None:
    assert resolve(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("empty.limits.svc:1", "no Ready pod is behind the Service limits/empty"),
        ("store.limits.svc:6380", "Service limits/store has no port 6380"),
    ],
)
def test_a_service_that_cannot_answer_holds_the_program_back_and_is_named(text: str, why: str) -> None:
    with pytest.raises(Unresolved, match=why):
        resolve(text)


def test_a_pod_that_names_its_own_service_does_not_wait_for_itself() -> None:
    assert resolve("web.apps.svc") == OWN
