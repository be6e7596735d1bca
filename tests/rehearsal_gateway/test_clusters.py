"""Services and pools become clusters that speak as their DestinationRules say, to the pods that are ready."""

from __future__ import annotations

from typing import Any

import pytest

from rehearsal.gateway import clusters
from rehearsal.gateway.clusters import HTTP_OPTIONS, Target, speaks_http2
from rehearsal.gateway.objects import Unsupported
from tests.rehearsal_gateway.example import (
    HOME,
    MODELS,
    Manifest,
    World,
    changed,
    destination_rule,
    item,
    pool,
    port,
    service,
)

SERVICE = "svc.models.svc.cluster.local"


def target(http2: bool = False, picked: bool = False) -> Target:
    return Target("outbound|8000||" + SERVICE, SERVICE, MODELS, {"app": "svc"}, (8000,), http2, picked)


def cluster(*rules: Manifest, http2: bool = False, picked: bool = False) -> dict[str, Any]:
    found = target(http2, picked)
    return clusters.cluster(found, clusters.destination_rules(World(*rules), HOME)(found), {"eds": "here"})


def test_every_tcp_port_of_a_service_is_a_cluster_by_istios_name() -> None:
    made = service("svc", MODELS, port(80, "http", "web"), port(53, "dns", protocol="UDP"))
    world = World(
        made,
        service("elsewhere", "other", port(80, "http")),
        item("Service", "outside", MODELS, {"type": "ExternalName", "externalName": "x"}),
    )
    (found,) = clusters.targets(world, {MODELS})
    assert (found.name, found.ports, found.selector) == ("outbound|80||" + SERVICE, ("web",), {"app": "svc"})


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"name": "http"}, False),
        ({"name": "grpc"}, True),
        ({"name": "grpc-health"}, True),
        ({"name": "http2-x"}, True),
        ({"name": "https"}, False),
        ({"name": "x", "appProtocol": "kubernetes.io/h2c"}, True),
        ({"name": "grpc", "appProtocol": "http"}, False),
        ({"name": "grpcish"}, False),
        ({}, False),
    ],
)
def test_a_ports_protocol_is_its_app_protocol_or_the_first_part_of_its_name(
    entry: Manifest, expected: bool
) -> None:
    assert speaks_http2(entry) is expected


def test_plain_http_needs_no_options() -> None:
    made = cluster()
    assert "transport_socket" not in made and "typed_extension_protocol_options" not in made
    assert made["eds_cluster_config"] == {"eds_config": {"eds": "here"}, "service_name": made["name"]}


def test_grpc_speaks_http2_and_says_so_in_tls() -> None:
    made = cluster(destination_rule("d", SERVICE), http2=True)
    options = made["typed_extension_protocol_options"][HTTP_OPTIONS]
    assert "http2_protocol_options" in options["explicit_http_config"]
    assert made["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] == ["h2"]


def test_the_server_name_is_the_rules_or_the_requests() -> None:
    own = cluster(destination_rule("d", SERVICE, sni="inner"))
    assert own["transport_socket"]["typed_config"]["sni"] == "inner"
    auto = cluster(destination_rule("d", SERVICE))
    assert auto["typed_extension_protocol_options"][HTTP_OPTIONS]["upstream_http_protocol_options"] == {
        "auto_sni": True
    }


def test_a_rule_near_the_gateway_wins_then_the_services_then_the_meshs() -> None:
    near, own, far = (
        destination_rule("d", SERVICE, namespace, sni=namespace)
        for namespace in (HOME, MODELS, "istio-system")
    )

    def sni(*rules: Manifest) -> str:
        return str(cluster(*rules)["transport_socket"]["typed_config"]["sni"])

    assert sni(far, own, near) == HOME
    assert sni(far, own) == MODELS
    assert sni(far) == "istio-system"


def test_a_rule_of_another_namespace_or_host_means_nothing_here() -> None:
    others = destination_rule("a", SERVICE, "third"), destination_rule("b", f"x.{SERVICE}")
    assert "transport_socket" not in cluster(*others)


def test_a_short_host_is_one_in_the_rules_own_namespace() -> None:
    assert "transport_socket" in cluster(destination_rule("d", "svc", MODELS))
    assert "transport_socket" not in cluster(destination_rule("d", "svc", HOME))


def test_a_disabled_rule_is_plain() -> None:
    assert "transport_socket" not in cluster(destination_rule("d", SERVICE, mode="DISABLE"))


def test_a_pools_cluster_takes_the_pickers_choice_first() -> None:
    policy = cluster(picked=True)["load_balancing_policy"]["policies"][0]["typed_extension_config"]
    assert policy["typed_config"]["override_host_sources"] == [
        {"metadata": {"key": "envoy.lb", "path": [{"key": "x-gateway-destination-endpoint"}]}}
    ]


def test_a_pool_is_one_cluster_with_the_endpoints_of_all_its_ports() -> None:
    made = changed(pool("alpha", "epp"), targetPorts=[{"number": 8000}, {"number": 8001}])
    (found,) = clusters.targets(World(made), {MODELS})
    assignment = clusters.assignment(found, lambda _n, _s, p: [("127.0.0.1", int(p))])
    (group,) = assignment["endpoints"]
    ports = [m["endpoint"]["address"]["socket_address"]["port_value"] for m in group["lb_endpoints"]]
    assert ports == [8000, 8001]
    # The name under which a DestinationRule can speak of it.
    assert found.service_host.startswith("alpha-ip-")


def test_a_service_without_a_selector_has_no_endpoints() -> None:
    made = item("Service", "svc", MODELS, {"ports": [port(80, "http")]})
    (found,) = clusters.targets(World(made), {MODELS})
    assert clusters.assignment(found, lambda *_: [("127.0.0.1", 1)])["endpoints"] == []


REFUSED = [
    ({"insecureSkipVerify": False}, "insecureSkipVerify"),
    ({"caCertificates": "/ca"}, "caCertificates"),
    ({"mode": "MUTUAL"}, "MUTUAL"),
    ({"subjectAltNames": ["a"]}, "subjectAltNames"),
]


@pytest.mark.parametrize(("tls", "named"), REFUSED)
def test_tls_that_is_not_rehearsed_is_refused_by_name(tls: Manifest, named: str) -> None:
    with pytest.raises(Unsupported, match=f"DestinationRule models/d: .*{named}"):
        cluster(destination_rule("d", SERVICE, **tls))


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"subsets": [{"name": "a"}]}, "spec.subsets"),
        ({"trafficPolicy": {"connectionPool": {"http": {}}}}, "spec.trafficPolicy.connectionPool"),
        ({"host": "*.local"}, "wildcard"),
    ],
)
def test_other_traffic_policies_are_refused_by_name(spec: Manifest, named: str) -> None:
    with pytest.raises(Unsupported, match=named):
        cluster(changed(destination_rule("d", SERVICE), **spec))


def test_a_pool_without_a_port_for_its_picker_is_refused_by_name() -> None:
    from rehearsal.gateway.routes import picker_cluster

    made = changed(pool("alpha", "epp"), endpointPickerRef={"name": "epp"})
    with pytest.raises(Unsupported, match="InferencePool models/alpha: spec.endpointPickerRef.port"):
        picker_cluster(made)
