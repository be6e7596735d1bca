"""The ports that the firewall opens, against the pinned charts as Helm renders them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from components.platform import cert_manager, istio, kserve, lws
from stacks.gke import WEBHOOK_PORTS
from tests.schema.conftest import Charts, Manifest, charts  # noqa: F401

# The operator of each release, by the name of its ports.
OPERATORS = {
    cert_manager.NAME: "cert-manager",
    istio.BASE: "istio",
    istio.ISTIOD: "istio",
    lws.NAME: "leader-worker-set",
    kserve.CRD: "kserve",
    kserve.LLM_CRD: "kserve",
    kserve.RESOURCES: "kserve",
    kserve.LLM_RESOURCES: "kserve",
}


def of_kinds(items: list[Manifest], *endings: str) -> list[Manifest]:
    """Objects whose kind ends so."""
    return [item for item in items if item["kind"].endswith(endings)]


def asked(items: list[Manifest]) -> Iterator[tuple[str, int]]:
    """(service, port) of every webhook, conversions of definitions among them."""
    clients = [
        w["clientConfig"] for item in of_kinds(items, "WebhookConfiguration") for w in item["webhooks"]
    ]
    for item in of_kinds(items, "CustomResourceDefinition"):
        webhook = (item["spec"].get("conversion") or {}).get("webhook")
        clients += [webhook["clientConfig"]] if webhook else []
    for client in clients:
        if service := client.get("service"):
            yield service["name"], service.get("port", 443)


def target(items: list[Manifest], service: str, port: int) -> int:
    """The port of the pods behind a service's port, by number or by the name that their containers give it."""
    (found,) = (item for item in of_kinds(items, "Service") if item["metadata"]["name"] == service)
    (entry,) = (p for p in found["spec"]["ports"] if p["port"] == port)
    wanted: Any = entry.get("targetPort", port)
    if isinstance(wanted, int):
        return wanted
    selector = found["spec"]["selector"].items()
    (named,) = {
        p["containerPort"]
        for item in of_kinds(items, "Deployment")
        if selector <= item["spec"]["template"]["metadata"]["labels"].items()
        for container in item["spec"]["template"]["spec"]["containers"]
        for p in container.get("ports", ())
        if p.get("name") == wanted
    }
    return named


@pytest.fixture(scope="module")
def rendered(charts: Charts) -> dict[str, list[Manifest]]:  # noqa: F811
    """The objects of each release."""
    return {spec.name: charts.render(spec) for spec in charts.releases}


def test_the_firewall_opens_exactly_the_ports_of_the_charts_webhooks(
    rendered: dict[str, list[Manifest]],
) -> None:
    everything = [item for items in rendered.values() for item in items]
    found: dict[str, set[int]] = {}
    for release, items in rendered.items():
        for service, port in asked(items):
            found.setdefault(OPERATORS[release], set()).add(target(everything, service, port))
    assert found == {operator: {port} for operator, port in WEBHOOK_PORTS.items()}
