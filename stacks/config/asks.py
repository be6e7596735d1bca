"""What the models of a namespace ask its quota for, at the height of a rollout of all of them. Pure.

Kubernetes counts a pod from its creation, whether it has a node or not, so replicas that start beside the old ones
count even where the pool has no room for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from components.core import quantities
from components.core.accelerators import ACCELERATORS
from components.platform import kserve
from components.serving.manifests import fill, quota
from components.serving.manifests.llm_service import DOWNLOAD_CPU, DOWNLOAD_MEMORY, DOWNLOADED
from components.serving.manifests.quota import Container
from stacks.config.model import Model
from stacks.config.plans import needs_room, rollout
from stacks.config.root import StackConfig
from stacks.config.rules.pools import replica_chips

_UNSTATED = "0"
# The container of the job that fills a claim.
FILLER = Container(cpu=fill.CPU, memory=fill.MEMORY, memory_limit=fill.MEMORY_LIMIT)
# The download into pods of an InferenceService, which has no room of its own for resources: KServe's settings say them.
RUNTIME_DOWNLOAD = (kserve.DOWNLOAD_LIMITS["cpu"], kserve.DOWNLOAD_LIMITS["memory"])


@dataclass(frozen=True)
class Ask:
    """What one kind of pod, or of claim, asks for: `what` for people, amounts in base units by a quota's names."""

    what: str
    amounts: Mapping[str, float]
    unstated: frozenset[str] = field(default=frozenset())


def asks(name: str, config: StackConfig) -> Iterator[Ask]:
    """Everything that one model needs, awake; its engine first. `unstated` are requests that the engine leaves out."""
    model = config.models[name]
    yield _engine(name, config)
    pods = model.pickers if model.routing != "none" else 0
    if pods:
        yield Ask(f"{_count(pods, 'picker')} of {name}", _pods(pods, quota.PICKER))
    for what, container in programs(name, config):
        yield Ask(what, _pods(1, container))
    yield from _volumes(name, model)


def programs(name: str, config: StackConfig) -> Iterator[tuple[str, Container]]:
    """What runs beside one model for a while, in a pod of its own: what it is, for people, and its container."""
    if needs_room(config, name):
        yield f"what makes room for rollouts of {name}", quota.ROOM
    if config.models[name].fill is not None:
        yield f"what fills the claim of {name}", FILLER


def download_limits(model: Model) -> tuple[str, str] | None:
    """CPU and memory limit of the container that downloads weights; None where no pod does."""
    if not model.uri.startswith(DOWNLOADED):
        return None
    if model.runtime is not None:
        return RUNTIME_DOWNLOAD
    return DOWNLOAD_CPU, (model.resources and model.resources.memory) or DOWNLOAD_MEMORY


def _engine(name: str, config: StackConfig) -> Ask:
    model, plan = config.models[name], rollout(config, name)
    shape = config.cluster.accelerators[model.accelerator].shape()
    wanted = model.resources
    cpu, memory = (wanted.cpu, wanted.memory) if wanted else (None, None)
    # What serves by a runtime of ours has a strategy of ours: without room the old replica ends first.
    surge = 0 if model.runtime is not None and plan.in_place else plan.surge
    pods = (model.replicas + surge) * shape.nodes_per_replica
    engine = Container(cpu=cpu or _UNSTATED, memory=memory or _UNSTATED, memory_limit=_memory_limit(model))
    resource = quota.chips(ACCELERATORS[shape.accelerator].resource)
    beside = f", {surge} of them beside the old ones in a rollout" if surge else ""
    unstated = {*(() if cpu else (quota.CPU,)), *(() if memory else (quota.MEMORY, quota.MEMORY_LIMITS))}
    return Ask(
        f"{_count(pods, 'pod')} of {name}{beside}",
        {
            **_pods(pods, engine, *modelcar(model)),
            resource: float((model.replicas + surge) * replica_chips(model, shape)),
        },
        frozenset(unstated if pods else ()),
    )


def _memory_limit(model: Model) -> str:
    """Of the pod but for a modelcar. The download ends before the engine starts, so the larger of the two counts."""
    stated = (model.resources and model.resources.memory) or _UNSTATED
    loads = download_limits(model)
    return max(stated, loads[1], key=quantities.value) if loads and model.runtime is not None else stated


def modelcar(model: Model) -> tuple[Container, ...]:
    """The container that serves the files of an image beside the engine, where the weights are one."""
    return (quota.MODELCAR,) if model.uri.startswith("oci://") else ()


def _volumes(name: str, model: Model) -> Iterator[Ask]:
    """Its volumes, once: what takes the place of one under another name is made before that goes, and not counted."""
    for what, volume in (("cache", model.cache), ("claim", model.claim)):
        if volume is not None:
            size = quantities.value(volume.size)
            yield Ask(f"the {what} of {name}", {quota.CLAIMS: 1.0, quota.STORAGE: size})


def _pods(count: int, *containers: Container) -> dict[str, float]:
    value = quantities.value
    return {
        quota.PODS: float(count),
        quota.CPU: count * sum(value(one.cpu) for one in containers),
        quota.MEMORY: count * sum(value(one.memory) for one in containers),
        quota.MEMORY_LIMITS: count * sum(value(one.memory_limit or "0") for one in containers),
    }


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
