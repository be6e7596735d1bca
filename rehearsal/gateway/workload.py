"""The pods of a Gateway and the Service before them, as istiod makes them from the Gateway object.

Follows istiod's template `kube-gateway.yaml` and `deploymentcontroller.go`. Left out are the volumes through
which Istio's agent gets its certificates: there is no mesh here. `spec.replicas` belongs to whoever scales.
"""

from __future__ import annotations

from typing import Any

from components.core import labels as ours
from rehearsal.gateway.objects import Manifest, Objects, Unsupported, host, key, labels

CLASS_LABEL = "gateway.networking.k8s.io/gateway-class-name"
SERVICE_TYPE = "networking.istio.io/service-type"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
PROXY_USER = 1337
CONTAINER_PORTS = {"metrics": 15020, "status-port": 15021, "http-envoy-prom": 15090}
# Istio's defaults (`global.proxy.resources`).
RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2000m", "memory": "1024Mi"}}
ISTIOD_IMAGE, PROXY_IMAGE = "/pilot", "/proxyv2"


def name(gateway: Manifest) -> str:
    """What a Gateway's Deployment, Service and ServiceAccount are called."""
    return f"{gateway['metadata']['name']}-{gateway['spec']['gatewayClassName']}"


def service_host(gateway: Manifest) -> str:
    """The Gateway's name in the cluster's DNS."""
    return host(name(gateway), gateway["metadata"]["namespace"])


def service_type(gateway: Manifest) -> str:
    """How the Gateway is reached: a load balancer, unless an annotation says otherwise."""
    return str((gateway["metadata"].get("annotations") or {}).get(SERVICE_TYPE, "LoadBalancer"))


def proxy_image(objects: Objects) -> str | None:
    """The proxy's image: istiod's own, with the other name. None while no istiod is known."""
    for pod in objects.of("Pod"):
        if labels(pod).get("app") != "istiod":
            continue
        for container in pod["spec"]["containers"]:
            # A digest would be that of another image.
            repository, colon, tag = container["image"].split("@")[0].rpartition(":")
            if colon and repository.endswith(ISTIOD_IMAGE):
                return f"{repository.removesuffix(ISTIOD_IMAGE)}{PROXY_IMAGE}:{tag}"
    return None


def pods(objects: Objects, gateway: Manifest) -> list[Manifest]:
    """The Gateway's pods that have an address, ready or not."""
    namespace, own = key(gateway)
    return [
        p
        for p in objects.of("Pod")
        if p["metadata"]["namespace"] == namespace
        and labels(p).get(ours.GATEWAY_NAME) == own
        and (p.get("status") or {}).get("podIP")
    ]


def is_ready(pod: Manifest) -> bool:
    """Whether a pod takes traffic."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return not pod["metadata"].get("deletionTimestamp") and any(
        c["type"] == "Ready" and c["status"] == "True" for c in conditions
    )


def manifests(gateway: Manifest, image: str) -> list[Manifest]:
    """ServiceAccount, Deployment and Service of a Gateway, owned by it."""
    if gateway["spec"].get("addresses"):
        raise Unsupported(gateway, "spec.addresses is not rehearsed")
    return [
        _object(gateway, "v1", "ServiceAccount"),
        {**_object(gateway, "apps/v1", "Deployment"), "spec": _deployment(gateway, image)},
        {**_object(gateway, "v1", "Service"), "spec": _service(gateway)},
    ]


def _inherited(gateway: Manifest, field: str) -> dict[str, str]:
    """Labels or annotations for what belongs to a Gateway: those of its infrastructure, else its own."""
    infrastructure = gateway["spec"].get("infrastructure") or {}
    if infrastructure.get("parametersRef"):
        raise Unsupported(gateway, "spec.infrastructure.parametersRef is not rehearsed")
    if field in infrastructure:
        given = infrastructure[field] or {}
        return {k: v for k, v in given.items() if not k.startswith("gateway.networking.k8s.io/")}
    own = gateway["metadata"].get(field) or {}
    return {k: v for k, v in own.items() if k != LAST_APPLIED}


def _labels(gateway: Manifest) -> dict[str, str]:
    return {
        **_inherited(gateway, "labels"),
        ours.GATEWAY_NAME: gateway["metadata"]["name"],
        CLASS_LABEL: gateway["spec"]["gatewayClassName"],
        "gateway.istio.io/managed": "istio.io-gateway-controller",
    }


def _object(gateway: Manifest, api_version: str, kind: str) -> Manifest:
    meta = gateway["metadata"]
    owner = {
        "apiVersion": gateway["apiVersion"],
        "kind": "Gateway",
        "name": meta["name"],
        "uid": meta.get("uid", ""),
    }
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name(gateway),
            "namespace": meta["namespace"],
            "labels": _labels(gateway),
            "annotations": _inherited(gateway, "annotations"),
            "ownerReferences": [owner],
        },
    }


def _deployment(gateway: Manifest, image: str) -> dict[str, Any]:
    scraped = {
        "istio.io/rev": "default",
        "prometheus.io/path": "/stats/prometheus",
        "prometheus.io/port": str(CONTAINER_PORTS["metrics"]),
        "prometheus.io/scrape": "true",
    }
    also = {
        "sidecar.istio.io/inject": "false",
        "service.istio.io/canonical-name": name(gateway),
        "service.istio.io/canonical-revision": "latest",
    }
    return {
        "selector": {"matchLabels": {ours.GATEWAY_NAME: gateway["metadata"]["name"]}},
        "template": {
            "metadata": {
                "labels": {**also, **_labels(gateway)},
                "annotations": {**_inherited(gateway, "annotations"), **scraped},
            },
            "spec": {
                "serviceAccountName": name(gateway),
                "securityContext": {
                    "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
                },
                "containers": [_container(gateway, image)],
            },
        },
    }


def _container(gateway: Manifest, image: str) -> dict[str, Any]:
    check = {
        "httpGet": {"path": "/healthz/ready", "port": CONTAINER_PORTS["status-port"], "scheme": "HTTP"},
        "successThreshold": 1,
        "timeoutSeconds": 1,
    }
    fields = {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "INSTANCE_IP": "status.podIP",
        "SERVICE_ACCOUNT": "spec.serviceAccountName",
    }
    return {
        "name": "istio-proxy",
        "image": image,
        "args": ["proxy", "router", "--domain", f"{gateway['metadata']['namespace']}.svc.cluster.local"],
        "env": [{"name": n, "valueFrom": {"fieldRef": {"fieldPath": p}}} for n, p in fields.items()],
        "ports": [{"name": n, "containerPort": p, "protocol": "TCP"} for n, p in CONTAINER_PORTS.items()],
        "resources": RESOURCES,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": PROXY_USER,
            "runAsNonRoot": True,
            "runAsUser": PROXY_USER,
        },
        "startupProbe": {**check, "failureThreshold": 30, "initialDelaySeconds": 1, "periodSeconds": 1},
        "readinessProbe": {**check, "failureThreshold": 4, "initialDelaySeconds": 0, "periodSeconds": 15},
    }


def _service(gateway: Manifest) -> dict[str, Any]:
    ports = {
        CONTAINER_PORTS["status-port"]: {
            "name": "status-port", "port": CONTAINER_PORTS["status-port"], "protocol": "TCP", "appProtocol": "tcp"
        }
    }  # fmt: skip
    for listener in gateway["spec"]["listeners"]:
        found = {
            "name": listener["name"],
            "port": listener["port"],
            "protocol": "TCP",
            "appProtocol": listener["protocol"].lower(),
        }
        # Several listeners may share a port; the first one names it.
        ports.setdefault(listener["port"], found)
    return {
        "type": service_type(gateway),
        "ipFamilyPolicy": "PreferDualStack",
        "ports": list(ports.values()),
        "selector": {ours.GATEWAY_NAME: gateway["metadata"]["name"]},
    }
