"""The gateway itself: whether its program took it, whether its pods run, and whether all that guards it is there."""

from __future__ import annotations

from collections.abc import Iterator

from ops.doctor.causes import last_line, shown
from ops.doctor.chain import Rule, Seen
from ops.doctor.facts import Scene
from ops.doctor.rules.routing import AGAIN, missing
from ops.status import judge
from ops.status import pods as stages

PROXY = "istio-proxy"
_NO_CERTIFICATE = "InvalidCertificateRef"


def _subject(scene: Scene) -> str:
    return str(scene.stack.gateway_ref)


def _absent(scene: Scene) -> Iterator[Seen]:
    if scene.stack.gateway_ref is not None and scene.stack.gateway is None:
        yield Seen(subject=_subject(scene), evidence=("it is in the stack's state, and not in the cluster",))


def _not_programmed(scene: Scene) -> Iterator[Seen]:
    problems = judge.problems(scene.stack.gateway) if scene.stack.gateway else []
    if problems:
        yield Seen(subject=_subject(scene), evidence=tuple(problems))


def _listeners(scene: Scene) -> Iterator[Seen]:
    """A listener without its certificate serves nothing, though the Gateway is Programmed."""
    for listener in ((scene.stack.gateway or {}).get("status") or {}).get("listeners") or ():
        failed = [
            c
            for c in listener.get("conditions") or ()
            if c["type"] == "ResolvedRefs" and c["status"] == "False"
        ]
        for condition in failed:
            yield Seen(
                subject=f"listener {listener['name']}",
                evidence=(f"{condition.get('reason')}: {shown(str(condition.get('message', '')))}",),
                # The certificate's own link says more.
                blocks=condition.get("reason") != _NO_CERTIFICATE,
            )


def _no_address(scene: Scene) -> Iterator[Seen]:
    status = (scene.stack.gateway or {}).get("status") or {}
    if scene.stack.gateway is not None and not status.get("addresses"):
        yield Seen(subject=_subject(scene), evidence=("status.addresses is empty",))


def _pods(scene: Scene) -> Iterator[Seen]:
    if scene.stack.google or scene.stack.gateway is None or any(pod.ready for pod in scene.stack.gateways):
        return
    pods = scene.stack.gateways
    said = [text for pod in pods for text in stages.problems(pod.live, scene.stack.now)]
    lines = [line for pod in pods if (line := last_line(pod.said(PROXY)))]
    yield Seen(subject=f"pods of {_subject(scene)}", evidence=(*said[:1], *lines[:1]) or ("it has no pods",))


def _deleted(scene: Scene) -> Iterator[Seen]:
    for subject, evidence in missing("gateway")(scene):
        yield Seen(subject=subject, evidence=evidence)


RULES: tuple[Rule, ...] = (
    Rule(
        link="gateway",
        page="gateway",
        look=_absent,
        found="the gateway was deleted by hand",
        fix=AGAIN,
    ),
    Rule(
        link="gateway",
        page="keys-and-limits",
        look=_deleted,
        found="a guard of the gateway was deleted by hand: everybody may be refused, or a guard that stands behind is missing",
        fix=f"{AGAIN}, at once",
    ),
    Rule(
        link="gateway",
        page="gateway",
        look=_not_programmed,
        found="the gateway's program has not taken it",
        fix="the condition says why; on GKE most often a proxy-only subnet or an address is missing, on Istio look at the "
        "operators link",
    ),
    Rule(
        link="gateway",
        page="certificate",
        look=_listeners,
        found="the listener serves nothing: what it refers to is not there",
        fix="see the certificate link",
    ),
    Rule(
        link="gateway",
        page="gateway",
        look=_no_address,
        found="the gateway has no address",
        fix="the load balancer is being made (wait some minutes), or the cloud refuses one: see the events of its Service",
    ),
    Rule(
        link="gateway",
        page="gateway",
        look=_pods,
        found="no pod of the gateway is ready",
        fix="`kubectl describe pod` in the gateway's namespace; system nodes may be full",
    ),
)
