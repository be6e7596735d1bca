"""Stands in for istiod: accepts Gateways, routes and pools, and programs the Gateways' Envoys.

It sets the statuses that KServe and `pulumi up` wait for, judges references as istiod does (a backend that does
not exist leaves `ResolvedRefs` False), makes the pods of each Gateway, and writes the configuration of each pod's
Envoy. A Gateway is Programmed once a pod of it takes traffic by its present objects. Objects that ask for what
is not rehearsed leave the last good configuration in place; the Gateway's status says which and why.
"""

from __future__ import annotations

import copy
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.kube import Kube, Manifest
from rehearsal.gateway import attach, files, workload
from rehearsal.gateway.clusters import Endpoints
from rehearsal.gateway.objects import Unsupported, key
from rehearsal.gateway.translate import Config, Proxy, translate
from rehearsal.stand_ins.aws_balancers import FINALIZER
from rehearsal.stand_ins.mirror import Mirror
from rehearsal.stand_ins.statuses import condition, write

GATEWAY_API = "gateway.networking.k8s.io/v1"
POOL_API = "inference.networking.k8s.io/v1"
CONTROLLER = "istio.io/gateway-controller"
CLASS = "istio"
MANAGER = "rehearsal-istiod"
# The machine itself: without a cloud there is no load balancer that could have an address of its own.
ADDRESS = "127.0.0.1"
WATCHED = (
    (GATEWAY_API, "GatewayClass"),
    (GATEWAY_API, "Gateway"),
    (GATEWAY_API, "HTTPRoute"),
    (POOL_API, "InferencePool"),
    ("v1", "Service"),
    ("v1", "Namespace"),
    ("v1", "Pod"),
    ("apps/v1", "Deployment"),
    ("networking.istio.io/v1", "DestinationRule"),
    ("networking.istio.io/v1alpha3", "EnvoyFilter"),
    ("security.istio.io/v1", "RequestAuthentication"),
    ("security.istio.io/v1", "AuthorizationPolicy"),
)
# Certificates are read, not watched: most Secrets of a cluster are none of a gateway's business.
SECRET_SECONDS = 1.0
UNREADABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError)


@dataclass
class Verdict:
    """What became of a Gateway: why its objects cannot be used, which listeners are left out, who takes traffic."""

    refused: str = ""
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)
    ready: bool = False


@dataclass
class Written:
    """What one pod's Envoy was told, and for which pod."""

    uid: str
    files: dict[str, Any] = field(default_factory=dict)


class GatewayController:
    """Acts while `is_running` says that istiod's pod is Ready.

    `endpoints` tells where the ready pods with some labels really listen for one of their ports, by number or
    name; `root` is the rehearsal's directory, in which Envoys read from `gateway/<address>`.
    """

    def __init__(self, kube: Kube, is_running: Callable[[], bool], endpoints: Endpoints, root: Path):
        self._kube, self._is_running = kube, is_running
        self._endpoints, self._root = endpoints, root / "gateway"
        self.objects = Mirror(kube, WATCHED)
        self._secrets: dict[tuple[str, str], Manifest | None] = {}
        self._secrets_read = 0.0
        self._acted: Any = None
        self._settled = False
        self._written: dict[str, Written] = {}
        self._applied: dict[tuple[str, str, str], Manifest] = {}
        self._reported: dict[tuple[str, str], str] = {}

    def run(self, stop: threading.Event) -> None:
        """Act until told to stop."""
        self.objects.run(stop, self.act)

    def act(self) -> None:
        """Reconcile if something has changed, and once more after that.

        Once more since a pod may be gone for us a moment before it is gone for those who know its endpoints.
        """
        if not self._is_running():
            return
        self._read_secrets()
        state = self.objects.version, copy.deepcopy(self._secrets)
        changed = state != self._acted
        if changed or not self._settled:
            self.reconcile()
            self._acted, self._settled = state, not changed

    def reconcile(self) -> None:
        """Bring pods, configurations and statuses to what they should be, writing only what differs."""
        self._accept_class()
        gateways = [g for g in self.objects.of("Gateway") if g["spec"]["gatewayClassName"] == CLASS]
        users: dict[tuple[str, str], dict[tuple[str, str], Manifest]] = {}
        for gateway in gateways:
            write(self._kube, gateway, self.status_of(gateway, self._program(gateway)))
        for route in self.objects.of("HTTPRoute"):
            mine = [(g, p) for g in gateways for p in attach.parents(route, g)]
            if mine:
                write(self._kube, route, {"parents": [self._route_parent(route, g, p) for g, p in mine]})
            for pool in attach.pools(route):
                users.setdefault(pool, {}).update((key(g), g) for g, _ in mine)
        for pool in self.objects.of("InferencePool"):
            if found := users.get(key(pool)):
                write(self._kube, pool, {"parents": [self._pool_parent(pool, g) for g in found.values()]})
        self._forget()

    def _accept_class(self) -> None:
        item = self.objects.get("GatewayClass", CLASS)
        if item is None:
            self._kube.apply(
                {
                    "apiVersion": GATEWAY_API,
                    "kind": "GatewayClass",
                    "metadata": {"name": CLASS},
                    "spec": {"controllerName": CONTROLLER},
                },
                MANAGER,
            )
            return
        write(self._kube, item, {"conditions": [condition(item, "Accepted", True)]})

    def _program(self, gateway: Manifest) -> Verdict:
        """Make a Gateway's pods and tell their Envoys what the objects say now."""
        verdict = Verdict()
        try:
            self._make_pods(gateway)
            for pod in workload.pods(self.objects, gateway):
                config = self._configure(gateway, pod)
                verdict.problems |= config.problems
                verdict.ready = verdict.ready or workload.is_ready(pod)
        except Unsupported as problem:
            verdict = Verdict(refused=str(problem))
        except UNREADABLE as problem:
            # Whatever somebody wrote into an object must not end the controller, as it would not end istiod.
            traceback.print_exc()
            verdict = Verdict(refused=f"an object cannot be read: {problem!r}")
        self._report(gateway, verdict.refused)
        return verdict

    def _make_pods(self, gateway: Manifest) -> None:
        image = workload.proxy_image(self.objects)
        home = self.objects.get("Namespace", gateway["metadata"]["namespace"])
        # What goes away would refuse to take anything new.
        going = any(o and o["metadata"].get("deletionTimestamp") for o in (gateway, home))
        if image is None or going:
            return
        for item in workload.manifests(gateway, image):
            namespace, name = key(item)
            known = (item["kind"], namespace, name)
            # An account is made together with its Deployment, and not watched.
            watched = "Deployment" if item["kind"] == "ServiceAccount" else item["kind"]
            gone = self.objects.get(watched, name, namespace) is None
            if gone or self._applied.get(known) != item:
                self._kube.apply(item, CONTROLLER, force=True)
                self._applied[known] = item

    def _configure(self, gateway: Manifest, pod: Manifest) -> Config:
        """Write what differs in a pod's configuration."""
        address, uid = pod["status"]["podIP"], pod["metadata"].get("uid", "")
        directory = self._root / address
        config = translate(
            self.objects, Proxy(gateway, pod, address, directory), self._endpoints, self._secret
        )
        last = self._written.get(address)
        # A new pod at the address of an old one starts anew.
        before = last.files if last and last.uid == uid else {}
        files.write(directory, config.files, before)
        self._written[address] = Written(uid, config.files)
        return config

    def _secret(self, name: str, namespace: str) -> Manifest | None:
        """A Secret that a listener names."""
        if (namespace, name) not in self._secrets:
            self._secrets[namespace, name] = self._kube.get("v1", "Secret", name, namespace)
        return self._secrets[namespace, name]

    def _read_secrets(self) -> None:
        """Look again at the Secrets that listeners name, now and then."""
        if time.monotonic() - self._secrets_read > SECRET_SECONDS:
            self._secrets_read = time.monotonic()
            for namespace, name in self._secrets:
                self._secrets[namespace, name] = self._kube.get("v1", "Secret", name, namespace)

    def _report(self, gateway: Manifest, refused: str) -> None:
        """Log a refusal once, and its end."""
        if refused != self._reported.get(key(gateway), ""):
            self._reported[key(gateway)] = refused
            said = f"refused, the last good configuration stays: {refused}" if refused else "accepted again"
            print(f"Gateway {'/'.join(key(gateway))}: {said}", flush=True)

    def _forget(self) -> None:
        """Remove the configurations of pods that are gone."""
        there = {(p.get("status") or {}).get("podIP") for p in self.objects.of("Pod")}
        for address in self._written.keys() - there:
            files.remove(self._root / address)
            del self._written[address]

    def status_of(self, gateway: Manifest, verdict: Verdict) -> dict[str, Any]:
        """The status of a Gateway, as istiod would write it."""
        local, balancer = workload.service_type(gateway) == "ClusterIP", self._balancer(gateway)
        value = workload.service_host(gateway) if local else balancer or ADDRESS
        status: dict[str, Any] = {
            "conditions": [
                condition(gateway, "Accepted", True),
                condition(gateway, "Programmed", *_programmed(gateway, verdict, balancer)),
            ],
            "listeners": [self._listener_status(gateway, x, verdict) for x in gateway["spec"]["listeners"]],
        }
        if verdict.ready and balancer != "":
            # As istiod: no address before the first pod is ready, and none taken back later.
            named = local or balancer is not None
            status["addresses"] = [{"type": "Hostname" if named else "IPAddress", "value": value}]
        return status

    def _balancer(self, gateway: Manifest) -> str | None:
        """The name of the load balancer that a simulated cloud keeps for a Gateway, "" before; None without a cloud."""
        service = self.objects.get("Service", workload.name(gateway), gateway["metadata"]["namespace"])
        if service is None or FINALIZER not in (service["metadata"].get("finalizers") or ()):
            return None
        ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or [{}]
        return str(ingress[0].get("hostname", ""))

    def _listener_status(self, gateway: Manifest, listener: Manifest, verdict: Verdict) -> dict[str, Any]:
        reason, message = verdict.problems.get(listener["name"], ("", ""))
        programmed: tuple[Any, ...] = (True,)
        if reason:
            programmed = (False, "Invalid", "Bad TLS configuration")
        if verdict.refused:
            programmed = (False, "Invalid", verdict.refused)
        return {
            "name": listener["name"],
            "attachedRoutes": len(list(attach.attached(self.objects, gateway, listener))),
            "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
            "conditions": [
                condition(gateway, "Accepted", True),
                condition(gateway, "Programmed", *programmed),
                condition(gateway, "ResolvedRefs", not reason, reason, message),
            ],
        }

    def _route_parent(self, route: Manifest, gateway: Manifest, parent: Manifest) -> dict[str, Any]:
        accepted = attach.allowed(self.objects, route, gateway, parent)
        found = (attach.problem(self.objects, route, b) for b in attach.backends(route))
        problem = next((p for p in found if p), None)
        return {
            "parentRef": parent,
            "controllerName": CONTROLLER,
            "conditions": [
                condition(route, "Accepted", accepted, "" if accepted else "NotAllowedByListeners"),
                condition(route, "ResolvedRefs", problem is None, *(problem or ())),
            ],
        }

    def _pool_parent(self, pool: Manifest, gateway: Manifest) -> dict[str, Any]:
        namespace, name = key(gateway)
        reference = {
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "namespace": namespace,
            "name": name,
        }
        picker = pool["spec"]["endpointPickerRef"]["name"]
        found = self.objects.get("Service", picker, pool["metadata"]["namespace"]) is not None
        problem = () if found else ("InvalidExtensionRef", f"service {picker} not found")
        return {
            "parentRef": reference,
            "controllerName": CONTROLLER,
            "conditions": [
                condition(pool, "Accepted", True),
                condition(pool, "ResolvedRefs", found, *problem),
            ],
        }


def _programmed(gateway: Manifest, verdict: Verdict, balancer: str | None) -> tuple[Any, ...]:
    """Whether a Gateway takes traffic by its objects: (yes or no, reason, message)."""
    if verdict.refused:
        return False, "Invalid", verdict.refused
    if not verdict.ready:
        return False, "AddressNotAssigned", f"no ready pod behind {workload.service_host(gateway)!r}"
    if balancer == "":
        host = workload.service_host(gateway)
        return (
            False,
            "AddressNotAssigned",
            f"Assigned to service(s) {host}, but failed to assign to all requested addresses: "
            + f'address pending for hostname "{host}"',
        )
    return True, "Programmed", f"Resource programmed, assigned to service(s) {workload.service_host(gateway)}"
