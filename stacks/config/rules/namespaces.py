"""Quotas that leave room for the stack's own models, limits that let their containers in, and namespaces that exist."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from components.core import quantities
from components.serving.manifests import quota
from stacks.config.asks import Ask, asks, download_limits, modelcar, programs
from stacks.config.errors import Problem, choice
from stacks.config.namespaces import (
    ModelNamespace,
    NamespaceLimits,
    NamespaceQuota,
    default_memory_limit,
)
from stacks.config.rules.draft import Draft, problem

GIB = 2**30
_NUMBER: Callable[[float], str] = "{:g}".format


def _gib(amount: float) -> str:
    return f"{math.ceil(amount / GIB * 100) / 100:g}Gi"


# Key, the quota's own name (chips have one per accelerator), and how amounts are written.
COUNTED: tuple[tuple[str, str | None, Callable[[float], str]], ...] = (
    ("cpu", quota.CPU, _NUMBER),
    ("memory", quota.MEMORY, _gib),
    ("memoryLimits", quota.MEMORY_LIMITS, _gib),
    ("chips", None, _NUMBER),
    ("pods", quota.PODS, _NUMBER),
    ("claims", quota.CLAIMS, _NUMBER),
    ("storage", quota.STORAGE, _gib),
)
_CHIPS = quota.chips("")
# Of what outlives pods: a rollout makes no second one, another name does.
_VOLUMES = ("claims", "storage")
_BESIDE = "and room for both in an `up` that renames a claim, as the new one is made before the old one goes"


def used(draft: Draft) -> Iterator[Problem]:
    """Each namespace has a model."""
    known = sorted({model.namespace for model in draft.config.models.values()})
    for name in draft.config.namespaces:
        if name not in known and draft.knows("namespaces", name):
            yield problem(
                ("namespaces", name),
                "no model is in this namespace",
                "it is not made, and what is written here would not be there",
                f"{choice(name, known)}, or set a model's namespace to it" if known else "remove it",
            )


def room(draft: Draft) -> Iterator[Problem]:
    """Every quota lets all models of its namespace run, and change."""
    for name, settings in draft.config.namespaces.items():
        # A model that could not be read is not in the sum.
        if settings.quota is None or not all(draft.knows("models", model) for model in draft.config.models):
            continue
        found = asked(draft, name)
        for key, resource, written in COUNTED:
            given = _given(settings.quota, key)
            names = [resource] if resource else sorted({r for ask in found for r in ask.amounts if _chip(r)})
            for counted in names if given is not None else ():
                yield from _too_little((name, key), counted, given or 0.0, found, written)


def asked(draft: Draft, namespace: str) -> list[Ask]:
    """Everything that the models of a namespace ask for."""
    return [
        ask
        for name, model, _ in draft.placed()
        if model.namespace == namespace
        for ask in asks(name, draft.config)
    ]


def _given(limits: NamespaceQuota, key: str) -> float | None:
    value = limits.model_dump(by_alias=True)[key]
    return quantities.value(value) if isinstance(value, str) else value


def _chip(resource: str) -> bool:
    return resource.startswith(_CHIPS) and "/" in resource


def _too_little(
    place: tuple[str, str], resource: str, given: float, found: list[Ask], written: Callable[[float], str]
) -> Iterator[Problem]:
    namespace, key = place
    parts = [(ask.what, ask.amounts[resource]) for ask in found if ask.amounts.get(resource)]
    needed = sum(amount for _, amount in parts)
    # Sums of tenths are not exact.
    if needed <= given * (1 + 1e-9):
        return
    listed = " + ".join(f"{written(amount)} ({what})" for what, amount in parts)
    total = f" = {written(needed)}" if len(parts) > 1 else ""
    yield problem(
        ("namespaces", namespace, "quota", key),
        f"{written(given)} of {resource} is less than its models need: {listed}{total}",
        "Kubernetes would refuse the last pods or claims, in a rollout if not at once, and `up` would wait in vain",
        f"use {written(needed)} or more, {_BESIDE if key in _VOLUMES else 'or fewer replicas'}",
    )


def stated(draft: Draft) -> Iterator[Problem]:
    """Where CPU or memory is counted, or limited by a default, each engine says how much it takes."""
    for name, settings in draft.config.namespaces.items():
        for model, ask in _engines(draft, name):
            for key in _unsaid(settings, ask):
                yield problem(
                    ("models", model, "resources", key),
                    f"it is not said, and the namespace {name} counts or limits it",
                    "the engine would get what containers of any kind get there, and be killed, or starve",
                    f"set it to the {key} that the engine takes",
                )


def _engines(draft: Draft, namespace: str) -> Iterator[tuple[str, Ask]]:
    for name, model, _ in draft.placed():
        if model.namespace == namespace:
            yield name, next(asks(name, draft.config))


def _unsaid(settings: ModelNamespace, ask: Ask) -> Iterator[str]:
    limits = settings.quota
    if limits and limits.cpu and quota.CPU in ask.unstated:
        yield "cpu"
    if default_memory_limit(settings) or (limits and limits.memory):
        yield from ("memory",) if quota.MEMORY in ask.unstated else ()


def maxima(draft: Draft) -> Iterator[Problem]:
    """Defaults stay below the maxima, and so do the containers of the models."""
    for name, settings in draft.config.namespaces.items():
        limits = settings.limits
        if limits is None:
            continue
        largest = {"maxCpu": limits.max_cpu, "maxMemory": limits.max_memory}
        inside = {
            "maxCpu": [("cpuRequest", limits.cpu_request)],
            "maxMemory": [("memoryRequest", limits.memory_request), ("memoryLimit", limits.memory_limit)],
        }
        for what, cpu, memory in _containers(draft, name):
            inside["maxCpu"].append((what, cpu))
            inside["maxMemory"].append((what, memory))
        for key, most in largest.items():
            over = [(what, n) for what, n in inside[key] if most and n and _above(n, most)]
            if most and over:
                yield problem(
                    ("namespaces", name, "limits", key),
                    f"{most} is less than {' and '.join(f'{amount} ({what})' for what, amount in over)}",
                    "Kubernetes would refuse these pods, or the limits themselves",
                    f"use {max(over, key=lambda item: quantities.value(item[1]))[1]} or more",
                )
        yield from _order(name, limits)


def _order(name: str, limits: NamespaceLimits) -> Iterator[Problem]:
    if limits.memory_limit and _above(limits.memory_request, limits.memory_limit):
        yield problem(
            ("namespaces", name, "limits", "memoryRequest"),
            f"{limits.memory_request} is more than the memoryLimit of {limits.memory_limit}",
            "Kubernetes refuses a request above its limit",
            f"use {limits.memory_limit} or less",
        )


def _above(amount: str, most: str) -> bool:
    return quantities.value(amount) > quantities.value(most)


def _containers(draft: Draft, namespace: str) -> Iterator[tuple[str, str | None, str | None]]:
    """What, CPU and memory limit (or what it asks for) of the containers of a namespace's models."""
    for name, model, _ in draft.placed():
        if model.namespace != namespace:
            continue
        wanted = model.resources
        yield f"the engine of {name}", wanted and wanted.cpu, wanted and wanted.memory
        if loads := download_limits(model):
            yield f"the download of {name}", *loads
        if model.routing != "none":
            yield f"the picker of {name}", quota.PICKER.cpu_limit, quota.PICKER.memory_limit
        beside = [(f"the modelcar of {name}", container) for container in modelcar(model)]
        for what, container in (*beside, *programs(name, draft.config)):
            yield what, container.cpu_limit or container.cpu, container.memory_limit or container.memory


RULES = (used, room, stated, maxima)
