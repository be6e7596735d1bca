"""A local copy of the objects that a stand-in acts on, kept by watches."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable

from ops.kube import ApiError, Kube, Manifest
from rehearsal.gateway.objects import key

# Events come in bursts; one round for each burst is enough.
BURST_SECONDS = 0.05
# Whether the program that we stand for runs is not an event, so it is asked now and then.
IDLE_SECONDS = 1.0
# How often to look whether a definition that is not there yet has been made.
UNKNOWN_SECONDS = 0.5


class Shelf:
    """Objects by (kind, namespace, name); the namespace is empty for cluster-wide kinds."""

    def __init__(self, objects: Iterable[Manifest] = ()):
        self._objects: dict[str, dict[tuple[str, str], Manifest]] = defaultdict(dict)
        self.version = 0
        for item in objects:
            self.put(item)

    def put(self, item: Manifest) -> None:
        """Add or replace one object; `version` is another after every change."""
        self._objects[item["kind"]][key(item)] = item
        self.version += 1

    def drop(self, item: Manifest) -> None:
        """Forget one object."""
        self._objects[item["kind"]].pop(key(item), None)
        self.version += 1

    def of(self, kind: str) -> list[Manifest]:
        """All objects of a kind."""
        return list(self._objects[kind].values())

    def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """One object, or None."""
        return self._objects[kind].get((namespace, name))


class Mirror(Shelf):
    """All live objects of some kinds."""

    def __init__(self, kube: Kube, kinds: Iterable[tuple[str, str]]):
        super().__init__()
        self._kube, self._kinds = kube, tuple(kinds)
        self._changed: queue.Queue[None] = queue.Queue()

    def run(self, stop: threading.Event, act: Callable[[], None]) -> None:
        """Follow the kinds and call `act` after every burst of changes, until told to stop."""
        for api_version, kind in self._kinds:
            threading.Thread(target=self._follow, args=(api_version, kind, stop), daemon=True).start()
        while not stop.is_set():
            self._drain()
            try:
                act()
            except ApiError as error:
                # Objects change and vanish while we write; the next round sees how they are then.
                print(f"{act.__qualname__}: {error}", flush=True)

    def wake(self) -> None:
        """Act once more though no object has changed; from any thread."""
        self._changed.put(None)

    def _follow(self, api_version: str, kind: str, stop: threading.Event) -> None:
        self._await_kind(api_version, kind, stop)
        for event, item in self._kube.follow(api_version, kind, stop):
            whole = {"apiVersion": api_version, "kind": kind, **item}
            if event == "DELETED":
                self.drop(whole)
            else:
                self.put(whole)
            self._changed.put(None)

    def _await_kind(self, api_version: str, kind: str, stop: threading.Event) -> None:
        """Wait for a definition that a chart may bring only later; many kinds ask, so not too often."""
        while not stop.is_set():
            try:
                self._kube.kind(api_version, kind)
            except ApiError:
                stop.wait(UNKNOWN_SECONDS)
            else:
                return

    def _drain(self) -> None:
        try:
            self._changed.get(timeout=IDLE_SECONDS)
            while True:
                self._changed.get(timeout=BURST_SECONDS)
        except queue.Empty:
            return
