"""A whole Gateway becomes files for Envoy: in Istio's order, each change in the smallest file that holds it."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.core import naming
from rehearsal.gateway import files
from rehearsal.gateway.objects import Unsupported
from rehearsal.gateway.patches import HCM
from rehearsal.gateway.translate import Config, Proxy, translate
from tests.rehearsal_gateway import example
from tests.rehearsal_gateway.conftest import certificate
from tests.rehearsal_gateway.example import HOME, Manifest, World
from tests.support.stacks import raw_stack, record_stack

SIGNER = example.Signer()
ADDRESS = "127.0.0.1"
SECRET = {"data": certificate(example.HOST)}


def config(
    world: World, directory: Path = Path("/there"), secret: Any = SECRET, endpoints: Any = None
) -> Config:
    (made,) = world.of("Gateway")
    pods = [p for p in world.of("Pod") if p["metadata"]["namespace"] == made["metadata"]["namespace"]]
    proxy = Proxy(made, pods[0], ADDRESS, directory)
    return translate(world, proxy, endpoints or example.nowhere, lambda *_: secret)


def platform(*more: Manifest) -> World:
    return World(*example.platform(ADDRESS, SIGNER), *more)


def filters(found: Config, port: int) -> list[str]:
    """The HTTP filters of the listener for a port of the Gateway."""
    (listener,) = (x for x in found.files["lds.json"]["resources"] if x["name"] == f"0.0.0.0_{port}")
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return [f["name"] for f in manager["http_filters"]]


def test_a_request_passes_the_filters_in_istios_order() -> None:
    assert filters(config(platform()), 80) == [
        "envoy.filters.http.jwt_authn",
        "llmp.requests",
        "envoy.filters.http.rbac",
        "llmp.limit",
        "envoy.filters.http.ext_proc",
        "envoy.filters.http.router",
    ]


def test_without_policies_the_filters_that_stand_behind_them_are_missing_without_a_word() -> None:
    kinds = ("RequestAuthentication", "AuthorizationPolicy")
    world = World(*(i for i in example.platform(ADDRESS, SIGNER) if i["kind"] not in kinds))
    assert filters(config(world), 80) == ["envoy.filters.http.ext_proc", "envoy.filters.http.router"]


def test_without_a_pool_nobody_is_asked_for_an_endpoint() -> None:
    world = World(
        *(i for i in example.platform(ADDRESS, SIGNER) if i["metadata"]["name"] != "alpha-inference")
    )
    assert "envoy.filters.http.ext_proc" not in filters(config(world), 80)


def test_low_ports_are_moved_and_others_are_not() -> None:
    found = config(platform()).files["lds.json"]["resources"]
    ports = {x["name"]: x["address"]["socket_address"]["port_value"] for x in found}
    assert ports == {"0.0.0.0_80": 8080, "0.0.0.0_443": 8443, "0.0.0.0_8089": 8089}


def changed_files(before: Config, after: Config) -> set[str]:
    return {n for n in before.files.keys() | after.files.keys() if before.files.get(n) != after.files.get(n)}


def test_a_changed_table_changes_route_configurations_alone() -> None:
    before, after = (config(platform(example.tables(example.program(*r)))) for r in ((), ("k9",)))
    changed = changed_files(before, after)
    assert changed and all(name.startswith("rds-") for name in changed)


def test_changed_endpoints_change_the_file_of_their_cluster_alone() -> None:
    def endpoints(_namespace: str, labels: Any, _port: int | str) -> list[tuple[str, int]]:
        return [("127.0.0.9", 8000)] if labels["app"] == "beta-svc" else []

    changed = changed_files(config(platform()), config(platform(), endpoints=endpoints))
    assert changed == {"eds-outbound_8000__beta-svc.models.svc.cluster.local.json"}


def test_a_changed_certificate_changes_its_own_file_alone() -> None:
    other = {"data": certificate(example.HOST)}
    assert changed_files(config(platform()), config(platform(), secret=other)) == {"sds-certificate.json"}


def test_no_file_refers_to_one_that_comes_after_it() -> None:
    found = config(platform(), Path("/there"))
    seen: set[str] = set()
    for name, content in found.files.items():
        text = json.dumps(content)
        assert not [later for later in found.files if later not in seen and f"/there/{later}" in text]
        seen.add(name)


def test_the_objects_are_left_as_they_were() -> None:
    world = platform()
    before = copy.deepcopy(world._items)
    config(world)
    assert world._items == before


@pytest.mark.parametrize("secret", [None, {"data": {"tls.crt": "YQ=="}}])
def test_a_listener_without_its_certificate_is_left_out_and_the_others_serve(secret: Any) -> None:
    found = config(platform(), secret=secret)
    reason, message = found.problems["https"]
    assert reason == "InvalidCertificateRef" and "llm-gateway/certificate" in message
    assert [x["name"] for x in found.files["lds.json"]["resources"]] == ["0.0.0.0_80", "0.0.0.0_8089"]


def listeners(*given: Manifest) -> World:
    return World(example.gateway(*given), example.gateway_pod(ADDRESS))


REFUSED = [
    ([example.listener("a", 80), example.listener("b", 8080)], "moved up"),
    ([example.listener("a", 443), example.listener("b", 443, secret="s")], "share port 443"),
    ([{**example.listener("a", 80), "protocol": "TCP"}], "TCP"),
    ([{**example.listener("a", 443, secret="s"), "tls": {"mode": "Passthrough"}}], "Passthrough"),
    ([{**example.listener("a", 443, secret="s"), "tls": {}}], "certificateRefs"),
    ([{**example.listener("a", 80), "surprise": 1}], "surprise"),
]


@pytest.mark.parametrize(("given", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_listeners_that_are_not_rehearsed_are_refused_by_name(given: list[Manifest], named: str) -> None:
    with pytest.raises(Unsupported) as refused:
        config(listeners(*given))
    assert "Gateway llm-gateway/llm-gateway" in str(refused.value) and named in str(refused.value)


def test_a_certificate_in_another_namespace_is_refused() -> None:
    made = example.listener("a", 443, secret="s")
    made["tls"]["certificateRefs"][0]["namespace"] = "other"
    with pytest.raises(Unsupported, match="namespace is 'other'"):
        config(listeners(made))


def whole(found: Config) -> dict[str, Any]:
    """The files as one, since Envoy's check does not look into those that it would watch."""
    content = copy.deepcopy(found.files)
    routes = {r["name"]: r for n, c in content.items() if n.startswith("rds-") for r in c["resources"]}
    ends = {r["cluster_name"]: r for n, c in content.items() if n.startswith("eds-") for r in c["resources"]}
    for listener in content["lds.json"]["resources"]:
        for chain in listener["filter_chains"]:
            for filter_ in chain["filters"]:
                if filter_["name"] == HCM:
                    route = routes[filter_["typed_config"].pop("rds")["route_config_name"]]
                    filter_["typed_config"]["route_config"] = {k: v for k, v in route.items() if k != "@type"}
    for cluster in content["cds.json"]["resources"]:
        cluster.pop("eds_cluster_config")
        assignment = {k: v for k, v in ends[cluster["name"]].items() if k != "@type"}
        cluster |= {"type": "STATIC", "load_assignment": assignment}
    made = content["bootstrap.json"]
    made.pop("dynamic_resources")
    for kind, file in (("listeners", "lds.json"), ("clusters", "cds.json")):
        plain = [{k: v for k, v in r.items() if k != "@type"} for r in content[file]["resources"]]
        made["static_resources"][kind] += plain
    return made


def valid(envoy: Path, directory: Path, found: Config) -> None:
    """Fail with Envoy's own words unless it takes the configuration; static parts may hold no unknown field."""
    files.write(directory, found.files, {})
    file = directory / "whole.json"
    file.write_text(json.dumps(whole(found)))
    said = subprocess.run(
        [envoy, "--mode", "validate", "-c", file, "-l", "error"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr


def test_envoy_knows_every_field_of_a_whole_platform(tmp_path: Path, envoy: Path) -> None:
    valid(envoy, tmp_path, config(platform(), tmp_path))


def kserve(model: Manifest) -> list[Manifest]:
    """What KServe makes of a model, as far as a gateway sees it."""
    name, namespace = model["metadata"]["name"], model["metadata"]["namespace"]
    made = [
        example.service(naming.workload_service(name), namespace, example.port(8000, "https")),
        example.service(naming.picker_service(name), namespace, example.port(9002, "grpc")),
        example.pool(naming.inference_pool(name), naming.picker_service(name)),
    ]
    made[-1]["metadata"]["namespace"] = namespace
    return made


@pytest.mark.parametrize("stack", ["dev"])
def test_envoy_knows_every_field_of_what_a_stack_registers(stack: str, tmp_path: Path, envoy: Path) -> None:
    raw = raw_stack(stack)
    # Envoy refuses a listener over a key that is no point of the curve.
    raw["access"]["publicKeys"] = {"key-of-2026": {n: SIGNER.jwk[n] for n in ("x", "y")}}
    recorded = record_stack(raw, tmp_path).objects
    items = [dict(r.inputs) for r in recorded if "kind" in r.inputs and not r.type.endswith("Patch")]
    made = [m for i in items if i["kind"] == "LLMInferenceService" and "spec" in i for m in kserve(i)]
    world = World(*(i for i in items if i["kind"] == "Namespace" or "spec" in i), *made)
    (gateway,) = world.of("Gateway")
    home, name = gateway["metadata"]["namespace"], gateway["metadata"]["name"]
    labels = {"gateway.networking.k8s.io/gateway-name": name}
    world.put(example.pod("gateway", home, ADDRESS, **labels))
    found = config(world, tmp_path)
    assert filters(found, 80)[:4] == [
        "llmp.keys", "llmp.requests", "llmp.limit", "envoy.filters.http.rbac"
    ]  # fmt: skip
    valid(envoy, tmp_path, found)


def test_only_services_near_the_gateway_and_its_models_are_clusters() -> None:
    world = platform(example.service("far", "elsewhere", example.port(80, "http")))
    names = {c["name"] for c in config(world).files["cds.json"]["resources"]}
    assert not [n for n in names if "elsewhere" in n]
    # The limit is asked by a name that no route knows.
    assert f"outbound|8081||ratelimit.{HOME}.svc.cluster.local" in names
