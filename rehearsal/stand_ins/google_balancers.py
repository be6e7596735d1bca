"""The load balancers that stand before a simulated cluster: an Envoy for each Gateway, its health checks, its records.

Which endpoints take traffic changes whatever becomes of the Gateway's objects; everything else is as it was
programmed last. Endpoints are healthy as Google's checks find them, and only where the pod's NetworkPolicies let
the checks in. A connection that the policies would not let through from the proxies' subnet is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ops.kube import Manifest
from rehearsal.cloud import load_balancers
from rehearsal.cloud.load_balancers import PROBE_RANGES, Cluster
from rehearsal.cloud.project import Project, State
from rehearsal.gateway import files, google
from rehearsal.gateway.google_backends import BackendService
from rehearsal.gateway.objects import Objects, key
from rehearsal.gateway.proxy import arguments
from rehearsal.gateway.translate import Proxy, Secrets
from rehearsal.processes import Processes
from rehearsal.reachability import External, Pod, Reachability
from rehearsal.stand_ins.google_health import HealthChecks, Key, Subject

INTERNAL_CLASS = "gke-l7-rilb"
WORKERS, FLUSH_MILLISECONDS = 2, 1000
# Nothing listens at this port of any pod.
CLOSED_PORT = 1
# The addresses 127.<block>.254.<number>; pods have lower ones.
ADDRESSES = range(1, 250)


class Member(Protocol):
    """A Ready pod behind a Service or pool."""

    pod: Manifest

    def endpoint(self, port: int | str) -> tuple[str, int]:
        """Where a container port, by number or name, really listens."""


Members = Callable[[str, Mapping[str, str]], list[Any]]
"""The Ready pods of a namespace with these labels, as `Member`s."""


@dataclass(frozen=True)
class Place:
    """Where load balancers run: the rehearsal's directory, its addresses 127.<block>.0.0/16, and Envoy's program."""

    root: Path
    block: int
    envoy: Path

    def directory(self, address: str) -> Path:
        """What the Envoy at an address reads."""
        return self.root / "gateway" / address


@dataclass
class Programmed:
    """What a Gateway's load balancer was told last."""

    address: str
    services: list[BackendService] = field(default_factory=list)
    files: dict[str, Any] = field(default_factory=dict)


class LoadBalancers:
    """Those of all Gateways. `changed` is called when an endpoint becomes healthy, or no longer is."""

    def __init__(
        self,
        objects: Objects,
        project: Project,
        members: Members,
        processes: Processes,
        place: Place,
        changed: Callable[[], None],
    ):
        self._objects, self._project, self._members = objects, project, members
        self._processes, self._place = processes, place
        self.health = HealthChecks(changed)
        self._programmed: dict[str, Programmed] = {}

    def run(self, stop: threading.Event) -> None:
        """Ask for health until told to stop."""
        self.health.run(stop)

    def address(self, gateway: Manifest) -> str:
        """Where a Gateway answers; empty while it was never programmed."""
        known = self._programmed.get(owner_of(gateway))
        return known.address if known else ""

    def services(self) -> Iterator[BackendService]:
        """Everything that is behind any Gateway."""
        for known in self._programmed.values():
            yield from known.services

    # -- what a Gateway is told ----------------------------------------------------------------------

    def program(
        self,
        cluster: Cluster,
        proxies: tuple[str, str],
        gateway: Manifest,
        services: list[BackendService],
        secrets: Secrets,
    ) -> None:
        """Tell a Gateway's load balancer what its objects say. Raises Invalid and Unsupported, and then tells nothing.

        `proxies` are id and range of the proxy-only subnet.
        """
        owner = owner_of(gateway)
        before = self._programmed.get(owner)
        address = before.address if before else self._free_address(owner)
        proxy = Proxy(gateway, gateway, address, self._place.directory(address))
        healthy = self._healthy(proxies[1])
        config = google.gateway_config(self._objects, proxy, services, healthy, secrets)
        files.write(proxy.directory, config.files, before.files if before else {})
        self._programmed[owner] = Programmed(address, services, config.files)
        self._record(cluster, proxies, gateway, address, services)

    def look_after(self, cluster: Cluster, proxies: tuple[str, str] | None, gateway: Manifest) -> None:
        """Keep what was programmed running, with the endpoints and the health of now."""
        known = self._programmed.get(owner_of(gateway))
        if known is None:
            return
        healthy = self._healthy(proxies[1] if proxies else "")
        fresh = {**known.files, **google.endpoint_files(known.services, healthy)}
        directory = self._place.directory(known.address)
        files.write(directory, fresh, known.files)
        known.files = fresh
        command = [self._place.envoy, *arguments(directory / google.BOOTSTRAP, WORKERS, FLUSH_MILLISECONDS)]
        self._processes.start(_process(gateway), command)
        self._record_health(cluster, owner_of(gateway), known)

    def end(self, gateway: Manifest) -> None:
        """End a Gateway's load balancer; its records stay."""
        known = self._programmed.pop(owner_of(gateway), None)
        self._processes.stop(_process(gateway))
        if known:
            files.remove(self._place.directory(known.address))

    def _free_address(self, owner: str) -> str:
        """The address that the Gateway has on record, else the first free one."""
        taken = load_balancers.addresses(self._project.read())
        mine, prefix = taken.get(owner, ""), f"127.{self._place.block}."
        if mine.startswith(prefix):
            return mine
        used = {*taken.values(), *(p.address for p in self._programmed.values())}
        return next(a for a in (f"{prefix}254.{n}" for n in ADDRESSES) if a not in used)

    # -- endpoints -----------------------------------------------------------------------------------

    def watch_health(self) -> None:
        """Ask the endpoints of everything that is programmed from now on."""
        judge = self._judge()
        subjects = {}
        for service in self.services():
            port = service.check.port or service.port
            for found, member in self._endpoints(service):
                let_in = _lets_in(judge, PROBE_RANGES, member, port)
                subjects[found] = Subject(service.check, member.endpoint(port), let_in)
        self.health.watch(subjects)

    def _healthy(self, proxies: str) -> google.Healthy:
        """Finds where the healthy endpoints of a service listen, for proxies in a range."""
        judge = self._judge()

        def find(service: BackendService) -> list[tuple[str, int]]:
            found = []
            for health, member in self._endpoints(service):
                if self.health.healthy(health):
                    host, port = member.endpoint(service.port)
                    let_in = not proxies or _lets_in(judge, (proxies,), member, service.port)
                    found.append((host, port if let_in else CLOSED_PORT))
            return found

        return find

    def _endpoints(self, service: BackendService) -> list[tuple[Key, Any]]:
        """The members of a backend service, by the key of their health."""
        if not service.target.selector:
            return []
        members = self._members(service.target.namespace, service.target.selector)
        return [((service.target.name, m.pod["metadata"].get("uid", "")), m) for m in members]

    def _judge(self) -> Reachability:
        return Reachability(self._objects.of("NetworkPolicy"), self._objects.of("Namespace"))

    # -- records -------------------------------------------------------------------------------------

    def _record(
        self,
        cluster: Cluster,
        proxies: tuple[str, str],
        gateway: Manifest,
        address: str,
        services: list[BackendService],
    ) -> None:
        owner, internal = owner_of(gateway), gateway["spec"]["gatewayClassName"] == INTERNAL_CLASS
        names = [backend_name(cluster, s) for s in services]
        wanted = load_balancers.records(cluster, owner, address, internal, proxies, names)
        if load_balancers.owned(self._project.read(), owner) != {k: v for k, v in wanted.items() if v}:
            with self._project.change() as state:
                load_balancers.keep(state, owner, wanted, time.time())

    def _record_health(self, cluster: Cluster, owner: str, known: Programmed) -> None:
        """Write down what `gcloud compute backend-services get-health` would say."""
        wanted = {backend_name(cluster, s): self._health_of(cluster, owner, s) for s in known.services}
        if _backends_of(self._project.read(), owner) != wanted:
            with self._project.change() as state:
                replace_backends(state, owner, wanted)

    def _health_of(self, cluster: Cluster, owner: str, service: BackendService) -> dict[str, Any]:
        group, check = load_balancers.group_of(cluster, backend_name(cluster, service)), service.check
        backends = [
            {
                "group": group,
                "instance": member.pod["spec"].get("nodeName", ""),
                "pod": "/".join(key(member.pod)),
                "address": member.endpoint(service.port)[0],
                "healthState": "HEALTHY" if self.health.healthy(found) else "UNHEALTHY",
            }
            for found, member in self._endpoints(service)
        ]
        return {
            "region": cluster.region,
            "gateway": owner,
            "timeoutSec": service.timeout,
            "healthCheck": f"{check.kind} {check.path}" if check.kind.startswith("HTTP") else check.kind,
            "backends": sorted(backends, key=lambda b: str(b["pod"])),
        }


def owner_of(gateway: Manifest) -> str:
    """How records name the Gateway that they belong to: namespace/name."""
    return "/".join(key(gateway))


def backend_name(cluster: Cluster, service: BackendService) -> str:
    """The name of a backend service and of its endpoint group."""
    _, kind, namespace, name = service.reference
    port = service.target.name.split("|")[1]
    return load_balancers.resource_name(cluster, namespace, kind.lower(), name, port)


def replace_backends(state: State, owner: str, wanted: dict[str, dict[str, Any]]) -> None:
    """Make these a Gateway's backend services; without any, it has none."""
    others = {n: s for n, s in state.backend_services.items() if s["gateway"] != owner}
    state.backend_services = others | wanted


def _backends_of(state: State, owner: str) -> dict[str, dict[str, Any]]:
    return {n: s for n, s in state.backend_services.items() if s["gateway"] == owner}


def _lets_in(judge: Reachability, ranges: tuple[str, ...], member: Member, port: int | str) -> bool:
    pod = Pod.of(member.pod)
    return all(judge.allowed(External(cidr), pod, port) for cidr in ranges)


def _process(gateway: Manifest) -> str:
    return f"google-load-balancer-{'-'.join(key(gateway))}"
