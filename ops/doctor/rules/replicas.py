"""What the rules on replicas have in common: from signs on one pod, and from known messages, to rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ops.doctor.causes import Cause
from ops.doctor.chain import Rule, Seen
from ops.doctor.facts import INIT, PodFacts, Scene

Sign = Callable[[Scene, PodFacts], tuple[str, ...] | None]
"""From a replica that is not ready to its evidence; None where the case does not show."""


def failing(scene: Scene) -> Iterator[PodFacts]:
    """Replicas that have a node and are not ready; those that end are as they should be."""
    return (pod for pod in scene.one.pods if pod.node and not pod.ready and not pod.leaving)


def look(sign: Sign) -> Callable[[Scene], Iterator[Seen]]:
    """Where a sign shows; `budget`, `age` (both in seconds) and `node` are words of the sentences."""

    def signs(scene: Scene) -> Iterator[Seen]:
        for pod in failing(scene):
            evidence = sign(scene, pod)
            if evidence is not None:
                yield Seen(
                    subject=f"pod {pod.name}",
                    evidence=tuple(line for line in evidence if line),
                    words={"budget": pod.budget, "age": f"{pod.age(scene.stack.now):.0f}", "node": pod.node},
                    blocks=not scene.one.serving,
                )

    return signs


def waiting_reason(pod: PodFacts) -> str:
    """Why the pod's first container that waits does so; empty where none does."""
    return str((pod.waits(INIT) or pod.waits(pod.main)).get("reason", ""))


def caused(link_page: str, sign: Callable[[Cause | None], Sign], causes: Iterable[Cause]) -> tuple[Rule, ...]:
    """One rule per known message."""
    return tuple(
        Rule(
            link="pod",
            page=link_page,
            look=look(sign(cause)),
            found=cause.found,
            fix=cause.fix,
            severity="decide" if cause.decide else "broken",
        )
        for cause in causes
    )


def rule(page: str, look: Callable[[Scene], Iterable[Seen]], found: str, fix: str, **more: str) -> Rule:
    """A rule of the link `pod`."""
    return Rule(link="pod", page=page, look=look, found=found, fix=fix, **more)
