"""Reading a stack's facts from its cluster: objects, events, last lines of logs, metrics. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from components.core import labels, naming
from components.core.services import ENGINES, SERVICE_KINDS, ServiceKind
from components.serving.manifests import token_limits
from ops import helm
from ops.doctor import metrics, traffic
from ops.doctor.facts import INIT, MAIN, Endpoint, ModelFacts, PodFacts, StackFacts, in_order
from ops.doctor.rules.gateway import PROXY
from ops.doctor.rules.routing import LINK_OF
from ops.errors import OpsError
from ops.kube import ApiError, Kube, Manifest
from ops.state import ObjectRef, Resource, State
from ops.status.look import MODEL_POOL, MODEL_WORKLOADS, WORKLOADS

LINES = 60
"""Last lines of a container's log: a Python traceback and what stands before it."""
ACCESS_LINES, ACCESS_SECONDS = 2000, 900
ROUTE = ("gateway.networking.k8s.io/v1", "HTTPRoute")
HEALTH = ("networking.gke.io/v1", "HealthCheckPolicy")
ORDERS, CHALLENGES = ("acme.cert-manager.io/v1", "Order"), ("acme.cert-manager.io/v1", "Challenge")
ISSUERS = (("cert-manager.io/v1", "Issuer"), ("cert-manager.io/v1", "ClusterIssuer"))
HELM = "app.kubernetes.io/managed-by=Helm"
GOOGLE_CLUSTER = "gcp:container/cluster:Cluster"
_RELEASE = "meta.helm.sh/release"
_DNS = "k8s-app=kube-dns"
_SET = "leaderworkerset.sigs.k8s.io/name"


class Collector:
    """Reads the facts of one stack; every object once, apart from those that change while it looks."""

    def __init__(self, kube: Kube, state: State, now: datetime | None = None):
        self._kube, self._now = kube, now or datetime.now(UTC)
        self._objects = {
            ref: resource for ref, resource in state.objects.items() if ref.kind != "CustomResourceDefinition"
        }
        self._releases = {release.release for release in state.releases if not _skipped(release)}
        self._events: dict[str, tuple[Manifest, ...]] = {}
        self._cluster = next((r for r in state.resources if r.type == GOOGLE_CLUSTER), None)

    @property
    def models(self) -> dict[str, ObjectRef]:
        """The models of the stack by name."""
        return {ref.name: ref for ref in sorted(self._objects) if ref.kind in SERVICE_KINDS}

    # -- what all models share ---------------------------------------------------------------------

    def stack(self) -> StackFacts:
        """The facts of everything but the models."""
        kube, gateway = self._kube, self._one("Gateway")
        pods = self._gateway_pods(gateway)
        limits = tuple(self._limits())
        certificates = [ref for ref in sorted(self._objects) if ref.kind == "Certificate"]
        live = self._get(gateway) if gateway else None
        facts = StackFacts(
            now=self._now,
            nodes=tuple(kube.list("v1", "Node")),
            policies=tuple(kube.list("networking.k8s.io/v1", "NetworkPolicy")),
            namespaces=tuple(kube.list("v1", "Namespace")),
            resolvers=tuple(kube.list("v1", "Pod", "kube-system", _DNS)),
            gateway_ref=gateway,
            gateway=live,
            gateways=pods,
            limits=limits,
            limit_pods=tuple(pod for live in limits for pod in self._pods_of(live)),
            limited=any(ref.name == token_limits.NAME for ref in self._objects if ref.kind == "Deployment"),
            certificates=tuple((ref, self._get(ref)) for ref in certificates),
            orders=self._all(ORDERS) if certificates else (),
            challenges=self._all(CHALLENGES) if certificates else (),
            issuers=tuple(item for kind in ISSUERS for item in self._all(kind)) if certificates else (),
            releases=tuple(self._statuses()),
            operators=tuple(self._operators()),
            missing=tuple(self._missing(None)),
            requests=tuple(self._requests(pods)),
        )
        return self._balanced(facts) if facts.google else facts

    def _balanced(self, facts: StackFacts) -> StackFacts:
        """The facts with what Google's load balancer thinks of its endpoints."""
        if self._cluster is None:
            return replace(facts, unasked="the stack did not make the cluster, so its project is not known")
        from ops import google  # Only here: it brings Google's own libraries.

        inputs, outputs = self._cluster.inputs, self._cluster.outputs
        zone = str(inputs.get("location") or outputs.get("location"))
        project = str(inputs.get("project") or outputs.get("project"))
        try:
            found = google.backends(google.Google(project), _region(zone))
        except OpsError as error:
            return replace(facts, unasked=str(error))
        return replace(facts, endpoints=tuple(Endpoint(b.service, b.address, b.state) for b in found))

    def _gateway_pods(self, gateway: ObjectRef | None) -> tuple[PodFacts, ...]:
        if gateway is None:
            return ()
        return self._pods(gateway.namespace, f"{labels.GATEWAY_NAME}={gateway.name}", (PROXY,))

    def _limits(self) -> Iterator[Manifest]:
        for ref in sorted(self._objects):
            if ref.kind in ("Deployment", "StatefulSet") and ref.name in (
                token_limits.NAME,
                token_limits.STORE,
            ):
                live = self._get(ref)
                if live is not None:
                    yield live

    def _statuses(self) -> Iterator[tuple[str, str]]:
        """The stack's Helm releases, with the status of their newest revision."""
        for home, name in sorted(self._releases):
            revisions = helm.revisions(self._kube, home, name)
            yield f"{home}/{name}", revisions[-1].status if revisions else ""

    def _operators(self) -> Iterator[tuple[Manifest, tuple[PodFacts, ...]]]:
        """What the stack's Helm releases run."""
        for kind in WORKLOADS:
            for live in self._kube.list(*kind, selector=HELM):
                notes = live["metadata"].get("annotations") or {}
                if (notes.get(f"{_RELEASE}-namespace"), notes.get(f"{_RELEASE}-name")) in self._releases:
                    yield live, self._pods_of(live)

    def _requests(self, pods: Iterable[PodFacts]) -> Iterator[traffic.Request]:
        query = {"tailLines": str(ACCESS_LINES), "sinceSeconds": str(ACCESS_SECONDS)}
        for pod in pods:
            yield from traffic.requests(self._log(pod.live, PROXY, query).splitlines())

    # -- one model ---------------------------------------------------------------------------------

    def model(self, ref: ObjectRef, stack: StackFacts) -> ModelFacts:
        """The facts of one model."""
        name, home, kind = ref.name, ref.namespace, SERVICE_KINDS[ref.kind]
        part = _selector(kind.parts(name))
        made = [live for kind in MODEL_WORKLOADS for live in self._kube.list(*kind, home, part)]
        own = [live for live in made if not _is_picker(live)]
        pools = self._kube.list(*MODEL_POOL, home, part)
        pods = tuple(self._measured(pod) for live in own for pod in self._pods_of(live, (INIT, *ENGINES)))
        return ModelFacts(
            name=name,
            namespace=home,
            live=self._get(ref),
            workloads=tuple(own),
            events=tuple(self._about(home, own)),
            pods=pods,
            picker=next(filter(_is_picker, made), None),
            pickers=self._pods(home, _selector(labels.model_picker(name)), (MAIN,)),
            pool=next(iter(pools), None),
            services=tuple(self._kube.list("v1", "Service", home)),
            routes=tuple(self._kube.list(*ROUTE, home, f"{labels.MODEL}={name}")),
            health=self._health(kind, name, home) if stack.google else (),
            endpoints=tuple(e for e in stack.endpoints if _serves(e, name, home, pods)),
            missing=tuple(self._missing(ref)),
            requests=traffic.of(name, stack.requests),
            kind=kind,
        )

    def _health(self, kind: ServiceKind, name: str, home: str) -> tuple[Manifest, ...]:
        targets = {kind.service(name), naming.inference_pool(name)}
        found = self._kube.list(*HEALTH, namespace=home)
        return tuple(p for p in found if (p["spec"].get("targetRef") or {}).get("name") in targets)

    def _about(self, home: str, workloads: list[Manifest]) -> Iterator[Manifest]:
        """Events of the workloads and of what they made: ReplicaSets and StatefulSets carry their names."""
        names = tuple(live["metadata"]["name"] for live in workloads)
        for event in self._in(home):
            about = event.get("involvedObject") or {}
            if about.get("kind") != "Pod" and str(about.get("name", "")).startswith(names):
                yield event

    def _measured(self, pod: PodFacts) -> PodFacts:
        """The pod with its metrics, where it is one that serves."""
        if not pod.ready or not pod.leads:
            return pod
        try:
            page = metrics.read(self._kube, pod.live)
        except OpsError as error:
            return replace(pod, unread=f"{pod.name}: {error}")
        return replace(pod, metrics=metrics.sums(page), engine=metrics.engine(page))

    # -- pods --------------------------------------------------------------------------------------

    def _pods_of(self, live: Manifest, containers: tuple[str, ...] | None = None) -> tuple[PodFacts, ...]:
        """The pods of a workload."""
        meta = live["metadata"]
        if live["kind"] == "LeaderWorkerSet":
            return self._pods(meta["namespace"], f"{_SET}={meta['name']}", containers)
        wanted = live["spec"].get("selector", {}).get("matchLabels") or {}
        return self._pods(meta["namespace"], _selector(wanted), containers) if wanted else ()

    def _pods(
        self, home: str, selector: str, containers: tuple[str, ...] | None = None
    ) -> tuple[PodFacts, ...]:
        """Pods with their events, and the logs of those that are not ready or were restarted."""
        return tuple(self._pod(pod, containers) for pod in self._kube.list("v1", "Pod", home, selector))

    def _pod(self, live: Manifest, containers: tuple[str, ...] | None) -> PodFacts:
        meta = live["metadata"]
        events = [e for e in self._in(meta["namespace"]) if _is_about(e, meta)]
        facts = PodFacts(live=live, events=tuple(events))
        if not facts.node or facts.ready:
            return facts
        logs = {name: self._last_lines(facts, name) for name in containers or _names(live)}
        return replace(facts, logs={name: text for name, text in logs.items() if text})

    def _last_lines(self, pod: PodFacts, name: str) -> str:
        """The end of a container's log; of one that waits for its restart, that of its last life."""
        if not pod.container(name):
            return ""
        query = {"tailLines": str(LINES)}
        before = self._log(pod.live, name, {**query, "previous": "true"}) if pod.waits(name) else ""
        return before or self._log(pod.live, name, query)

    def _log(self, pod: Manifest, container: str, query: dict[str, str]) -> str:
        meta = pod["metadata"]
        path = self._kube.kind("v1", "Pod").path(meta["namespace"], meta["name"], "log")
        try:
            answer = self._kube.request("GET", path, {"container": container, **query})
        except ApiError:
            return ""  # A container that never ran has none, and a node that is gone cannot be asked.
        # A log of one line arrives as the JSON that the line is.
        return answer if isinstance(answer, str) else json.dumps(answer)

    # -- objects -----------------------------------------------------------------------------------

    def _get(self, ref: ObjectRef) -> Manifest | None:
        live = self._kube.get(ref.api_version, ref.kind, ref.name, ref.namespace or "default")
        return {"apiVersion": ref.api_version, "kind": ref.kind, **live} if live else None

    def _one(self, kind: str) -> ObjectRef | None:
        return next((ref for ref in sorted(self._objects) if ref.kind == kind), None)

    def _all(self, kind: tuple[str, str]) -> tuple[Manifest, ...]:
        return tuple(self._kube.list(*kind))

    def _missing(self, model: ObjectRef | None) -> Iterator[ObjectRef]:
        """Objects of the state that are not there: of one model, or of none."""
        models = self.models.values()
        for ref in sorted(self._objects):
            owner = next((m for m in models if _belongs(ref, self._objects[ref].inputs, m)), None)
            if owner == model and ref.kind in LINK_OF and self._get(ref) is None:
                yield ref

    def _in(self, home: str) -> tuple[Manifest, ...]:
        """The events of a namespace, oldest first."""
        if home not in self._events:
            self._events[home] = in_order(self._kube.list("v1", "Event", home))
        return self._events[home]


def _region(location: str) -> str:
    """The region of a zone, or the region itself."""
    return "-".join(location.split("-")[:2])


def _serves(endpoint: Endpoint, model: str, home: str, pods: Iterable[PodFacts]) -> bool:
    """Whether an endpoint is a replica of the model: by its address, else by what Google made its name of."""
    addresses = {pod.status.get("podIP") for pod in pods}
    return endpoint.address in addresses or f"-{home}-{model}-" in endpoint.service


def _skipped(release: Resource) -> bool:
    """Whether `up` has said that it installs nothing for it."""
    status = release.outputs.get("status")
    return isinstance(status, dict) and status.get("status") == "skipped"


def _belongs(ref: ObjectRef, inputs: Any, model: ObjectRef) -> bool:
    """Whether an object of ours is one model's; what a namespace has for all of its models is each one's."""
    if ref.namespace != model.namespace:
        return False
    marked = ((inputs.get("metadata") or {}).get("labels") or {}).get(labels.MODEL)
    return marked in (model.name, None)


def _is_about(event: Manifest, meta: Manifest) -> bool:
    about = event.get("involvedObject") or {}
    return about.get("kind") == "Pod" and about.get("name") == meta["name"]


def _is_picker(live: Manifest) -> bool:
    return (live["metadata"].get("labels") or {}).get(labels.COMPONENT) == labels.KSERVE_PICKER


def _names(pod: Manifest) -> list[str]:
    spec = pod["spec"]
    return [c["name"] for c in (*(spec.get("initContainers") or ()), *spec["containers"])]


def _selector(wanted: Any) -> str:
    return ",".join(f"{key}={value}" for key, value in wanted.items())
