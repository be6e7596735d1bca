"""The endpoint picker: whether one runs, with the stack's own configuration, and what goes on without it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ops.doctor.causes import PICKERS, Cause, explain, last_line, proof, shown
from ops.doctor.chain import Rule, Seen
from ops.doctor.facts import MAIN, PodFacts, Scene
from ops.doctor.rules.pods import QUOTA, QUOTA_FIX
from ops.status import judge
from ops.status import pods as stages

PREFIX = "prefix-cache-scorer"
_CONFIG = ("--config-text", "--config-file")
_WITHOUT = {
    True: "requests go to any replica meanwhile, so prefixes are not kept together",
    False: "requests are refused meanwhile (`pickerFailureMode: closed`)",
}

Sign = Callable[[Scene], tuple[str, ...] | None]


def _look(sign: Sign) -> Callable[[Scene], Iterator[Seen]]:
    def look(scene: Scene) -> Iterator[Seen]:
        model = scene.one
        evidence = sign(scene) if model.pooled else None
        if evidence is not None:
            words = {"without": _WITHOUT[model.fails_open]}
            # Where requests pass without it, the rest of the chain can be judged as well.
            blocks = not model.fails_open
            yield Seen(subject=f"picker of {model.name}", evidence=evidence, words=words, blocks=blocks)

    return look


def _ready(scene: Scene) -> list[PodFacts]:
    # Of several only the one that holds the lease is ready.
    return [pod for pod in scene.one.pickers if pod.ready]


def _absent(scene: Scene) -> tuple[str, ...] | None:
    return ("there is no Deployment of it",) if scene.one.picker is None else None


def _stopped(scene: Scene) -> tuple[str, ...] | None:
    wanted = ((scene.one.picker or {}).get("spec") or {}).get("replicas", 1)
    return ("its Deployment wants 0 replicas",) if wanted == 0 else None


def _over_quota(scene: Scene) -> tuple[str, ...] | None:
    """A quota keeps it from being created: its ReplicaSet says so."""
    live = scene.one.picker
    if live is None or len(scene.one.pickers) >= (live.get("spec") or {}).get("replicas", 1):
        return None
    own = [
        str(event.get("message", ""))
        for event in scene.one.events
        if str((event.get("involvedObject") or {}).get("name", "")).startswith(live["metadata"]["name"])
    ]
    said = [text for text in own if re.search(QUOTA, text)]
    return (shown(said[-1]),) if said else None


def _ended(cause: Cause | None) -> Sign:
    def sign(scene: Scene) -> tuple[str, ...] | None:
        if _ready(scene):
            return None
        for pod in scene.one.pickers:
            text = pod.said(MAIN)
            if cause is not None and explain(text, PICKERS) is cause:
                return (f"pod {pod.name}: {proof(text, cause)}",)
        return None if cause is not None else _why(scene)

    return sign


def _why(scene: Scene) -> tuple[str, ...]:
    problems = [text for pod in scene.one.pickers for text in stages.problems(pod.live, scene.stack.now)]
    lines = [last_line(pod.said(MAIN)) for pod in scene.one.pickers]
    failed = judge.problems(scene.one.picker)
    return tuple(text for text in (*problems[:1], *lines[:1], *failed[:1]) if text)


def _unreachable(scene: Scene) -> tuple[str, ...] | None:
    """The Service that the pool asks for the picker is not there, or leads elsewhere."""
    reference = (((scene.one.pool or {}).get("spec") or {}).get("endpointPickerRef")) or {}
    name = reference.get("name")
    if not name:
        return None
    service = next((s for s in scene.one.services if s["metadata"]["name"] == name), None)
    if service is None:
        return (f"Service {name} does not exist",)
    ports = [port["port"] for port in service["spec"].get("ports") or ()]
    wanted = (reference.get("port") or {}).get("number")
    return (f"Service {name} has the ports {ports}, the pool asks {wanted}",) if wanted not in ports else None


def _other_configuration(scene: Scene) -> tuple[str, ...] | None:
    """The picker runs without the scorer that the model asks for."""
    if PREFIX not in scene.one.plugins or scene.one.picker is None:
        return None
    containers = scene.one.picker["spec"]["template"]["spec"]["containers"]
    arguments = [str(a) for c in containers if c["name"] == MAIN for a in c.get("args") or ()]
    inline = [a for a in arguments if "EndpointPickerConfig" in a]
    if any(PREFIX in text for text in inline) or not inline and any(a.startswith(_CONFIG) for a in arguments):
        return None
    return (f"its arguments name no {PREFIX}",)


def _turns(scene: Scene) -> Iterator[Seen]:
    if not scene.one.pooled and scene.one.replicas > 1:
        yield Seen(subject=f"model {scene.one.name}", evidence=("routing: none",))


RULES: tuple[Rule, ...] = (
    Rule(
        link="picker",
        page="cache-routing",
        look=_turns,
        found="requests take turns over the replicas: caches are used by chance",
        fix="set `routing: prefix-cache` if prompts share long beginnings",
        severity="note",
    ),
    Rule(
        link="picker",
        page="cache-routing",
        look=_look(_absent),
        found="KServe has made no picker; {without}",
        fix="look at the operators link and at the model's conditions, then `up`",
    ),
    Rule(
        link="picker",
        page="cache-routing",
        look=_look(_stopped),
        found="the picker is scaled to zero; {without}",
        fix="`up` sets the number of `pickers` again; KServe's controller does so by itself when it runs",
    ),
    Rule(
        link="picker",
        page="quota",
        look=_look(_over_quota),
        found="the namespace's quota refuses the picker; {without}",
        fix=QUOTA_FIX,
        severity="decide",
    ),
    *(
        Rule(
            link="picker",
            page="cache-routing",
            look=_look(_ended(cause)),
            found=f"{cause.found}; {{without}}",
            fix=cause.fix,
        )
        for cause in PICKERS
    ),
    Rule(
        link="picker",
        page="cache-routing",
        look=_look(_ended(None)),
        found="no picker is ready; {without}",
        fix="`kubectl logs` of its pod says why; `pickers: 2` keeps a second one",
    ),
    Rule(
        link="picker",
        page="cache-routing",
        look=_look(_unreachable),
        found="the gateway cannot ask the picker; {without}",
        fix="KServe makes the Service: look at the operators link, then `up`",
    ),
    Rule(
        link="picker",
        page="cache-routing",
        look=_look(_other_configuration),
        found="the picker runs with another configuration than the model asks for",
        fix="`up` writes it again; the Deployment may have been edited by hand",
    ),
)
