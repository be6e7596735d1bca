"""What all models rest on beside the gateway: operators, the certificate, the limit service and its store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

from components.serving.manifests import token_limits
from ops.doctor.causes import last_line, shown
from ops.doctor.chain import Rule, Seen
from ops.doctor.facts import PodFacts, Scene, conditions, moment
from ops.doctor.rules.policies import limits_blocked
from ops.doctor.rules.routing import AGAIN, missing
from ops.kube import Manifest
from ops.status import judge
from ops.status import pods as stages

DNS = re.compile(r"no such host|NXDOMAIN|SERVFAIL|DNS problem|lookup .* on", re.IGNORECASE)
LIMITED = re.compile(r"rateLimited|too many (certificates|failed|new)", re.IGNORECASE)
UNREACHED = re.compile(
    r"wrong status code|propagation|connection refused|timeout|Timeout during connect|Invalid response",
    re.IGNORECASE,
)
ACCOUNT = re.compile(r"account|invalidEmail|invalidContact|externalAccountRequired", re.IGNORECASE)
SOON = timedelta(days=10)
"""cert-manager renews a month before the end, so what is this near has failed to renew for weeks."""


def _why(scene: Scene, pods: tuple[PodFacts, ...]) -> tuple[str, ...]:
    failing = [pod for pod in pods if not pod.ready and not pod.leaving]
    problems = [text for pod in failing for text in stages.problems(pod.live, scene.stack.now)]
    # Any container: what ended says more than what waits for it.
    lines = [line for pod in failing for text in pod.logs.values() if (line := last_line(text))]
    return tuple(text for text in (*problems[:1], *lines[:1]) if text)


# -- operators -------------------------------------------------------------------------------------


def _operators(scene: Scene) -> Iterator[Seen]:
    for live, pods in scene.stack.operators:
        problems = judge.problems(live)
        if problems:
            name = f"{live['kind']} {live['metadata']['namespace']}/{live['metadata']['name']}"
            yield Seen(subject=name, evidence=(problems[0], *_why(scene, pods)), blocks=False)


def _releases(scene: Scene) -> Iterator[Seen]:
    for name, status in scene.stack.releases:
        if status != "deployed":
            evidence = f"its newest revision is {status}" if status else "Helm has no such release"
            yield Seen(subject=f"Helm release {name}", evidence=(evidence,), blocks=False)


OPERATORS: tuple[Rule, ...] = (
    Rule(
        link="operators",
        page="operators",
        look=_releases,
        found="an installation or upgrade did not come to its end",
        fix="`python -m ops recover`, then `up`; definitions of another installation are left to it with `provided`",
    ),
    Rule(
        link="operators",
        page="operators",
        look=_operators,
        found="an operator does not run: what is there goes on, and no change is carried out",
        fix="its pod's events and log say why; then `python -m ops recover`, and `up`",
    ),
)


# -- the certificate -------------------------------------------------------------------------------


def _unready(scene: Scene) -> Iterator[tuple[str, Manifest]]:
    for ref, live in scene.stack.certificates:
        if live is not None and judge.problems(live):
            yield str(ref), live


def _orders(scene: Scene, certificate: Manifest) -> list[str]:
    """What the issuer's server says of the certificate's orders and challenges, newest first."""
    name, home = certificate["metadata"]["name"], certificate["metadata"]["namespace"]

    def mine(item: Manifest) -> bool:
        marks = item["metadata"].get("annotations") or {}
        known = marks.get("cert-manager.io/certificate-name") == name
        return item["metadata"].get("namespace") == home and (
            known or item["metadata"]["name"].startswith(f"{name}-")
        )

    found = [item for item in (*scene.stack.challenges, *scene.stack.orders) if mine(item)]
    texts = [
        f"{item['kind']} is {status.get('state', 'new')}: {shown(str(status.get('reason', 'no reason given')))}"
        for item in found
        if (status := item.get("status") or {}).get("state") not in ("valid", "ready")
    ]
    return texts


def _issuer(scene: Scene, certificate: Manifest) -> list[str]:
    reference = certificate["spec"].get("issuerRef") or {}
    for item in scene.stack.issuers:
        if (item["kind"], item["metadata"]["name"]) == (
            reference.get("kind", "Issuer"),
            reference.get("name"),
        ):
            return [f"{item['kind']} {item['metadata']['name']}: {text}" for text in judge.problems(item)]
    return [f"{reference.get('kind', 'Issuer')} {reference.get('name')} does not exist"]


def _certificate(pattern: re.Pattern[str] | None) -> Callable[[Scene], Iterator[Seen]]:
    """Certificates that are not issued, where the server's words match; None for any words."""

    def look(scene: Scene) -> Iterator[Seen]:
        for subject, live in _unready(scene):
            said = [*_orders(scene, live), *judge.problems(live)]
            matching = [text for text in said if pattern is None or pattern.search(text)]
            if matching:
                names = ", ".join(live["spec"].get("dnsNames") or ())
                yield Seen(subject=subject, evidence=(matching[0],), words={"host": names or "its name"})

    return look


def _not_issuing(scene: Scene) -> Iterator[Seen]:
    for subject, live in _unready(scene):
        problems = _issuer(scene, live)
        if problems:
            yield Seen(subject=subject, evidence=(problems[0],))


def _ending(scene: Scene) -> Iterator[Seen]:
    for ref, live in scene.stack.certificates:
        end = ((live or {}).get("status") or {}).get("notAfter")
        if end and moment(end) - scene.stack.now < SOON:
            said = next((c for c in conditions(live) if c["type"] == "Issuing"), {})
            text = shown(str(said.get("message", ""))) or "no renewal is under way"
            yield Seen(
                subject=str(ref), evidence=(f"notAfter {end}; {text}",), words={"end": end}, blocks=False
            )


def _deleted(link: str) -> Callable[[Scene], Iterator[Seen]]:
    def look(scene: Scene) -> Iterator[Seen]:
        return (Seen(subject=subject, evidence=evidence) for subject, evidence in missing(link)(scene))

    return look


_CERTIFICATE: tuple[Rule, ...] = (
    Rule(
        link="certificate",
        page="certificate",
        look=_deleted("certificate"),
        found="it was deleted by hand",
        fix=AGAIN,
    ),
    Rule(
        link="certificate",
        page="certificate",
        look=_not_issuing,
        found="the issuer is not ready",
        fix="its condition says why: an account that the server refuses, a Secret that is missing, or a name that is wrong",
    ),
    Rule(
        link="certificate",
        page="certificate",
        look=_certificate(LIMITED),
        found="the authority's rate limit is reached",
        fix="wait for the time that it names, and use `tls.issuer: letsencrypt-staging` for trials",
        severity="decide",
    ),
    Rule(
        link="certificate",
        page="certificate",
        look=_certificate(DNS),
        found="the name {host} does not lead here",
        fix="make a DNS record for {host} with the gateway's address (`pulumi stack output gateway_address`)",
        severity="decide",
    ),
    Rule(
        link="certificate",
        page="certificate",
        look=_certificate(UNREACHED),
        found="the authority cannot fetch the challenge from {host}",
        fix="port 80 of the gateway must be open to the internet and {host} lead to it; nothing in between may answer itself",
        severity="decide",
    ),
    Rule(
        link="certificate",
        page="certificate",
        look=_certificate(ACCOUNT),
        found="the authority refuses the account",
        fix="correct `tls.email` of the gateway, then `up`",
    ),
    Rule(
        link="certificate",
        page="certificate",
        look=_certificate(None),
        found="the certificate is not issued",
        fix="`kubectl describe` of its Order and Challenge has the words of the authority",
    ),
    Rule(
        link="certificate",
        page="certificate",
        look=_ending,
        found="the certificate ends on {end}, and is not renewed",
        fix="see why renewals fail: `kubectl get orders,challenges -A`",
    ),
)


# -- keys and limits -------------------------------------------------------------------------------

_MODES = "requests are answered 503 `limits_unavailable`, or pass uncounted with `failureMode: open`"


def _stopped(scene: Scene) -> Iterator[Seen]:
    for live in scene.stack.limits:
        if live["spec"].get("replicas", 1) == 0:
            name = f"{live['kind']} {live['metadata']['name']}"
            yield Seen(subject=name, evidence=("it wants 0 replicas",))


def _limits(name: str) -> Callable[[Scene], Iterator[Seen]]:
    def look(scene: Scene) -> Iterator[Seen]:
        for live in scene.stack.limits:
            pods = _pods(scene, name)
            if live["metadata"]["name"] == name and not any(pod.ready for pod in pods):
                evidence = (*judge.problems(live)[:1], *_why(scene, pods))
                yield Seen(subject=f"{live['kind']} {name}", evidence=evidence or ("it has no pods",))

    return look


def _service(scene: Scene) -> Iterator[Seen]:
    """The limit service, where it is not only its store that keeps it from being ready."""
    if any(pod.ready for pod in _pods(scene, token_limits.STORE)):
        yield from _limits(token_limits.NAME)(scene)


def _pods(scene: Scene, name: str) -> tuple[PodFacts, ...]:
    return tuple(pod for pod in scene.stack.limit_pods if pod.name.startswith(f"{name}-"))


def _partly(scene: Scene) -> Iterator[Seen]:
    for live in scene.stack.limits:
        problems = judge.problems(live)
        if problems and any(pod.ready for pod in _pods(scene, live["metadata"]["name"])):
            name = live["metadata"]["name"]
            pods = tuple(pod for pod in scene.stack.limit_pods if pod.name.startswith(f"{name}-"))
            yield Seen(
                subject=f"{live['kind']} {name}", evidence=(problems[0], *_why(scene, pods)), blocks=False
            )


_LIMITS: tuple[Rule, ...] = (
    Rule(
        link="keys and limits",
        page="keys-and-limits",
        look=_deleted("keys and limits"),
        found="it was deleted by hand",
        fix=AGAIN,
    ),
    Rule(
        link="keys and limits",
        page="keys-and-limits",
        look=_stopped,
        found=f"it is scaled to zero: {_MODES}",
        fix="`pulumi up --refresh` sets the number again",
    ),
    Rule(
        link="keys and limits",
        page="keys-and-limits",
        look=_limits(token_limits.STORE),
        found=f"the store of the counters is down: {_MODES}",
        fix="its pod's events and log say why; it keeps nothing that matters longer than a minute, so it may be deleted",
    ),
    Rule(
        link="keys and limits",
        page="keys-and-limits",
        look=_service,
        found=f"the limit service is down: {_MODES}",
        fix="its pod's events and log say why: most often its store, its configuration, or full system nodes",
    ),
    Rule(
        link="keys and limits",
        page="keys-and-limits",
        look=_partly,
        found="not all of it runs: the limits still count, with less in reserve",
        fix="its pod's events and log say why",
    ),
    Rule(
        link="keys and limits",
        page="network-policy",
        look=limits_blocked,
        found=f"the network policies block it: {_MODES}",
        fix="policies of this stack that are missing come back with `pulumi up --refresh`",
    ),
)

RULES: tuple[Rule, ...] = (*_CERTIFICATE, *_LIMITS)
