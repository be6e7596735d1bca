"""Waiting: until an object is ready, as its kind or its annotations define it, or until it is gone.

Only what the official provider waits for is waited for: a custom resource, a
CRD or a Namespace is ready as soon as it exists, unless annotated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ops.kube import ApiError, Manifest
from rehearsal.providers.kubernetes.awaiting import custom, pods, services, workloads
from rehearsal.providers.kubernetes.awaiting.progress import Check, Look, Progress
from rehearsal.providers.kubernetes.cluster import Cluster
from rehearsal.providers.kubernetes.objects import annotation, group_kind, identity, meta

SKIP, WAIT_FOR, TIMEOUT = "pulumi.com/skipAwait", "pulumi.com/waitFor", "pulumi.com/timeoutSeconds"
DEFAULT_SECONDS = 600.0
# Fast when something is about to happen, light when a hundred objects wait for minutes.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


@dataclass(frozen=True)
class _Kind:
    check: Check
    # Some kinds have a time of their own that no option changes; a refresh looks only at those that can become unready.
    seconds: float | None = None
    read: bool = False


_KINDS: dict[tuple[str, str], _Kind] = {
    ("apps", "DaemonSet"): _Kind(workloads.daemon_set_rolled_out, read=True),
    ("apps", "Deployment"): _Kind(workloads.deployment_rolled_out, read=True),
    ("apps", "StatefulSet"): _Kind(workloads.stateful_set_rolled_out, read=True),
    ("batch", "Job"): _Kind(pods.job_complete, read=True),
    ("core", "PersistentVolume"): _Kind(services.volume_ready, 300),
    ("core", "PersistentVolumeClaim"): _Kind(services.claim_ready, 300),
    ("core", "Pod"): _Kind(pods.pod_ready, read=True),
    ("core", "ResourceQuota"): _Kind(services.quota_ready, 60),
    ("core", "Secret"): _Kind(services.secret_ready, 5),
    ("core", "Service"): _Kind(services.service_ready, read=True),
    ("networking.k8s.io", "Ingress"): _Kind(services.ingress_ready, read=True),
}
_SKIPPABLE_DELETES = {
    ("core", "Namespace"), ("core", "Pod"), ("core", "ReplicationController"), ("batch", "Job"),
    ("apps", "DaemonSet"), ("apps", "Deployment"), ("apps", "StatefulSet"),
}  # fmt: skip


class NotReady(Exception):
    """The object exists but a wait for it did not end well; `live` is its last known state."""

    def __init__(self, message: str, live: Manifest, reasons: tuple[str, ...] = ()):
        super().__init__(message)
        self.live, self.reasons = live, reasons


@dataclass(frozen=True)
class Waiting:
    """Waits for one resource; `say` shows a line (and whether it is a warning), `stopping` ends all waits."""

    cluster: Cluster
    say: Callable[[str, bool], None]
    stopping: threading.Event

    def until_ready(
        self, inputs: Manifest, created: Manifest, last: Manifest | None, timeout: float
    ) -> Manifest:
        """The object once it is ready; NotReady otherwise.

        `timeout` is the resource option in seconds, 0 for none. The annotation
        waitFor is read from the live object, so another manager's counts too,
        as with the official provider; skipAwait is the program's own.
        """
        kind = _KINDS.get(group_kind(created))
        wanted = annotation(created, WAIT_FOR)
        if annotation(inputs, SKIP) == "true" or not (wanted or kind):
            return created
        look = Look(self.cluster.kube, created, last)
        if wanted:
            return self._poll(look, custom.parse(wanted), _seconds(inputs, timeout), _condition_timed_out)
        fixed = kind.seconds if kind else None
        message = _polling_timed_out if fixed else _kind_timed_out
        return self._poll(look, kind.check, fixed or _seconds(inputs, timeout), message)

    def ready_now(self, inputs: Manifest, live: Manifest) -> None:
        """For a refresh: NotReady when the kind can tell, and tells, that the object is not ready."""
        kind = _KINDS.get(group_kind(live))
        if not kind or not kind.read or annotation(inputs, SKIP) == "true":
            return
        progress = kind.check(Look(self.cluster.kube, live, settled=True))
        if not progress.ready:
            raise NotReady(
                f"Resource '{meta(live)['name']}' was created but failed to initialize",
                live,
                progress.reasons,
            )

    def until_gone(self, inputs: Manifest, live: Manifest, timeout: float) -> None:
        """Return once the object no longer exists, or another one has its name."""
        if annotation(inputs, SKIP) == "true" and group_kind(inputs) in _SKIPPABLE_DELETES:
            return
        deadline, pause, current = time.monotonic() + _seconds(inputs, timeout), _FIRST_PAUSE, live
        while found := self._get(live):
            if meta(live).get("uid", meta(found)["uid"]) != meta(found)["uid"]:
                return
            current = found
            if self.stopping.wait(pause):
                raise NotReady(f'Resource operation was cancelled for "{meta(live)["name"]}"', current)
            if time.monotonic() > deadline:
                finalizers = ", ".join(meta(current).get("finalizers") or ())
                self.say(f"finalizers might be preventing deletion ({finalizers})", True)
                raise NotReady(
                    f"timed out waiting for the condition: {identity(current)} still exists", current
                )
            self.say("Resource scheduled for deletion", False)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _poll(
        self, look: Look, check: Check, seconds: float, timed_out: Callable[[Look, Progress], str]
    ) -> Manifest:
        deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while True:
            progress = check(look)
            if progress.ready:
                return look.live
            self.say(progress.status, False)
            if progress.failed:
                raise NotReady(
                    f"Resource '{look.name}' was created but failed to initialize",
                    look.live,
                    progress.reasons,
                )
            if self.stopping.is_set():
                raise NotReady(
                    f'Resource operation was cancelled for "{look.name}"', look.live, progress.reasons
                )
            if time.monotonic() > deadline:
                if group_kind(look.live) == ("core", "Service") and services.service_ready_at_last(look):
                    return look.live
                raise NotReady(timed_out(look, progress), look.live, progress.reasons)
            self.stopping.wait(min(pause, max(deadline - time.monotonic(), 0)))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            look.live = self._get(look.live) or look.live

    def _get(self, manifest: Manifest) -> Manifest | None:
        """The object now, None when it is gone; an API server that is away for a moment changes nothing."""
        try:
            return self.cluster.kube.request("GET", self.cluster.path(manifest))
        except ApiError as error:
            if error.code == 404:
                return None
            self.say(str(error), True)
            return manifest


def _seconds(inputs: Manifest, timeout: float) -> float:
    text = annotation(inputs, TIMEOUT)
    return timeout or (float(text) if text.isdigit() else DEFAULT_SECONDS)


def _kind_timed_out(look: Look, _: Progress) -> str:
    return f"'{look.name}' timed out waiting to be Ready"


def _polling_timed_out(look: Look, _: Progress) -> str:
    return f"Timeout occurred polling for '{look.name}'"


def _condition_timed_out(_: Look, progress: Progress) -> str:
    return ": ".join(("timed out waiting for the condition", *progress.reasons))
