"""Pods and Jobs: ready, or what holds them up, from the scheduler's word to the container's last exit."""

from __future__ import annotations

from ops.kube import Manifest
from rehearsal.providers.kubernetes.awaiting.progress import Look, Progress, condition, pluck, told


def pod_ready(look: Look) -> Progress:
    """A Pod is scheduled, initialised and ready, in this order."""
    return pod(look.live)


def pod(live: Manifest) -> Progress:
    """As :func:`pod_ready`, for pods of workloads."""
    where = _name(live)
    scheduled = condition(live, "PodScheduled")
    if scheduled.get("status") != "True":
        message = scheduled.get("message", "") if scheduled.get("reason") else ""
        reasons = (f"[Pod {where}]: [{scheduled['reason']}] {message}",) if message else ()
        return Progress(False, f"Waiting for Pod {where!r} to be scheduled", reasons)
    initialised = condition(live, "Initialized")
    if initialised.get("status") != "True":
        return Progress(False, f"Waiting for Pod {where!r} to be initialized", _troubles(live, initialised))
    ready = condition(live, "Ready")
    if ready and (ready["status"] == "True" or pluck(live, "status", "phase") == "Succeeded"):
        return Progress(True)
    return Progress(False, f"Waiting for Pod {where!r} to be ready", _troubles(live, ready))


def troubles(pods: list[Manifest]) -> tuple[str, ...]:
    """What holds up the pods of a workload."""
    return tuple(reason for live in pods for reason in pod(live).reasons)


def job_complete(look: Look) -> Progress:
    """A Job started and completed; a failed one ends the wait."""
    status = look.of("status", default={})
    failed = condition(look.live, "Failed")
    if failed.get("status") == "True" and failed.get("reason") in (
        "BackoffLimitExceeded",
        "DeadlineExceeded",
    ):
        return Progress(False, told(failed), (told(failed), *_job_pods(look)), failed=True)
    if status.get("startTime") and condition(look.live, "Complete").get("status") == "True":
        return Progress(True)
    numbers = " | ".join(
        f"{word.title()}: {status.get(word, 0)}" for word in ("active", "succeeded", "failed")
    )
    return Progress(False, f"Waiting for Job {look.name!r} to succeed ({numbers})", _job_pods(look))


def _job_pods(look: Look) -> tuple[str, ...]:
    return troubles(look.owned("v1", "Pod"))


def _troubles(live: Manifest, found: Manifest) -> tuple[str, ...]:
    statuses = pluck(live, "status", "containerStatuses", default=())
    errors = [error for status in statuses if not status.get("ready") for error in _container(status)]
    if not errors and not found.get("message"):
        return ()
    message = found["message"] if told(found) else ""
    return (f"[Pod {_name(live)}]: {message}" + "\n".join(errors),)


def _container(status: Manifest) -> list[str]:
    errors = []
    waiting, ended, before = (
        pluck(status, *path, default={})
        for path in (("state", "waiting"), ("state", "terminated"), ("lastState", "terminated"))
    )
    if waiting and waiting.get("reason") != "ContainerCreating":
        errors.append(f"[{waiting.get('reason')}] {_shortened(waiting.get('message', ''))}")
    if ended.get("reason"):
        code = f"container {status['name']!r} completed with exit code {ended['exitCode']}"
        errors.append(f"[{ended['reason']}] {_shortened(ended['message'])}" if ended.get("message") else code)
    if before:
        why = f"({before.get('reason', '')}: exit code {before['exitCode']})"
        errors.append(f"container {status['name']!r} terminated at {before.get('finishedAt', '')} {why}")
        errors += [before["message"]] if before.get("message") else []
    return errors


def _shortened(message: str) -> str:
    prefix = "rpc error: code = Unknown desc = Error response from daemon: "
    return message.removeprefix(prefix).removesuffix(": manifest unknown")


def _name(live: Manifest) -> str:
    namespace = live["metadata"].get("namespace", "default")
    return live["metadata"]["name"] if namespace == "default" else f"{namespace}/{live['metadata']['name']}"
