"""What exists in the simulated project: one JSON file per rehearsal, changed under a lock."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = dict[str, Any]
POOL = "container/nodePool"
CLUSTER = "container/cluster"
SERVICE = "projects/service"
# What controllers in a cluster make, and no program of ours: `compute/…` kinds without a resource class here.
FORWARDING_RULE, GROUP = "compute/forwardingRule", "compute/networkEndpointGroup"
# What those of EKS and EC2 make.
BALANCER, INTERFACE, VOLUME = "elb/loadBalancer", "ec2/networkInterface", "ebs/volume"


class State:
    """The project at one moment.

    A record has `inputs` (as given, plain), `outputs`, `created` (seconds since the epoch) and, for
    node pools, `size` (nodes over all zones). `backend_services` are those of load balancers by name:
    {region, gateway, backends: [{group, instance, pod, address, healthState}]}, as `get-health` tells them.
    """

    def __init__(self, document: dict[str, Any] | None = None):
        document = document or {}
        self.resources: dict[str, dict[str, Record]] = document.get("resources", {})
        # Enabled APIs by name, with the time since when: they outlive the resource that enabled them.
        self.services: dict[str, float] = document.get("services", {})
        self.backend_services: dict[str, dict[str, Any]] = document.get("backendServices", {})
        # How often each injected refusal has struck.
        self.struck: dict[str, int] = document.get("struck", {})
        # Keys that were deleted and can still be had back, with the time of that; they cost nothing.
        self.pending: dict[str, float] = document.get("pending", {})
        # How many ids have been given out, where a cloud makes them up.
        self.serial: int = document.get("serial", 0)

    def of(self, kind: str) -> dict[str, Record]:
        """The records of a kind by id."""
        return self.resources.setdefault(kind, {})

    def all(self) -> Iterator[tuple[str, str, Record]]:
        """Every (kind, id, record)."""
        for kind, records in self.resources.items():
            for identity, record in records.items():
                yield kind, identity, record

    @property
    def empty(self) -> bool:
        """Whether nothing that costs money or blocks a name is left."""
        return not any(self.resources.values()) and not self.backend_services

    def document(self) -> dict[str, Any]:
        """As :meth:`__init__` reads it."""
        kept = {kind: records for kind, records in self.resources.items() if records}
        return {
            "resources": kept,
            "services": self.services,
            "backendServices": self.backend_services,
            "struck": self.struck,
            "pending": self.pending,
            "serial": self.serial,
        }


class Project:
    """The simulated project that is kept in `directory`."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._file, self._lock = directory / "project.json", directory / "lock"

    @classmethod
    def of(cls, rehearsal: Path) -> Project:
        """That of the rehearsal in this directory."""
        return cls(rehearsal / "cloud")

    def read(self) -> State:
        """The state now; a project that nothing was made in is empty."""
        try:
            return State(json.loads(self._file.read_text()))
        except FileNotFoundError:
            return State()

    @contextmanager
    def change(self) -> Iterator[State]:
        """The state, to be changed by one process at a time; an exception leaves everything as it was."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self.read()
            yield state
            fresh = self._file.with_suffix(".new")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(state.document(), file, indent=1, sort_keys=True)
            fresh.replace(self._file)
