"""Our Helm values, against the charts themselves."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from components.core.accelerators import ACCELERATORS
from components.platform import kserve
from components.platform.lock import load_lock
from tests.schema.conftest import Charts, Manifest

# Both of KServe's charts of definitions carry it and leave it out where it is there, which needs a cluster to see.
GUARDED = ("CustomResourceDefinition", "clusterstoragecontainers.serving.kserve.io")


def named(items: list[Manifest], kind: str, name: str) -> Manifest:
    """The one object of a kind and name."""
    (found,) = (item for item in items if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return found


def of(charts: Charts, name: str) -> list[Manifest]:
    """The rendered objects of a release."""
    return charts.render(next(spec for spec in charts.releases if spec.name == name))


def unknown(values: Any, defaults: Any, path: str = "") -> list[str]:
    """Paths of values that a chart does not have; below an empty default everything is the user's."""
    if not isinstance(values, dict) or not isinstance(defaults, dict) or (path and not defaults):
        return []
    found = []
    for key, value in values.items():
        place = f"{path}.{key}" if path else key
        found += [place] if key not in defaults else unknown(value, defaults[key], place)
    return found


def test_every_value_that_we_set_exists_in_its_chart(charts: Charts) -> None:
    for spec in charts.releases:
        defaults = charts.defaults(spec)
        # Istio's charts nest their defaults under a name that is not to be used.
        defaults = defaults.get("_internal_defaults_do_not_set", defaults)
        assert not unknown(dict(spec.values), defaults), spec.name


def test_kserve_is_configured_for_plain_deployments_our_gateway_and_tls(charts: Charts) -> None:
    config = named(of(charts, kserve.RESOURCES), "ConfigMap", "inferenceservice-config")["data"]
    assert json.loads(config["deploy"]) == {"defaultDeploymentMode": "Standard"}
    ingress = json.loads(config["ingress"])
    assert ingress["enableGatewayApi"] is True
    assert ingress["kserveIngressGateway"] == "llm-gateway/llm-gateway"
    # The chart has no value for it; it rides on another (components/platform/kserve.py).
    assert ingress["enableLLMInferenceServiceTLS"] is True
    assert ingress["disableHTTPRouteTimeout"] is False


def test_every_object_has_one_owner(charts: Charts) -> None:
    owners = defaultdict(set)
    for owner, item in charts.everything():
        metadata = item["metadata"]
        owners[item["kind"], metadata.get("namespace", ""), metadata["name"]].add(owner)
    shared = {key: who for key, who in owners.items() if len(who) > 1 and (key[0], key[2]) != GUARDED}
    assert not shared


def test_presets_can_be_deleted_with_their_chart(charts: Charts) -> None:
    deployment = named(of(charts, kserve.LLM_RESOURCES), "Deployment", "llmisvc-controller-manager")
    (manager,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "PREVENT_WELL_KNOWN_CONFIG_DELETION", "value": "false"} in manager["env"]


def test_the_presets_that_our_models_merge_with_are_installed(charts: Charts) -> None:
    presets = of(charts, kserve.PRESETS)
    for preset, place in (
        ("llm-template", ("template",)),
        ("llm-scheduler", ("router", "scheduler", "template")),
    ):
        spec: Any = next(
            item["spec"] for item in presets if item["metadata"]["name"].endswith(f"config-{preset}")
        )
        for step in place:
            spec = spec[step]
        # Containers merge by name.
        assert "main" in {container["name"] for container in spec["containers"]}


def test_the_engine_of_the_lock_file_is_the_one_that_the_presets_are_written_for(charts: Charts) -> None:
    template = next(
        item
        for item in of(charts, kserve.PRESETS)
        if item["metadata"]["name"].endswith("config-llm-template")
    )
    (main,) = template["spec"]["template"]["containers"]
    cuda = {a.image_key for a in ACCELERATORS.values() if a.vendor == "nvidia"}
    assert {load_lock().images[key].reference for key in cuda} == {main["image"]}


def test_istiod_routes_to_inference_pools(charts: Charts) -> None:
    deployment = named(of(charts, "istiod"), "Deployment", "istiod")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "ENABLE_GATEWAY_API_INFERENCE_EXTENSION", "value": "true"} in container["env"]


def test_what_is_said_to_stay_is_what_the_charts_keep(charts: Charts) -> None:
    for spec in charts.releases:
        kept = {
            item["spec"]["group"]
            for item in charts.render(spec)
            if item["kind"] == "CustomResourceDefinition"
            and (
                (item["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep"
                # Definitions of a chart's crds folder are never deleted.
                or spec.name == "lws"
            )
        }
        assert kept == set(spec.keeps), spec.name
