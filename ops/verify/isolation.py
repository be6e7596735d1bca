"""Whether pods can be reached past the gateway: tried for real, from a pod in a namespace of its own.

Its pods are all of the image of `kubectl` that the platform uses anyway, and have no API token:

    open       listens, and nothing closes it: shows that a probe can reach pods at all
    closed     listens, and a policy of ours closes it: shows whether the cluster enforces policies
    probe-…    one for each address that must refuse it, and one for each of the two above

Where `closed` is reached the cluster enforces no policies, and nothing else can be concluded. The namespace is
deleted in any case.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from components.core import labels
from components.platform.lock import load_lock
from components.serving.manifests import token_limits
from components.serving.manifests.gateway import MODEL_PORT
from components.serving.manifests.network_policy import PICKER_PORT
from ops.kube import ApiError, Kube, Manifest
from ops.reachability import Pod, Reachability
from ops.status.pods import is_ready
from ops.verify.bench import Bench
from ops.verify.verdicts import Result, Verdict, failed, inapplicable, passed, unchecked

SUBJECT = "isolation"
PORT = 8001
READY = 120.0
"""Seconds within which pods must run: the image may have to be fetched."""
TRIES = 2
"""A network plugin may need some seconds for a policy of a new pod."""
_PATIENCE = "4s"
_POLL = 0.5
_ROLE = f"{labels.DOMAIN}/verify"
_FIX = "look at the NetworkPolicies of its namespace: `pulumi up` puts them back"


class Reached(StrEnum):
    """What became of an attempt to connect."""

    YES = "answered"
    NO = "refused"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Aim:
    """An address to try; `name` is part of the name of the pod which does, `what` is for people."""

    name: str
    what: str
    scheme: str
    address: str
    port: int
    pod: Manifest | None = None

    @property
    def url(self) -> str:
        """Where the probe connects to."""
        return f"{self.scheme}://{self.address}:{self.port}"


@dataclass(frozen=True)
class Attempt:
    """What one probe found; `said` are its last words."""

    reached: Reached
    said: str = ""


def look(bench: Bench) -> Iterator[Result]:
    """What the policies say, and what the network does."""
    aims = list(_aims(bench))
    if not aims:
        yield Result(SUBJECT, "pods", inapplicable("no pod runs that only the gateway may reach"))
        return
    kube = bench.cluster
    policies = Reachability(kube.list("networking.k8s.io/v1", "NetworkPolicy"), kube.list("v1", "Namespace"))
    outside = Pod(name="probe", namespace="llmp-verify")
    for aim in aims:
        yield Result(SUBJECT, f"{aim.what}, as written", judge_written(policies, outside, aim))
    bench.say(f"  a pod tries {len(aims)} addresses; this takes up to {TRIES * READY / 60:.0f} minutes")
    try:
        found = attempts(kube, aims)
    except (ApiError, TimeoutError) as error:
        found = str(error)
    unusable = judge_network(found, bench.config.cluster.kind == "gke")
    if unusable is not None:
        yield Result(SUBJECT, "as enforced", unusable)
    elif isinstance(found, dict):
        yield from (Result(SUBJECT, f"{aim.what}, tried", judge(found[aim.name])) for aim in aims)


# -- what must refuse ------------------------------------------------------------------------------------------------


def _aims(bench: Bench) -> Iterator[Aim]:
    """One running pod of each kind that only the gateway, or only the limit service, may ask."""
    gateway = bench.config.gateway
    for target in bench.targets():
        where = (target.namespace, target.kind.pods(target.key))
        scheme = "https" if target.kind.tls else "http"
        yield from _aim(bench, f"model-{target.key}", f"{target}: pod", where, scheme, MODEL_PORT)
        where = (target.namespace, labels.model_picker(target.key))
        yield from _aim(bench, f"picker-{target.key}", f"{target}: picker", where, "https", PICKER_PORT)
    if bench.config.access is not None:
        ports = {token_limits.NAME: token_limits.GRPC_PORT, token_limits.STORE: token_limits.STORE_PORT}
        for name, port in ports.items():
            where = (gateway.namespace, token_limits.selector(name))
            yield from _aim(bench, name, f"limits: {name}", where, "http", port)


def _aim(
    bench: Bench, name: str, what: str, where: tuple[str, Mapping[str, str]], scheme: str, port: int
) -> Iterator[Aim]:
    namespace, selector = where
    text = ",".join(f"{key}={value}" for key, value in selector.items())
    found = bench.cluster.list("v1", "Pod", namespace, text)
    for pod in sorted(found, key=is_ready, reverse=True)[:1]:
        if address := pod.get("status", {}).get("podIP"):
            yield Aim(name[:63].rstrip("-"), what, scheme, address, port, pod)


def judge_written(policies: Reachability, outside: Pod, aim: Aim) -> Verdict:
    """Whether the policies that are in the cluster would refuse a pod of some other namespace."""
    assert aim.pod is not None
    verdict = policies.allowed(outside, Pod.of(aim.pod), aim.port)
    if verdict.allowed:
        return failed(f"no policy keeps a pod of another namespace from {aim.url}", _FIX)
    return passed(f"port {aim.port} is closed to other namespaces by {', '.join(verdict.by)}")


# -- trying it -------------------------------------------------------------------------------------------------------


def attempts(kube: Kube, aims: Sequence[Aim]) -> dict[str, Attempt]:
    """What the probe finds, by the names of the aims, `open` and `closed`.

    Raises ApiError where something may not be made, TimeoutError naming what did not start.
    """
    namespace = f"llmp-verify-{secrets.token_hex(4)}"
    kube.create(space(namespace))
    try:
        kube.create(closing(namespace))
        for role in ("open", "closed"):
            kube.create(listener(role, namespace))
        own = [Aim(role, role, "http", _address(kube, namespace, role), PORT) for role in ("open", "closed")]
        found: dict[str, Attempt] = {}
        for number in range(TRIES):
            found = _probe(kube, namespace, f"probe-{number}", [*own, *aims])
            if found["closed"].reached is not Reached.YES:
                break
        return found
    finally:
        with contextlib.suppress(ApiError):
            kube.delete("v1", "Namespace", namespace)


def _address(kube: Kube, namespace: str, name: str) -> str:
    """The address of a listener, once it is Ready."""

    def ready() -> str | None:
        status = (kube.get("v1", "Pod", name, namespace) or {}).get("status") or {}
        conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
        return status.get("podIP") if conditions.get("Ready") == "True" else None

    return str(kube.wait(ready, READY, f"a pod of the image {image()} in the namespace {namespace} is Ready"))


def _probe(kube: Kube, namespace: str, prefix: str, aims: Sequence[Aim]) -> dict[str, Attempt]:
    for aim in aims:
        kube.create(probe(f"{prefix}-{aim.name}", namespace, aim))
    return {aim.name: _outcome(kube, namespace, f"{prefix}-{aim.name}") for aim in aims}


def _outcome(kube: Kube, namespace: str, name: str) -> Attempt:
    """What a probe found, once it has ended."""

    def ended() -> Manifest | None:
        status = (kube.get("v1", "Pod", name, namespace) or {}).get("status") or {}
        states = (s.get("state") or {} for s in status.get("containerStatuses") or ())
        return next((state["terminated"] for state in states if "terminated" in state), None)

    end = kube.wait(ended, READY, f"the pod {namespace}/{name} has tried to connect")
    said = kube.request("GET", kube.kind("v1", "Pod").path(namespace, name, "log"))
    return outcome(end.get("exitCode", 1), str(said))


def image() -> str:
    """The image that the platform asks its webhooks with, so that it can be had wherever the platform can."""
    return load_lock().images["kubectl"].pinned


def space(name: str) -> Manifest:
    """A namespace for pods without any privilege."""
    marks = {**labels.common("verify"), "pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": marks}}


def closing(namespace: str) -> Manifest:
    """Nobody may connect to the pod `closed`."""
    spec = {"podSelector": {"matchLabels": {_ROLE: "closed"}}, "policyTypes": ["Ingress"]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": namespace},
        "spec": spec,
    }


def listener(role: str, namespace: str) -> Manifest:
    """A pod that listens: a proxy to nowhere, which answers everything with an error."""
    words = [
        "proxy",
        "--kubeconfig=/dev/null",
        "--server=http://127.0.0.1:9",
        "--address=$(ADDRESS)",
        f"--port={PORT}",
        "--accept-hosts=.*",
    ]
    own = {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    container = {
        **_container("listener", words),
        "env": [own],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    return _pod(role, namespace, "Always", container)


def arguments(aim: Aim) -> list[str]:
    """What kubectl is told, to try one address."""
    return [
        "get",
        "--raw=/",
        "--kubeconfig=/dev/null",
        f"--server={aim.url}",
        # Without any it would ask for a name and a password, and try nothing.
        "--token=none",
        *(["--insecure-skip-tls-verify"] if aim.scheme == "https" else []),
        f"--request-timeout={_PATIENCE}",
    ]


def probe(name: str, namespace: str, aim: Aim) -> Manifest:
    """A pod that tries one address, and says in its log how far it came."""
    return _pod(name, namespace, "Never", _container("probe", arguments(aim)))


def _container(name: str, words: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": image(),
        "args": words,
        "resources": {"requests": {"cpu": "5m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _pod(name: str, namespace: str, restart: str, container: dict[str, Any]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {_ROLE: name[:63].rstrip("-")}},
        "spec": {
            "restartPolicy": restart,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


# -- judging it ------------------------------------------------------------------------------------------------------

# What kubectl prints, in the order in which it counts: a server's own answer; a connection that was never made, in the
# words of Go's network library; one that was made, to something that speaks another protocol. Anything else is
# left open. A time-out while waiting for an answer counts as none made: everything that is tried here answers
# whoever reaches it, if only with an error.
_SAID: tuple[tuple[Reached, tuple[str, ...]], ...] = (
    (Reached.YES, ("Error from server", "must be logged in to the server")),
    (
        Reached.NO,
        (
            "was refused",
            "connection refused",
            "i/o timeout",
            "deadline exceeded",
            "Client.Timeout",
            "waiting for connection",
            "no route to host",
            "network is unreachable",
            "operation not permitted",
        ),
    ),
    (
        Reached.YES,
        ("malformed HTTP", "EOF", "tls: ", "x509: ", "http2: ", "HTTP response to HTTPS", "connection reset"),
    ),
)


def outcome(code: int, said: str) -> Attempt:
    """What a probe's end means: its exit code, and what kubectl printed."""
    last = " ".join(said.split())[-300:]
    if code == 0:
        return Attempt(Reached.YES, last)
    heard = (reached for reached, marks in _SAID if any(mark in said for mark in marks))
    return Attempt(next(heard, Reached.UNCLEAR), last)


def judge_network(found: Mapping[str, Attempt] | str, enforced: bool) -> Verdict | None:
    """Why nothing can be concluded from what was tried; None where it can.

    `found` is a text where nothing could be tried; `enforced` says that the cluster was made to enforce policies.
    """
    if isinstance(found, str):
        return unchecked(
            f"no pod could try: {found}", "look at its events; your account must be able to make pods"
        )
    if found["open"].reached is not Reached.YES:
        said = found["open"].said
        return unchecked(f"a probe reaches no pod at all ({said})", "look at the cluster's network plugin")
    if found["closed"].reached is not Reached.YES:
        return None
    reason = "not enforced here: a probe also reached a pod of ours that a policy closes"
    if enforced:
        return failed(reason, "the cluster's Dataplane V2 should enforce policies: look at its anetd pods")
    return unchecked(reason, "use a network plugin that enforces NetworkPolicies (Cilium, Calico, …)")


def judge(attempt: Attempt) -> Verdict:
    """Whether an address refused a probe."""
    if attempt.reached is Reached.YES:
        return failed(f"a pod of another namespace reached it ({attempt.said or 'it answered'})", _FIX)
    if attempt.reached is Reached.UNCLEAR:
        return unchecked(f"the probe's words are not clear: {attempt.said}", "try it by hand")
    return passed("a pod of another namespace was refused, one that nothing closes was reached")
