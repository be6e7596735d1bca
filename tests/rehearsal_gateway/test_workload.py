"""A Gateway's pods are those that istiod would make."""

from __future__ import annotations

from typing import Any

import pytest

from rehearsal.gateway import workload
from rehearsal.gateway.objects import Unsupported
from tests.rehearsal_gateway.example import (
    GATEWAY,
    HOME,
    World,
    changed,
    gateway,
    istiod_pod,
    listener,
    pod,
)

IMAGE = "docker.io/istio/proxyv2:1.30.3"


def made(given: Any = None) -> dict[str, Any]:
    return {m["kind"]: m for m in workload.manifests(given or gateway(), IMAGE)}


def test_all_three_are_named_after_the_gateway_and_go_with_it() -> None:
    for item in made().values():
        meta = item["metadata"]
        assert (meta["name"], meta["namespace"]) == (f"{GATEWAY}-istio", HOME)
        (owner,) = meta["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Gateway", GATEWAY, f"Gateway-{GATEWAY}")
        assert meta["labels"]["gateway.networking.k8s.io/gateway-name"] == GATEWAY


def test_the_pods_are_what_the_deployment_and_the_service_select() -> None:
    found = made()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert found["Service"]["spec"]["selector"].items() <= labels.items()


def test_whoever_scales_the_gateway_is_not_overruled() -> None:
    assert "replicas" not in made()["Deployment"]["spec"]


def test_a_pod_is_ready_when_envoy_is() -> None:
    (container,) = made()["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == IMAGE
    assert container["readinessProbe"]["httpGet"] == {
        "path": "/healthz/ready",
        "port": 15021,
        "scheme": "HTTP",
    }
    fields = {e["name"]: e["valueFrom"]["fieldRef"]["fieldPath"] for e in container["env"]}
    # By these the proxy knows its own configuration.
    assert (fields["POD_NAME"], fields["POD_NAMESPACE"]) == ("metadata.name", "metadata.namespace")


def test_the_service_has_each_port_once_and_the_status_port() -> None:
    several = gateway(
        listener("a", 443, "a.com", "s"), listener("b", 443, "b.com", "s"), listener("http", 80)
    )
    ports = made(several)["Service"]["spec"]["ports"]
    assert [(p["name"], p["port"], p["appProtocol"]) for p in ports] == [
        ("status-port", 15021, "tcp"), ("a", 443, "https"), ("http", 80, "http")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [({}, "LoadBalancer"), ({"networking.istio.io/service-type": "ClusterIP"}, "ClusterIP")],
)
def test_the_services_type_is_the_annotations_or_a_load_balancer(
    annotations: dict[str, str], expected: str
) -> None:
    assert made(gateway(annotations=annotations))["Service"]["spec"]["type"] == expected


def test_infrastructure_annotations_replace_the_gateways_own_on_what_belongs_to_it() -> None:
    given = gateway(annotations={"own": "1"})
    assert made(given)["Service"]["metadata"]["annotations"] == {"own": "1"}
    cloud = {"annotations": {"lb": "internal", "gateway.networking.k8s.io/x": "1"}}
    found = made(changed(given, infrastructure=cloud))
    assert found["Service"]["metadata"]["annotations"] == {"lb": "internal"}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("docker.io/istio/pilot:1.30.3", IMAGE),
        ("mirror.local:5000/istio/pilot:1.31.0@sha256:abc", "mirror.local:5000/istio/proxyv2:1.31.0"),
        ("docker.io/istio/other:1.30.3", None),
    ],
)
def test_the_proxys_image_is_istiods_with_the_other_name(image: str, expected: str | None) -> None:
    istiod = istiod_pod()
    istiod["spec"]["containers"][0]["image"] = image
    assert workload.proxy_image(World(istiod)) == expected


def test_only_pods_with_an_address_count_and_only_ready_ones_serve() -> None:
    labels = {"gateway.networking.k8s.io/gateway-name": GATEWAY}
    ready, waiting, fresh = (
        pod(n, HOME, "127.0.0.1", n == "ready", **labels) for n in ("ready", "waiting", "fresh")
    )
    fresh["status"] = {}
    found = workload.pods(World(ready, waiting, fresh, pod("other", HOME, "127.0.0.2")), gateway())
    assert [(p["metadata"]["name"], workload.is_ready(p)) for p in found] == [
        ("ready", True),
        ("waiting", False),
    ]
    going = {**ready, "metadata": {**ready["metadata"], "deletionTimestamp": "now"}}
    assert not workload.is_ready(going)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"addresses": [{"value": "10.0.0.1"}]}, "spec.addresses"),
        ({"infrastructure": {"parametersRef": {"name": "x"}}}, "parametersRef"),
    ],
)
def test_what_is_not_rehearsed_is_refused_by_name(spec: dict[str, Any], named: str) -> None:
    with pytest.raises(Unsupported, match=f"Gateway llm-gateway/llm-gateway: .*{named}"):
        made(changed(gateway(), **spec))
