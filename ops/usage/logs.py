"""Where lines of the access log come from: files, or the gateway's pods."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from ops.errors import OpsError
from ops.kube import ApiError, Kube, Manifest

GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
_PROXY = "istio-proxy"
_PATIENCE = 60.0
"""Seconds without a byte; a node sends at most what it keeps, by default ten megabytes per container."""


def of_files(names: Iterable[str]) -> Iterator[str]:
    """Every line of the files; `-` is standard input. Bytes that are no text become a mark, and the line no JSON."""
    for name in names:
        if name == "-":
            sys.stdin.reconfigure(errors="replace")
            yield from sys.stdin
            continue
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                yield from file
        except OSError as error:
            raise OpsError(f"{name} cannot be read: {error.strerror}") from None


def of_pods(kube: Kube, namespace: str, gateway: str, seconds: int | None) -> Iterator[str]:
    """What the nodes still keep of the logs of the gateway's pods, of containers before a restart too.

    :class:`OpsError` where there is no pod, or no log of any of them can be read.
    """
    pods = kube.list("v1", "Pod", namespace, f"{GATEWAY_LABEL}={gateway}")
    if not pods:
        raise OpsError(
            f"gateway {namespace}/{gateway} has no pods, so there are no logs: is the stack up? "
            "Logs that are kept elsewhere are read with --file"
        )
    failed: list[str] = []
    for pod in pods:
        for query in _queries(pod, seconds):
            try:
                yield from _lines(kube, pod, query)
            except ApiError as error:
                failed.append(f"{pod['metadata']['name']}: {error.message}")
    if failed and len(failed) >= sum(len(_queries(pod, seconds)) for pod in pods):
        raise OpsError("no log of the gateway's pods can be read:\n  " + "\n  ".join(failed))
    for text in failed:
        print(f"note: not counted: {text}", file=sys.stderr)


def _queries(pod: Manifest, seconds: int | None) -> list[dict[str, str]]:
    """The logs of one pod: that of the proxy before its restart, if there was one, and the present one."""
    container = _container(pod)
    now = {"container": container} | ({"sinceSeconds": str(seconds)} if seconds else {})
    statuses = pod.get("status", {}).get("containerStatuses") or []
    restarted = any(s.get("restartCount") for s in statuses if s.get("name") == container)
    return [{**now, "previous": "true"}, now] if restarted else [now]


def _container(pod: Manifest) -> str:
    names = [c["name"] for c in pod["spec"]["containers"]]
    return _PROXY if _PROXY in names else names[0]


def _lines(kube: Kube, pod: Manifest, query: dict[str, str]) -> list[str]:
    meta = pod["metadata"]
    path = kube.kind("v1", "Pod").path(meta["namespace"], meta["name"], "log")
    return _texts(kube.request("GET", path, query, timeout=_PATIENCE))


def _texts(answer: Any) -> list[str]:
    """The lines of a log; one that has a single line arrives as the JSON that the line is."""
    return answer.splitlines() if isinstance(answer, str) else [json.dumps(answer)]
