"""Services, Ingresses, volumes, quotas and token Secrets: what they need before others can use them."""

from __future__ import annotations

import time

from rehearsal.providers.kubernetes.awaiting.progress import Look, Progress, pluck

SETTLE_SECONDS = 10.0
"""How long a Service's Endpoints must stay unchanged; the official provider's constant."""
INGRESS_GRACE_SECONDS = 60.0
"""After this an Ingress no longer waits for the Services that it names."""


def service_ready(look: Look) -> Progress:
    """A load balancer has its address; with a selector, the Endpoints have settled and none is unready."""
    kind = look.of("spec", "type", default="ClusterIP")
    addressed = kind != "LoadBalancer" or bool(look.of("status", "loadBalancer", "ingress"))
    headless = look.of("spec", "clusterIP") == "None"
    if kind == "ExternalName" or headless or not look.of("spec", "selector"):
        return Progress(
            addressed, "" if addressed else "Waiting for an IP address", () if addressed else (_NO_ADDRESS,)
        )
    endpoints = look.kube.get("v1", "Endpoints", look.name, look.namespace)
    pending = any(subset.get("notReadyAddresses") for subset in (endpoints or {}).get("subsets", ()))
    targets = any(subset.get("addresses") for subset in (endpoints or {}).get("subsets", ()))
    if addressed and _settled(look, endpoints) and not pending:
        return Progress(True, "Service initialization complete")
    status = (
        "Attempting to allocate IP address to Service" if targets else "Finding Pods to direct traffic to"
    )
    return Progress(False, status, (() if targets else (_NO_TARGET,)) + (() if addressed else (_NO_ADDRESS,)))


def service_ready_at_last(look: Look) -> bool:
    """At a time-out a Service passes after all whose Endpoints never settled, or never came."""
    kind = look.of("spec", "type", default="ClusterIP")
    endpoints = look.kube.get("v1", "Endpoints", look.name, look.namespace) or {}
    pending = any(subset.get("notReadyAddresses") for subset in endpoints.get("subsets", ()))
    return not pending and (kind != "LoadBalancer" or bool(look.of("status", "loadBalancer", "ingress")))


_NO_TARGET = "Service does not target any Pods. Selected Pods may not be ready, or field '.spec.selector' may not match labels on any Pods"
_NO_ADDRESS = "Service was not allocated an IP address; does your cloud provider support this?"


def _settled(look: Look, endpoints: dict | None) -> bool:
    if look.settled:
        return True
    version = pluck(endpoints, "metadata", "resourceVersion")
    if version != look.memory.get("version"):
        look.memory.update(version=version, since=time.monotonic())
    return version is not None and time.monotonic() - look.memory["since"] >= SETTLE_SECONDS


def ingress_ready(look: Look) -> Progress:
    """The Ingress has an address, and the Services of its paths have Endpoints or are elsewhere."""
    rules = look.of("spec", "rules", default=())
    names = {
        pluck(p, "backend", "service", "name")
        for rule in rules
        for p in pluck(rule, "http", "paths", default=())
    } - {None}
    patient = not look.settled and time.monotonic() - look.started < INGRESS_GRACE_SECONDS
    missing = sorted(name for name in names if patient and not _has_endpoints(look, name))
    reasons = ("Ingress has at least one rule with an unavailable target endpoint.",) if missing else ()
    if not look.of("status", "loadBalancer", "ingress"):
        reasons += ("Ingress .status.loadBalancer field was not updated with a hostname/IP address.",)
    return Progress(
        not reasons, f"Waiting for {', '.join(missing)}" if missing else "Waiting for an address", reasons
    )


def _has_endpoints(look: Look, name: str) -> bool:
    service = look.kube.get("v1", "Service", name, look.namespace)
    external = pluck(service, "spec", "type") == "ExternalName"
    return external or look.kube.get("v1", "Endpoints", name, look.namespace) is not None


def claim_ready(look: Look) -> Progress:
    """A claim is bound, or pending where its class binds only for the first pod."""
    phase = look.of("status", "phase")
    storage_class = look.of("spec", "storageClassName")
    found = look.kube.get("storage.k8s.io/v1", "StorageClass", storage_class) if storage_class else None
    patient = pluck(found, "volumeBindingMode") == "WaitForFirstConsumer"
    ready = phase == ("Pending" if patient else "Bound") or (look.last is not None and phase == "Bound")
    return Progress(
        ready, f"PersistentVolumeClaim is {phase}", (f"PersistentVolumeClaim {look.name!r} is {phase}",)
    )


def volume_ready(look: Look) -> Progress:
    """A volume is available or bound."""
    phase = look.of("status", "phase")
    return Progress(
        phase in ("Available", "Bound"), f"PersistentVolume is {phase}", (f"PersistentVolume is {phase}",)
    )


def quota_ready(look: Look) -> Progress:
    """The quota is in force."""
    return Progress(
        look.of("spec", "hard") == look.of("status", "hard"),
        "Waiting for the quota controller",
        ("not in force",),
    )


def secret_ready(look: Look) -> Progress:
    """A Secret for a service account's token has been filled."""
    filled = look.of("type") != "kubernetes.io/service-account-token" or bool(look.of("data"))
    return Progress(filled, "Waiting for the token", ("the token controller has not filled the Secret",))
