"""Reading what `watch` looks at, from a cluster that may not exist yet."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from components.core.services import SERVICE_KINDS
from ops import cluster
from ops.errors import OpsError
from ops.kube import ApiError, Kube, Manifest
from ops.pulumi import Pulumi
from ops.state import State
from ops.status import pods
from ops.status.look import engine_log
from ops.watch.news import Snapshot
from ops.watch.place import Place

# Events about nodes are here.
_EVERYWHERE = "default"
_FORBIDDEN = 403


class NotYet(OpsError):
    """There is nothing to look at yet; the message says what is waited for."""


class Source:
    """A stack's cluster, as soon as there is one."""

    def __init__(self, stack: Pulumi, arguments: Namespace, place: Place):
        self._stack, self._arguments, self._place = stack, arguments, place
        self._kube: Kube | None = None

    def look(self) -> Snapshot:
        """What is there now. Raises NotYet, and OpsError where it cannot be seen; both may be otherwise next time."""
        kube = self._connected()
        try:
            return look(kube, self._place)
        except ApiError as error:
            if error.code == 0:
                # Gone, or replaced by another: the state says which is the stack's.
                self._kube = None
            raise

    def _connected(self) -> Kube:
        if self._kube is None:
            named = self._arguments.kubeconfig or self._arguments.context
            state = State() if named else State.parse(self._stack.export())
            if not named and not cluster.providers(state):
                raise NotYet("the cluster does not exist yet; waiting for it")
            self._kube = cluster.connect(state, self._arguments)
        return self._kube


def look(kube: Kube, place: Place) -> Snapshot:
    """One look at everything in the stack's namespaces, and at the nodes."""
    found = _every(kube, "v1", "Pod", place.namespaces)
    starting = [pod for pod in found if pods.accelerator(pod) and not pods.is_ready(pod)]
    return Snapshot(
        pods=tuple(found),
        events=tuple(_every(kube, "v1", "Event", (*place.namespaces, _EVERYWHERE))),
        nodes=tuple(_listed(kube, "v1", "Node", None)),
        models=tuple(_models(kube, place)),
        logs={pod["metadata"]["name"]: engine_log(kube, pod) for pod in starting},
        words={key: line for pod in found for key, line in _words(kube, pod)},
    )


def _models(kube: Kube, place: Place) -> Iterable[Manifest]:
    """The models of either kind; of a kind that the cluster does not have there are none."""
    homes = {namespace for namespace, _ in place.models}
    for kind in SERVICE_KINDS.values():
        yield from _every(kube, kind.api_version, kind.kind, homes)


def _every(kube: Kube, api_version: str, kind: str, namespaces: Iterable[str]) -> list[Manifest]:
    return [
        item for namespace in sorted(set(namespaces)) for item in _listed(kube, api_version, kind, namespace)
    ]


def _listed(kube: Kube, api_version: str, kind: str, namespace: str | None) -> list[Manifest]:
    """All of a kind; none where this user may not see them, since others may be seen all the same."""
    try:
        return kube.list(api_version, kind, namespace)
    except ApiError as error:
        if error.code == _FORBIDDEN:
            return []
        raise


def _words(kube: Kube, pod: Manifest) -> Iterable[tuple[tuple[str, str], str]]:
    """The last line that each ended container wrote, where its kubelet has not kept it."""
    meta = pod["metadata"]
    for container in pods.silent(pod):
        for previous in (True, False):
            try:
                lines = kube.log(meta["namespace"], meta["name"], container, 1, previous)
            except ApiError:
                continue
            if lines:
                yield (meta["name"], container), lines[-1]
                break
