"""What there is to know about a stack before judging it: live objects, events, last lines of logs, metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from components.core.services import LLM, ServiceKind
from ops.doctor.traffic import Request
from ops.kube import Manifest
from ops.state import ObjectRef
from ops.status import pods as stages

MAIN = "main"
"""The picker's container in KServe's presets."""
INIT = "storage-initializer"
_WORKER = "leaderworkerset.sigs.k8s.io/worker-index"
_PROBE_SECONDS, _PROBE_FAILURES = 10, 3  # Kubernetes' defaults.
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class PodFacts:
    """A pod with its events, oldest first, and the last lines of its containers' logs by container.

    `metrics` are the sums of vLLM's metrics by name, `engine` the labels of its cache settings; both are
    empty where they were not read, and `unread` says why.
    """

    live: Manifest
    events: tuple[Manifest, ...] = ()
    logs: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    engine: Mapping[str, str] = field(default_factory=dict)
    unread: str = ""

    @property
    def name(self) -> str:
        return str(self.live["metadata"]["name"])

    @property
    def node(self) -> str:
        return str(self.live["spec"].get("nodeName") or "")

    @property
    def status(self) -> Manifest:
        return self.live.get("status") or {}

    @property
    def ready(self) -> bool:
        return stages.is_ready(self.live) and not self.leaving

    @property
    def main(self) -> str:
        """The container of the engine."""
        return stages.engine(self.live)

    @property
    def leads(self) -> bool:
        """Whether requests come to it: of a group on several hosts, only to the first."""
        return (self.live["metadata"].get("labels") or {}).get(_WORKER, "0") == "0"

    @property
    def leaving(self) -> bool:
        """Whether it is being deleted."""
        return "deletionTimestamp" in self.live["metadata"]

    @property
    def restarts(self) -> int:
        """Of the container that was restarted most."""
        return max((entry.get("restartCount", 0) for entry in self.containers()), default=0)

    def containers(self) -> Iterator[Manifest]:
        """Statuses of all containers, those that prepare the pod first."""
        for key in ("initContainerStatuses", "containerStatuses"):
            yield from self.status.get(key) or ()

    def container(self, name: str) -> Manifest:
        """The status of one container; empty while it has none."""
        return next((c for c in self.containers() if c["name"] == name), {})

    def waits(self, name: str) -> Manifest:
        """Reason and message for which a container waits; empty where it does not."""
        return (self.container(name).get("state") or {}).get("waiting") or {}

    def ended(self, name: str) -> Manifest:
        """How a container ended, now or the last time; empty where it never did."""
        status = self.container(name)
        now = (status.get("state") or {}).get("terminated")
        return now or (status.get("lastState") or {}).get("terminated") or {}

    def said(self, name: str) -> str:
        """What a container left behind: its last lines, and the message of its end."""
        return "\n".join(part for part in (self.ended(name).get("message"), self.logs.get(name)) if part)

    def condition(self, kind: str) -> Manifest:
        """A condition of the pod; empty where it is not set."""
        return next((c for c in self.status.get("conditions") or () if c["type"] == kind), {})

    def event(self, *reasons: str) -> Manifest | None:
        """The newest event with one of these reasons."""
        return next((e for e in reversed(self.events) if e.get("reason") in reasons), None)

    def age(self, now: datetime) -> float:
        """Seconds since its node took it, which is when the load budget begins; before that, since it was created."""
        begun = self.status.get("startTime") or self.live["metadata"].get("creationTimestamp")
        return (now - moment(begun, now)).total_seconds()

    @property
    def budget(self) -> int:
        """Seconds that the engine's startup probe gives it, which the model's load budget decides."""
        containers = self.live["spec"].get("containers") or ()
        probe = next((c.get("startupProbe") for c in containers if c["name"] == self.main), None) or {}
        period, failures = probe.get("periodSeconds"), probe.get("failureThreshold")
        waits = probe.get("initialDelaySeconds", 0)
        return waits + (period or _PROBE_SECONDS) * (failures or _PROBE_FAILURES)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint behind Google's load balancer; `state` is its word: HEALTHY, UNHEALTHY, UNKNOWN."""

    service: str
    address: str
    state: str


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """One model: what the stack asked for, what KServe made of it, and what the gateway saw of its requests.

    `health` are Google's health check policies, `endpoints` what its load balancer thinks of the replicas.
    `missing` are objects of the stack's state, for this model, that the cluster does not have.
    """

    name: str
    namespace: str
    live: Manifest | None
    workloads: tuple[Manifest, ...] = ()
    events: tuple[Manifest, ...] = ()
    pods: tuple[PodFacts, ...] = ()
    picker: Manifest | None = None
    pickers: tuple[PodFacts, ...] = ()
    pool: Manifest | None = None
    services: tuple[Manifest, ...] = ()
    routes: tuple[Manifest, ...] = ()
    health: tuple[Manifest, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    missing: tuple[ObjectRef, ...] = ()
    requests: tuple[Request, ...] = ()
    kind: ServiceKind = LLM

    @property
    def spec(self) -> Manifest:
        return (self.live or {}).get("spec") or {}

    @property
    def replicas(self) -> int:
        """How many are wanted."""
        return int(self.spec.get("replicas", self._predictor.get("minReplicas", 1)))

    @property
    def uri(self) -> str:
        """Where the weights come from."""
        model = self._predictor.get("model") or self.spec.get("model") or {}
        return str(model.get("storageUri") or model.get("uri", ""))

    @property
    def _predictor(self) -> Manifest:
        """What an InferenceService says of its pods; empty for an LLMInferenceService."""
        return self.spec.get("predictor") or {}

    @property
    def serving(self) -> int:
        """How many are ready."""
        return sum(pod.ready and pod.leads for pod in self.pods)

    @property
    def scheduler(self) -> Manifest | None:
        """The picker's part of the specification; None where requests take turns."""
        return (self.spec.get("router") or {}).get("scheduler")

    @property
    def pooled(self) -> bool:
        return self.scheduler is not None

    @property
    def fails_open(self) -> bool:
        """Whether requests go to any replica while no picker answers."""
        pool = ((self.scheduler or {}).get("pool") or {}).get("spec") or {}
        return (pool.get("endpointPickerRef") or {}).get("failureMode") == "FailOpen"

    @property
    def plugins(self) -> frozenset[str]:
        """The types of the picker's plugins, as the stack configured them."""
        inline = ((self.scheduler or {}).get("config") or {}).get("inline") or {}
        return frozenset(plugin["type"] for plugin in inline.get("plugins") or ())

    @property
    def selector(self) -> Mapping[str, str]:
        """The labels that a node must have."""
        return (self.spec.get("template") or self._predictor).get("nodeSelector") or {}

    @property
    def routing(self) -> str:
        """As the stack file has it: prefix-cache, load or none."""
        if not self.pooled:
            return "none"
        return "prefix-cache" if "prefix-cache-scorer" in self.plugins else "load"


@dataclass(frozen=True, kw_only=True)
class StackFacts:
    """What all models share.

    `releases` are the Helm releases of the stack with the status of their newest revision, empty where Helm has none.
    `missing` are objects of the state, of no model, that the cluster does not have. `endpoints` are those of all
    models behind Google's load balancer, and `unasked` says why it was not asked.
    """

    now: datetime
    nodes: tuple[Manifest, ...] = ()
    policies: tuple[Manifest, ...] = ()
    namespaces: tuple[Manifest, ...] = ()
    resolvers: tuple[Manifest, ...] = ()
    gateway_ref: ObjectRef | None = None
    gateway: Manifest | None = None
    gateways: tuple[PodFacts, ...] = ()
    limits: tuple[Manifest, ...] = ()
    limit_pods: tuple[PodFacts, ...] = ()
    limited: bool = False
    certificates: tuple[tuple[ObjectRef, Manifest | None], ...] = ()
    orders: tuple[Manifest, ...] = ()
    challenges: tuple[Manifest, ...] = ()
    issuers: tuple[Manifest, ...] = ()
    releases: tuple[tuple[str, str], ...] = ()
    operators: tuple[tuple[Manifest, tuple[PodFacts, ...]], ...] = ()
    missing: tuple[ObjectRef, ...] = ()
    requests: tuple[Request, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    unasked: str = ""

    @property
    def google(self) -> bool:
        """Whether the gateway is Google's, which has no pods."""
        return str(((self.gateway or {}).get("spec") or {}).get("gatewayClassName", "")).startswith("gke-")

    @cached_property
    def nodes_by_name(self) -> Mapping[str, Manifest]:
        return {node["metadata"]["name"]: node for node in self.nodes}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a rule looks at: one model in its stack; `model` is None for what all models share."""

    stack: StackFacts
    model: ModelFacts | None = None

    @property
    def one(self) -> ModelFacts:
        """The model; only asked for by rules that are about models."""
        assert self.model is not None
        return self.model


def moment(text: str | None, otherwise: datetime = NEVER) -> datetime:
    """The time that an object carries; `otherwise` where it carries none."""
    return datetime.fromisoformat(text) if text else otherwise


def happened(event: Manifest) -> datetime:
    """When an event was last seen."""
    series = (event.get("series") or {}).get("lastObservedTime")
    first = event.get("firstTimestamp") or event.get("metadata", {}).get("creationTimestamp")
    return moment(series or event.get("lastTimestamp") or event.get("eventTime") or first)


def in_order(events: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """Oldest first."""
    return tuple(sorted(events, key=happened))


def conditions(live: Mapping[str, Any] | None) -> Iterator[Manifest]:
    """The conditions of any object."""
    yield from ((live or {}).get("status") or {}).get("conditions") or ()
