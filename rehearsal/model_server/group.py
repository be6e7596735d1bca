"""A server on several hosts: it takes the chips of all that have joined, and cannot go on without one of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping

from rehearsal.model_server.ray import Node, watch

RESOURCE = "TPU"


class Group:
    """The hosts of one replica, as its leader sees them. `broken` is set when one of them is lost."""

    def __init__(self, address: str, chips: int):
        self._address, self._chips = address, chips
        self._formed = asyncio.Event()
        self._there = 0
        self.broken = asyncio.Event()

    @classmethod
    def of(cls, environment: Mapping[str, str], tensor_parallel: int) -> Group | None:
        """The group that this server leads; None for a server of one host."""
        if environment.get("TPU_MULTIHOST_BACKEND") != "ray":
            return None
        return cls(environment["RAY_ADDRESS"], tensor_parallel)

    async def form(self) -> None:
        """Take the hosts that there are. Ends the process where they have too few chips, as vLLM does."""
        self._watching = asyncio.create_task(self._watch())
        await self._formed.wait()
        if self._there < self._chips:
            print(f"{self._chips} chips are asked for, but Ray has {self._there}", file=sys.stderr)
            sys.exit(1)

    async def _watch(self) -> None:
        await watch(self._address, self._changed)
        self._formed.set()
        self.broken.set()

    def _changed(self, nodes: list[Node]) -> None:
        there = sum(int(node["Resources"].get(RESOURCE, 0)) for node in nodes)
        if there < self._there:
            self.broken.set()
        self._there = there
        self._formed.set()
