"""Stands in for Google's gateway controller: no pods, and nothing in the cluster but classes and statuses.

It runs for a cluster of the simulated project whose Gateway API is on. It offers the GatewayClasses, judges Gateways
and routes with Google's refusals (rehearsal/gateway/google_rules.py) and programs their load balancers
(google_balancers.py), which it holds the Gateway back for until they are gone.

As on a cluster, nothing new is programmed for a Gateway while any of its routes is refused or leads nowhere, or a
certificate is missing; what was programmed last goes on. The Gateway is not `networking.gke.io/GatewayHealthy`
then, and not Programmed if it never was.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable

from ops.kube import Kube, Manifest
from rehearsal.cloud import load_balancers
from rehearsal.cloud.load_balancers import Cluster
from rehearsal.cloud.project import Project, State
from rehearsal.cloud.settings import Settings
from rehearsal.gateway import attach, google, google_backends, google_rules
from rehearsal.gateway.google_backends import NETWORKING, POLICIES, BackendService
from rehearsal.gateway.objects import Unsupported, key
from rehearsal.processes import Processes
from rehearsal.stand_ins import google_certificates
from rehearsal.stand_ins.google_balancers import (
    INTERNAL_CLASS,
    LoadBalancers,
    Members,
    Place,
    owner_of,
    replace_backends,
)
from rehearsal.stand_ins.google_statuses import (
    CONTROLLER,
    gateway_status,
    policy_status,
    pool_parent,
    route_parent,
)
from rehearsal.stand_ins.mirror import Mirror
from rehearsal.stand_ins.statuses import condition, write

GATEWAY_API = "gateway.networking.k8s.io/v1"
CLASSES = (INTERNAL_CLASS, "gke-l7-regional-external-managed")
FINALIZER = "gateway.finalizer.networking.gke.io"
MANAGER = "gke-gateway-controller"
# Pools are routed to by an extension of this service of Google's.
EXTENSIONS_API = "networkservices.googleapis.com"
WATCHED = (
    (GATEWAY_API, "GatewayClass"),
    (GATEWAY_API, "Gateway"),
    (GATEWAY_API, "HTTPRoute"),
    ("inference.networking.k8s.io/v1", "InferencePool"),
    *((NETWORKING, kind) for kind in POLICIES),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "Service"),
    ("v1", "Namespace"),
)
LOOK_SECONDS = 0.5
SECRET_SECONDS = 1.0
UNREADABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class GoogleGateway:
    """Acts while the project has a cluster with Google's Gateway API."""

    def __init__(
        self,
        kube: Kube,
        project: Project,
        settings: Settings,
        members: Members,
        processes: Processes,
        place: Place,
    ):
        self._kube, self._project, self._settings = kube, project, settings
        self._certificates = google_certificates.directory(place.root)
        self.objects = Mirror(kube, WATCHED)
        self.balancers = LoadBalancers(self.objects, project, members, processes, place, self.objects.wake)
        self._errors: dict[str, str] = {}
        self._secrets: dict[tuple[str, str], Manifest | None] = {}
        self._secrets_read = 0.0
        self._since: float | None = None

    # -- life --------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Wait for a cluster with the Gateway API, then act until told to stop."""
        while load_balancers.cluster_of(self._project.read()) is None:
            if stop.wait(LOOK_SECONDS):
                return
        threading.Thread(target=self.balancers.run, args=(stop,), daemon=True).start()
        self.objects.run(stop, self.act)

    def act(self) -> None:
        """Bring statuses, the project and the load balancers to what the objects say now."""
        state = self._project.read()
        cluster = load_balancers.cluster_of(state)
        gateways = [g for g in self.objects.of("Gateway") if g["spec"]["gatewayClassName"] in CLASSES]
        going = [g for g in gateways if g["metadata"].get("deletionTimestamp") or cluster is None]
        for gateway in going:
            self._release(gateway)
        if cluster is None:
            self._since = None
            return
        self._offer_classes()
        self._read_secrets()
        there = [g for g in gateways if g not in going]
        for gateway in there:
            self._reconcile(cluster, state, gateway)
        self.balancers.watch_health()
        self._report_routes(there)
        self._report_policies()

    def _offer_classes(self) -> None:
        self._since = self._since or time.monotonic()
        waited = time.monotonic() - self._since >= self._settings.gateway_class_seconds
        for name in CLASSES:
            item = self.objects.get("GatewayClass", name)
            if item is not None:
                write(self._kube, item, {"conditions": [condition(item, "Accepted", True)]})
            elif waited:
                meta, spec = {"name": name}, {"controllerName": CONTROLLER}
                made = {"apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": meta, "spec": spec}
                self._kube.apply(made, MANAGER)

    # -- one Gateway -------------------------------------------------------------------------------

    def _reconcile(self, cluster: Cluster, state: State, gateway: Manifest) -> None:
        """Program what can be, look after what was, and say how it stands."""
        self._hold(gateway)
        error, proxies = "", load_balancers.proxy_only_subnet(state, cluster)
        try:
            if proxies is None:
                raise _no_proxies(cluster, gateway)
            services = self._services(cluster, state, gateway)
            self.balancers.program(cluster, proxies, gateway, services, self._secrets_of(gateway))
        except (google.Invalid, Unsupported) as problem:
            error = str(problem)
        except UNREADABLE as problem:
            # Whatever somebody wrote into an object must not end the controller.
            traceback.print_exc()
            error = f"an object cannot be read: {problem!r}"
        self.balancers.look_after(cluster, proxies, gateway)
        self._note(gateway, error)
        address = self.balancers.address(gateway)
        write(self._kube, gateway, gateway_status(self.objects, gateway, address, error, self._secret))

    def _services(self, cluster: Cluster, state: State, gateway: Manifest) -> list[BackendService]:
        """What the routes of a Gateway lead to. Raises Invalid for the first that Google refuses."""
        attached = google.attached_routes(self.objects, gateway)
        for route in attached:
            if fault := google_rules.fault(self.objects, route):
                raise google.Invalid(f'failed to translate Gateway "{owner_of(gateway)}": {fault.message}')
        enabled = EXTENSIONS_API in self._settings.services or EXTENSIONS_API in state.services
        if any(attach.pools(route) for route in attached) and not enabled:
            raise google.Invalid(
                f"{EXTENSIONS_API} has not been used in project {cluster.project} before or it is disabled."
            )
        for name in google.managed_certificates(gateway):
            domains = load_balancers.certificate_domains(state, self._settings, cluster, name)
            if domains is None:
                place = f"projects/{cluster.project}/locations/{cluster.region}/certificates/{name}"
                raise google.Invalid(f"Error GWCER102: certificate {place} not found.")
            google_certificates.ensure(self._certificates, name, domains)
        return google_backends.backend_services(self.objects, attached)

    def _note(self, gateway: Manifest, error: str) -> None:
        """Say a new state once, as an event."""
        name = owner_of(gateway)
        if error == self._errors.get(name):
            return
        self._errors[name] = error
        message = error or f"SYNC on {name} was a success"
        print(f"Gateway {name}: {message}", flush=True)
        namespace, own = key(gateway)
        about = {"apiVersion": GATEWAY_API, "kind": "Gateway", "uid": gateway["metadata"].get("uid", "")}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{own}.", "namespace": namespace},
            "involvedObject": {**about, "name": own, "namespace": namespace},
            "type": "Warning" if error else "Normal",
            "reason": "SYNC",
            "message": message,
            "source": {"component": "sc-gateway-controller"},
        }
        self._kube.create(event)

    def _hold(self, gateway: Manifest) -> None:
        """Keep the Gateway until what belongs to it is gone."""
        finalizers = gateway["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            self._set_finalizers(gateway, [*finalizers, FINALIZER])

    def _release(self, gateway: Manifest) -> None:
        """Take away what a Gateway has, then let it go.

        Of a cluster that is gone nobody takes anything away any more: the records in the project stay.
        """
        finalizers = gateway["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            return
        self.balancers.end(gateway)
        self._errors.pop(owner_of(gateway), None)
        with self._project.change() as state:
            # Asked now: objects go while their cluster does.
            if load_balancers.cluster_of(state) is not None:
                load_balancers.keep(state, owner_of(gateway), {}, time.time())
                replace_backends(state, owner_of(gateway), {})
        self._set_finalizers(gateway, [f for f in finalizers if f != FINALIZER])

    def _set_finalizers(self, gateway: Manifest, wanted: list[str]) -> None:
        meta = gateway["metadata"]
        # Refused where somebody else was faster; the next round sees how it is then.
        body = {"metadata": {"finalizers": wanted, "resourceVersion": meta["resourceVersion"]}}
        self._kube.patch(GATEWAY_API, "Gateway", meta["name"], meta["namespace"], body)

    # -- certificates ------------------------------------------------------------------------------

    def _secrets_of(self, gateway: Manifest) -> Callable[[str, str], Manifest | None]:
        """Finds a listener's certificate: a Secret, or what stands for one of Certificate Manager's."""
        managed = google.managed_certificates(gateway)

        def find(name: str, namespace: str) -> Manifest | None:
            if name in managed:
                return google_certificates.secret(self._certificates, name)
            return self._secret(name, namespace)

        return find

    def _secret(self, name: str, namespace: str) -> Manifest | None:
        """A Secret with a certificate in it."""
        if (namespace, name) not in self._secrets:
            self._secrets[namespace, name] = self._kube.get("v1", "Secret", name, namespace)
        found = self._secrets[namespace, name]
        return found if found and {"tls.crt", "tls.key"} <= (found.get("data") or {}).keys() else None

    def _read_secrets(self) -> None:
        """Look again at the Secrets that listeners name, now and then."""
        if time.monotonic() - self._secrets_read > SECRET_SECONDS:
            self._secrets_read = time.monotonic()
            self._secrets = {(s, n): self._kube.get("v1", "Secret", n, s) for s, n in self._secrets}

    # -- statuses ----------------------------------------------------------------------------------

    def _report_routes(self, gateways: list[Manifest]) -> None:
        users: dict[tuple[str, str], dict[tuple[str, str], Manifest]] = {}
        for route in self.objects.of("HTTPRoute"):
            mine = [(g, p) for g in gateways for p in attach.parents(route, g)]
            if mine:
                parents = [route_parent(self.objects, route, g, p) for g, p in mine]
                write(self._kube, route, {"parents": parents})
            for pool in attach.pools(route):
                users.setdefault(pool, {}).update((key(g), g) for g, _ in mine)
        for pool in self.objects.of("InferencePool"):
            if found := users.get(key(pool)):
                parents = [pool_parent(self.objects, pool, g) for g in found.values()]
                write(self._kube, pool, {"parents": parents})

    def _report_policies(self) -> None:
        """Whether each policy whose target is behind a Gateway counts."""
        used = {service.reference for service in self.balancers.services()}
        for kind in POLICIES:
            for policy in self.objects.of(kind):
                reference = google_backends.target_of(policy)
                if reference in used:
                    counts = google_backends.attached_policy(self.objects, kind, reference) is policy
                    write(self._kube, policy, policy_status(policy, counts))


def _no_proxies(cluster: Cluster, gateway: Manifest) -> google.Invalid:
    target = load_balancers.resource_name(cluster, *key(gateway))
    return google.Invalid(
        "generic::invalid_argument: error ensuring load balancer: Insert: Invalid value for field "
        f"'resource.target': 'regions/{cluster.region}/targetHttpProxies/{target}'. An active proxy-only "
        "subnetwork is required in the same region and VPC as the forwarding rule."
    )
