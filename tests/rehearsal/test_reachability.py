"""NetworkPolicy semantics, what is wrong with four policies that look right, and what our own allow."""

from __future__ import annotations

from typing import Any

import pytest

from components.core import labels
from components.serving.manifests import network_policy
from components.serving.manifests.network_policy import PolicySpec
from rehearsal.reachability import External, Pod, Reachability, selects

Manifest = dict[str, Any]
INTERNET, METADATA, PRIVATE = External("142.250.1.1"), External("169.254.169.254"), External("10.9.9.9")


def namespace(name: str, **marks: str) -> Manifest:
    return {"metadata": {"name": name, "labels": {labels.NAMESPACE_NAME: name, **marks}}}


def policy(home: str, spec: Manifest, name: str = "policy") -> Manifest:
    return {"metadata": {"name": name, "namespace": home}, "spec": {"podSelector": {}, **spec}}


def ingress(*rules: Manifest, **spec: Any) -> Manifest:
    return policy("a", {"policyTypes": ["Ingress"], "ingress": list(rules), **spec})


NAMESPACES = [namespace("a"), namespace("b", team="blue"), namespace("c", team="red")]
SERVER = Pod(
    name="server", namespace="a", labels={"app": "server"}, address="10.0.0.1",
    ports={("TCP", "web"): 8080, ("UDP", "web"): 9999},
)  # fmt: skip
NEAR = Pod(name="near", namespace="a", labels={"app": "client"}, address="10.0.0.2")
BLUE = Pod(name="blue", namespace="b", labels={"app": "client"}, address="10.0.1.1")
RED = Pod(name="red", namespace="c", labels={"app": "client"}, address="10.0.2.1")


def reaches(
    *policies: Manifest, source: Any = BLUE, to: Any = SERVER, port: Any = 8080, protocol: str = "TCP"
) -> bool:
    return bool(Reachability(policies, NAMESPACES).allowed(source, to, port, protocol))


# -- the semantics -------------------------------------------------------------------------------------------------


def test_without_a_policy_everybody_reaches_everybody() -> None:
    verdict = Reachability([], NAMESPACES).allowed(BLUE, SERVER, 8080)
    assert verdict.allowed and verdict.by == ()


def test_one_policy_that_selects_a_pod_closes_it_to_all_others() -> None:
    verdict = Reachability([ingress()], NAMESPACES).allowed(BLUE, SERVER, 8080)
    assert (verdict.allowed, verdict.refused, verdict.by) == (False, "Ingress", ("a/policy",))


def test_a_policy_of_another_namespace_or_for_other_pods_isolates_nobody() -> None:
    assert reaches(policy("b", {"policyTypes": ["Ingress"]}))
    assert reaches(ingress(podSelector={"matchLabels": {"app": "other"}}))


def test_ingress_isolation_leaves_egress_open() -> None:
    assert reaches(ingress(), source=SERVER, to=BLUE)


def test_rules_of_several_policies_add_up() -> None:
    closed, opened = ingress(), ingress({"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]})
    opened["metadata"]["name"] = "blue"
    verdict = Reachability([closed, opened], NAMESPACES).allowed(BLUE, SERVER, 8080)
    assert verdict.allowed and verdict.by == ("a/blue",)


def test_both_ends_must_agree() -> None:
    inward = ingress({})
    outward = policy("b", {"policyTypes": ["Egress"]})
    verdict = Reachability([inward, outward], NAMESPACES).allowed(BLUE, SERVER, 8080)
    assert (verdict.allowed, verdict.refused) == (False, "Egress")
    assert not reaches(ingress(), policy("b", {"policyTypes": ["Egress"], "egress": [{}]}))


@pytest.mark.parametrize(
    ("peers", "near", "blue", "red"),
    [
        ([{"podSelector": {}}], True, False, False),
        ([{"namespaceSelector": {}}], True, True, True),
        ([{"namespaceSelector": {"matchLabels": {"team": "blue"}}}], False, True, False),
        ([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "server"}}}], False, False, False),
        # Two peers, not one: whoever is blue, or any client nearby.
        ([{"namespaceSelector": {"matchLabels": {"team": "blue"}}}, {"podSelector": {"matchLabels": {"app": "client"}}}], True, True, False),
        # One peer: both must hold.
        ([{"namespaceSelector": {"matchLabels": {"team": "blue"}}, "podSelector": {"matchLabels": {"app": "other"}}}], False, False, False),
        ([], True, True, True),
    ],
)  # fmt: skip
def test_selectors_of_one_peer_hold_together_and_peers_add_up(
    peers: list[Manifest], near: bool, blue: bool, red: bool
) -> None:
    rule = ingress({"from": peers})
    assert [reaches(rule, source=pod) for pod in (NEAR, BLUE, RED)] == [near, blue, red]


@pytest.mark.parametrize(
    ("expression", "found", "other", "without"),
    [
        ({"operator": "In", "values": ["x", "y"]}, True, False, False),
        ({"operator": "NotIn", "values": ["x"]}, False, True, True),
        ({"operator": "Exists"}, True, True, False),
        ({"operator": "DoesNotExist"}, False, False, True),
    ],
)
def test_match_expressions(expression: Manifest, found: bool, other: bool, without: bool) -> None:
    selector = {"matchExpressions": [{"key": "k", **expression}]}
    assert [selects(selector, marks) for marks in ({"k": "x"}, {"k": "z"}, {})] == [found, other, without]


def test_labels_and_expressions_of_a_selector_hold_together() -> None:
    selector = {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}
    assert selects(selector, {"a": "1", "b": ""}) and not selects(selector, {"a": "1"})
    with pytest.raises(ValueError, match="Near is no operator"):
        selects({"matchExpressions": [{"key": "k", "operator": "Near"}]}, {})


@pytest.mark.parametrize(
    ("ports", "port", "protocol", "allowed"),
    [
        (None, 1, "TCP", True),
        ([], 1, "UDP", True),
        ([{"port": 8080}], 8080, "TCP", True),
        ([{"port": 8080}], 8080, "UDP", False),
        ([{"port": 8080}], 8081, "TCP", False),
        ([{"port": 8080, "endPort": 8090}], 8090, "TCP", True),
        ([{"port": 8080, "endPort": 8090}], 8091, "TCP", False),
        ([{"port": "web"}], 8080, "TCP", True),
        ([{"port": "web"}], 9999, "TCP", False),
        ([{"port": "web", "protocol": "UDP"}], 9999, "UDP", True),
        ([{"port": "gone"}], 8080, "TCP", False),
        ([{"protocol": "UDP"}], 5, "UDP", True),
        ([{"protocol": "UDP"}], 5, "TCP", False),
        ([{"port": 8080}], "web", "TCP", True),
    ],
)
def test_ports(ports: Any, port: Any, protocol: str, allowed: bool) -> None:
    rule: Manifest = {} if ports is None else {"ports": ports}
    assert reaches(ingress(rule), port=port, protocol=protocol) == allowed


def test_a_named_port_of_an_egress_rule_is_the_destination_s() -> None:
    outward = policy("b", {"policyTypes": ["Egress"], "egress": [{"ports": [{"port": "web"}]}]})
    assert reaches(outward) and not reaches(outward, to=INTERNET)


def test_a_port_that_nobody_named_is_an_error_not_a_verdict() -> None:
    with pytest.raises(ValueError, match="has no TCP port named gone"):
        reaches(port="gone")


@pytest.mark.parametrize(
    ("block", "address", "allowed"),
    [
        ({"cidr": "0.0.0.0/0"}, "8.8.8.8", True),
        ({"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}, "169.254.169.254", False),
        ({"cidr": "10.0.0.0/8"}, "11.0.0.1", False),
        ({"cidr": "0.0.0.0/0"}, "2001:db8::1", False),
        ({"cidr": "::/0"}, "2001:db8::1", True),
        # Of a block every address is meant.
        ({"cidr": "192.168.100.0/22"}, "192.168.100.0/23", True),
        ({"cidr": "192.168.100.0/24"}, "192.168.100.0/23", False),
        ({"cidr": "192.168.0.0/16", "except": ["192.168.101.0/24"]}, "192.168.100.0/23", False),
        ({"cidr": "::/0", "except": ["10.0.0.0/8"]}, "2001:db8::/32", True),
    ],
)
def test_blocks(block: Manifest, address: str, allowed: bool) -> None:
    outward = policy("a", {"policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": block}]}]})
    assert reaches(outward, source=SERVER, to=External(address)) == allowed
    assert reaches(ingress({"from": [{"ipBlock": block}]}), source=External(address)) == allowed


def test_an_address_outside_is_selected_by_no_selector() -> None:
    everybody = ingress({"from": [{"namespaceSelector": {}, "podSelector": {}}]})
    assert not reaches(everybody, source=INTERNET)


def test_policy_types_that_are_left_out_follow_from_the_rules() -> None:
    only_inward = policy("a", {})
    assert not reaches(only_inward) and reaches(only_inward, source=SERVER, to=BLUE)
    both = policy("a", {"egress": [{"to": [{"podSelector": {}}]}]})
    assert not reaches(both) and not reaches(both, source=SERVER, to=BLUE)
    assert reaches(both, source=SERVER, to=NEAR, port=1) is False, "the other end is closed inward as well"


def test_a_live_pod_is_read_with_its_named_ports() -> None:
    sidecar = {"name": "s", "ports": [{"name": "grpc", "containerPort": 9002}]}
    main = {
        "name": "m",
        "ports": [{"containerPort": 1}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}],
    }
    live = {
        "metadata": {"name": "p", "namespace": "a", "labels": {"x": "y"}},
        "spec": {"initContainers": [sidecar], "containers": [main]},
        "status": {"podIP": "10.0.0.9"},
    }
    pod = Pod.of(live)
    assert pod.ports == {("TCP", "grpc"): 9002, ("UDP", "dns"): 53}
    assert (pod.address, pod.labels) == ("10.0.0.9", {"x": "y"})
    assert (
        Pod.of({"metadata": {"name": "p", "namespace": "a"}, "spec": {"containers": [main]}}).address is None
    )


# -- the platform --------------------------------------------------------------------------------------------------

HOME, DOOR, WATCH = "llm-models", "llm-gateway", "monitoring"
SPACES = [namespace(name) for name in (HOME, DOOR, WATCH, "kube-system", "istio-system", "other")]
GATEWAY_PEER = network_policy.pods({labels.GATEWAY_NAME: "door"}, DOOR)
WATCH_PEER = network_policy.pods({labels.APP_NAME: "prometheus"}, WATCH)


def pod(name: str, home: str, marks: dict[str, str]) -> Pod:
    return Pod(name=name, namespace=home, labels=marks, address=f"10.1.{len(name)}.{len(home)}")


GATEWAY = pod("door-istio", DOOR, {labels.GATEWAY_NAME: "door"})
WORKLOAD = pod("qwen", HOME, labels.model_workload("qwen"))
REPLICA = pod("qwen-2", HOME, labels.model_workload("qwen"))
PICKER = pod("qwen-epp", HOME, labels.model_picker("qwen"))
OTHER_MODEL = pod("gemma", HOME, labels.model_workload("gemma"))
OTHER_PICKER = pod("gemma-epp", HOME, labels.model_picker("gemma"))
PROMETHEUS = pod("prometheus-0", WATCH, {labels.APP_NAME: "prometheus"})
DNS = pod("coredns", "kube-system", {"k8s-app": "kube-dns"})
# Same labels as a gateway or a Prometheus, in a namespace of one's own.
IMPOSTOR = pod("impostor", "other", {labels.GATEWAY_NAME: "door", labels.APP_NAME: "prometheus"})
SIDE = pod("job", DOOR, {"app": "job"})
LIMITS = pod("ratelimit-0", DOOR, {labels.APP_NAME: "ratelimit", labels.PART_OF: "llm-platform"})
STORE = pod("valkey-0", DOOR, {labels.APP_NAME: "valkey", labels.PART_OF: "llm-platform"})
STRANGERS = (IMPOSTOR, SIDE, REPLICA, OTHER_MODEL, OTHER_PICKER, PROMETHEUS, INTERNET)


def platform(monitored: bool = False, downloads: bool = True, pooled: bool = True) -> Reachability:
    """Our own policies, for two models and the limit service."""
    watch = WATCH_PEER if monitored else None
    made = [network_policy.default_deny(HOME), network_policy.dns(HOME)]
    for model in ("qwen", "gemma"):
        spec = PolicySpec(
            model=model, namespace=HOME, gateway=(GATEWAY_PEER,), pooled=pooled, downloads=downloads, monitoring=watch
        )  # fmt: skip
        made += [network_policy.workload(spec), network_policy.picker(spec)]
    made += [item for _, item in network_policy.limits_policies(DOOR, GATEWAY_PEER, watch)]
    return Reachability(made, SPACES)


def test_requests_come_from_the_gateway_and_the_picker_and_from_nobody_else() -> None:
    rules = platform()
    assert rules.allowed(GATEWAY, WORKLOAD, 8000) and rules.allowed(PICKER, WORKLOAD, 8000)
    assert not [who for who in STRANGERS if rules.allowed(who, WORKLOAD, 8000)]
    assert not rules.allowed(GATEWAY, WORKLOAD, 22)


def test_only_the_gateway_asks_the_picker() -> None:
    rules = platform()
    assert rules.allowed(GATEWAY, PICKER, 9002)
    assert not [who for who in (WORKLOAD, *STRANGERS) if rules.allowed(who, PICKER, 9002)]


def test_replicas_and_models_are_strangers_to_each_other() -> None:
    rules = platform()
    assert not rules.allowed(WORKLOAD, REPLICA, 8000) and not rules.allowed(WORKLOAD, OTHER_MODEL, 8000)
    assert not rules.allowed(PICKER, OTHER_MODEL, 8000)


def test_models_reach_the_internet_for_their_weights_only() -> None:
    fetched, mounted = platform(), platform(downloads=False)
    assert fetched.allowed(WORKLOAD, INTERNET, 443) and not mounted.allowed(WORKLOAD, INTERNET, 443)
    assert not fetched.allowed(WORKLOAD, INTERNET, 80)
    for rules in (fetched, mounted):
        assert not rules.allowed(WORKLOAD, PRIVATE, 443)


@pytest.mark.parametrize("port", [80, 443, 988])
def test_nobody_in_a_model_namespace_asks_the_metadata_service(port: int) -> None:
    rules = platform()
    assert not [who for who in (WORKLOAD, PICKER) if rules.allowed(who, METADATA, port)]


def test_names_are_resolved_by_both_protocols_and_by_the_node_s_cache() -> None:
    rules = platform()
    for who in (WORKLOAD, PICKER, LIMITS):
        for protocol in ("UDP", "TCP"):
            assert rules.allowed(who, DNS, 53, protocol)
            assert rules.allowed(who, External("169.254.20.10"), 53, protocol)


def test_the_picker_watches_the_api_server() -> None:
    rules = platform()
    assert rules.allowed(PICKER, PRIVATE, 443) and rules.allowed(PICKER, PRIVATE, 6443)


def test_metrics_are_scraped_where_monitoring_is_on_and_only_there() -> None:
    places = ((WORKLOAD, 8000), (PICKER, 9090), (LIMITS, 9090))
    watched, unwatched = platform(monitored=True), platform()
    assert [bool(watched.allowed(PROMETHEUS, where, port)) for where, port in places] == [True] * 3
    assert not [where for where, port in places if unwatched.allowed(PROMETHEUS, where, port)]
    assert not [where for where, port in places if watched.allowed(IMPOSTOR, where, port)]


def test_whoever_scrapes_reaches_nothing_but_metrics() -> None:
    rules = platform(monitored=True)
    assert not rules.allowed(PROMETHEUS, PICKER, 9002)
    assert not [port for port in (8080, 8081, 6070) if rules.allowed(PROMETHEUS, LIMITS, port)]
    assert not rules.allowed(PROMETHEUS, STORE, 6379)


def test_d64_only_the_gateway_counts_and_only_the_service_stores() -> None:
    rules = platform(monitored=True)
    assert rules.allowed(GATEWAY, LIMITS, 8081) and rules.allowed(LIMITS, STORE, 6379)
    assert not [who for who in (WORKLOAD, *STRANGERS) if rules.allowed(who, LIMITS, 8081)]
    assert not [who for who in (GATEWAY, WORKLOAD, STORE, *STRANGERS) if rules.allowed(who, LIMITS, 8080)]
    assert not [who for who in (GATEWAY, WORKLOAD, *STRANGERS) if rules.allowed(who, STORE, 6379)]


def test_the_limit_service_and_its_store_go_nowhere_else() -> None:
    rules = platform()
    for where in (INTERNET, METADATA, PRIVATE, GATEWAY, WORKLOAD):
        assert not rules.allowed(LIMITS, where, 443) and not rules.allowed(STORE, where, 443)
    assert not rules.allowed(STORE, DNS, 53, "UDP")


def test_d63_the_gateway_cannot_be_gone_around() -> None:
    rules = platform()
    outside = (INTERNET, PRIVATE, SIDE, IMPOSTOR, OTHER_MODEL)
    assert not [who for who in outside if rules.allowed(who, WORKLOAD, 8000)]


# -- four policies that look right -----------------------------------------------------------------------------------

NAIVE_HOME = "inference"
NAIVE_SPACES = [*SPACES, namespace(NAIVE_HOME), namespace("opendatahub")]
VLLM = pod("vllm", NAIVE_HOME, {labels.APP_NAME: "qwen", labels.KSERVE_COMPONENT: "workload"})
EPP = pod("epp", NAIVE_HOME, {labels.APP_NAME: "qwen", labels.COMPONENT: labels.KSERVE_PICKER})
HELPER = pod("helper", NAIVE_HOME, {"app": "helper"})
API_SERVER = External("172.16.0.2")
_VLLM = {"matchLabels": {labels.KSERVE_COMPONENT: "workload"}}
_EPP = {"matchLabels": {labels.COMPONENT: labels.KSERVE_PICKER}}
_DNS = {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}], "ports": [{"protocol": "UDP", "port": 53}]}  # fmt: skip
NAIVE_GATEWAY = policy(
    NAIVE_HOME,
    {"podSelector": _VLLM, "policyTypes": ["Ingress"], "ingress": [
        {"from": [{"namespaceSelector": {"matchLabels": {labels.NAMESPACE_NAME: "opendatahub"}}}], "ports": [{"port": 8000}]},
        {"from": [{"namespaceSelector": {}, "podSelector": {}}], "ports": [{"port": 8000}]},
    ]},
    "allow-gateway-to-vllm",
)  # fmt: skip
NAIVE_EPP = policy(
    NAIVE_HOME,
    {"podSelector": _EPP, "policyTypes": ["Ingress", "Egress"],
     "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {labels.NAMESPACE_NAME: "opendatahub"}}}], "ports": [{"port": 9002}]}],
     "egress": [
        {"to": [{"podSelector": _VLLM}], "ports": [{"port": 8000}]},
        {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"component": "apiserver"}}}], "ports": [{"port": 443}]},
        _DNS,
    ]},
    "allow-epp-scheduler",
)  # fmt: skip
NAIVE_ISTIO = policy(
    NAIVE_HOME,
    {"policyTypes": ["Ingress", "Egress"],
     "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {labels.NAMESPACE_NAME: "istio-system"}}}]}],
     "egress": [{"to": [{"namespaceSelector": {"matchLabels": {labels.NAMESPACE_NAME: "istio-system"}}}]}]},
    "allow-istio",
)  # fmt: skip
NAIVE_EGRESS = policy(
    NAIVE_HOME,
    {"podSelector": _VLLM, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443}]}, _DNS]},
    "allow-vllm-egress",
)
NAIVE = Reachability([NAIVE_GATEWAY, NAIVE_EPP, NAIVE_ISTIO, NAIVE_EGRESS], NAIVE_SPACES)


def test_a_rule_for_every_pod_lets_every_pod_of_the_cluster_use_the_model() -> None:
    assert [who.name for who in (IMPOSTOR, SIDE, PROMETHEUS, HELPER) if NAIVE.allowed(who, VLLM, 8000)] == [
        "impostor", "job", "prometheus-0",
    ]  # fmt: skip
    assert not [who for who in (IMPOSTOR, SIDE) if platform().allowed(who, WORKLOAD, 8000)]


def test_a_rule_for_the_api_servers_pods_keeps_the_picker_from_the_api_server() -> None:
    """Managed clusters do not have such pods."""
    assert NAIVE.allowed(EPP, API_SERVER, 443).refused == "Egress"
    assert platform().allowed(PICKER, API_SERVER, 443)


def test_an_opening_for_every_pod_closes_the_whole_namespace() -> None:
    """`podSelector: {}` selects every pod, and a selected pod is isolated."""
    without = Reachability([NAIVE_GATEWAY, NAIVE_EPP, NAIVE_EGRESS], NAIVE_SPACES)
    assert without.allowed(HELPER, INTERNET, 443) and without.allowed(SIDE, HELPER, 80)
    assert NAIVE.allowed(HELPER, INTERNET, 443).by == (f"{NAIVE_HOME}/allow-istio",)
    assert not NAIVE.allowed(SIDE, HELPER, 80)


def test_dns_over_udp_alone_resolves_no_long_answers() -> None:
    """DNS goes on over TCP when an answer does not fit."""
    assert NAIVE.allowed(VLLM, DNS, 53, "UDP") and not NAIVE.allowed(VLLM, DNS, 53, "TCP")
    assert platform().allowed(WORKLOAD, DNS, 53, "TCP")


def test_a_rule_for_a_port_lets_the_model_ask_the_metadata_service() -> None:
    """A rule without peers is a rule for every address."""
    assert NAIVE.allowed(VLLM, METADATA, 443) and not platform().allowed(WORKLOAD, METADATA, 443)
